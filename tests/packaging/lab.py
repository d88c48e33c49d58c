"""Where machines of tests run: namespaces and cgroups that end with this process, whatever ends it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import IO, Final

import psutil
import pytest

SCRIPT: Final = Path(__file__).with_name("lab.sh")
PROGRAMS: Final = {"systemd-nspawn": "systemd-container", "unshare": "util-linux", "ip": "iproute2"}
MEMORY_BYTES: Final = 2 << 30
DISK_BYTES: Final = 4 << 30
END_S: Final = 180.0


class Lab:
    """A network of its own with bridges, and a folder for machines.

    Args:
        folder: for what machines write; removed at the end.
        cgroup: name of the tree of cgroups.
        pid: process whose namespaces these are.
    """

    def __init__(self, folder: Path, cgroup: str, pid: int) -> None:
        self.folder = folder
        self.cgroup = cgroup
        self._pid = pid
        self._started: list[subprocess.Popen[bytes]] = []

    def inside(self, *command: str | Path) -> list[str | Path]:
        """A command line that runs `command` in the lab."""
        return ["nsenter", f"--target={self._pid}", "--mount", "--net", "--pid", "--", *command]

    def run(self, *command: str | Path) -> str:
        """Run a command in the lab that must succeed; its standard output."""
        line = self.inside(*command)
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def start(self, *command: str | Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a process in the lab, which ends with it at the latest."""
        process = subprocess.Popen(self.inside(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._started.append(process)
        return process

    def wait(self) -> None:
        """Wait for what was started, once the lab has ended."""
        for process in self._started:
            process.wait(END_S)

    def add_bridge(self, name: str, address: str) -> None:
        """A network segment, on which the lab has an address such as 10.0.0.1/24."""
        self.run("ip", "link", "add", name, "type", "bridge")
        self.run("ip", "address", "add", address, "dev", name)
        self.run("ip", "link", "set", name, "up")


def why_no_lab() -> str:
    """What is missing for it here; empty where nothing is."""
    if os.environ.get("BEDSIDE_MACHINES") != "1":
        return "machines with a systemd: make machines, or BEDSIDE_MACHINES=1"
    if os.geteuid() != 0:
        return "only root can boot machines"
    if psutil.virtual_memory().available < MEMORY_BYTES or shutil.disk_usage(gettempdir()).free < DISK_BYTES:
        return f"six machines take {MEMORY_BYTES >> 30} GiB of memory and {DISK_BYTES >> 30} GiB of {gettempdir()}"
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    return f"to boot machines: apt install {' '.join(missing)}" if missing else ""


@contextmanager
def lab() -> Iterator[Lab]:
    """A lab, for as long as inside. Skips where there can be none."""
    if reason := why_no_lab():
        pytest.skip(reason)
    folder = Path(mkdtemp(prefix="bedside-lab-"))
    cgroup = folder.name
    command = ["unshare", "--mount", "sh", str(SCRIPT), cgroup, str(folder)]
    # In a session of its own, so that what is sent to our group leaves it alone, and it can clean up.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdin, process.stdout, process.stderr:
        first = process.stdout.readline()
        if not first:
            why = process.stderr.read().decode().strip()
            process.wait(END_S)
            shutil.rmtree(folder)
            pytest.skip(f"this kernel has no namespaces for machines: {why}")
        found = Lab(folder, cgroup, int(first))
        try:
            yield found
        finally:
            process.stdin.close()
            process.wait(END_S)
            found.wait()
