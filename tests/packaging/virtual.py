"""A machine with a kernel and a disk of its own, under QEMU's emulation, whose power can be cut.

What a power cut leaves is what a flush had made safe, and nothing else. QEMU is killed: memory is lost, and with it
what the page cache of the machine had not written, as at a reset. What had been written to the disk and not flushed is
lost as well, as from a disk with a volatile cache: every write and flush goes into a log (`write_log`), and the next
boot gets the disk as it was before this one, with what the log has up to its last flush. So a row is there again only
where a flush came before its acknowledgement. It shows no disk that lies about flushes, or that tears a sector.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from debian_root import debian_root
from machine import copy_tree
from write_log import replay

from ports import free_ports
from watched_rounds import wait_until

PROGRAMS: Final = {"qemu-system-x86_64": "qemu-system-x86", "mmdebstrap": "mmdebstrap", "mkfs.ext4": "e2fsprogs"}
KERNEL: Final = ("linux-image-cloud-amd64", "udev")
# Wheels are built for this processor; what later ones bring, such as AVX, is slow to emulate.
CPU: Final = "Nehalem"
MEMORY_MIB: Final = 1_536
DISK_BYTES: Final = 2 << 30
LOG_BYTES: Final = 8 << 30
"""Of a file with holes: more than is ever written."""
ADDRESS: Final = "10.0.2.15"
OUTSIDE: Final = "10.0.2.2"
SHELL_PORT: Final = 22
BOOT_S: Final = 300.0
COMMAND_S: Final = 180.0
ANSWER_S: Final = 10.0
MASKED: Final = ("getty@tty1.service", "serial-getty@ttyS0.service", "systemd-networkd-wait-online.service")

_FILES: Final = {
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    "etc/systemd/network/10-user.network": f"""\
[Match]
Type=ether
[Network]
Address={ADDRESS}/24
Gateway={OUTSIDE}
LinkLocalAddressing=no
""",
    "etc/systemd/system/shell.socket": f"""\
[Socket]
ListenStream={SHELL_PORT}
Accept=yes
[Install]
WantedBy=sockets.target
""",
    "etc/systemd/system/shell@.service": """\
[Service]
ExecStart=/bin/sh
StandardInput=socket
StandardOutput=socket
StandardError=journal
""",
}
_FORWARD: Final = {
    "socket": "[Socket]\nListenStream=127.0.0.1:{port}\n[Install]\nWantedBy=sockets.target\n",
    "service": f"[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd {OUTSIDE}:{{outside}}\n",
}


def why_no_virtual() -> str:
    """What is missing for it here; empty where nothing is."""
    if platform.machine() != "x86_64":
        return "the machine that is emulated is an x86-64 one"
    if os.geteuid() != 0:
        return "only root can make the disk of a machine"
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    return f"to emulate a machine: apt install {' '.join(missing)}" if missing else ""


class Virtual:
    """One machine.

    Args:
        folder: for its disk.
        packages: files of Debian packages that are installed on it.
        files: more files, by their path.
        folders: what is copied to it, by its path.
        reached: ports of its own 127.0.0.1, and to which ones of this machine's they lead.
        served: ports of it that are reached at a port of 127.0.0.1.

    Attributes:
        ports: where its ports are reached.
        lost_writes: how many writes the power cuts have taken back.
    """

    def __init__(
        self,
        folder: Path,
        packages: Sequence[Path],
        files: Mapping[str, str],
        folders: Mapping[str, Path],
        *,
        reached: Mapping[int, int],
        served: Sequence[int],
    ) -> None:
        self._folder = folder
        self._disk, self._used, self._log = folder / "disk", folder / "used", folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        served = (SHELL_PORT, *served)
        self.ports = dict(zip(served, free_ports(len(served)), strict=True))
        self.lost_writes = 0
        forwards = {
            f"etc/systemd/system/outside-{port}.{kind}": text.format(port=port, outside=outside)
            for port, outside in reached.items()
            for kind, text in _FORWARD.items()
        }
        self._root = debian_root(*KERNEL)
        self._make_disk(packages, {**_FILES, **forwards, **files}, folders)

    def _make_disk(self, packages: Sequence[Path], files: Mapping[str, str], folders: Mapping[str, Path]) -> None:
        root = self._folder / "root"
        copy_tree(self._root, root)
        for package in packages:
            shutil.copy(package, root / "var/tmp")
        inside = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={root / 'proc'}", "chroot", root]
        install = ["dpkg", "--install", *(f"/var/tmp/{package.name}" for package in packages)]
        done = subprocess.run([*inside, *install], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        for path, folder in folders.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            copy_tree(folder, root / path)
        sockets = [Path(path).name for path in files if path.endswith(".socket")]
        for words in (["enable", *sockets], ["mask", *MASKED]):
            subprocess.run(["systemctl", "--quiet", f"--root={root}", *words], check=True)
        _make_hole(self._disk, DISK_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-d", root, self._disk], check=True)
        shutil.rmtree(root)

    # Power

    def boot(self) -> None:
        """Switch it on, and wait until systemd has started everything."""
        subprocess.run(["cp", "--sparse=always", self._disk, self._used], check=True)
        self._log.unlink(missing_ok=True)
        _make_hole(self._log, LOG_BYTES)
        boot = self._root / "boot"
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:{here}-{ADDRESS}:{there}" for there, here in self.ports.items())
        # Flushes are noted in the log; this machine's own disk need not see them.
        disk = f"driver=blklogwrites,node-name=disk,file.driver=file,file.filename={self._used},file.cache.no-flush=on"
        disk += f",log.driver=file,log.filename={self._log},log.cache.no-flush=on"
        command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2", "-m", str(MEMORY_MIB)]
        command += ["-nodefaults", "-display", "none", "-serial", f"file:{self.console}"]
        command += ["-kernel", str(next(boot.glob("vmlinuz-*"))), "-initrd", str(next(boot.glob("initrd.img-*")))]
        command += ["-append", "root=/dev/vda rw console=ttyS0 quiet panic=-1", "-device", "virtio-rng-pci"]
        command += ["-netdev", f"user,id=net{forwards}", "-device", "virtio-net-pci,netdev=net,romfile="]
        command += ["-blockdev", disk, "-device", "virtio-blk-pci,drive=disk,write-cache=on"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        wait_until(self._is_booted, "the machine has booted", deadline_s=BOOT_S, interval_s=0.5)

    def _is_booted(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"QEMU ended with {self._process.returncode}"
        status, said = self._shell("systemctl is-system-running", ANSWER_S)
        assert said.strip() != "degraded", self.run("systemctl", "--failed", "--no-legend")
        return status == 0

    @property
    def console(self) -> Path:
        """What its kernel and systemd printed at the last boot."""
        return self._folder / "console.log"

    def cut_power(self) -> None:
        """Switch it off at once: what had not been flushed is lost."""
        self.end()
        self.lost_writes += replay(self._log, self._disk)

    def end(self) -> None:
        """End the emulation."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def discard(self) -> None:
        """Remove its disks, which are a gigabyte."""
        for path in (self._disk, self._used, self._log):
            path.unlink(missing_ok=True)

    # Commands

    def run(self, *command: str | Path, user: str = "", given: str = "", timeout_s: float = COMMAND_S) -> str:
        """Run a command that must succeed as its root, or as a user of it, with `given` on standard input."""
        line = shlex.join(["runuser", "-u", user, "--", *map(str, command)] if user else [*map(str, command)])
        status, said = self._shell(f"printf %s {shlex.quote(given)} | GRPC_VERBOSITY=NONE {line}", timeout_s)
        assert status == 0, f"{line} ended with {status}\n{said}"
        return said

    def json(self, *command: str | Path, user: str = "", given: str = "") -> Any:
        """What a command prints with --json."""
        return json.loads(self.run(*command, "--json", user=user, given=given))

    def journal(self) -> str:
        """The end of what its services have logged, and of what its kernel printed, for a failed test."""
        _, told = self._shell("journalctl --no-pager --lines=60 --unit='bedside-*'", COMMAND_S)
        return "\n".join([told, *self.console.read_text(errors="replace").splitlines()[-20:]])

    def _shell(self, line: str, timeout_s: float) -> tuple[int | None, str]:
        """The status of a line, None where nobody answers, and what it printed; where it failed, also its errors."""
        script = f"said=$(mktemp)\n{{ {line}\n}} 2>$said; status=$?; [ $status = 0 ] || cat $said\nrm $said\n"
        try:
            with socket.create_connection(("127.0.0.1", self.ports[SHELL_PORT]), timeout_s) as connection:
                connection.sendall(f'{script}printf "\\n%s" $status\n'.encode())
                connection.shutdown(socket.SHUT_WR)
                told = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()
        except OSError:
            return None, ""
        said, _, status = told.rpartition("\n")
        return int(status) if status else None, said


@contextmanager
def virtual(*arguments: Any, **options: Any) -> Iterator[Virtual]:
    """A machine, switched off; at the end its emulation ends, and its disks are thrown away."""
    machine = Virtual(*arguments, **options)
    try:
        yield machine
    finally:
        machine.end()
        machine.discard()


def _make_hole(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        file.truncate(size_bytes)
