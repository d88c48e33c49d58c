"""Memory for pure and expensive functions, so that thousands of schedules fit into a minute.

Nothing is weakened. A signature that one party made is known to hold for the others; the two ends of a key exchange
share one computation (X25519 commutes; a ciphertext decapsulates to what was encapsulated); everything that is not
remembered is computed by the real function. ML-KEM encapsulations come from a pool of real ones: the key schedule still
binds each to its header, so that no two masks are alike.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from unittest import mock

import nacl.bindings
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

from bedside.core.securesum import device, keys, trustee
from bedside.core.signing import envelope

_POOL = 24
_REMEMBERED = 50_000


class _PooledPublic:
    """An ML-KEM public key whose encapsulations are real, and used again."""

    def __init__(self, raw: bytes, known: dict[bytes, bytes]) -> None:
        self._key = MLKEM768PublicKey.from_public_bytes(raw)
        self._known = known
        self._pool: list[tuple[bytes, bytes]] = []
        self._next = 0

    def encapsulate(self) -> tuple[bytes, bytes]:
        if len(self._pool) < _POOL:
            self._pool.append(self._key.encapsulate())
        secret, ciphertext = self._pool[self._next % _POOL]
        self._known[ciphertext] = secret
        self._next += 1
        return secret, ciphertext


class _RememberingPrivate:
    def __init__(self, seed: bytes, known: dict[bytes, bytes]) -> None:
        self._key = MLKEM768PrivateKey.from_seed_bytes(seed)
        self._known = known
        self._public = self._key.public_key()

    def public_key(self) -> MLKEM768PublicKey:
        return self._public

    def decapsulate(self, ciphertext: bytes) -> bytes:
        known = self._known.get(ciphertext)
        return self._key.decapsulate(ciphertext) if known is None else known


class _Signatures:
    def __init__(self) -> None:
        self._good: set[tuple[str, bytes, bytes, bytes]] = set()
        self._real_sign, self._real_verify = envelope._sign, envelope.verify

    def sign(self, kind: str, payload: bytes, key: object) -> object:
        signed = self._real_sign(kind, payload, key)
        self._remember(kind, payload, signed.signature, bytes(key.verify_key))
        return signed

    def verify(self, kind: str, payload: bytes, signature: bytes, pk: bytes) -> None:
        if (kind, payload, signature, pk) not in self._good:
            self._real_verify(kind, payload, signature, pk)
            self._remember(kind, payload, signature, pk)

    def _remember(self, *entry: object) -> None:
        if len(self._good) > _REMEMBERED:
            self._good.clear()
        self._good.add(entry)  # type: ignore[arg-type]


class _Exchanges:
    """X25519 once per pair: the trustee finds what the device computed."""

    def __init__(self) -> None:
        self._shared: dict[tuple[bytes, bytes], bytes] = {}
        self._public_of = functools.cache(nacl.bindings.crypto_scalarmult_base)
        self._real_exchange, self._real_encapsulate = keys._exchange, device.encapsulate

    def encapsulate(self, public: object, ephemeral_sk: bytes, ephemeral_pk: bytes, context: object) -> object:
        if len(self._shared) > _REMEMBERED:
            self._shared.clear()
        shared = self._real_exchange(ephemeral_sk, public.x25519_pk)
        self._shared[public.x25519_pk, ephemeral_pk] = shared
        self._shared[ephemeral_sk, public.x25519_pk] = shared
        return self._real_encapsulate(public, ephemeral_sk, ephemeral_pk, context)

    def exchange(self, sk: bytes, pk: bytes) -> bytes:
        known = self._shared.get((sk, pk))  # the device's own call
        if known is not None:
            return known
        known = self._shared.get((self._public_of(sk), pk))
        return self._real_exchange(sk, pk) if known is None else known


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Remember, for as long as the context lasts."""
    signatures, exchanges, ciphertexts = _Signatures(), _Exchanges(), {}
    with contextlib.ExitStack() as stack:
        for module, name, stand_in in (
            (envelope, "_sign", signatures.sign),
            (envelope, "verify", signatures.verify),
            (device, "encapsulate", exchanges.encapsulate),
            (keys, "_exchange", exchanges.exchange),
            (keys, "mlkem_public_key", functools.cache(lambda raw: _PooledPublic(raw, ciphertexts))),
            (keys, "mlkem_private_key", functools.cache(lambda seed: _RememberingPrivate(seed, ciphertexts))),
            (trustee, "RoundOpener", functools.lru_cache(256)(keys.RoundOpener)),
        ):
            stack.enter_context(mock.patch.object(module, name, stand_in))
        yield
