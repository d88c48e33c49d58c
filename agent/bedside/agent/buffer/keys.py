"""The keys that seal the buffer: the newest seals, every one of them opens.

Keys come from systemd's credentials where the unit has them, and from files of mode 0600 in the identity directory:

    $CREDENTIALS_DIRECTORY/bedside-buffer-key        the key that seals, 32 bytes
    $CREDENTIALS_DIRECTORY/bedside-buffer-key-old    older ones, 32 bytes each, newest first
    identity/buffer.next.key                         while a rotation is under way, the key that it leads to
    identity/buffer.key                              the key

Invariants:
    * A key's id follows from the key, so that a row names its key without a register that could be lost.
    * A key is erased where it lies: overwritten, made durable, and only then removed. A file of zeros is no key.

Source: DESIGN section 4; systemd.exec(5), LoadCredentialEncrypted=.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from nacl.secret import SecretBox

from bedside.core.clock import Entropy
from bedside.core.errors import ConfigError, StoreError
from bedside.service.files import sync_directory
from bedside.service.keys import create_secret, load_secret

KEY_BYTES: Final = SecretBox.KEY_SIZE
CREDENTIAL: Final = "bedside-buffer-key"
OLD_CREDENTIAL: Final = "bedside-buffer-key-old"
KEY_FILE: Final = "buffer.key"
NEXT_KEY_FILE: Final = "buffer.next.key"
MAX_KEYS: Final = 16
"""Keys of one ring: every row is tried with all of them before it counts as unreadable."""

_ERASED: Final = bytes(KEY_BYTES)
_ID_BYTES: Final = 4


def key_id(key: bytes) -> int:
    """What a row calls its key: 31 bits of its digest, never 0, which stands for rows from before ids were kept."""
    digest = hashlib.blake2b(key, digest_size=_ID_BYTES, person=b"bedside-buffer").digest()
    return (int.from_bytes(digest, "big") & 0x7FFF_FFFF) or 1


class KeyRing:
    """Keys, newest first.

    Attributes:
        keys: at least one, 32 bytes each.
    """

    def __init__(self, *keys: bytes) -> None:
        """Take the keys.

        Raises:
            ConfigError: `key-size`.
        """
        self.keys = tuple(dict.fromkeys(keys))
        if not 1 <= len(self.keys) <= MAX_KEYS or any(len(key) != KEY_BYTES for key in self.keys):
            raise ConfigError(
                "key-size",
                f"the buffer is sealed with 1 to {MAX_KEYS} keys of {KEY_BYTES} bytes",
                remedy="restore the right key from its backup",
            )

    def __repr__(self) -> str:
        return f"KeyRing(ids={sorted(self.ids)})"

    @property
    def newest(self) -> bytes:
        """The key that seals."""
        return self.keys[0]

    @property
    def ids(self) -> frozenset[int]:
        """Ids of all keys."""
        return frozenset(key_id(key) for key in self.keys)


Keys = bytes | KeyRing
"""One key, or a ring of them."""


def ring_of(keys: Keys) -> KeyRing:
    """The ring; a single key is a ring of one."""
    return keys if isinstance(keys, KeyRing) else KeyRing(keys)


def load_key_ring(identity_directory: Path, environ: Mapping[str, str] = os.environ) -> KeyRing:
    """Every key of this device, newest first.

    Raises:
        ConfigError: `buffer-key-missing` when there is none; `key-mode`, `key-owner`, `key-size` or
            `credential-unreadable` when one cannot be used.
    """
    keys = [*_credentials(environ), *_filed(identity_directory)]
    if not keys:
        raise ConfigError(
            "buffer-key-missing",
            f"there is no key that opens the buffer, neither {identity_directory / KEY_FILE} nor the credential"
            f" {CREDENTIAL}",
            remedy=f"restore {KEY_FILE} from its backup, or run this with the credentials of the agent's unit",
        )
    return KeyRing(*keys)


def has_credential(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether systemd provides the key that seals; it is then not ours to change."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    return bool(directory) and (Path(str(directory)) / CREDENTIAL).exists()


def begin_next_key(identity_directory: Path, entropy: Entropy) -> None:
    """Make the key that a rotation leads to, durably; one that is under way keeps its own.

    Raises:
        ConfigError, StoreError: as `create_secret`.
    """
    path = identity_directory / NEXT_KEY_FILE
    if not path.exists():
        create_secret(path, KEY_BYTES, entropy)


def finish_next_key(identity_directory: Path) -> None:
    """Erase the key that no row needs any more, and put the next one in its place.

    Raises:
        StoreError: `file-write`; call again.
    """
    erase_filed_key(identity_directory / KEY_FILE)
    try:
        (identity_directory / NEXT_KEY_FILE).replace(identity_directory / KEY_FILE)
        sync_directory(identity_directory)
    except OSError as error:
        raise _not_erased(identity_directory / NEXT_KEY_FILE, error) from error


def erase_filed_key(path: Path) -> None:
    """Overwrite a key's file with zeros, make that durable, and remove it. Nothing happens where there is none.

    What a flash card keeps of overwritten blocks is beyond a program's reach.

    Raises:
        StoreError: `file-write`.
    """
    try:
        with path.open("r+b", buffering=0) as file:
            file.write(bytes(max(KEY_BYTES, os.fstat(file.fileno()).st_size)))
            os.fsync(file.fileno())
        path.unlink()
        sync_directory(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _not_erased(path, error) from error


def _filed(directory: Path) -> list[bytes]:
    """Keys in files, without those that were being erased."""
    found = [load_secret(path, KEY_BYTES) for name in (NEXT_KEY_FILE, KEY_FILE) if (path := directory / name).exists()]
    return [key for key in found if key != _ERASED]


def _credentials(environ: Mapping[str, str]) -> list[bytes]:
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return []
    found: list[bytes] = []
    for name, most in ((CREDENTIAL, 1), (OLD_CREDENTIAL, MAX_KEYS)):
        data = _read_credential(Path(directory) / name, most * KEY_BYTES)
        found += [data[at : at + KEY_BYTES] for at in range(0, len(data), KEY_BYTES)]
    return found


def _read_credential(path: Path, max_bytes: int) -> bytes:
    """The bytes of a credential; empty where there is none. systemd guards the directory, by an ACL where it can."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ConfigError(
            "credential-unreadable",
            f"the credential {path.name} cannot be read: {error.strerror}",
            remedy="see LoadCredentialEncrypted= in the unit, and run as its user",
        ) from error
    if not data or len(data) > max_bytes or len(data) % KEY_BYTES:
        raise ConfigError(
            "key-size",
            f"the credential {path.name} does not hold raw keys of {KEY_BYTES} bytes",
            remedy=f"make it with `head -c {KEY_BYTES} /dev/urandom | systemd-creds encrypt --name={path.name} - FILE`",
        )
    return data


def _not_erased(path: Path, error: OSError) -> StoreError:
    return StoreError(
        "file-write",
        f"{path} was not changed: {error.strerror or error}",
        remedy="check the permissions of its directory, then call again",
    )
