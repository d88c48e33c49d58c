"""Round secrets: in RAM-backed storage that survives a restart of the process but not of the machine (rule T2).

Invariants:
    * The directory is on tmpfs or ramfs, else nothing starts: a restored disk or snapshot holds no round key.
    * One process per directory, by a lock that the kernel drops with the process.
    * One file per (plan, cohort), mode 0600; overwritten, then removed, when its round ends.
    * Beside each key lies the root that was voted for: even a store that was restored under a running machine
      cannot bring a second vote about.
    * The boot id is drawn when the directory is empty of one. Whoever finds another boot id than a round was opened
      under has not held that round's key without a break.

Source: DESIGN section 5, rules T1, T2 and T6.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bedside.core.clock import Entropy
from bedside.core.errors import BedsideError, ConfigError, RefusedError, StoreError, UnavailableError
from bedside.core.securesum.keys import RoundSecret
from bedside.core.securesum.messages import BOOT_ID_BYTES
from bedside.core.signing.envelope import DIGEST_BYTES
from bedside.service.files import read_private, write_durable
from bedside.service.mounts import MOUNTS, RAM_FILE_SYSTEMS, file_system_of

_BOOT_ID: Final = "boot-id"
_LOCK: Final = "lock"
_KEY_SUFFIX: Final = ".key"
_ROOT_SUFFIX: Final = ".root"
_MAX_FILE_BYTES: Final = 256


class RoundKeys:
    """The round keys of one trustee on one boot of its machine."""

    def __init__(self, directory: Path, boot_id: bytes) -> None:
        self.directory = directory
        self.boot_id = boot_id

    def create(self, plan_digest: bytes, cohort: int, entropy: Entropy) -> RoundSecret:
        """Draw a fresh key for a round; one that is left over from an opening that was never committed goes."""
        self.destroy(plan_digest, cohort)
        secret = RoundSecret.create(entropy)
        write_durable(self._path(plan_digest, cohort, _KEY_SUFFIX), secret.to_bytes())
        return secret

    def load(self, plan_digest: bytes, cohort: int) -> RoundSecret | None:
        """The key of a round; None when it is gone."""
        path = self._path(plan_digest, cohort, _KEY_SUFFIX)
        if not path.exists():
            return None
        return RoundSecret.from_bytes(read_private(path, _MAX_FILE_BYTES))

    def lock(self, plan_digest: bytes, cohort: int, set_root: bytes) -> None:
        """Tie the key to one set.

        Raises:
            RefusedError: `second-set`, when it is tied to another.
        """
        path = self._path(plan_digest, cohort, _ROOT_SUFFIX)
        if not path.exists():
            write_durable(path, set_root)
        elif read_private(path, _MAX_FILE_BYTES) != set_root:
            raise second_set()

    def destroy(self, plan_digest: bytes, cohort: int) -> None:
        """Overwrite and remove a round's files; no error when they are gone."""
        for suffix in (_KEY_SUFFIX, _ROOT_SUFFIX):
            _burn(self._path(plan_digest, cohort, suffix))

    def stored(self) -> list[tuple[bytes, int]]:
        """The rounds whose keys are here: (plan digest, cohort)."""
        found = []
        for path in sorted(self.directory.glob(f"*{_KEY_SUFFIX}")):
            name, _, cohort = path.stem.partition("-")
            if len(name) == 2 * DIGEST_BYTES and cohort.isdigit():
                found.append((bytes.fromhex(name), int(cohort)))
        return found

    def remember_chain(self, index: int, link_digest: bytes) -> None:
        """Note how far the chain has come on this boot, after it was committed."""
        write_durable(self.directory / "chain-head", index.to_bytes(8, "big") + link_digest)

    def chain_seen(self) -> tuple[int, bytes] | None:
        """How far the chain had come on this boot: (index, digest of that link's payload)."""
        path = self.directory / "chain-head"
        if not path.exists():
            return None
        data = read_private(path, _MAX_FILE_BYTES)
        return int.from_bytes(data[:8], "big"), data[8:]

    def _path(self, plan_digest: bytes, cohort: int, suffix: str) -> Path:
        return self.directory / f"{plan_digest.hex()}-{cohort}{suffix}"


def open_round_keys(directory: Path, entropy: Entropy, *, mounts: Path = MOUNTS) -> RoundKeys:
    """Open the runtime directory, make it where it is missing, and read or draw the boot id.

    Raises:
        ConfigError: `runtime-not-ram` or `runtime-mode`.
        StoreError: `runtime-write`.
    """
    _prepare(directory, mounts)
    for torn in directory.glob(".*.new"):  # a write that a crash interrupted
        _burn(torn)
    return RoundKeys(directory, _boot_id(directory / _BOOT_ID, entropy))


@contextmanager
def runtime_held(directory: Path, *, mounts: Path = MOUNTS) -> Iterator[None]:
    """Keep a second trustee out of the runtime directory while inside; who fails leaves none that was made in vain.

    Two trustees in one directory would share boot id and chain head, and destroy each other's keys.

    Raises:
        UnavailableError: `runtime-in-use`.
        ConfigError, StoreError: as `open_round_keys`.
    """
    existed = directory.exists()
    _prepare(directory, mounts)
    with (directory / _LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UnavailableError(
                "runtime-in-use",
                f"another trustee keeps its round keys in {directory}",
                remedy="name a directory of its own with --runtime-dir",
            ) from error
        try:
            yield
        except BedsideError:
            if not existed:
                _remove_unused(directory)
            raise


def _prepare(directory: Path, mounts: Path) -> None:
    kind = file_system_of(directory, mounts)  # before anything is made: a refusal leaves nothing on a disk
    if kind not in RAM_FILE_SYSTEMS:
        raise ConfigError(
            "runtime-not-ram",
            f"{directory} is on {kind or 'an unknown file system'}, so round keys would survive on a disk",
            remedy="name a directory on tmpfs with --runtime-dir, such as systemd's RuntimeDirectory= under /run",
        )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            "runtime-write",
            f"{directory} cannot be made: {error.strerror}",
            remedy="name a directory on tmpfs that this user may write to with --runtime-dir",
        ) from error
    if directory.stat().st_uid != os.geteuid() or directory.stat().st_mode & 0o077:
        raise ConfigError(
            "runtime-mode",
            f"{directory} is not private to the user that runs this program",
            remedy=f"chmod 700 {directory}, owned by that user",
        )


def _remove_unused(directory: Path) -> None:
    """Remove the directory of a trustee that never opened a round."""
    if {path.name for path in directory.iterdir()} <= {_BOOT_ID, _LOCK}:
        for name in (_BOOT_ID, _LOCK):
            (directory / name).unlink(missing_ok=True)
        directory.rmdir()


def second_set() -> RefusedError:
    """The refusal of rule T1."""
    return RefusedError(
        "second-set",
        "this trustee has voted for another set of this round; it answers that set or none",
        remedy="start a new round",
    )


def _boot_id(path: Path, entropy: Entropy) -> bytes:
    if not path.exists():
        write_durable(path, entropy.token_bytes(BOOT_ID_BYTES))
    boot_id = read_private(path, _MAX_FILE_BYTES)
    if len(boot_id) != BOOT_ID_BYTES:
        raise ConfigError("bad-boot-id", f"{path} is damaged", remedy="empty the runtime directory; open rounds end")
    return boot_id


def _burn(path: Path) -> None:
    try:
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError("key-burn", f"a round key was not destroyed: {error.strerror}") from error
