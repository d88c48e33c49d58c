"""A machine with a systemd of its own: systemd-nspawn on an overlay, at a bridge of the lab."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
from lab import Lab

from watched_rounds import DEADLINE_S, wait_until

_NSPAWN: Final = "systemd-nspawn"
# 133 is how a container asks to be started again, which a machine does by itself.
_LOOP: Final = """\
mkdir -p "$1" && echo 0 >"$1/cgroup.procs"
shift
while :; do
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 "$@"
    status=$?
    [ $status = 133 ] || exit $status
done
"""
_NETWORK: Final = """\
[Match]
Name=host0
[Network]
Address={address}
LinkLocalAddressing=no
"""


@dataclass(frozen=True)
class Disk:
    """What machines are made from.

    Attributes:
        layers: folders, the topmost first; nobody writes to them.
        var: what their /var begins with.
    """

    layers: list[Path]
    var: Path


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder with owners, times and what an overlay notes on its files."""
    subprocess.run(["cp", "--archive", "--reflink=auto", source, target], check=True)


class Machine:
    """One machine. What it writes is in a layer of its own above those that it is made from, and its /var is a copy.

    Args:
        lab: where it runs.
        name: its host name.
        disk: what it is made from.
        bridge: of the lab, where its cable goes.
        address: such as 10.0.0.2/24.
        mounts: folders that it sees read-only, by their path in the machine.
    """

    def __init__(self, lab: Lab, name: str, disk: Disk, *, bridge: str, address: str, mounts: dict[str, Path]) -> None:
        self.name = name
        self.disk = disk
        self._lab = lab
        self._bridge = bridge
        self._mounts = mounts
        self._folder = lab.folder / name
        self._changes = self._folder / "changes"
        self._var = self._folder / "var"
        self._root = self._folder / "root"
        self._process: subprocess.Popen[bytes] | None = None
        self._leader: psutil.Process | None = None
        for folder in (self._changes, self._folder / "work", self._root):
            folder.mkdir(parents=True)
        copy_tree(disk.var, self._var)
        self.write("etc/systemd/network/10-host0.network", _NETWORK.format(address=address))
        self.write("etc/hostname", f"{name}\n")

    def write(self, path: str, text: str) -> None:
        """Write a file before the machine is booted."""
        (self._changes / path).parent.mkdir(parents=True, exist_ok=True)
        (self._changes / path).write_text(text)

    @property
    def log(self) -> Path:
        """What it printed while booting."""
        return self._folder / "console.log"

    # Power

    def boot(self) -> None:
        """Switch it on, and wait until everything that it starts has started."""
        lower = ":".join(map(str, self.disk.layers))
        # Volatile: no disk is waited for when the machine is thrown away. State is on /var, where that is not so.
        options = f"volatile,lowerdir={lower},upperdir={self._changes},workdir={self._folder / 'work'}"
        self._lab.run("mount", "-t", "overlay", "overlay", "-o", options, self._root)
        # State lies on the disk itself: what is on an overlay is gone with it, and `bedside doctor` says so.
        binds = [f"--bind={self._var}:/var"]
        binds += [f"--bind-ro={outside}:{inside}" for inside, outside in self._mounts.items()]
        command = [_NSPAWN, "--register=no", "--keep-unit", "--quiet", "--boot", "--console=pipe"]
        command += ["--resolv-conf=off", "--timezone=off", "--link-journal=no", f"--machine={self.name}"]
        # As on a machine, and not as in a container: a unit may lock memory, and raise its limits.
        command += ["--capability=CAP_IPC_LOCK,CAP_SYS_RESOURCE", "--rlimit=MEMLOCK=infinity"]
        command += [f"--network-bridge={self._bridge}", f"--directory={self._root}", *binds]
        with self.log.open("wb") as log:
            cgroup = f"/sys/fs/cgroup/{self._lab.cgroup}/{self.name}"
            self._process = self._lab.start("sh", "-c", _LOOP, "sh", cgroup, *command, log=log)
        self.wait_booted()

    def wait_booted(self) -> None:
        """Wait until systemd has started everything.

        It fails the test when a unit has failed.
        """

        def look() -> str:
            assert self._process is not None
            if self._process.poll() is not None:
                pytest.fail(f"{self.name} ended with {self._process.poll()}: {self.log.read_text(errors='replace')}")
            state = self.run("systemctl", "is-system-running", check=False).stdout.strip() if self.leader else ""
            return state if state in ("running", "degraded") else ""

        state = wait_until(look, f"{self.name} has booted")
        if state != "running":
            pytest.fail(f"{self.name} is {state}: {self.run('systemctl', '--failed', '--no-legend').stdout}")

    def reboot(self) -> None:
        """Have it start again, and wait for that."""
        before = self.leader
        self.run("systemctl", "reboot", check=False)
        wait_until(lambda: self.leader not in (0, before), f"{self.name} starts again")
        self.wait_booted()

    @property
    def leader(self) -> int:
        """Its process 1, as seen from outside; 0 while there is none."""
        if self._leader is None or not self._leader.is_running():
            self._leader = self._find_leader()
        return self._leader.pid if self._leader else 0

    def _find_leader(self) -> psutil.Process | None:
        assert self._process is not None
        with suppress(psutil.NoSuchProcess):
            for one in psutil.Process(self._process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    parent = one.parent()
                    if one.name() == "systemd" and parent is not None and parent.name() == _NSPAWN:
                        return one
        return None

    def image(self, folder: Path) -> Disk:
        """A copy of its disk as it is now, from which others are made that are not this machine."""
        folder.mkdir()
        copy_tree(self._changes, folder / "changes")
        copy_tree(self._var, folder / "var")
        (folder / "changes/etc/machine-id").write_text("")
        return Disk([folder / "changes", *self.disk.layers], folder / "var")

    # Commands

    def run(
        self,
        *command: str | Path,
        user: str = "",
        given: str = "",
        timeout_s: float = DEADLINE_S,
        check: bool = True,
        **environ: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as its root, or as a user of it, with `given` on standard input."""
        enter = ["nsenter", f"--target={self.leader}", "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--"]
        if user:
            enter += ["runuser", "-u", user, "--"]
        line = [*enter, *map(str, command)]
        paths = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        done = subprocess.run(
            line,
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={"PATH": paths, "LANG": "C.UTF-8", "GRPC_VERBOSITY": "NONE", **environ},
            check=False,
        )
        if check:
            what = f"{self.name}: {' '.join(line[len(enter) :])} ended with {done.returncode}"
            assert done.returncode == 0, f"{what}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *command: str | Path, user: str = "") -> Any:
        """What a command prints with --json."""
        return json.loads(self.run(*command, "--json", user=user).stdout)

    def inside(self, path: str) -> Path:
        """A file of the running machine, as seen from outside."""
        return Path(f"/proc/{self.leader}/root") / path.lstrip("/")

    # Services

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit."""
        told = self.run("systemctl", "show", unit, *(f"--property={name}" for name in properties)).stdout
        return dict(line.split("=", 1) for line in told.splitlines())

    def main_pid(self, unit: str) -> int:
        """The main process of a unit, as the machine numbers it; 0 while there is none."""
        return int(self.show(unit, "MainPID")["MainPID"])

    def is_active(self, unit: str) -> bool:
        """Whether a unit is up, which of ours means that its work loop turns."""
        return self.show(unit, "ActiveState")["ActiveState"] == "active"

    def is_restarted(self, unit: str, before: int) -> bool:
        """Whether another main process than `before` is up."""
        found = self.show(unit, "ActiveState", "MainPID")
        return found["ActiveState"] == "active" and found["MainPID"] not in ("0", str(before))

    def signal(self, unit: str, name: str) -> None:
        """Send a signal, such as KILL, to every process of a unit."""
        self.run("systemctl", "kill", f"--signal={name}", unit)

    @contextmanager
    def suspended(self, unit: str) -> Iterator[None]:
        """Keep a unit from running while inside, unknown to systemd."""
        self.signal(unit, "STOP")
        try:
            yield
        finally:
            self.signal(unit, "CONT")

    # Its cable

    def unplug(self) -> None:
        """Take the carrier away."""
        self._lab.run("ip", "link", "set", f"vb-{self.name}", "down")

    def plug(self) -> None:
        """Give it back."""
        self._lab.run("ip", "link", "set", f"vb-{self.name}", "up")
