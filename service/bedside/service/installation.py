"""How a library gets to where this program runs: an environment that pip made, or one of a Debian package."""

from __future__ import annotations

import sys
from pathlib import Path, PurePath
from typing import Final

PACKAGED: Final = PurePath("/opt/bedside")
"""Below it, each package has an environment, without pip: the system's installs into it."""
UNPACKAGED: Final = frozenset({"authoring", "demo"})
"""Parts for an author's machine."""


def is_packaged(prefix: str = sys.prefix) -> bool:
    """Whether this program came with a Debian package."""
    return PurePath(prefix).parent == PACKAGED


def missing_package(part: str, prefix: str = sys.prefix) -> str:
    """Which package a part of Bedside would come with, in words; empty where it is here, or nothing is of a package.

    Args:
        part: name of its folder, such as `coordinator`; `service` is in every package.
        prefix: the environment that the program runs in.
    """
    if not is_packaged(prefix) or part == "service" or Path(prefix).with_name(part).is_dir():
        return ""
    return "in no package" if part in UNPACKAGED else f"in the package bedside-{part}"


def how_to_install(requirement: str, prefix: str = sys.prefix) -> str:
    """What an administrator types to add a library, for a remedy.

    Args:
        requirement: such as `bedside[sql]`. Of an installed Bedside, pip takes the extra's libraries alone.
        prefix: the environment that the program runs in.
    """
    if is_packaged(prefix):
        return f"apt install python3-pip, then python3 -m pip --python {prefix}/bin/python3 install '{requirement}'"
    return f"pip install '{requirement}'"


def how_to_repair(prefix: str = sys.prefix) -> str:
    """What an administrator types where a part of this installation is missing, for a remedy."""
    environment = PurePath(prefix)
    if environment.parent == PACKAGED:
        return f"apt install --reinstall ./bedside-{environment.name}_*.deb"
    return "pip install --force-reinstall bedside"
