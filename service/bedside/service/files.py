"""Files that must survive a power cut, and files that nobody else may read.

Invariants:
    * After `write_durable` returned, a power cut leaves the new bytes; before that, the old ones or none.
    * What is private is so from its first moment, whatever the umask.
    * `read_private` opens once and checks what it opened, so that the file cannot be swapped in between.
    * Who opens a FIFO or a device by the name of a file gets an error; nobody waits for its other end.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Final

from bedside.core.errors import ConfigError, StoreError

PRIVATE_MODE: Final = 0o600

_TEMPORARY_SUFFIX: Final = ".new"


def private_opener(path: str, flags: int) -> int:
    """The `opener` of a file that nobody else may read, from its first byte on and whatever the umask.

    Raises:
        OSError: as `os.open`; where the path is no regular file, at once.
    """
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, PRIVATE_MODE)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", path)
    return descriptor


@contextmanager
def open_regular(path: Path, max_bytes: int) -> Iterator[BufferedReader]:
    """Open a regular file of at most `max_bytes` for reading.

    Raises:
        OSError: also when it is no regular file, or larger.
    """
    with open(path, "rb", opener=private_opener) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > max_bytes:
            raise OSError(errno.EFBIG, f"it has {size_bytes} bytes, {max_bytes} at most are read", str(path))
        yield file


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Return all bytes of a regular file of at most `max_bytes`; raises as `open_regular`, before it reads."""
    with open_regular(path, max_bytes) as file:
        return file.read(os.fstat(file.fileno()).st_size)  # a bound as such would be allocated


def write_durable(path: Path, data: bytes, mode: int = PRIVATE_MODE) -> None:
    """Replace the file at `path` by `data`: `durable_file` for bytes that lie in memory."""
    with durable_file(path, mode) as file:
        file.write(data)


@contextmanager
def durable_file(path: Path, mode: int = PRIVATE_MODE) -> Iterator[BinaryIO]:
    """Replace the file at `path` by what is written, atomically; when this returns, it is on the disk.

    The temporary file has a fixed name beside `path`, so that an interrupted write leaves at most one of
    them and the next write clears it away. `mode` is set before the first byte, whatever the umask.

    Raises:
        StoreError: `file-write`; the old file is untouched. It is untouched, too, when the writer itself raises.
    """
    temporary = path.with_name(f".{path.name}{_TEMPORARY_SUFFIX}")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise StoreError(
            "file-write",
            f"{path} was not written: {error.strerror or error}",
            remedy="check free space and the permissions of its directory",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def restrict_database(path: Path) -> None:
    """Make the file of a SQLite database, and what lies beside it, the owner's alone before SQLite opens it.

    SQLite gives its log and shared memory the mode of the file. A file that is there is not opened here: closing it
    would drop the locks that this process may hold on it.

    Raises:
        OSError: when it cannot be made.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_MODE))
    except FileExistsError:
        path.chmod(PRIVATE_MODE)
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).chmod(PRIVATE_MODE)


def sync_directory(directory: Path) -> None:
    """Make renames and removals inside `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_private(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a secret file that only its owner, who must be us, may read or write.

    Raises:
        ConfigError: `key-missing`, `key-mode` (not 0600 or 0400), `key-owner`, or `key-size` (above
            `max_bytes`).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(
            "key-missing",
            f"the key file {path} cannot be opened: {error.strerror}",
            remedy="restore it from its backup, or enrol again to make a new one",
        ) from error
    try:
        status = os.fstat(descriptor)
        _check_private(path, status)
        data = os.read(descriptor, min(status.st_size, max_bytes) + 1)
    finally:
        os.close(descriptor)
    if len(data) > max_bytes:
        raise ConfigError("key-size", f"{path} is larger than a key of its kind", remedy="restore the right file")
    return data


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError("key-mode", f"{path} is not a regular file", remedy="name a plain file")
    if status.st_uid != os.geteuid():
        raise ConfigError(
            "key-owner",
            f"the key file {path} belongs to {_name_of(status.st_uid)}, not to the user that runs this program",
            remedy=_how_to_become_owner(path, status.st_uid),
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode & ~PRIVATE_MODE:
        raise ConfigError(
            "key-mode",
            f"the key file {path} has mode {mode:04o}, so that others may use it",
            remedy=f"chmod 600 {path}",
        )


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _how_to_become_owner(path: Path, owner: int) -> str:
    """A key that is given to whoever asks is lost to its service: only one that root has left behind is taken."""
    name = _name_of(owner)
    if owner == 0 or name == f"user {owner}":
        return f"chown {os.geteuid()} {path}"
    return f"run the same as that user: {'runuser' if os.geteuid() == 0 else 'sudo'} -u {name} -- bedside ..."
