"""The path of a sample: a block arrives, is buffered, closes windows, and is decided on, all before the next one.

Nothing here waits for a network or for a disk longer than one group commit; a store that fails costs its own blocks,
which are counted, and a window that cannot be decided costs that window.

Source: DESIGN section 4.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bedside.agent.api.follow import Followers
from bedside.agent.buffer.rows import Prediction
from bedside.agent.buffer.store import BufferStore
from bedside.agent.health.facts import StreamFacts
from bedside.agent.inference.engine import Decision, Engine
from bedside.agent.rounds.models import ServedModel
from bedside.agent.windows.cutter import WindowCutter
from bedside.core.clock import Clock
from bedside.core.errors import BedsideError, StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block, Mark, Record
from bedside.proto.v1 import local_pb2
from bedside.service.logs import event

_LOGGER = logging.getLogger(__name__)
_RECOVERED_BLOCKS: Final = 250
"""Good blocks after which a failed store counts as sound again: ten seconds of a waveform."""


@dataclass(slots=True)
class _Stream:
    rate_hz: float = 0.0
    blocks: int = 0
    dropped_blocks: int = 0
    last_seen_s: float = 0.0


class Pipeline:
    """One device's sample path. Not thread-safe: it runs in the agent's loop.

    Attributes:
        predictions: id of the newest prediction.
        last_prediction_s: monotonic time of it; None before the first of this process.
        store_error: why the buffer refuses; None while it takes everything.
        decide_error: why the last window was not decided; None when it was.
        unused_records: records that arrived while no model takes them.
    """

    def __init__(self, buffer: BufferStore, clock: Clock, followers: Followers, last_id: int) -> None:
        self._buffer = buffer
        self._clock = clock
        self._followers = followers
        self._engine: Engine | None = None
        self._cutter: WindowCutter | None = None
        self._streams: dict[StreamId, _Stream] = {}
        self._good_blocks = 0
        self.predictions = last_id
        self.last_prediction_s: float | None = None
        self.store_error: BedsideError | None = None
        self.decide_error: BedsideError | None = None
        self.unused_records = 0

    @property
    def model_digest(self) -> bytes:
        """Which model decides; empty while there is none."""
        return self._engine.model.digest if self._engine is not None else b""

    def serve(self, served: ServedModel) -> None:
        """Decide with this model from the next window on; windows under way go on when they have the same form."""
        if self._engine is None:
            self._engine = Engine(served.model, self._clock)
        else:
            self._engine.swap(served.model)
        if self._cutter is None or self._cutter.spec != served.window:
            self._cutter = WindowCutter(served.window)

    def consume(self, arrived: Block | Record | Mark) -> None:
        """Take one event of a source."""
        if isinstance(arrived, Block):
            self._take_block(arrived)
        elif isinstance(arrived, Mark):
            self._take_mark(arrived)
        else:
            self.unused_records += 1

    def flush_due(self) -> None:
        """Commit what has waited for a second; a refusing disk is reported and tried again."""
        try:
            self._buffer.flush_due()
        except StoreError as error:
            self._store_failed(error)

    def streams(self) -> list[StreamFacts]:
        """What arrived, by stream."""
        now_s = self._clock.monotonic_s()
        cutter = self._cutter
        return [
            StreamFacts(
                stream=name,
                session_open=self._buffer.sessions.current(name) is not None,
                rate_hz=stream.rate_hz,
                blocks=stream.blocks,
                gaps=cutter.gaps if cutter is not None and cutter.spec.stream == name else 0,
                dropped_blocks=stream.dropped_blocks,
                last_seen_age_ms=round((now_s - stream.last_seen_s) * 1000),
            )
            for name, stream in self._streams.items()
        ]

    def _take_block(self, block: Block) -> None:
        arrived_s = self._clock.monotonic_s()
        stream = self._streams.setdefault(block.stream, _Stream())
        stream.rate_hz, stream.last_seen_s = block.rate_hz, arrived_s
        stream.blocks += 1
        try:
            session = self._buffer.append(block)
        except StoreError as error:
            stream.dropped_blocks += 1
            self._store_failed(error)
            return
        self._store_held()
        if self._cutter is not None and self._engine is not None:
            for window in self._cutter.push(block, session, arrived_s):
                try:
                    decision = self._engine.decide(window)
                except BedsideError as error:
                    self.decide_error = error
                    continue
                self.decide_error = None
                self._record(decision)

    def _take_mark(self, mark: Mark) -> None:
        try:
            self._buffer.mark(mark)
        except StoreError as error:
            self._store_failed(error)

    def _record(self, decision: Decision) -> None:
        prediction = Prediction(
            stream=StreamId(decision.stream),
            session=SessionId(decision.session),
            start_ns=decision.start_ns,
            end_ns=decision.end_ns,
            label=decision.label,
            confidence=decision.confidence,
            model=decision.model_digest,
            latency_s=decision.latency_s,
        )
        self.predictions = self._buffer.add_prediction(prediction)
        self.last_prediction_s = self._clock.monotonic_s()
        self._followers.publish(prediction_message(prediction, self.predictions))

    def _store_failed(self, error: BedsideError) -> None:
        if self.store_error is None:
            event(_LOGGER, "buffer-refuses", level=logging.ERROR, error=error)
        self.store_error = error
        self._good_blocks = 0

    def _store_held(self) -> None:
        self._good_blocks += 1
        if self.store_error is not None and self._good_blocks >= _RECOVERED_BLOCKS:
            self.store_error = None


def prediction_message(prediction: Prediction, number: int) -> local_pb2.Prediction:
    """A prediction as the local API has it."""
    return local_pb2.Prediction(
        id=number,
        stream=prediction.stream,
        start_ns=prediction.start_ns,
        end_ns=prediction.end_ns,
        label=prediction.label,
        confidence_e6=round(prediction.confidence * 1_000_000),
        model_digest=prediction.model,
        latency_us=max(0, round(prediction.latency_s * 1_000_000)),
    )


def prediction_messages(predictions: Iterable[Prediction]) -> list[local_pb2.Prediction]:
    """Stored predictions as the local API has them."""
    return [prediction_message(prediction, prediction.number) for prediction in predictions]
