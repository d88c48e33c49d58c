"""A bundle on disk, as its author or an operator names it: the tar, or the folder it was made of."""

from __future__ import annotations

from pathlib import Path

from bedside.core.bundle.archive import members_of, pack_bundle
from bedside.core.errors import ConfigError


def read_bundle(path: Path) -> bytes:
    """Return the deterministic tar of a bundle: from the tar itself, or made of a folder's files.

    Raises:
        ConfigError: `no-bundle-file`.
    """
    try:
        if path.is_dir():
            names = members_of({file.name for file in path.iterdir()})
            if names is None:
                raise ConfigError(
                    "no-bundle-file",
                    f"the files in {path} are not those of a bundle",
                    remedy="name the folder or tar that `bedside model build` wrote",
                )
            return pack_bundle({name: (path / name).read_bytes() for name in names})
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            "no-bundle-file",
            f"{error.filename or path} cannot be read: {error.strerror}",
            remedy="name the folder or tar that `bedside model build` wrote",
        ) from error
