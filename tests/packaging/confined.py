"""`python confined.py UNIT COMMAND...`: run a command under the system call filter of a unit, without systemd.

What systemd does with seccomp is done here with the same library: SystemCallFilter=, MemoryDenyWriteExecute= and
RestrictAddressFamilies=; and NoNewPrivileges=, LimitCORE= and UMask=. Namespaces and devices are not.

Source: systemd.exec(5); seccomp_rule_add(3).
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parent))

from unit_files import Settings, settings

LIBRARY: Final = "libseccomp.so.2"
_ALLOW: Final = 0x7FFF_0000
_EPERM: Final = 0x0005_0001
_EQUAL: Final = 4
_MASKED_EQUAL: Final = 7
_PR_SET_NO_NEW_PRIVS: Final = 38
_WRITE: Final = 2
_EXECUTE: Final = 4


class _Compare(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def why_not() -> str:
    """What is missing for it here; empty where nothing is."""
    if shutil.which("systemd-analyze") is None:
        return "systemd-analyze is not there to say what is in a set of system calls"
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return f"{LIBRARY} is not there"
    return ""


def allowed_calls(unit: Settings) -> set[str]:
    """Names of the system calls that a unit's filter lets through."""
    allowed: set[str] = set()
    for line in unit["SystemCallFilter"]:
        names = _expanded(line.removeprefix("~").split())
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


def _expanded(words: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for word in words:
        if word.startswith("@"):
            told = subprocess.run(
                ["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True
            )
            lines = [line.strip() for line in told.stdout.splitlines()[1:]]
            found |= _expanded(line for line in lines if line and not line.startswith("#"))
        else:
            found.add(word)
    return found


def confine(unit: Settings) -> None:
    """Apply a unit's filter to this process, for good."""
    library = ctypes.CDLL(LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_EPERM)))

    def allow(call: str, *compare: _Compare) -> None:
        number = library.seccomp_syscall_resolve_name(call.encode())
        array = (_Compare * len(compare))(*compare)
        if number != -1 and library.seccomp_rule_add_array(context, _ALLOW, number, len(compare), array):
            raise OSError(f"no rule for {call}")

    calls = allowed_calls(unit)
    if unit["MemoryDenyWriteExecute"] == ["yes"]:
        for protection in (0, _WRITE, _EXECUTE):
            allow("mmap", _Compare(2, _MASKED_EQUAL, _WRITE | _EXECUTE, protection))
        allow("mprotect", _Compare(2, _MASKED_EQUAL, _EXECUTE, 0))
        calls -= {"mmap", "mmap2", "mprotect", "pkey_mprotect"}
    for family in unit["RestrictAddressFamilies"][-1].split():
        allow("socket", _Compare(0, _EQUAL, getattr(socket, family), 0))
    for call in sorted(calls - {"socket"}):
        allow(call)
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if library.seccomp_load(context):
        raise OSError("the kernel takes no filter")


if __name__ == "__main__":
    chosen = settings(sys.argv[1])
    os.umask(int(chosen["UMask"][-1], 8))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    confine(chosen)
    os.execvp(sys.argv[2], sys.argv[2:])
