"""What a source or a sink failed with, in a line: also what another package raises, whose errors may be anything."""

from __future__ import annotations

import logging

from bedside.core.errors import BedsideError
from bedside.service.logs import Field, event
from bedside.service.text import bounded

_LOGGER = logging.getLogger(__name__)


def describe(error: BaseException) -> str:
    """A failure for the device's own users: code, sentence and remedy where it has them. Never raises."""
    try:
        text = error.diagnostics() if isinstance(error, BedsideError) else f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - it cannot even be shown
        text = type(error).__name__
    return bounded(text)


class FailureLog:
    """Logs the failures of one source or sink: the first, each with another reason, and then ever more rarely.

    Events are `source-failed` and `source-recovered`, or the same of a sink; no word of the failure is in them.
    """

    def __init__(self, noun: str, name: str) -> None:
        """Prepare; `noun` is `source` or `sink`."""
        self._noun = noun
        self._name = name
        self._reason = ""
        self._times = 0

    def failed(self, error: BaseException) -> None:
        """Note a failure."""
        reason = error.code if isinstance(error, BedsideError) else type(error).__name__
        self._times = self._times + 1 if reason == self._reason else 1
        self._reason = reason
        if self._times & (self._times - 1) == 0:  # 1, 2, 4, 8 times and so on
            self._log("failed", logging.WARNING, reason=reason, times=self._times)

    def recovered(self) -> None:
        """Note that it works; said once after failures."""
        if self._reason:
            self._log("recovered", logging.INFO)
        self._reason, self._times = "", 0

    def _log(self, what: str, level: int, **fields: Field) -> None:
        event(_LOGGER, f"{self._noun}-{what}", level=level, **{self._noun: self._name, **fields})
