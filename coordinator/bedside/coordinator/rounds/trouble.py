"""What a failure means for the round in which it happened: wait and try again, or end it with a reason.

What asks again for ever must be able to pass by itself or by an operator's hand, as a full disk does. Everything else
ends one cohort or round, never the driver.
"""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

from bedside.coordinator.blobs.files import LOST_CODES
from bedside.core.errors import BedsideError, StoreError, UnavailableError
from bedside.service.logs import event

_LOGGER: Final = logging.getLogger(__name__)


class Reason(NamedTuple):
    """Why something ended."""

    code: str
    sentence: str


def may_pass(error: Exception) -> bool:
    """Whether the same step may succeed later: nothing may be decided by it now."""
    if isinstance(error, MemoryError | UnavailableError):
        return True
    return isinstance(error, StoreError) and error.code not in LOST_CODES


def reason_of(error: Exception) -> Reason:
    """The reason as an operator sees it; the text of a bug might hold anything, and stays in the log."""
    if isinstance(error, BedsideError):
        return Reason(error.code, error.sentence)
    name = type(error).__name__
    return Reason("internal-error", f"the coordinator failed inside ({name}); its log says where")


def log_trouble(name: str, error: Exception, **where: str | int) -> None:
    """Log a failure; one that nobody foresaw with its traceback."""
    event(_LOGGER, name, level=logging.ERROR, error=error, **where)
    if not isinstance(error, BedsideError):
        _LOGGER.error(name, exc_info=error)
