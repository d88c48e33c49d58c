"""Packages that tests build with the pinned tools, and what lies in them."""

from __future__ import annotations

import os
import subprocess
from functools import cached_property
from pathlib import Path
from typing import Final

import pytest

REPOSITORY: Final = Path(__file__).parents[2]
TOOLS: Final = REPOSITORY / ".venv-deb"
EPOCH_S: Final = 2_000_000_000
"""Later than any file here, so that dpkg-deb, which only makes files older, does not do it all."""


class Deb:
    """One .deb, unpacked below a folder."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.root = folder / "root"
        self.control = folder / "control"
        folder.mkdir()
        for option, where in (("-x", self.root), ("-e", self.control)):
            subprocess.run(["dpkg-deb", option, path, where], check=True)

    @cached_property
    def fields(self) -> dict[str, str]:
        """The control file, first lines of its values."""
        pairs = [line.split(": ", 1) for line in (self.control / "control").read_text().splitlines() if ": " in line]
        return dict(pairs)

    @cached_property
    def listing(self) -> list[list[str]]:
        """Mode, owner, size, date, time and name of each member."""
        done = subprocess.run(["dpkg-deb", "-c", self.path], check=True, capture_output=True, text=True)
        return [line.split(maxsplit=5) for line in done.stdout.splitlines()]

    def files(self) -> list[Path]:
        """Its regular files."""
        return sorted(path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink())


def interpreter(version: str) -> Path | None:
    """A CPython of this version that runs; pyenv's are found, too."""
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
    for path in (Path(f"/usr/bin/python{version}"), *pyenv):
        if path.exists():
            return path
    return None


def build(out: Path, part: str, target: str, *, mask: int = 0o022, **environ: str) -> None:
    """Build one part as `make deb` does, compressed lightly.

    Skips where the tools are not installed or wheels cannot be had.
    """
    python = TOOLS / "bin" / "python"
    if not (TOOLS / ".tools").exists():
        pytest.skip("what builds packages is not installed: make deb")
    command = [python, REPOSITORY / "packaging" / "deb" / "build_debs.py"]
    options = ["--targets", target, "--parts", part, "--out", out, "--level", "1"]
    given = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH_S), **environ}
    done = subprocess.run([*command, *options], capture_output=True, text=True, env=given, umask=mask)
    offline = (
        "error sending request",
        "dns error",
        "Connection refused",
        "network",
        "HTTP status server error",
        "timed out",
    )
    if done.returncode != 0 and any(words in done.stderr for words in offline):
        pytest.skip(f"wheels cannot be fetched: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
