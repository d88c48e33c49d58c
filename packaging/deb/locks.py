"""`make locks`: the one wheel of each requirement, with its hash, for every package and target.

A lock names what pyproject.toml asked for when it was made (`# wants`), so that a test notices without a network when
the two disagree. It names no index: where wheels come from is each machine's own setting.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from packaging.utils import parse_wheel_filename
from parts import LOCKS, PARTS, REPOSITORY, Part, project
from targets import TARGETS, Target

TOOLS: Final = LOCKS / "tools.txt"
_WANTS: Final = "# wants "
_ENTRY: Final = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+) --hash=sha256:(?P<sha256>[0-9a-f]{64})$", re.M)


@dataclass(frozen=True)
class Locked:
    """One line of a lock: a distribution and the SHA-256 of its wheel."""

    name: str
    version: str
    sha256: str


def read_lock(path: Path) -> list[Locked]:
    """The distributions of a lock, in its order."""
    return [Locked(**found.groupdict()) for found in _ENTRY.finditer(path.read_text("utf-8"))]


def wanted_by(path: Path) -> list[str]:
    """The requirements that a lock was made from."""
    lines = path.read_text("utf-8").splitlines()
    return [line.removeprefix(_WANTS) for line in lines if line.startswith(_WANTS)]


def index_settings(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for uv, which reads no pip.conf: pip's index is told to it, where one is set."""
    settings = dict(environ)
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    index = environ.get("PIP_INDEX_URL") or asked.stdout.strip()
    if index and "UV_DEFAULT_INDEX" not in settings:
        settings["UV_DEFAULT_INDEX"] = index
    return settings


def uv(*arguments: str | Path) -> None:
    """Run uv of this environment; what it says is shown when it fails."""
    command = [Path(sys.executable).with_name("uv"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=index_settings(), cwd=REPOSITORY, check=False)
    if done.returncode != 0:
        raise SystemExit(f"uv {arguments[0]} {arguments[1]} failed:\n{done.stderr}")


def compile_lock(part: Part, target: Target) -> str:
    """Resolve one part for one target, and write down the wheel that fits it best."""
    wants = part.requirements()
    with TemporaryDirectory() as folder:
        asked, resolved = Path(folder, "asked.in"), Path(folder, "pylock.toml")
        asked.write_text("\n".join(wants) + "\n", "utf-8")
        options = ["--format", "pylock.toml", "--only-binary", ":all:", "--no-header", "--quiet"]
        where = ["--python-platform", target.uv_platform, "--python-version", target.python]
        uv("pip", "compile", *options, *where, asked, "-o", resolved)
        packages = tomllib.loads(resolved.read_text("utf-8"))["packages"]
    lines = [f"# bedside-{part.name} on {target.name}; made by `make locks`", *(_WANTS + want for want in wants)]
    lines += [_line(package, target) for package in packages if package["name"] not in LEFT_OUT]
    return "\n".join(lines) + "\n"


LEFT_OUT: Final = frozenset({"pip"})
"""sqlite-utils asks for pip on behalf of its command `install`, which nobody runs here."""


def _line(package: dict[str, Any], target: Target) -> str:
    wheels = {unquote(urlsplit(wheel["url"]).path).rpartition("/")[2]: wheel for wheel in package["wheels"]}
    best = best_wheel(list(wheels), target)
    return f"{package['name']}=={package['version']} --hash=sha256:{wheels[best]['hashes']['sha256']}"


def best_wheel(names: Sequence[str], target: Target) -> str:
    """The wheel of these file names that an installer on the target would take.

    Raises:
        SystemExit: when none runs there.
    """
    tags = {name: parse_wheel_filename(name)[3] for name in names}
    for tag in target.tags():
        for name in names:
            if tag in tags[name]:
                return name
    raise SystemExit(f"none of these runs on {target.name}: {', '.join(names)}")


def tool_wants() -> list[str]:
    """What builds the packages: uv and its like, and what Bedside's commands import to tell their own help."""
    extras = project()["optional-dependencies"]
    trustee = next(part for part in PARTS if part.name == "trustee")
    return sorted({*trustee.requirements(), *extras["coordinator"], *extras["packaging"]})


def compile_tools() -> str:
    """Resolve the tools for any machine and Python; every file of a release may be taken."""
    wants = tool_wants()
    with TemporaryDirectory() as folder:
        asked, resolved = Path(folder, "asked.in"), Path(folder, "tools.txt")
        asked.write_text("\n".join(wants) + "\n", "utf-8")
        options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate"]
        uv("pip", "compile", *options, "--quiet", asked, "-o", resolved)
        body = resolved.read_text("utf-8")
    return "\n".join(["# what builds the packages; made by `make locks`", *(_WANTS + want for want in wants), body])


def main() -> None:
    """Refresh every lock."""
    LOCKS.mkdir(exist_ok=True)
    TOOLS.write_text(compile_tools(), "utf-8")
    for part in PARTS:
        for target in TARGETS:
            part.lock(target.name).write_text(compile_lock(part, target), "utf-8")
            sys.stdout.write(f"{part.lock(target.name).name}: {len(read_lock(part.lock(target.name)))} wheels\n")


if __name__ == "__main__":
    main()
