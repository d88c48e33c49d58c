"""What a window is an example of: its class, the labels that hold in it, or the values that were measured.

A label that a person or program gave comes first. Where there is none, a model of records finds its answer in the
record itself: in fields that are named like its outputs and are no inputs of it.

    classification   the one class that labels the window (`Labeller`); a field names its class where it is above .5,
                     and of two classes one field is enough
    multilabel       1 where labels of that name cover at least `min_cover` of the window, 0 where they cover at most
                     the rest, 1 - min_cover. Between the two nobody can say, and there is no example; neither is there
                     one in a window that nobody has looked at: labels of any name, for instance `none`, must cover it
    regression       the mean of the labelled values of that name, by how much of the window each covers; together they
                     must cover `min_cover` of it. A field counts where it has the target's unit, or none. A value far
                     outside of the target's scale is a slip of the pen, or of the unit: its window is no example

A value that a label carries is for regressions alone; other tasks do not see that label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from bedside.core.bundle.manifest import Manifest, Targets, WindowSpec
from bedside.core.bundle.training import Task
from bedside.ondevice.heads import Head
from bedside.ondevice.windows.cutter import Window
from bedside.ondevice.windows.labelling import Label, Labeller, Touching

Float32 = npt.NDArray[np.float32]
Answer = int | Float32
"""Index of a class, or (outputs,) float32: 1 and 0 of labels, scaled values of a regression."""

MAX_SCALED: Final = 1e4
"""Of a scaled value: those of one target are about as large as 1."""
_HOLDS: Final = 0.5
"""A field says yes above it."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked about a window.

    Attributes:
        window: what it sees.
        labels: names of its outputs; none where only the windows that anybody labelled are wanted.
        task: what the outputs are.
        targets: of a regression: units, and how they are scaled.
    """

    window: WindowSpec
    labels: tuple[str, ...] = ()
    task: Task = "classification"
    targets: Targets | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """What a bundle's models are asked."""
        return cls.to(Head.of(manifest), manifest.window)

    @classmethod
    def to(cls, head: Head, window: WindowSpec) -> Self:
        """What a model with this head is asked about windows."""
        return cls(window, head.labels, head.task, head.targets)


class Answers:
    """Finds the answers for windows of one session.

    Attributes:
        possible: whether there can be any.
        far: windows so far whose value is too far outside of its target's scale.
    """

    def __init__(self, question: Question, labels: Sequence[Label], min_cover: float) -> None:
        """Prepare for the labels of a session that hold.

        Args:
            question: what is to be answered.
            labels: of the stream.
            min_cover: share of a window that labels must cover.
        """
        valued = question.task == "regression"
        self._question = question
        self._min_cover = min_cover
        self.far = 0
        self._places = {name: place for place, name in enumerate(question.labels)}
        self._labeller = Labeller(
            question.window, [label for label in labels if (label.value is not None) == valued], min_cover
        )
        self.possible = bool(labels) or bool(asked_fields(question.window, question.labels))

    def answer(self, window: Window) -> Answer | None:
        """The answer for a window; None where there is none, and it is no example."""
        if self._question.task == "classification":
            name = self._labeller.label_of(window)
            return self._places.get(name) if name is not None else self._class_in_record(window)
        if self._question.task == "multilabel":
            return self._labels_in(window)
        return self._values_in(window)

    def kept_as(self, window: Window) -> str | None:
        """The name under which a window outlives its signal, may be empty; None where it does not.

        Of a classification that is any labelled window: another model may know the class.
        """
        name = self._labeller.label_of(window) if self._question.task == "classification" else None
        if name is None and self.answer(window) is not None:
            return ""
        return name

    def _class_in_record(self, window: Window) -> int | None:
        fields = self._fields_of(window)
        held = [place for name, place in self._places.items() if fields.get(name, 0.0) > _HOLDS]
        if not fields or len(held) > 1:
            return None
        if not held and len(fields) == 1 and len(self._places) == 2:
            return 1 - self._places[next(iter(fields))]
        return held[0] if held else None

    def _labels_in(self, window: Window) -> Float32 | None:
        touching = self._labeller.touching(window)
        if _covered(touching) >= self._min_cover:
            shares = [_covered([one for one in touching if one.label.label == name]) for name in self._places]
            if any(1 - self._min_cover < share < self._min_cover for share in shares):
                return None
            return np.array([share >= self._min_cover for share in shares], np.float32)
        fields = self._fields_of(window)
        if fields.keys() != self._places.keys():
            return None
        return np.array([fields[name] > _HOLDS for name in self._places], np.float32)

    def _values_in(self, window: Window) -> Float32 | None:
        targets = self._question.targets
        touching, fields = self._labeller.touching(window), self._fields_of(window)
        values: list[float | None] = []
        for name in self._places:
            said = _mean([one for one in touching if one.label.label == name], self._min_cover)
            values.append(fields.get(name) if said is None else said)
        if targets is None or None in values:
            return None
        scaled = (np.array(values, np.float64) - targets.offset) * targets.scale
        if not np.isfinite(scaled).all():
            return None
        if np.abs(scaled).max() > MAX_SCALED:
            self.far += 1
            return None
        return scaled.astype(np.float32)

    def _fields_of(self, window: Window) -> dict[str, float]:
        """What the record says of the outputs."""
        return answering_fields(window, self._question)


def asked_fields(spec: WindowSpec, labels: Sequence[str]) -> tuple[str, ...]:
    """The outputs that a record may answer by a field: those of a model of records that are no inputs."""
    return tuple(name for name in labels if name not in spec.fields) if spec.fields else ()


def answering_fields(window: Window, question: Question) -> dict[str, float]:
    """The values of a window's record that answer: there, finite, and in the target's unit or without one."""
    record, targets = window.record, question.targets
    if record is None:
        return {}
    units = dict(zip(question.labels, targets.unit, strict=True)) if targets is not None else {}
    return {
        name: value
        for name in asked_fields(question.window, question.labels)
        if np.isfinite(value := record.values.get(name, np.nan))
        and (name not in units or record.units.get(name, units[name]) == units[name])
    }


def _covered(touching: Sequence[Touching]) -> float:
    """Share of a window that labels cover together."""
    covered, until = 0.0, 0.0
    for one in sorted(touching, key=lambda one: one.first):
        covered += max(0.0, one.last - max(one.first, until))
        until = max(until, one.last)
    return covered


def _mean(touching: Sequence[Touching], min_cover: float) -> float | None:
    if _covered(touching) < min_cover:
        return None
    weights = [one.last - one.first for one in touching]
    return float(np.average([one.label.value or 0.0 for one in touching], weights=weights))
