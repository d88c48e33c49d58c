"""Keep this process's memory out of core dumps, debuggers and swap, as far as the machine lets us."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path
from typing import Final

_PR_SET_DUMPABLE: Final = 4
_MCL_CURRENT: Final = 1
_MCL_ONFAULT: Final = 4


def harden_process() -> list[str]:
    """Turn core dumps off and lock memory; returns sentences on what could not be done (swap is then the risk)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    missing = []
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        missing.append("the process may still be traced by its user")
    if libc.mlockall(_MCL_CURRENT | _MCL_ONFAULT) != 0:
        missing.append("memory is not locked: set LimitMEMLOCK=infinity, or run without swap")
    return missing


def swap_in_use(swaps: Path = Path("/proc/swaps")) -> bool:
    """Whether this machine may write RAM-backed files to a swap device (rule T2 asks for none)."""
    try:
        return len(swaps.read_text().splitlines()) > 1
    except OSError:
        return False
