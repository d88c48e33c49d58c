"""An aarch64 board in a folder, run by QEMU's user emulation: Debian's Python with PyPI's wheels and our own, or with a
package of ours.

Nothing here needs root, a chroot or binfmt_misc: apt fetches into a state of its own, QEMU looks for every absolute
path below the board's folder first (`-L`), and Python starts its children through the script it was started by.

Downloads are kept in $BEDSIDE_AARCH64_CACHE, or in bedside/aarch64 below the user's cache folder (about 460 MB); to
fetch newer ones, delete it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).parents[1]
_GLIBC_MINORS: Final = range(36, 16, -1)  # Debian 12 has 2.36; the oldest tag in use is manylinux_2_17
_TOOLS: Final = ("pytest", "pytest-asyncio", "pytest-timeout", "pytest-randomly", "hypothesis")

_APT: Final = """
Dir::State "{state}";
Dir::State::status "{state}/status";
Dir::Cache "{state}";
#clear APT::Architectures;
APT::Architecture "{architecture}";
APT::Architectures:: "{architecture}";
APT::Install-Recommends "false";
APT::Sandbox::User "";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
"""

_OF_RELEASE: Final = """
Dir::Etc::sourcelist "{state}/sources.list";
Dir::Etc::sourceparts "-";
"""
_ARCHIVE: Final = "http://deb.debian.org/debian"

_PYTHON: Final = """#!/bin/sh
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE LD_LIBRARY_PATH
{variables}
exec '{qemu}' -cpu '{qemu_cpu}' -L '{prefix}' -0 "$0" '{prefix}/usr/bin/python{version}' "$@"
"""


class NoBoardError(Exception):
    """Why there can be no board on this machine."""


@dataclass(frozen=True)
class Cpu:
    """A processor as QEMU plays it, and as /proc/cpuinfo shows it to the runtimes, which choose their kernels by both.

    QEMU 7 shows the host's file, and onnxruntime dies of an x86 one while it is imported.
    """

    qemu: str
    part: str
    features: str

    def cpuinfo(self) -> str:
        facts = f"Features\t: {self.features}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n"
        facts += f"CPU part\t: {self.part}\nCPU revision\t: 1\n"
        return "\n".join(f"processor\t: {number}\n{facts}" for number in range(os.cpu_count() or 1))


_A72: Final = "fp asimd evtstrm crc32 cpuid"
_A76: Final = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"

CPUS: Final[Mapping[str, Cpu]] = {
    "cortex-a72": Cpu("cortex-a72", "0xd08", _A72),  # Raspberry Pi 4: no dot product
    "cortex-a76": Cpu("cortex-a76", "0xd0b", _A76),  # Raspberry Pi 5
    # All that QEMU plays but SME, under which LiteRT's int8 kernels or QEMU 7 err: integer matrix products, SVE 2.
    "armv9": Cpu("max,sme=off", "0xd40", f"{_A76} sve sve2 svei8mm svebf16 i8mm bf16"),
}


@dataclass(frozen=True)
class Board:
    """One processor with its userland. `python` takes what a Python takes, and is its own `sys.executable`."""

    cpu: str
    python: Path

    def run(self, *arguments: str, cwd: Path = CHECKOUT, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        command = [str(self.python), *arguments]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)


class Workshop:
    """Makes boards.

    Args:
        cache: what is fetched stays here.
        work: for boards and our own wheel; gone after the tests.

    Raises:
        NoBoardError: there is no emulator or no userland, and none can be fetched.
    """

    def __init__(self, cache: Path, work: Path) -> None:
        self._work = work
        self._qemu = _emulator(cache)
        self._root = _kept(cache / "debian", lambda folder: _unpack(folder, "arm64", "python3", "libstdc++6"))
        self._version = max(self._root.glob("usr/lib/python3.*")).name.removeprefix("python")
        wanted = _dependencies()
        key = hashlib.blake2b("\n".join([self._version, *wanted]).encode(), digest_size=6).hexdigest()
        self._wheels = _kept(cache / f"wheels-{key}", lambda folder: self._install(folder, *wanted))
        self._own = self._install_own(work / "own")

    def board(self, cpu: str, *, without: str = "") -> Board:
        """A board with one of `CPUS`; `without` hides the wheel of a module."""
        prefix = Path(tempfile.mkdtemp(prefix=f"{cpu}-", dir=self._work))
        (prefix / "proc").mkdir()
        for entry in self._root.iterdir():
            (prefix / entry.name).symlink_to(entry)
        wheels = self._wheels
        if without:
            wheels = prefix / "wheels"
            wheels.mkdir()
            for entry in self._wheels.iterdir():
                if entry.name.partition("-")[0] != without:
                    (wheels / entry.name).symlink_to(entry)
        variables = f"export PYTHONHOME='{prefix}/usr' PYTHONPATH='{self._own}:{wheels}'"
        return _switch_on(cpu, self._qemu, prefix, prefix / "python", self._version, variables)

    def _install(self, folder: Path, *requirements: str) -> None:
        platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in _GLIBC_MINORS]
        platforms.append("--platform=manylinux2014_aarch64")
        target = ("--target", str(folder), "--implementation=cp", f"--python-version={self._version}")
        _pip("install", "--no-compile", "--only-binary=:all:", *target, *platforms, *requirements)

    def _install_own(self, folder: Path) -> Path:
        wheels = self._work / "dist"
        _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), str(CHECKOUT))
        self._install(folder, "--no-deps", *map(str, wheels.glob("bedside-*.whl")))
        return folder


def packaged_board(cache: Path, folder: Path, cpu: str, release: str, package: Path, environment: str) -> Board:
    """A board with a Debian release and one of our packages, unpacked into it; no script of the package has run.

    Its `python` is the environment's, and finds the environment as on a machine, by its pyvenv.cfg.

    Args:
        cache: what is fetched stays here.
        folder: for the board; it is made.
        cpu: one of `CPUS`.
        release: code name.
        package: a .deb for arm64.
        environment: where it has its Python environment, without a leading slash.

    Raises:
        NoBoardError: there is no emulator or no userland, and none can be fetched.
    """
    qemu = _emulator(cache)
    root = _kept(
        cache / f"debian-{release}",
        lambda made: _unpack(made, "arm64", "base-files", "python3", "libstdc++6", release=release),
    )
    shutil.copytree(root, folder, symlinks=True)
    _run("dpkg-deb", "-x", str(package), str(folder))
    python = folder / environment / "bin" / "python3"
    version = python.readlink().name.removeprefix("python")
    python.unlink()
    return _switch_on(cpu, qemu, folder, python, version)


def cache_folder() -> Path:
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("BEDSIDE_AARCH64_CACHE") or user / "bedside" / "aarch64")


def _switch_on(cpu: str, qemu: str, prefix: Path, python: Path, version: str, variables: str = "") -> Board:
    (prefix / "proc" / "cpuinfo").write_text(CPUS[cpu].cpuinfo())
    values = {"qemu": qemu, "qemu_cpu": CPUS[cpu].qemu, "version": version, "variables": variables}
    python.write_text(_PYTHON.format(prefix=prefix, **values))
    python.chmod(0o755)
    return Board(cpu, python)


def _dependencies() -> list[str]:
    """What a device installs beside our wheel, with LiteRT, and what runs our tests."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["litert"], *_TOOLS]


def _kept(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder of the cache, made whole or not at all, even when two of us make it at a time."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            part = Path(made) / "part"
            part.mkdir()
            make(part)
            if not folder.exists():
                part.rename(folder)
    return folder


def _emulator(cache: Path) -> str:
    if platform.machine() == "aarch64":
        raise NoBoardError("this machine is an aarch64 one: the other tests have run on it")
    return shutil.which("qemu-aarch64-static") or str(_kept(cache / "qemu", _fetch_qemu) / "qemu")


def _fetch_qemu(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as unpacked:
        host = _run("dpkg", "--print-architecture").strip()
        _unpack(Path(unpacked), host, "qemu-user-static")
        shutil.copy(Path(unpacked) / "usr" / "bin" / "qemu-aarch64-static", folder / "qemu")


def _unpack(folder: Path, architecture: str, *packages: str, release: str = "") -> None:
    """Unpack packages of a Debian release, by default of this machine's sources, and all that they depend on.

    Nothing of them is run.
    """
    with tempfile.TemporaryDirectory() as state:
        for name in ("lists/partial", "archives/partial"):
            (Path(state) / name).mkdir(parents=True)
        (Path(state) / "status").touch()
        configuration = Path(state) / "apt.conf"
        of_release = _OF_RELEASE if release else ""
        configuration.write_text((_APT + of_release).format(state=state, architecture=architecture))
        (Path(state) / "sources.list").write_text(f"deb {_ARCHIVE} {release} main\n")
        apt = ("apt-get", "-c", str(configuration), "-q", "-y")
        _run(*apt, "update")
        _run(*apt, "--download-only", "install", *packages)
        for package in (Path(state) / "archives").glob("*.deb"):
            _run("dpkg-deb", "-x", str(package), str(folder))


def _pip(*arguments: str) -> None:
    """Run pip; that a wheel is not there is an error of ours, and that nothing answers is not."""
    try:
        _run(sys.executable, "-m", "pip", "--quiet", *arguments)
    except NoBoardError as error:
        if "Retrying (" not in str(error):
            raise AssertionError(str(error)) from error
        raise


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoBoardError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise NoBoardError(f"{' '.join(command[:8])} ended with {done.returncode}: {done.stderr.strip()[-1_500:]}")
    return done.stdout
