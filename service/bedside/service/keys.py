"""Signing keys and other secrets in files of their own: raw bytes, mode 0600, never overwritten.

The keys of TLS are PEM files and live in `bedside.service.tls`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nacl.signing import SigningKey

from bedside.core.clock import Entropy
from bedside.core.errors import ConfigError
from bedside.service.files import read_private, write_durable

SIGNING_SEED_BYTES: Final = 32
"""Bytes of an Ed25519 seed (RFC 8032, section 5.1.5), which is all that the file holds."""


def load_signing_key(path: Path) -> SigningKey:
    """Read the Ed25519 key at `path`.

    Raises:
        ConfigError: `key-missing`, `key-mode`, `key-owner` or `key-size`.
    """
    return SigningKey(load_secret(path, SIGNING_SEED_BYTES))


def create_signing_key(path: Path, entropy: Entropy) -> SigningKey:
    """Make an Ed25519 key and return it once its file is on the disk.

    Raises:
        ConfigError: `key-exists`: a key is never replaced.
        StoreError: `file-write`.
    """
    return SigningKey(create_secret(path, SIGNING_SEED_BYTES, entropy))


def load_secret(path: Path, length: int) -> bytes:
    """Read the secret of `length` bytes at `path`.

    Raises:
        ConfigError: `key-missing`, `key-mode`, `key-owner` or `key-size`.
    """
    secret = read_private(path, length)
    if len(secret) != length:
        raise ConfigError(
            "key-size",
            f"{path} holds {len(secret)} bytes where a key of {length} is expected",
            remedy="restore the right file from its backup",
        )
    return secret


def create_secret(path: Path, length: int, entropy: Entropy) -> bytes:
    """Make a secret of `length` bytes and return it once its file is on the disk.

    Raises:
        ConfigError: `key-exists`: a secret is never replaced.
        StoreError: `file-write`.
    """
    if path.exists():
        raise ConfigError("key-exists", f"there is already a key in {path}", remedy="move it away first")
    secret = entropy.token_bytes(length)
    write_durable(path, secret)
    return secret
