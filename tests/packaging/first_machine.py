"""Whether machines can be booted here: a first one is, and shows what the tests of the others rest on.

A container, a kernel or a network of whoever runs the tests may forbid any step, and that is no failure of Bedside.
After this machine, whatever goes wrong is one.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from debian_root import debian_root
from lab import Lab, lab
from machine import Disk, Machine

from watched_rounds import wait_until

CONFINED: Final = (
    *("PrivateUsers=yes", "PrivateMounts=yes", "PrivateDevices=yes", "PrivateTmp=yes", "ProtectSystem=strict"),
    *("ProtectHome=yes", "ProtectHostname=yes", "ProtectKernelTunables=yes", "ProtectControlGroups=yes"),
    *("ProtectProc=invisible", "RestrictNamespaces=yes", "SystemCallFilter=@system-service", "User=nobody"),
    *("StateDirectory=first", "RuntimeDirectory=first", "MemorySwapMax=0"),
)
"""What a service asks the kernel for."""

LONGEST: Final = 600
"""Characters of a reason."""

NETWORK: Final = "10.76.0"
CALL: Final = f"""\
import socket
try:
    socket.create_connection(("{NETWORK}.1", 9), 10).close()
except ConnectionRefusedError:
    pass
"""
"""Nobody listens there: a refusal is an answer."""


def need_machines() -> Path:
    """The files that machines are made from. Skips where none can be booted."""
    if reason := _why_not():
        pytest.skip(reason)
    return debian_root()


@cache
def _why_not() -> str:
    try:
        with lab() as where:
            _boot(where, debian_root())
    except pytest.skip.Exception as skipped:
        return str(skipped)
    except (AssertionError, pytest.fail.Exception, OSError, subprocess.SubprocessError) as error:
        words = " ".join(str(error).split())
        shown = words if len(words) <= LONGEST else f"{words[: LONGEST // 3]} ... {words[-LONGEST // 2 :]}"
        return f"no machine can be booted here: {shown}"
    return ""


def _boot(where: Lab, root: Path) -> None:
    where.add_bridge("first", f"{NETWORK}.1/24")
    machine = Machine(
        where, "first", Disk([root], root / "var"), bridge="first", address=f"{NETWORK}.2/24", mounts={"/srv": root}
    )
    machine.boot()
    wait_until(lambda: machine.run("python3", "-c", CALL, check=False).returncode == 0, "its network answers")
    properties = [f"--property={one}" for one in CONFINED]
    machine.run("systemd-run", "--quiet", "--wait", "--pipe", *properties, "/bin/true")
    machine.reboot()
