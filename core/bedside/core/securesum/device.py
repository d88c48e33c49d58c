"""The device's part of a round: one masked vector, one signed header.

Invariants:
    * One contribution per (device, plan): the shell stores header and words durably before it sends the first byte,
      and a resend sends the same bytes.
    * The ephemeral key is hedged: derived from the device's secret, fresh randomness, H, the vector and the sequence,
      so that neither a cloned image nor a weak generator alone repeats a mask over another vector.
    * A delta whose round did not open is dropped in this release; re-encoding needs the trustee's receipt.

Source: DESIGN section 5, steps 3 and 7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
from bedside.core.securesum.ring import Words, pack, reduce_in_place
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
    COUNTED = "counted"
    DROPPED = "dropped"
    DECLINED = "declined"


class ContributionInput(Enum):
    """What can happen to a contribution."""

    START = "start"
    REFUSE = "refuse"
    TRAINED = "trained"
    ACKNOWLEDGED = "acknowledged"
    RECEIPT_IN = "receipt-in"
    RECEIPT_OUT = "receipt-out"
    CLOSED = "closed"
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
        (_S.READY, _I.RECEIPT_IN): _S.COUNTED,
        (_S.READY, _I.RECEIPT_OUT): _S.DROPPED,
        (_S.READY, _I.CLOSED): _S.DROPPED,
        (_S.READY, _I.SUPERSEDED): _S.DROPPED,
        (_S.ACCEPTED, _I.ACKNOWLEDGED): _S.ACCEPTED,
        (_S.ACCEPTED, _I.RECEIPT_IN): _S.COUNTED,
        (_S.ACCEPTED, _I.RECEIPT_OUT): _S.DROPPED,
        (_S.ACCEPTED, _I.CLOSED): _S.DROPPED,
        (_S.COUNTED, _I.RECEIPT_IN): _S.COUNTED,
        (_S.DROPPED, _I.RECEIPT_OUT): _S.DROPPED,
        (_S.DROPPED, _I.RECEIPT_IN): _S.DROPPED,
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
    """Mask an encoded vector for all trustees of the cohort.

    Args:
        plan: the verified plan.
        cohort: the device's cohort.
        openings: of all the cohort's trustees, in the plan's order.
        credential: the device's own.
        words: the encoded vector, shape (vector_words,), dtype of the ring; masked in place.
        device_secret: 32 bytes that never leave the device.
        entropy: fresh randomness.
        sequence: persisted before this call, strictly increasing.

    Raises:
        ProtocolError: `wrong-vector`, when the vector does not fit the plan.
        TrustError: `bad-round-key`.
    """
    if words.size != plan.vector_words or len(openings) != len(plan.cohort(cohort).trustees):
        raise ProtocolError("wrong-vector", "the vector or the openings do not fit the plan")
    word_bits = plan.plan.word_bits
    all_openings = openings_digest(openings)
    seed = b"".join((plan.digest, cohort.to_bytes(4, "big"), blake3.blake3(words.view("u1").data).digest()))
    ephemeral_sk = hedged(device_secret, entropy, b"bedside-eph-v1", seed + sequence.to_bytes(8, "big"))
    ephemeral_pk = nacl.bindings.crypto_scalarmult_base(ephemeral_sk)
    expander = MaskExpander()
    ciphertexts, tags = [], []
    for opening in openings:
        context = MaskContext(plan.digest, cohort, all_openings, credential.digest, opening.credential.digest)
        mask = encapsulate(opening.public, ephemeral_sk, ephemeral_pk, context)
        expander.apply(words, mask.key, word_bits, subtract=False)
        ciphertexts.append(mask.ciphertext)
        tags.append(mask.tag)
    reduce_in_place(words, word_bits)
    packed = pack(words, word_bits)
    header = Header(
        suite=SUITE,
        plan_digest=plan.digest,
        cohort=cohort,
        credential_digest=credential.digest,
        site=credential.site,
        openings_digest=all_openings,
        x25519_pk=ephemeral_pk,
        mlkem_ciphertexts=ciphertexts,
        tags=tags,
        upload_digest=blake3.blake3(packed).digest(),
        upload_bytes=len(packed),
        sequence=sequence,
    )
    return Contribution(header, packed)


def hedged(device_secret: bytes, entropy: Entropy, person: bytes, context: bytes) -> bytes:
    """32 secret bytes that stay unpredictable while either the device's secret or the entropy does."""
    if len(device_secret) != DEVICE_SECRET_BYTES:
        raise ValueError(f"a device secret has {DEVICE_SECRET_BYTES} bytes")
    fresh = entropy.token_bytes(_FRESH_BYTES)
    return hashlib.blake2b(fresh + context, digest_size=32, key=device_secret, person=person).digest()


def rounding_key(device_secret: bytes, entropy: Entropy, plan_digest: bytes) -> bytes:
    """Key of the stochastic rounding's bits: secret and fresh, 32 bytes."""
    return hedged(device_secret, entropy, b"bedside-rnd-v1", plan_digest)
