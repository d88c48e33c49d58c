"""bedside-agent: its package, an installation on a clean Debian, and the agent's first prediction."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from device.directory import Played, Served, build_tar, make_device
from device.signals import LEAD_RATE_HZ, lead

from installing.spent import Size, Spent, run, size_of, spending

ROOT: Final = Path(__file__).parents[2]
CLEAN: Final = Path(__file__).with_name("clean.sh")
HOME: Final = "/var/lib/bedside/agent"
USER: Final = "bedside-agent"
NOT_INSTALLED: Final = ("var/cache", "var/log", "var/lib/apt", "var/lib/dpkg", "packages")
"""What apt and dpkg keep of every package, and the packages themselves."""
PATIENCE_S: Final = 120.0
_LOOK_S: Final = 0.005


@dataclass(frozen=True)
class Installed:
    """What one installation came to.

    Attributes:
        install: apt, with everything that the package's scripts do.
        installed: files that were not there before.
        bytecode_mb: those of them that Python compiled.
        version: `bedside --version`.
        first: the agent, from its start until it had ended after its first stored prediction; of `wall_s`, until
            that prediction could be seen.
        signal_s: from that start until the window of the prediction had ended, which no program can hasten.
    """

    install: Spent
    installed: Size
    bytecode_mb: float
    version: Spent
    first: Spent
    signal_s: float


def build_packages(folder: Path, target: str) -> list[Path]:
    """Build what a device installs, as `make deb` does."""
    run(["make", "--directory", ROOT, ".venv-deb/.tools", f"PYTHON={sys.executable}"])
    program = ROOT / "packaging" / "deb" / "build_debs.py"
    run([ROOT / ".venv-deb" / "bin" / "python", program, "--targets", target, "--parts", "agent", "--out", folder])
    return sorted(folder.glob("*.deb"))


def clean_debian() -> Path:
    """The small Debian of the tests; RuntimeError with the reason where there can be none."""
    import pytest

    if os.geteuid() != 0:
        raise RuntimeError("only root can install packages into a Debian of its own")
    from debian_root import debian_root

    try:
        return debian_root()
    except pytest.skip.Exception as error:
        raise RuntimeError(str(error)) from error


def install(debian: Path, packages: list[Path], folder: Path) -> Installed:
    """Install into a layer above `debian`, start the agent, and wait for its first prediction."""
    for name in ("root", "changes", "work", "packages"):
        (folder / name).mkdir(parents=True)
    for package in packages:
        shutil.copy(package, folder / "packages")
    make_device(folder / "device", [Played("ecg", lead(0, 600), LEAD_RATE_HZ)], [Served(Path("ecg.tar"), ("ecg",))])
    shutil.copy(build_tar("ecg", folder), folder / "device")

    def inside(*command: str) -> list[str | Path]:
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", CLEAN, debian, folder, *command]

    names = [f"/packages/{package.name}" for package in packages]
    took = run(inside("apt-get", "install", "--yes", "--quiet", *names))
    changes = folder / "changes"
    installed = size_of(changes, NOT_INSTALLED)
    bytecode_mb = sum(path.stat().st_size for path in (changes / "opt").rglob("*.pyc")) / 1e6
    version = run(inside("bedside", "--version"))
    run(inside("chown", "--recursive", f"{USER}:{USER}", HOME))
    as_service = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups"]
    first, signal_s = _first_prediction(inside(*as_service, "bedside", "agent", "run", HOME), folder)
    return Installed(took, installed, bytecode_mb, version, first, signal_s)


def _first_prediction(command: list[str | Path], folder: Path) -> tuple[Spent, float]:
    log = folder / "agent.log"
    with log.open("wb") as output, spending() as spent:
        began_s, began_ns = time.monotonic(), time.time_ns()
        agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            end_ns = _await_prediction(folder / "device" / "state" / "buffer.db", agent)
            took_s = time.monotonic() - began_s
        finally:
            _end(agent)
    if not end_ns:
        raise RuntimeError(f"no prediction came: {log.read_text()[-500:]}")
    spent.wall_s = took_s
    return spent, (end_ns - began_ns) / 1e9


def _await_prediction(database: Path, agent: subprocess.Popen[bytes]) -> int:
    """The end of its window, ns since 1970; 0 where the agent ended, or patience did."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s and agent.poll() is None:
        time.sleep(_LOOK_S)
        if not database.exists():
            continue
        # Its tables come with the agent's first moments.
        with (
            suppress(sqlite3.OperationalError),
            closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as reader,
        ):
            row = reader.execute("SELECT end_ns FROM predictions ORDER BY id LIMIT 1").fetchone()
            if row is not None:
                return int(row[0])
    return 0


def _end(unshare: subprocess.Popen[bytes]) -> None:
    """Stop the agent, the one process below `unshare`, as a service is stopped, so that its time is counted."""
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGTERM)
    try:
        unshare.wait(30)
    except subprocess.TimeoutExpired:
        unshare.kill()
        unshare.wait()
