"""A folder in memory for what must never reach a disk: the trustees' round keys."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bedside.core.errors import ConfigError

_MEMORY_TYPES: Final = frozenset({"tmpfs", "ramfs"})


@contextmanager
def memory_folder(environ: Mapping[str, str] = os.environ, mounts: Path = Path("/proc/mounts")) -> Iterator[Path]:
    """Yield a fresh private folder on a RAM-backed file system; it is removed at the end.

    Raises:
        ConfigError: `no-memory-folder`.
    """
    base = find_memory_base(environ, mounts)
    folder = Path(tempfile.mkdtemp(prefix="bedside-demo-", dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_memory_base(environ: Mapping[str, str], mounts: Path) -> Path:
    """Return the first of $XDG_RUNTIME_DIR and /dev/shm that is on tmpfs and writable.

    Raises:
        ConfigError: `no-memory-folder`.
    """
    candidates = [Path(text) for text in (environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm") if text]  # noqa: S108
    kinds = _file_systems(mounts)
    for folder in candidates:
        if folder.is_dir() and os.access(folder, os.W_OK) and _kind_of(folder.resolve(), kinds) in _MEMORY_TYPES:
            return folder
    raise ConfigError(
        "no-memory-folder",
        "there is no writable tmpfs on this machine, and a trustee keeps its round keys in memory only",
        remedy="mount one and point XDG_RUNTIME_DIR at it: mount -t tmpfs -o size=64m tmpfs /some/folder",
    )


def _file_systems(mounts: Path) -> dict[Path, str]:
    try:
        lines = mounts.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    fields = [line.split() for line in lines]
    return {Path(one[1]): one[2] for one in fields if len(one) > 2}


def _kind_of(folder: Path, kinds: Mapping[Path, str]) -> str:
    return next((kinds[parent] for parent in (folder, *folder.parents) if parent in kinds), "")
