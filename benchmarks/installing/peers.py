"""The peers, as their documentation says: pip, in an environment of its own."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from installing.spent import Size, Spent, run, size_of

PEERS: Final = {"flwr": "1.41.0", "nvflare": "2.9.0"}
"""By name on the package index, which is also the name of the command."""


@dataclass(frozen=True)
class Wheels:
    """What pip would download for one peer.

    Attributes:
        folder: all of its wheels; one that there is only as source has been built.
        size_mb: of the folder.
    """

    name: str
    folder: Path
    size_mb: float


@dataclass(frozen=True)
class PeerInstalled:
    """What one installation came to.

    Attributes:
        install: pip, with the byte code that it makes.
        installed: what the environment has more than an empty one.
        version: its command with `--version`.
    """

    install: Spent
    installed: Size
    version: Spent


def fetch(name: str, folder: Path) -> Wheels:
    """Fetch a peer and all that it needs; RuntimeError where that cannot be had."""
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", folder, f"{name}=={PEERS[name]}"])
    return Wheels(name, folder, size_of(folder).files_mb)


def install(wheels: Wheels, folder: Path) -> PeerInstalled:
    """Install from files that are here, so that no network is measured."""
    run([sys.executable, "-m", "venv", folder])
    empty = size_of(folder)
    options = ["--quiet", "--no-index", "--no-cache-dir", "--find-links", wheels.folder]
    took = run([folder / "bin" / "python", "-m", "pip", "install", *options, f"{wheels.name}=={PEERS[wheels.name]}"])
    installed = size_of(folder) - empty
    run([folder / "bin" / wheels.name, "--version"])
    version = run([folder / "bin" / wheels.name, "--version"])
    shutil.rmtree(folder)
    return PeerInstalled(took, installed, version)
