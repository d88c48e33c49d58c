"""The packages that machines of tests install: as `make deb` builds them, and the same as a later version."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Final

from built_debs import REPOSITORY, build
from debian_root import RELEASE, kept

PARTS: Final = ("agent", "trustee", "coordinator")
ARCH: Final = "arm64" if platform.machine() == "aarch64" else "amd64"
TARGET: Final = f"{RELEASE}-{ARCH}"
CONTENTS: Final = ("protos", "core", "service", "firmware_bridge", "ondevice", *PARTS, "packaging", "pyproject.toml")
NEXT_VERSION: Final = "99.0.0"


def built_packages() -> Path:
    """The folder of all packages for this machine's kind of Debian. Skips where they cannot be built."""

    def make(folder: Path) -> None:
        build(folder, " ".join(PARTS), TARGET)

    return kept("debs", [TARGET, *_contents()], make)


def _contents() -> list[str]:
    """Path and digest of every file that they are made of."""
    found: list[str] = []
    for name in CONTENTS:
        top = REPOSITORY / name
        files = [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_file())
        for path in files:
            if "__pycache__" not in path.parts:
                found.append(f"{path.relative_to(REPOSITORY)} {hashlib.sha256(path.read_bytes()).hexdigest()}")
    return found


def next_version(package: Path, out: Path) -> Path:
    """Pack a package again as one of NEXT_VERSION, which also its program says of itself."""
    root = out / "root"
    out.mkdir(parents=True)
    subprocess.run(["dpkg-deb", "--raw-extract", package, root], check=True)
    (info,) = root.glob("opt/bedside/*/lib/python3*/site-packages/bedside-*.dist-info")
    control = root / "DEBIAN" / "control"
    for file in (control, info / "METADATA"):
        lines = file.read_text().splitlines(keepends=True)
        (version,) = [line for line in lines if line.startswith("Version: ")]
        release = "-1" if file == control else ""
        lines[lines.index(version)] = f"Version: {NEXT_VERSION}{release}\n"
        file.write_text("".join(lines))
    info.rename(info.with_name(f"bedside-{NEXT_VERSION}.dist-info"))
    path = out / f"{package.name.split('_')[0]}_{NEXT_VERSION}-1_{ARCH}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "--build", root, path], check=True, stdout=subprocess.DEVNULL
    )
    shutil.rmtree(root)
    return path
