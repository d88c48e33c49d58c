"""The device's part of a round: one masked vector, one signed header.

Invariants:
    * One contribution per (device, plan): the shell stores header and words durably before it sends the first byte,
      and a resend sends the same bytes.
    * The ephemeral key is hedged: derived from the device's secret, fresh randomness, H, the openings, the vector and
      the sequence, so that neither a cloned image nor a weak generator alone repeats a mask over another vector.
    * A delta is freed, to be encoded again for a later plan, by two words of the own trustee only: a proof that the
      answered set is without this device, or `burned`. Whatever else happens, it counts as used. A freed delta is used
      once.

Source: DESIGN section 5, steps 3 and 7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

import blake3
import nacl.bindings

from bedside.core.clock import Entropy
from bedside.core.errors import ProtocolError
from bedside.core.securesum.keys import MaskContext, encapsulate
from bedside.core.securesum.machine import Machine
from bedside.core.securesum.masks import MaskExpander
from bedside.core.securesum.messages import CheckedOpening, openings_digest
from bedside.core.securesum.plans import CheckedPlan
from bedside.core.securesum.ring import Packer, Words, reduce_in_place
from bedside.core.signing.envelope import SUITE
from bedside.core.signing.trust import VerifiedCredential
from bedside.proto.v1.round_pb2 import Header

DEVICE_SECRET_BYTES: Final = 32
_FRESH_BYTES: Final = 32


class ContributionState(Enum):
    """Where a device stands with one plan."""

    OFFERED = "offered"
    TRAINING = "training"
    READY = "ready"
    ACCEPTED = "accepted"
    AWAITING = "awaiting"
    COUNTED = "counted"
    FREED = "freed"
    DROPPED = "dropped"
    DECLINED = "declined"


class ContributionInput(Enum):
    """What can happen to a contribution."""

    START = "start"
    REFUSE = "refuse"
    TRAINED = "trained"
    ACKNOWLEDGED = "acknowledged"
    TURNED_AWAY = "turned-away"
    RECEIPT_IN = "receipt-in"
    RECEIPT_OUT = "receipt-out"
    BURNED = "burned"
    CLOSED = "closed"
    REUSED = "reused"
    SUPERSEDED = "superseded"


_S, _I = ContributionState, ContributionInput
CONTRIBUTION: Final = Machine(
    "contribution",
    {
        (_S.OFFERED, _I.START): _S.TRAINING,
        (_S.OFFERED, _I.REFUSE): _S.DECLINED,
        (_S.OFFERED, _I.SUPERSEDED): _S.DROPPED,
        # After a crash nothing was sent, so training simply starts again.
        (_S.TRAINING, _I.START): _S.TRAINING,
        (_S.TRAINING, _I.REFUSE): _S.DECLINED,
        (_S.TRAINING, _I.SUPERSEDED): _S.DROPPED,
        (_S.TRAINING, _I.CLOSED): _S.DROPPED,
        (_S.TRAINING, _I.TRAINED): _S.READY,
        (_S.READY, _I.ACKNOWLEDGED): _S.ACCEPTED,
        # The coordinator wants no more bytes. That is its word, not the trustee's: the delta stays locked.
        (_S.READY, _I.TURNED_AWAY): _S.AWAITING,
        (_S.READY, _I.SUPERSEDED): _S.DROPPED,
        (_S.ACCEPTED, _I.ACKNOWLEDGED): _S.ACCEPTED,
        **{
            (state, word): after
            for state in (_S.READY, _S.ACCEPTED, _S.AWAITING)
            for word, after in (
                (_I.RECEIPT_IN, _S.COUNTED),
                (_I.RECEIPT_OUT, _S.FREED),
                (_I.BURNED, _S.FREED),
                (_I.CLOSED, _S.DROPPED),
            )
        },
        (_S.COUNTED, _I.RECEIPT_IN): _S.COUNTED,
        (_S.FREED, _I.RECEIPT_OUT): _S.FREED,
        (_S.FREED, _I.BURNED): _S.FREED,
        (_S.FREED, _I.REUSED): _S.DROPPED,
        (_S.FREED, _I.SUPERSEDED): _S.DROPPED,
        (_S.DROPPED, _I.RECEIPT_OUT): _S.DROPPED,
        (_S.DROPPED, _I.RECEIPT_IN): _S.DROPPED,
        (_S.DROPPED, _I.BURNED): _S.DROPPED,
        (_S.DROPPED, _I.CLOSED): _S.DROPPED,
    },
)
"""A device's machine for one plan."""


def advance(state: ContributionState, event: ContributionInput) -> ContributionState:
    """The next state; raises ProtocolError `bad-transition`."""
    return CONTRIBUTION.advance(state, event)


@dataclass(frozen=True, slots=True)
class Contribution:
    """What is signed (`header`) and what follows as a blob (`packed`)."""

    header: Header
    packed: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Hedge:
    """What the ephemeral key is derived from beside H and cohort.

    Attributes:
        device_secret: 32 bytes that never leave the device.
        entropy: fresh randomness.
        vector_digest: 32 bytes that differ when the encoded vector differs: its own digest, or `vector_digest`.
        sequence: persisted before, strictly increasing.
    """

    device_secret: bytes
    entropy: Entropy
    vector_digest: bytes
    sequence: int


def contribute(
    plan: CheckedPlan,
    cohort: int,
    openings: Sequence[CheckedOpening],
    credential: VerifiedCredential,
    words: Words,
    *,
    device_secret: bytes,
    entropy: Entropy,
    sequence: int,
) -> Contribution:
    """`contribute_pieces` for a vector that lies in memory: shape (vector_words,), masked in place."""
    hedge = Hedge(device_secret, entropy, blake3.blake3(words.view("u1").data).digest(), sequence)
    packed: list[bytes] = []
    header = contribute_pieces(plan, cohort, openings, credential, [words], packed.append, hedge)
    return Contribution(header, b"".join(packed))


def contribute_pieces(
    plan: CheckedPlan,
    cohort: int,
    openings: Sequence[CheckedOpening],
    credential: VerifiedCredential,
    pieces: Iterable[Words],
    sink: Callable[[bytes], object],
    hedge: Hedge,
) -> Header:
    """Mask an encoded vector for all trustees of the cohort, in memory of one piece.

    Args:
        plan: the verified plan.
        cohort: the device's cohort.
        openings: of all the cohort's trustees, in the plan's order.
        credential: the device's own.
        pieces: the encoded vector from its first word to its last, dtype of the ring; masked in place.
        sink: takes the packed bytes in their order; what it took is worthless when this raises.
        hedge: of the ephemeral key.

    Raises:
        ProtocolError: `wrong-vector`, when the vector does not fit the plan.
        TrustError: `bad-round-key`.
    """
    if len(openings) != len(plan.cohort(cohort).trustees):
        raise _wrong_vector()
    word_bits = plan.plan.word_bits
    all_openings = openings_digest(openings)
    place = plan.digest + cohort.to_bytes(4, "big") + all_openings
    seed = place + hedge.vector_digest + hedge.sequence.to_bytes(8, "big")
    ephemeral_sk = hedged(hedge.device_secret, hedge.entropy, b"bedside-eph-v1", seed)
    ephemeral_pk = nacl.bindings.crypto_scalarmult_base(ephemeral_sk)
    masks = []
    for opening in openings:
        context = MaskContext(plan.digest, cohort, all_openings, credential.digest, opening.credential.digest)
        masks.append(encapsulate(opening.public, ephemeral_sk, ephemeral_pk, context))
    masked = _Masked([mask.key for mask in masks], word_bits, sink)
    for piece in pieces:
        masked.add(piece)
    upload_digest, upload_bytes = masked.finish(plan.vector_words)
    return Header(
        suite=SUITE,
        plan_digest=plan.digest,
        cohort=cohort,
        credential_digest=credential.digest,
        site=credential.site,
        openings_digest=all_openings,
        x25519_pk=ephemeral_pk,
        mlkem_ciphertexts=[mask.ciphertext for mask in masks],
        tags=[mask.tag for mask in masks],
        upload_digest=upload_digest,
        upload_bytes=upload_bytes,
        sequence=hedge.sequence,
    )


class _Masked:
    """Masks, packs and hashes a vector as it comes."""

    def __init__(self, keys: Sequence[bytes], word_bits: int, sink: Callable[[bytes], object]) -> None:
        self._keys = keys
        self._word_bits = word_bits
        self._sink = sink
        self._expander = MaskExpander()
        self._packer = Packer(word_bits)
        self._hasher = blake3.blake3()
        self._words = 0
        self._bytes = 0

    def add(self, piece: Words) -> None:
        for key in self._keys:
            self._expander.apply(piece, key, self._word_bits, subtract=False, start_word=self._words)
        reduce_in_place(piece, self._word_bits)
        self._words += piece.size
        self._put(self._packer.pack(piece))

    def finish(self, wanted_words: int) -> tuple[bytes, int]:
        """Digest and length of all bytes."""
        if self._words != wanted_words:
            raise _wrong_vector()
        self._put(self._packer.finish())
        return self._hasher.digest(), self._bytes

    def _put(self, data: bytes) -> None:
        self._hasher.update(data)
        self._bytes += len(data)
        self._sink(data)


def _wrong_vector() -> ProtocolError:
    return ProtocolError("wrong-vector", "the vector or the openings do not fit the plan")


def hedged(device_secret: bytes, entropy: Entropy, person: bytes, context: bytes) -> bytes:
    """32 secret bytes that stay unpredictable while either the device's secret or the entropy does."""
    if len(device_secret) != DEVICE_SECRET_BYTES:
        raise ValueError(f"a device secret has {DEVICE_SECRET_BYTES} bytes")
    fresh = entropy.token_bytes(_FRESH_BYTES)
    return hashlib.blake2b(fresh + context, digest_size=32, key=device_secret, person=person).digest()


def rounding_key(device_secret: bytes, entropy: Entropy, plan_digest: bytes) -> bytes:
    """Key of the stochastic rounding's bits: secret and fresh, 32 bytes."""
    return hedged(device_secret, entropy, b"bedside-rnd-v1", plan_digest)


def vector_digest(update_digest: bytes, rounding_key: bytes) -> bytes:
    """What stands for a vector that is encoded piece by piece, 32 bytes.

    Update and rounding key leave nothing of it open once plan and openings are given, and the ephemeral key is bound
    to those by itself.
    """
    return hashlib.blake2b(update_digest, digest_size=32, key=rounding_key, person=b"bedside-vector-1").digest()
