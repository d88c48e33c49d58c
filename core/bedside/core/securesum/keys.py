"""Round keys of suite 1: X25519 and ML-KEM-768 together, and the key schedule for one mask.

    IKM = X25519(e, pk) || ML-KEM shared secret
    mask key = BLAKE2b-256(key = IKM, person "bedside-mask-v1", context)
    tag      = BLAKE2b-128(key = IKM, person "bedside-conf-v1", context)

The context has a fixed length and names the suite, H, cohort, openings, both parties' credentials and all public keys,
so that a copied ephemeral key under another device's name, or a trustee that publishes another's key, ends at another
point of the hash. The tag proves possession before the set is locked.

ML-KEM's encapsulation takes its coins from OpenSSL's generator; that is the one draw which is not a parameter here.
The X25519 half is hedged with the device's own secret, so that a weak generator or a cloned image alone does not
repeat a mask (see `device.contribute`).

Source: DESIGN section 5; RFC 7748; FIPS 203; BLAKE2 (RFC 7693).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import nacl.bindings
import nacl.exceptions

from bedside.core.clock import Entropy
from bedside.core.errors import MalformedError, TrustError
from bedside.core.signing.envelope import SUITE, digest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

X25519_BYTES: Final = 32
MLKEM_PK_BYTES: Final = 1_184
MLKEM_CIPHERTEXT_BYTES: Final = 1_088
TAG_BYTES: Final = 16
_MLKEM_SEED_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class RoundPublic:
    """Public halves of a round key."""

    x25519_pk: bytes
    mlkem_pk: bytes


@dataclass(frozen=True, slots=True)
class MaskContext:
    """All that a mask is bound to; every field has a fixed length."""

    plan_digest: bytes
    cohort: int
    openings_digest: bytes
    device_credential_digest: bytes
    trustee_credential_digest: bytes

    def encode(self, public: RoundPublic, ephemeral_pk: bytes, ciphertext: bytes) -> bytes:
        """The bytes that the key schedule hashes."""
        return b"".join(
            (
                SUITE.to_bytes(2, "big"),
                self.plan_digest,
                self.cohort.to_bytes(4, "big"),
                self.openings_digest,
                self.device_credential_digest,
                self.trustee_credential_digest,
                public.x25519_pk,
                digest(public.mlkem_pk),
                ephemeral_pk,
                digest(ciphertext),
            )
        )


@dataclass(frozen=True, slots=True, repr=False)
class RoundSecret:
    """A trustee's round key. Lives in RAM-backed storage only (rule T2)."""

    x25519_sk: bytes
    mlkem_seed: bytes

    @classmethod
    def create(cls, entropy: Entropy) -> RoundSecret:
        """Draw a fresh round key."""
        return cls(entropy.token_bytes(X25519_BYTES), entropy.token_bytes(_MLKEM_SEED_BYTES))

    @classmethod
    def from_bytes(cls, data: bytes) -> RoundSecret:
        """Read what `to_bytes` wrote.

        Raises:
            MalformedError: `bad-round-key`.
        """
        if len(data) != X25519_BYTES + _MLKEM_SEED_BYTES:
            raise MalformedError("bad-round-key", "a stored round key has the wrong length")
        return cls(data[:X25519_BYTES], data[X25519_BYTES:])

    def to_bytes(self) -> bytes:
        """96 secret bytes."""
        return self.x25519_sk + self.mlkem_seed

    @property
    def public(self) -> RoundPublic:
        """The halves that the opening publishes."""
        mlkem_pk = mlkem_private_key(self.mlkem_seed).public_key().public_bytes_raw()
        return RoundPublic(nacl.bindings.crypto_scalarmult_base(self.x25519_sk), mlkem_pk)


@dataclass(frozen=True, slots=True, repr=False)
class MaskKey:
    """What device and trustee agree on for one mask."""

    key: bytes
    tag: bytes
    ciphertext: bytes


def encapsulate(public: RoundPublic, ephemeral_sk: bytes, ephemeral_pk: bytes, context: MaskContext) -> MaskKey:
    """The device's half.

    Raises:
        TrustError: `bad-round-key`, for a public key of low order or one that is not an ML-KEM key.
    """
    try:
        mlkem_secret, ciphertext = mlkem_public_key(public.mlkem_pk).encapsulate()
    except ValueError as error:
        raise TrustError("bad-round-key", "a trustee's ML-KEM key is not valid") from error
    secret = _exchange(ephemeral_sk, public.x25519_pk) + mlkem_secret
    return _schedule(secret, context.encode(public, ephemeral_pk, ciphertext), ciphertext)


class RoundOpener:
    """The trustee's half, with its private keys loaded once for a whole set."""

    def __init__(self, secret: RoundSecret) -> None:
        self._x25519_sk = secret.x25519_sk
        self._mlkem = mlkem_private_key(secret.mlkem_seed)
        self._public = secret.public

    def decapsulate(self, ephemeral_pk: bytes, ciphertext: bytes, context: MaskContext) -> MaskKey:
        """Derive the mask key of one header.

        Raises:
            TrustError: `bad-round-key`.
        """
        try:
            mlkem_secret = self._mlkem.decapsulate(ciphertext)
        except ValueError as error:
            raise TrustError("bad-round-key", "a header's ML-KEM ciphertext is not valid") from error
        secret = _exchange(self._x25519_sk, ephemeral_pk) + mlkem_secret
        return _schedule(secret, context.encode(self._public, ephemeral_pk, ciphertext), ciphertext)


def mlkem_public_key(raw: bytes) -> MLKEM768PublicKey:
    """Load a public key; the library (6 MB) comes with the first one, because a device at rest has none.

    Raises:
        ValueError: it is not an ML-KEM key.
    """
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey

    return MLKEM768PublicKey.from_public_bytes(raw)


def mlkem_private_key(seed: bytes) -> MLKEM768PrivateKey:
    """Load a private key from its 64-byte seed; the library comes as above."""
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

    return MLKEM768PrivateKey.from_seed_bytes(seed)


def _exchange(sk: bytes, pk: bytes) -> bytes:
    try:
        return nacl.bindings.crypto_scalarmult(sk, pk)
    except (nacl.exceptions.CryptoError, RuntimeError) as error:
        raise TrustError("bad-round-key", "an X25519 key is of low order") from error


def _schedule(secret: bytes, context: bytes, ciphertext: bytes) -> MaskKey:
    key = hashlib.blake2b(context, digest_size=32, key=secret, person=b"bedside-mask-v1").digest()
    tag = hashlib.blake2b(context, digest_size=TAG_BYTES, key=secret, person=b"bedside-conf-v1").digest()
    return MaskKey(key, tag, ciphertext)
