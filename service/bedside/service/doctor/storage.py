"""The disk below a component's directory, and whose the files in it are."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final

from bedside.service.config import DROP_IN_FOLDER
from bedside.service.doctor.check import Check, Finding, Place, bad, doubtful, good
from bedside.service.mounts import is_in_memory, mount_of
from bedside.service.output import human_bytes

LEAST_FREE_BYTES: Final = 64 << 20
"""Below it, a database that grows by a checkpoint may find no room."""
FEW_FREE_BYTES: Final = 1 << 30
"""The default cap of the buffer twice: itself, and a log or an upgrade beside it."""
MAX_FILES: Final = 20_000
"""Files that are looked at."""

_ON_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs"})
"""Where SQLite's log has no shared memory (sqlite.org/wal.html, section 2.2)."""
_WITHOUT_MODES: Final = frozenset({"vfat", "exfat", "msdos", "ntfs", "ntfs3", "fuseblk"})


def _disk(place: Place) -> Iterator[Finding]:
    there = nearest(place.directory)
    mounts = place.root / "proc/self/mounts"
    found = mount_of(there, mounts)
    kind = found.kind if found is not None else ""
    space = os.statvfs(there)
    free_bytes = space.f_bavail * space.f_frsize
    words = f"{human_bytes(free_bytes)} of {human_bytes(space.f_blocks * space.f_frsize)} free on {kind or 'the disk'}"
    if is_in_memory(there, mounts):
        yield bad(
            f"{there} lies in memory: all of it is gone with the power",
            "name a directory on a disk, or turn the read-only overlay of the system off (raspi-config)",
        )
    elif space.f_flag & os.ST_RDONLY or (found is not None and "ro" in found.options):
        yield bad(f"{there} is mounted read-only", "mount it writable; a card that turned so by itself is worn out")
    elif kind in _ON_NETWORK:
        yield bad(f"{there} is on {kind}, a network file system: SQLite loses data there", "use a local disk")
    elif kind in _WITHOUT_MODES:
        yield bad(f"{there} is on {kind}, which has no owners: anybody could read the keys", "use ext4 or its like")
    elif free_bytes < LEAST_FREE_BYTES:
        yield bad(words)
    elif free_bytes < FEW_FREE_BYTES:
        yield doubtful(words)
    else:
        yield good(words)


def nearest(directory: Path) -> Path:
    """The directory, or the nearest above it that is there."""
    return next(one for one in (directory, *directory.absolute().parents) if one.is_dir())


def _writing(place: Place) -> Iterator[Finding]:
    """A database with a log, made and removed: what the disk says of itself is not always what it does."""
    there = nearest(place.directory)
    if not os.access(there, os.W_OK):
        if there == place.directory:
            yield bad(f"{there} cannot be written to by this user", f"run this as the owner of {there}, or as root")
        return
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=there) as folder:
        try:
            with closing(sqlite3.connect(Path(folder) / "probe.db", isolation_level=None)) as database:
                (mode,) = database.execute("PRAGMA journal_mode=WAL").fetchone()
                database.execute("PRAGMA synchronous=FULL")
                database.execute("CREATE TABLE probe (value)")
                database.execute("INSERT INTO probe VALUES (?)", (b"x" * 4096,))
        except sqlite3.Error as error:
            yield bad(f"a database cannot be written to {there}: {error}")
            return
    yield good("a database was written") if mode == "wal" else bad(f"SQLite has no write-ahead log in {there}")


def _owner(place: Place) -> Iterator[Finding]:
    """Files of somebody else, most often of root who ran a command: the service cannot read them."""
    if not place.directory.is_dir():
        return
    owner = place.directory.stat().st_uid
    if place.directory.stat().st_mode & 0o077:
        yield doubtful(
            f"others may look into {place.directory} ({stat.S_IMODE(place.directory.stat().st_mode):04o})",
            f"chmod 700 {place.directory}",
        )
    files = (Path(folder) / name for folder, _, names in os.walk(place.directory) for name in names)
    strange = [path for path in islice(files, MAX_FILES) if is_strange(path, path.lstat(), owner)]
    if strange:
        yield bad(
            f"{strange[0]} belongs to user {strange[0].lstat().st_uid}, not to {owner}"
            + (f"; so do {len(strange) - 1} more" if strange[1:] else ""),
            f"chown -R --reference={place.directory} {place.directory}",
        )
    else:
        yield good("every file belongs to the owner of its directory")


def is_strange(path: Path, status: os.stat_result, owner: int) -> bool:
    """Whether a file is somebody else's, and no drop-in of an administrator that the service may read."""
    if stat.S_ISLNK(status.st_mode) or status.st_uid == owner:
        return False
    return not (path.parent.name == DROP_IN_FOLDER and status.st_mode & stat.S_IROTH)


DISK: Final = Check(
    "disk",
    "free space and file system of the directory: in memory, read-only, on the network, without owners",
    "make room on the disk, or lower [buffer] cap_mib in agent.toml",
    _disk,
)
WRITING: Final = Check(
    "database",
    "that SQLite can write there, with its log",
    "check the disk (dmesg) and what is mounted there",
    _writing,
)
OWNER: Final = Check(
    "owner",
    "that every file in the directory is its owner's, and nobody else may look in",
    "chown -R --reference=DIRECTORY DIRECTORY; chmod 700 DIRECTORY",
    _owner,
)
