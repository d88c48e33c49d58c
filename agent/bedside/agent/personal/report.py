"""What a device says of its own part of a model, to its own users: the global one against the personal one."""

from __future__ import annotations

import math

import msgspec

from bedside.core.limits import MAX_WIRE_INTEGER


class Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one form of a model does on the validation windows.

    Attributes:
        score: as the gate has it, higher is better.
        loss: mean per window.
        ece: expected calibration error, 0 to 1; None of a regression.
    """

    score: float
    loss: float
    ece: float | None = None


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one run has found. It stays on the device.

    Attributes:
        at_s: Unix time.
        score: what the scores are, for instance `balanced accuracy`; empty where nothing was measured.
        windows: validation windows that both were judged on.
        sessions: that these come from.
        trained_windows: that the suffix was tuned on; 0 when it was not.
        suffix: that was tuned; empty as well.
        of_all: the global model, with this device's local tensors.
        tuned: the same with the tuned suffix; None when there is none.
        serves: what serves now, with its temperature; None where nothing was measured.
        used: whether the tuned suffix serves.
        sentence: why, or why nothing was done.
    """

    at_s: int
    sentence: str
    score: str = ""
    windows: int = 0
    sessions: int = 0
    trained_windows: int = 0
    suffix: str = ""
    of_all: Figures | None = None
    tuned: Figures | None = None
    serves: Figures | None = None
    used: bool = False

    def __post_init__(self) -> None:
        numbers = (self.at_s, self.windows, self.sessions, self.trained_windows)
        figures = [one for one in (self.of_all, self.tuned, self.serves) if one is not None]
        values = [value for one in figures for value in (one.score, one.loss, one.ece or 0.0)]
        if not 0 <= min(numbers) <= max(numbers) <= MAX_WIRE_INTEGER or not all(map(math.isfinite, values)):
            raise ValueError("a number of a report is out of bounds")
