"""Examples by client, those for training apart from those that are held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.authoring.data.spec import MAX_CLIENTS, MAX_EXAMPLE_BYTES, HeldOut, unusable
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.training.examples import Windows
from bedside.ondevice.training.scoring import Truth
from bedside.ondevice.windows.targets import Question

_SAMPLE: Final = 256
"""Examples that show which ranges the layers' inputs have."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set as a federation would have it.

    Attributes:
        training: examples by client.
        held_out: examples by client, of which no model has seen any.
        signal: physical values (rows, channels) of the training clients, as the stream has them; None of records.
    """

    training: Mapping[str, Windows]
    held_out: Mapping[str, Windows]
    signal: npt.NDArray[np.float64] | None = None

    def pooled(self) -> Windows:
        """All that is trained on, in one place."""
        parts = list(self.training.values())
        return Windows(np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts]))

    def sample(self) -> tuple[Float32, Truth]:
        """Up to 256 training examples, spread over all of them."""
        pooled = self.pooled()
        picked = np.unique(np.linspace(0, len(pooled) - 1, _SAMPLE).astype(np.int64))
        return pooled.take(picked)

    def class_weights(self, classes: int) -> tuple[float, ...]:
        """Weights by which every class that is there has the same part in the loss; their mean over examples is 1."""
        counts = np.bincount(self.pooled().y.astype(np.int64), minlength=classes)
        there = int((counts > 0).sum())
        return tuple(round(float(counts.sum() / there / count), 3) if count else 1.0 for count in counts)


class Gathering:
    """Takes examples one after the other, and shares them out."""

    def __init__(self, question: Question, held_out: HeldOut) -> None:
        self._question, self._rule = question, held_out
        self._x: dict[tuple[str, bool], list[Float32]] = {}
        self._y: dict[tuple[str, bool], list[int | Float32]] = {}
        self._bytes = 0

    def add(self, client: str, x: Float32, y: int | Float32, *, held: bool = False) -> None:
        """Take one example (L, C).

        Raises:
            ConfigError: `bad-data`: there are too many, or it is nobody's.
        """
        if not client:
            raise unusable("an example is nobody's: its client is empty", "name a hospital or person for each example")
        key = (client, held or client in self._rule.clients)
        self._bytes += x.nbytes
        if self._bytes > MAX_EXAMPLE_BYTES:
            raise unusable(f"the examples take more than {MAX_EXAMPLE_BYTES >> 30} GiB", "name fewer of them")
        self._x.setdefault(key, []).append(x)
        self._y.setdefault(key, []).append(y)
        if len(self._x) > 2 * MAX_CLIENTS:
            raise unusable(f"there are more than {MAX_CLIENTS} clients", "name the column of sites or persons")

    def done(self, signal: npt.NDArray[np.float64] | None = None) -> Dataset:
        """All of them.

        Raises:
            ConfigError: `bad-data`: nothing is left to train on, or a client that is held out is not there.
        """
        clients = sorted({client for client, _ in self._x})
        for name in self._rule.clients:
            if name not in clients:
                raise unusable(f"the client {name} that is held out has no examples", f"name one of {_few(clients)}")
        parts = {key: self._windows(key) for key in sorted(self._x)}
        training, held_out = ({c: part for (c, held), part in parts.items() if held is one} for one in (False, True))
        for number, client in enumerate(sorted(training) if self._rule.share else ()):
            kept, drawn = _drawn(training[client], self._rule, number)
            if len(drawn):
                held_out[client] = _joined(held_out[client], drawn) if client in held_out else drawn
                training[client] = kept
        training = {client: part for client, part in training.items() if len(part)}
        if not training:
            raise unusable("there are no examples to train on", "check the labels' names, and what is held out")
        return Dataset(training, held_out, signal)

    def _windows(self, key: tuple[str, bool]) -> Windows:
        answers = self._y[key]
        one_class = self._question.task == "classification"
        y = np.array(answers, np.int64) if one_class else np.array(answers, np.float32).reshape(len(answers), -1)
        return Windows(np.stack(self._x[key]), y)


def _drawn(part: Windows, rule: HeldOut, number: int) -> tuple[Windows, Windows]:
    order = np.random.default_rng((rule.seed, number)).permutation(len(part))
    count = round(rule.share * len(part))
    held, kept = np.sort(order[:count]), np.sort(order[count:])
    return Windows(*part.take(kept)), Windows(*part.take(held))


def _joined(one: Windows, other: Windows) -> Windows:
    return Windows(np.concatenate([one.x, other.x]), np.concatenate([one.y, other.y]))


def _few(names: list[str]) -> str:
    return ", ".join(names[:20])


Named = Callable[[str, str], int | None]
"""Class of a word that the data have, and where that stands; None for one that is left out."""


def class_names(question: Question, classes: Mapping[str, str], leave_out: tuple[str, ...]) -> Named:
    """How words of the data become classes of the model.

    Raises:
        ConfigError: `bad-data`: a word is no class, here or when it is met.
    """
    places = {name: place for place, name in enumerate(question.labels)}
    if wrong := sorted(set(classes.values()) - places.keys()):
        raise unusable(f"classes names {wrong[0]}, which is no label of the model", f"it has {_few(list(places))}")

    def find(word: str, where: str) -> int | None:
        if word in leave_out:
            return None
        place = places.get(classes.get(word, word))
        if place is None:
            raise unusable(
                f"{where}: {word[:64]!r} is no label of the model",
                f"map it to one of {_few(list(places))} in [classes], or name it in leave_out",
            )
        return place

    return find
