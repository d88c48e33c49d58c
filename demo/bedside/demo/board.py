"""What the screen shows: the newest of everything, written by the run and read by whoever draws it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from bedside.demo.cast import Cast
from bedside.demo.eyes import DeviceEye
from bedside.demo.result import Scene, View
from bedside.proto.v1.operator_pb2 import RoundDetail

_KEPT_SENTENCES: Final = 6


@dataclass
class Board:
    """Mutable; one writer, any number of readers.

    Attributes:
        cast: who takes part.
        rounds_wanted: rounds that this run wants to open.
        eyes: by device name; empty during set-up.
        rules: per hospital, its policy in a few words.
        detail: the newest round, as the coordinator tells it; None before the first.
        accuracies: per opened round, accuracy of its checkpoint on the held-out wearers.
        view: what the coordinator sees; None before the first opened round.
        scenes: the scenes that are over.
        sentences: what was said last, oldest first.
    """

    cast: Cast
    rounds_wanted: int
    eyes: dict[str, DeviceEye] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    detail: RoundDetail | None = None
    accuracies: dict[int, float] = field(default_factory=dict)
    view: View | None = None
    scenes: list[Scene] = field(default_factory=list)
    sentences: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_SENTENCES))
