"""What callers ask of the served models: to decide a window of their own, and why a window was decided as it was.

Nothing of this runs in the agent's loop or ahead of the windows of a stream: a batch at a time, beside them.

An explanation is made by the model that decided. Once another one serves in its slot, there is none: what the new
parameters look at is no reason for what the old ones said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Final

import numpy as np

from bedside.agent.api.messages import output_message
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Explanation, Prediction
from bedside.agent.buffer.store import BufferStore
from bedside.agent.inference.answer import Answer
from bedside.agent.inference.model import Model
from bedside.agent.inference.occlusion import METHOD, NEAR_METHOD, borders, covered, effects
from bedside.agent.pipeline import Pipeline
from bedside.agent.windows.recut import FAR_BACK_S, LOOK_BACK_S, Recut, recut, remembers
from bedside.core.bundle.manifest import WindowSpec
from bedside.core.clock import Clock
from bedside.core.errors import MalformedError, ProtocolError
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.windows.shaping import Shaper
from bedside.proto.v1 import local_pb2
from bedside.service.text import bounded

_MILLION = 1_000_000
_ATTEMPTS: Final = ((False, LOOK_BACK_S), (True, LOOK_BACK_S), (False, FAR_BACK_S))
"""Whether to commit before, and how far to look back."""
_SAME: Final = 1e-6
"""A window is the decided one where its answer comes out again, but for float32's rounding."""


class ModelAnswers:
    """Answers of one device's models. Use from the agent's loop.

    Args:
        pipeline: knows what serves.
        buffer: where explanations are kept.
        reader: of the same file, for the loop.
        open_reader: opens another one, for a thread.
        clock: for the time an answer took.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        buffer: BufferStore,
        reader: BufferReader,
        open_reader: Callable[[], BufferReader],
        clock: Clock,
    ) -> None:
        self._pipeline = pipeline
        self._buffer = buffer
        self._reader = reader
        self._open_reader = open_reader
        self._clock = clock

    async def predict(self, model: str, values: Float32) -> local_pb2.PredictResponse:
        """Decide one window of the caller's own; nothing of it is stored.

        It goes through the stages of a window (detrend, normalise, offset and scale), not through those of a stream:
        resampled and filtered it must be already, and intervals between beats are its last channels.

        Args:
            model: name of a slot; may be empty when one serves.
            values: (length, channels) float32, in the stream's physical unit.

        Raises:
            ProtocolError: `no-such-model`, `which-model`.
            MalformedError: `bad-window`.
        """
        began_s = self._clock.monotonic_s()
        name = self._name(model)
        served, spec = self._pipeline.served(name)
        x = _shaped(spec, values)
        (said,) = await self._pipeline.engine.call(lambda: served.answers(x[np.newaxis]))
        answer = Answer(served.head, said)
        return local_pb2.PredictResponse(
            model=name,
            model_digest=served.digest,
            label=answer.label,
            probabilities=[
                local_pb2.ClassProbability(label=label, probability_e6=round(share * _MILLION))
                for label, share in answer.classes.items()
            ],
            outputs=map(output_message, answer.outputs),
            latency_us=max(0, round((self._clock.monotonic_s() - began_s) * _MILLION)),
        )

    async def explain(self, prediction: int, segments: int, output: str = "") -> local_pb2.Explanation:
        """Why an output of a stored prediction came out as it did; the last that was asked for is kept.

        Args:
            prediction: its number.
            segments: pieces of time that are covered.
            output: name of a class, a label, or a value; empty for the label of the prediction, or, where that has
                none, for the model's first one.

        Raises:
            ProtocolError: `no-such-prediction`; `no-such-output`; `other-model` when what decided serves no longer;
                `signal-gone`; `window-not-found` where the signal is there, and no window in it that would be decided
                alike.
            StoreError: `store-read`, `store-write`.
        """
        found = self._find(prediction)
        kept = self._reader.explanation(prediction)
        model, spec = self._decider(found)
        name = output or found.label or model.labels[0]
        if name not in model.labels:
            raise ProtocolError(
                "no-such-output",
                f"the model of prediction {prediction} has no output {bounded(name, 64)!r}",
                remedy=f"it has {', '.join(model.labels[:12])}",
            )
        pieces = len(borders(spec.length, segments)) - 1
        if kept is None or len(kept.weights) != pieces or (kept.output or found.label) != name:
            kept = Explanation(prediction, found.session, *await self._weigh(found, model, spec, name, pieces), name)
            if not self._buffer.put_explanation(kept):
                raise _gone(prediction)
        unit = model.head.units[model.labels.index(name)]
        told = [float(effect) for effect in kept.weights.ravel()]
        return local_pb2.Explanation(
            prediction_id=prediction,
            method=kept.method,
            segments=kept.weights.shape[0],
            channels=kept.weights.shape[1],
            effect_e6=[] if unit else [round(effect * _MILLION) for effect in told],
            effect=told if unit else [],
            output=name,
            unit=unit,
            fields=spec.fields,
        )

    async def _weigh(
        self, found: Prediction, model: Model, spec: WindowSpec, name: str, segments: int
    ) -> tuple[str, Float32]:
        """How it was found, and the effects."""
        call, place = self._pipeline.engine.call, model.labels.index(name)
        x, answers, method = await self._decided(found, model, spec)
        parts = [(await call(partial(model.answers, batch)))[:, place] for batch in covered(x, segments)]
        return method, effects(float(answers[place]), np.concatenate(parts), spec.channels)

    async def _decided(self, found: Prediction, model: Model, spec: WindowSpec) -> tuple[Float32, Float32, str]:
        """The window that was decided, what the model says of it, and what to call an explanation of it."""
        call = self._pipeline.engine.call
        nearest: tuple[float, Float32, Float32] | None = None
        cut: Recut | None = None
        for flush, look_back_s in _ATTEMPTS:
            if flush:
                self._buffer.flush()  # the newest signal may still wait for its commit
            elif look_back_s > LOOK_BACK_S and not remembers(spec):
                break
            cut = await call(partial(self._recut, found, spec, look_back_s, model.labels))
            if cut is None or cut.window is None:
                continue
            x = cut.window.values
            said = (await call(partial(model.answers, x[np.newaxis])))[0]
            answer = Answer(model.head, said)
            beside = answer.beside(found)
            if cut.exact and beside <= _SAME:
                return x, said, METHOD
            if answer.label == found.label and (nearest is None or beside < nearest[0]):
                nearest = beside, x, said
        if nearest is None:
            raise _gone(found.number) if cut is None else _not_found(found.number)
        return nearest[1], nearest[2], NEAR_METHOD

    def _recut(self, found: Prediction, spec: WindowSpec, look_back_s: float, labels: Sequence[str]) -> Recut | None:
        """In a thread, with a connection of its own."""
        with closing(self._open_reader()) as reader:
            return recut(reader, spec, found, look_back_s, labels)

    def _find(self, number: int) -> Prediction:
        found = self._reader.prediction(number)
        if found is None and 0 < number <= self._pipeline.predictions:
            self._buffer.flush()
            found = self._reader.prediction(number)
        if found is None:
            raise ProtocolError(
                "no-such-prediction",
                f"there is no prediction {number}",
                remedy="bedside agent predictions list DIRECTORY",
            )
        return found

    def _decider(self, found: Prediction) -> tuple[Model, WindowSpec]:
        """The slot whose model made a prediction."""
        for name, worker in self._pipeline.engine.slots.items():
            if worker.model.digest == found.model:
                return self._pipeline.served(name)
        raise ProtocolError(
            "other-model",
            f"the model that made prediction {found.number} does not serve any more",
            remedy="explain a prediction of a model that serves",
        )

    def _name(self, model: str) -> str:
        slots = self._pipeline.engine.slots
        if model in slots:
            return model
        serving = ", ".join(slots) or "none"
        if model or not slots:
            raise ProtocolError("no-such-model", f"no model {model or 'at all'} serves", remedy=f"serving: {serving}")
        if len(slots) > 1:
            raise ProtocolError("which-model", "several models serve: name one", remedy=f"serving: {serving}")
        return next(iter(slots))


def _shaped(spec: WindowSpec, values: Float32) -> Float32:
    """A caller's window as the model sees it, by the code that shapes a stream's."""
    if values.shape != (spec.length, spec.channels):
        told = "x".join(map(str, values.shape))
        turned = ", transposed" if values.shape == (spec.channels, spec.length) else ""
        raise MalformedError(
            "bad-window",
            f"a window of {told} values is not {spec.length} samples of {spec.channels} channels{turned}",
            remedy=f"give an array of shape ({spec.length}, {spec.channels}): a row per sample, a column per channel",
        )
    if not np.isfinite(values).all():
        raise MalformedError("bad-window", "the window holds a value that is not finite", remedy="fill gaps first")
    return Shaper(spec).given(values.astype(np.float64))


def _gone(number: int) -> ProtocolError:
    return ProtocolError(
        "signal-gone",
        f"what prediction {number} was made from is not in the buffer any more",
        remedy="explain newer predictions, or raise buffer.cap_mib or buffer.raw_hours",
    )


def _not_found(number: int) -> ProtocolError:
    return ProtocolError(
        "window-not-found",
        f"the signal of prediction {number} is there, but cuts no window that the model would decide alike: what its"
        " filters or beats remembered has expired, or the model began in the middle",
        remedy="explain newer predictions, or raise buffer.cap_mib or buffer.raw_hours",
    )
