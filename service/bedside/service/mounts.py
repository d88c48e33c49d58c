"""What file system a directory lies on, from the kernel's table of mounts (proc(5))."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

RAM_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs"})
"""What they hold is gone when the machine loses power."""
MOUNTS: Final = Path("/proc/self/mounts")
_ESCAPES: Final = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


class Mount(NamedTuple):
    """One line of the table.

    Attributes:
        kind: of file system.
        point: where it is.
        options: that it was mounted with.
    """

    kind: str
    point: Path
    options: tuple[str, ...]


def mount_of(directory: Path, mounts: Path = MOUNTS) -> Mount | None:
    """The mount that holds `directory`, which need not be there yet; None when the table does not say."""
    wanted = directory.resolve()
    best: Mount | None = None
    for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        fields = line.split(" ")
        point = Path(_unescape(fields[1]))
        if wanted.is_relative_to(point) and (best is None or len(point.parts) >= len(best.point.parts)):
            best = Mount(fields[2], point, tuple(map(_unescape, fields[3].split(","))) if fields[3:] else ())
    return best  # of mounts over the same point, the last one covers


def file_system_of(directory: Path, mounts: Path = MOUNTS) -> str:
    """Type of the file system that holds `directory`; empty when the table does not say."""
    found = mount_of(directory, mounts)
    return found.kind if found is not None else ""


def is_in_memory(directory: Path, mounts: Path = MOUNTS) -> bool:
    """Whether what is written to `directory` is gone with the power, also below an overlay whose upper half is so."""
    found = mount_of(directory, mounts)
    if found is None:
        return False
    if found.kind in RAM_FILE_SYSTEMS:
        return True
    upper = next((option[len("upperdir=") :] for option in found.options if option.startswith("upperdir=")), "")
    return bool(upper) and found.kind == "overlay" and file_system_of(Path(upper), mounts) in RAM_FILE_SYSTEMS


def _unescape(text: str) -> str:
    for escaped, plain in _ESCAPES.items():
        text = text.replace(escaped, plain)
    return text
