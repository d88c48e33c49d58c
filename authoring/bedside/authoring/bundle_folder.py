"""A bundle on the author's disk: a folder with its files and, beside them, the tar that travels."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bedside.authoring.build import Built
from bedside.core.bundle.archive import HEAD, is_graph, members_of
from bedside.core.bundle.manifest import COMMITTED, OPTIONAL
from bedside.core.errors import ConfigError, StoreError
from bedside.service.files import write_durable

TAR: Final = "bundle.tar"
_MODE: Final = 0o644


def write_bundle(folder: Path, built: Built) -> Path:
    """Write every file and the tar into `folder`, which may hold an older bundle; returns the tar's path.

    Raises:
        ConfigError: `bundle-folder`: something else is in it.
        StoreError: `file-write`.
    """
    ours = {*HEAD, *COMMITTED, *OPTIONAL, TAR}
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    foreign = [name for name in found if name not in ours and not is_graph(name)]
    if foreign or (folder.exists() and not folder.is_dir()):
        raise ConfigError(
            "bundle-folder",
            f"{folder} is not a folder for one bundle alone" + (f"; it holds {foreign[0]}" if foreign else ""),
            remedy="name a new folder",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError("file-write", f"{folder} was not made: {error.strerror}") from error
    for name in set(found) - set(built.files) - {TAR}:
        (folder / name).unlink(missing_ok=True)
    for name in members_of(built.files) or ():
        write_durable(folder / name, built.files[name], _MODE)
    write_durable(folder / TAR, built.tar, _MODE)
    return folder / TAR
