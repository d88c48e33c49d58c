"""A tree of files as a .deb, the same to the bit for the same tree."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ZSTD_LEVEL: Final = 12
"""Higher ones take minutes for a per cent or two."""

_CONTROL: Final = "DEBIAN"
_KIB: Final = 1024


@dataclass(frozen=True)
class Control:
    """What dpkg is told of a package, besides its files.

    Attributes:
        fields: of the file `control`, in order, without Installed-Size.
        scripts: maintainer scripts by name.
    """

    fields: Mapping[str, str]
    scripts: Mapping[str, str] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """As apt wants packages called."""
        return "_".join(self.fields[name] for name in ("Package", "Version", "Architecture")) + ".deb"


def write_gzip(path: Path, text: str) -> None:
    """A compressed text without a name or a time in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def write_deb(root: Path, control: Control, out: Path, epoch_s: int, level: int = ZSTD_LEVEL) -> Path:
    """Pack everything below `root`, which belongs to root and dates from `epoch_s`, seconds since 1970.

    Files below `etc` are configuration: dpkg keeps what an administrator made of them.
    """
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    names = [str(path.relative_to(root)) for path in files]
    size_kib = sum(-(-path.stat().st_size // _KIB) for path in files) + sum(
        1 for path in root.rglob("*") if path.is_dir()
    )
    folder = root / _CONTROL
    folder.mkdir()
    fields = {**control.fields, "Installed-Size": str(size_kib)}
    # The description comes last and spans lines.
    fields["Description"] = fields.pop("Description")
    (folder / "control").write_text("".join(f"{name}: {value}\n" for name, value in fields.items()), "utf-8")
    if configuration := [name for name in names if name.startswith("etc/")]:
        (folder / "conffiles").write_text("".join(f"/{name}\n" for name in configuration), "utf-8")
    sums = [f"{_md5(root / name)}  {name}\n" for name in names if name not in configuration]
    (folder / "md5sums").write_text("".join(sums), "utf-8")
    for name, text in control.scripts.items():
        (folder / name).write_text(text, "utf-8")
        (folder / name).chmod(0o755)
    _normalise(root, epoch_s)
    out.mkdir(parents=True, exist_ok=True)
    path = out / control.file_name
    environ = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch_s), "DPKG_DEB_THREADS_MAX": "1"}
    options = ["--root-owner-group", "-Zzstd", f"-z{level}"]
    tool = shutil.which("dpkg-deb")
    if tool is None:
        raise SystemExit("packages are written by dpkg-deb, which is not here: apt install dpkg")
    subprocess.run([tool, *options, "--build", root, path], env=environ, check=True, stdout=subprocess.DEVNULL)
    return path


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _normalise(root: Path, epoch_s: int) -> None:
    """One mode for folders, one for files and one for programs, whatever the umask here and in a wheel."""
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or _is_program(path.relative_to(root)) else 0o644)
        os.utime(path, (epoch_s, epoch_s), follow_symlinks=False)


def _is_program(path: Path) -> bool:
    scripts = {"preinst", "postinst", "prerm", "postrm"}
    return path.parent.name == "bin" or (path.parent.name == _CONTROL and path.name in scripts)
