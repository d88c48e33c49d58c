"""How a process of ours says why it ends: one line on standard error, and an exit status.

It needs nothing but the standard library, so that a resident process has it without the command line around it.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Final

from bedside.core.errors import BedsideError, StoreError
from bedside.service.text import bounded

INTERNAL_STATUS: Final = 70
"""EX_SOFTWARE: a bug of ours."""

INTERRUPTED_STATUS: Final = 130
DEBUG_VARIABLE: Final = "BEDSIDE_DEBUG"
"""Environment variable; `1` prints the traceback of an error too."""

_MAX_BUG_CHARS: Final = 200


def error_line(error: BedsideError) -> str:
    """Return the one line that an operator sees: sentence, code and remedy, without control characters."""
    remedy = f" — {bounded(error.remedy)}" if error.remedy else ""
    return f"error: {bounded(error.sentence)} [{bounded(error.code)}]{remedy}"


def report_failure(error: Exception, *, debug: bool) -> int:
    """Print the line of an error, after its traceback where that is wanted, and return its exit status."""
    if debug:
        traceback.print_exception(error)
    while isinstance(error, ExceptionGroup):  # of tasks that ran side by side: the first one that knows what to say
        error = (error.subgroup(BedsideError) or error).exceptions[0]
    if isinstance(error, OSError):
        error = _of_system(error)
    if isinstance(error, BedsideError):
        sys.stderr.write(f"{error_line(error)}\n")
        return error.exit_status
    what = bounded(f"{type(error).__name__}: {error}", _MAX_BUG_CHARS)
    remedy = "run it as `bedside --debug ...` for the traceback, and report it"
    sys.stderr.write(f"error: unexpected {what} [internal-error] — {remedy}\n")
    return INTERNAL_STATUS


def _of_system(error: OSError) -> StoreError:
    """What the operating system refused to a command that did not expect it, most often a path that was mistyped."""
    why = error.strerror or type(error).__name__
    if error.filename is None:
        return StoreError("system-error", f"the system says: {why}", remedy="check disk, memory and network")
    remedy = "check the path, its permissions and free space"
    if error.errno == errno.ENOTDIR:
        remedy = "name a directory; a part of this path is a file"
    elif error.errno == errno.EROFS:
        remedy = "name a directory on a file system that can be written"
    return StoreError("path-unusable", f"{os.fsdecode(error.filename)} cannot be used: {why}", remedy=remedy)
