"""What a source or a sink failed with, in a line: also what another package raises, whose errors may be anything."""

from __future__ import annotations

from bedside.core.errors import BedsideError
from bedside.service.text import bounded


def describe(error: BaseException) -> str:
    """A failure for the device's own users: code, sentence and remedy where it has them. Never raises."""
    try:
        text = error.diagnostics() if isinstance(error, BedsideError) else f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - it cannot even be shown
        text = type(error).__name__
    return bounded(text)
