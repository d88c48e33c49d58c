"""What went wrong in one of the trustee's tasks, as one of our errors."""

from __future__ import annotations

import logging
import sqlite3

from bedside.core.errors import BedsideError, ProtocolError
from bedside.service.logs import event
from bedside.service.sqlite import DAMAGED, read_error

_LOGGER = logging.getLogger(__name__)


def trouble_of(error: Exception) -> BedsideError:
    """What went wrong, as one of our errors: a damaged store first, then `internal-error` for what nobody foresaw."""
    leaves = [read_error(leaf) if isinstance(leaf, sqlite3.Error) else leaf for leaf in _leaves(error)]
    ours = [leaf for leaf in leaves if isinstance(leaf, BedsideError)]
    strange = [leaf for leaf in leaves if not isinstance(leaf, BedsideError)]
    damaged = [leaf for leaf in ours if leaf.code == DAMAGED]
    if strange and not damaged:
        event(_LOGGER, "internal-error", level=logging.ERROR, error=strange[0])
        return ProtocolError("internal-error", f"this trustee met {type(strange[0]).__name__} and begins anew")
    return (damaged or ours)[0]


def _leaves(error: Exception) -> list[Exception]:
    if not isinstance(error, ExceptionGroup):
        return [error]
    return [leaf for part in error.exceptions for leaf in _leaves(part)]
