"""`make deb`: bedside-common and, for every target, bedside-agent, bedside-trustee and bedside-coordinator.

    python packaging/deb/build_debs.py --targets "bookworm-amd64" --parts "trustee" --revision 1 --out dist

The same commit gives the same bytes: times are the commit's (or SOURCE_DATE_EPOCH), owners and modes are fixed, wheels
are named by their hash, and byte code is made on the target.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from archive import ZSTD_LEVEL, Control, write_deb, write_gzip
from bill import bill_of_materials
from commands import commands_of, completion_script, load, main_command
from environment import lay_environment, site_packages
from licences import copyright_file, read_distributions
from locks import read_lock
from manual import manual_page
from parts import PARTS, REPOSITORY, Part, project
from service_files import lay_service_files
from targets import Target, chosen_targets

_HERE = Path(__file__).parent
_MAINTAINER = "The Bedside developers <developers@bedside.invalid>"
_COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/bedside",
    "zsh": "usr/share/zsh/vendor-completions/_bedside",
    "fish": "usr/share/fish/vendor_completions.d/bedside.fish",
}
_SHARED_PARTS = frozenset({"service"})
"""Parts of Bedside whose commands every package has."""

_ALL_PARTS = frozenset(root for part in PARTS for root in part.roots)
_FILES = (
    ("/etc/bedside/", "Configuration of the services, with comments."),
    ("/etc/default/bedside-agent", "Environment of the service, such as a proxy; each service has its own."),
    (
        "/var/lib/bedside/",
        "Their keys and state: the DIRECTORY of `bedside agent` is /var/lib/bedside/agent, for the user bedside-agent.",
    ),
    ("/opt/bedside/", "Their programs."),
    ("/usr/share/doc/bedside-common/docs/", "The pages that messages and comments name, such as docs/units.md."),
)
_STATUSES = (
    ("0", "It was done, or all is well."),
    ("1, 2", "What was asked after is not quite well, or has failed: `doctor`, `health`, `status`."),
    ("64", "The command line has a mistake."),
    ("65", "A file or message is not what it claims to be."),
    ("69", "Something that it needs is not there; the same may succeed later."),
    ("70", "A bug of Bedside's: report it."),
    ("74", "A database or file cannot be read or written."),
    ("75", "The site has not approved this device yet: `bedside agent setup`."),
    ("76", "What was named is not there, or it is not its time."),
    ("77", "A policy or a trustee refuses, or a signature does not hold."),
    ("78", "A configuration, policy or key file has a mistake, or belongs to another user."),
    ("130", "It was interrupted."),
)
_PURGED = {"agent": ("/etc/credstore/bedside-buffer-key*", "/etc/credstore.encrypted/bedside-buffer-key*")}
"""What `bedside agent setup` and an administrator put elsewhere."""


def commit_epoch_s() -> int:
    """The time that everything dates from: SOURCE_DATE_EPOCH, or that of the commit; seconds since 1970.

    Raises:
        SystemExit: when there is neither.
    """
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    git = shutil.which("git")
    if git is not None:
        command: list[str | Path] = [git, "-C", REPOSITORY, "log", "-1", "--format=%ct"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            return int(asked.stdout)
    raise SystemExit("this is no clone of the repository: set SOURCE_DATE_EPOCH to the time of the release")


def build_wheel(out: Path, epoch_s: int) -> Path:
    """Bedside's own wheel, of the tree as it is."""
    command: list[str | Path] = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out]
    environ = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch_s)}
    subprocess.run(command, cwd=REPOSITORY, env=environ, check=True, capture_output=True)
    return next(out.glob(f"bedside-{project()['version']}-*.whl"))


class Builder:
    """Everything that one run of `make deb` has in common.

    Args:
        epoch_s: time of the release, seconds since 1970.
        revision: Debian's revision.
        out: where packages and bills of materials go.
        level: of zstd.
    """

    def __init__(self, epoch_s: int, revision: str, out: Path, level: int = ZSTD_LEVEL) -> None:
        self._level = level
        self._epoch_s = epoch_s
        self._version: str = project()["version"]
        self._revision = revision
        self._out = out

    def build_common(self) -> Path:
        """`bedside-common`: the command, its completion, and the manual pages that belong to nobody alone."""
        control = Control(
            {
                "Package": "bedside-common",
                "Version": f"{self._version}-{self._revision}",
                "Architecture": "all",
                **self._usual_fields(),
                "Suggests": ", ".join(part.package for part in PARTS),
                "Description": "federated learning that stays at the bedside: the command\n"
                " The command bedside, which hands on to the packages that are installed, its\n"
                " manual page, and completion for bash, zsh and fish.",
            }
        )
        with TemporaryDirectory() as folder:
            root = Path(folder, "root")
            (root / "usr/bin").mkdir(parents=True)
            (root / "usr/bin/bedside").write_bytes((_HERE / "bedside").read_bytes())
            for shell, place in _COMPLETIONS.items():
                (root / place).parent.mkdir(parents=True)
                (root / place).write_text(completion_script(shell), "utf-8")
            self._write_main_page(root)
            self._write_pages(root, self._pages(_SHARED_PARTS))
            self._write_doc(root, control, copyright_file("", []), "unstable")
            shutil.copytree(REPOSITORY / "docs", root / "usr/share/doc/bedside-common/docs")
            return write_deb(root, control, self._out, self._epoch_s, self._level)

    def build_part(self, part: Part, target: Target, wheel: Path) -> Path:
        """One package for one target, with its bill of materials beside it."""
        control = Control(
            {
                "Package": part.package,
                "Version": f"{self._version}-{self._revision}{target.suffix}",
                "Architecture": target.arch,
                **self._usual_fields(),
                "Depends": self._depends(target),
                "Description": part.summary + "".join(f"\n {line}" for line in part.description.splitlines()),
            },
            {name: script_of(name, part) for name in ("postinst", "prerm", "postrm")},
        )
        with TemporaryDirectory() as folder:
            root = Path(folder, "root")
            site = lay_environment(part, target, wheel, root)
            lay_service_files(part, target, root)
            self._write_configuration(root / part.template_place, part)
            self._write_pages(root, self._pages(frozenset(part.roots) - _SHARED_PARTS))
            distributions = read_distributions(site)
            bill = bill_of_materials(control, read_lock(part.lock(target.name)), distributions)
            self._write_doc(root, control, copyright_file(site_packages(part, target), distributions), target.release)
            (root / f"usr/share/doc/{part.package}/sbom.cdx.json").write_text(bill, "utf-8")
            path = write_deb(root, control, self._out, self._epoch_s, self._level)
        path.with_suffix(".cdx.json").write_text(bill, "utf-8")
        return path

    def _usual_fields(self) -> dict[str, str]:
        return {"Maintainer": _MAINTAINER, "Section": "science", "Priority": "optional"}

    def _depends(self, target: Target) -> str:
        major, minor = target.python_version
        python = f"python3 (>= {major}.{minor}), python3 (<< {major}.{minor + 1})"
        # 252 is Debian 12's; the wheels bring every other library that they need.
        system = "systemd (>= 252), libc6 (>= 2.36), libgcc-s1, libstdc++6, zlib1g"
        return f"bedside-common (>= {self._version}-{self._revision}), {python}, {system}"

    def _write_main_page(self, root: Path) -> None:
        pages = {part.package: sorted(self._pages(frozenset(part.roots) - _SHARED_PARTS)) for part in PARTS}
        commands = [(page, f"Of the package {package}.") for package, names in pages.items() for page in names]
        summaries = {name: command.get_short_help_str(limit=200) for name, command in commands_of(_ALL_PARTS).items()}
        listed = [(page.replace("-", " "), f"{summaries[page.partition('-')[2]]} {of}") for page, of in commands]
        listed += [(page.replace("-", " "), summaries[page.partition("-")[2]]) for page in self._pages(_SHARED_PARTS)]
        also = sorted(page for page, _ in commands)
        sections = {"COMMANDS": sorted(listed), "FILES": _FILES, "EXIT STATUS": _STATUSES}
        page = manual_page("bedside", main_command(), self._version, self._epoch_s, also, sections)
        write_gzip(root / "usr/share/man/man1/bedside.1.gz", page)

    def _pages(self, package_parts: frozenset[str]) -> dict[str, click.Command]:
        return {f"bedside-{name}": command for name, command in commands_of(package_parts).items()}

    def _write_pages(self, root: Path, pages: dict[str, click.Command]) -> None:
        for name, command in pages.items():
            page = manual_page(name, command, self._version, self._epoch_s, sorted({"bedside", *pages} - {name}))
            write_gzip(root / f"usr/share/man/man1/{name}.1.gz", page)

    def _write_configuration(self, path: Path, part: Part) -> None:
        template = load(part.template)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(template() if callable(template) else template), "utf-8")

    def _write_doc(self, root: Path, control: Control, copyright_text: str, release: str) -> None:
        package, version = control.fields["Package"], control.fields["Version"]
        doc = root / f"usr/share/doc/{package}"
        doc.mkdir(parents=True, exist_ok=True)
        (doc / "copyright").write_text(copyright_text, "utf-8")
        entry = "  * What changed for those who run Bedside is in changelog.gz beside this file."
        head = f"bedside ({version}) {release}; urgency=medium"
        tail = f" -- {_MAINTAINER}  {formatdate(self._epoch_s)}"
        write_gzip(doc / "changelog.Debian.gz", f"{head}\n\n{entry}\n\n{tail}\n")
        write_gzip(doc / "changelog.gz", (REPOSITORY / "CHANGELOG.md").read_text("utf-8"))


def script_of(name: str, part: Part) -> str:
    """One of a package's maintainer scripts."""
    text = (_HERE / "scripts" / name).read_text("utf-8")
    purged = "".join(f" {place}" for place in _PURGED.get(part.name, ()))
    return text.replace("@PACKAGE@", part.package).replace("@PART@", part.name).replace("@PURGE@", purged)


def main() -> None:
    """Build what the command line asks for, and say what came of it."""
    parser = argparse.ArgumentParser(description="Build Bedside's Debian packages.")
    parser.add_argument("--targets", default="", help="such as 'bookworm-amd64 trixie-arm64'; all where empty")
    parser.add_argument("--parts", default="", help="such as 'agent trustee'; all where empty")
    parser.add_argument("--revision", default="1", help="Debian's revision")
    parser.add_argument("--level", type=int, default=ZSTD_LEVEL, help="of zstd")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "dist")
    chosen = parser.parse_args()
    targets = chosen_targets(chosen.targets)
    names = chosen.parts.split() or [part.name for part in PARTS]
    epoch_s = commit_epoch_s()
    builder = Builder(epoch_s, chosen.revision, chosen.out, chosen.level)
    with TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder), epoch_s)
        _say(builder.build_common)
        for target in targets:
            for part in PARTS:
                if part.name in names:
                    _say(partial(builder.build_part, part, target, wheel))


def _say(build: Callable[[], Path]) -> None:
    begun = time.monotonic()
    path = build()
    seconds = time.monotonic() - begun
    sys.stdout.write(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB in {seconds:.1f} s\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
