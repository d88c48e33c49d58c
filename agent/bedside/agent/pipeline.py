"""The path of a sample: a block arrives, is buffered, and closes windows, which go into the queues of their models.

Nothing here waits for a network or a model. Signal and decisions wait for no disk either: a `Committer` commits them
beside the loop. What commits at once, a session's begin or end or an alarm, waits for the disk, and first for
the group commit that is under way. A store that fails costs its own blocks, which are counted, and not their windows; a
window that cannot be decided costs that window.

Source: DESIGN section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from bedside.agent.alarms.desk import AlarmDesk
from bedside.agent.alarms.unwatched import Decider, some
from bedside.agent.api.follow import Followers
from bedside.agent.api.messages import prediction_message
from bedside.agent.buffer.rows import Prediction
from bedside.agent.buffer.store import BufferStore
from bedside.agent.freshness import Freshness
from bedside.agent.health.facts import ModelFacts, Prospect, StreamFacts
from bedside.agent.inference.engine import Engine
from bedside.agent.inference.model import ClosedWindow, Decision, Model
from bedside.agent.inference.worker import Fails
from bedside.agent.keeping import Keeper
from bedside.agent.rounds.models import ServedModel
from bedside.agent.serving.shadow import Shadow
from bedside.agent.windows.quality import QualityMonitor
from bedside.core.bundle.manifest import WindowSpec
from bedside.core.bundle.preprocessing import ChannelReference
from bedside.core.clock import Clock
from bedside.core.errors import BedsideError, StoreError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block, Event, Mark, Record, Unmapped
from bedside.ondevice.windows.cutter import WindowCutter
from bedside.ondevice.windows.fit import taken
from bedside.ondevice.windows.targets import Question


@dataclass(slots=True)
class _Stream:
    rate_hz: float = 0.0
    blocks: int = 0
    records: int = 0
    last_seen_s: float = 0.0
    quality: QualityMonitor = field(default_factory=QualityMonitor)


@dataclass(slots=True)
class _Slot:
    """What the sample path knows of one slot: one cutter per stream."""

    window: WindowSpec
    cutters: dict[StreamId, WindowCutter]
    reference: tuple[ChannelReference, ...]

    @property
    def gaps(self) -> int:
        return sum(cutter.gaps for cutter in self.cutters.values())


class Pipeline:
    """One device's sample path. Not thread-safe: it runs in the agent's loop.

    Attributes:
        engine: decides.
        shadows: candidates that decide beside it for nobody, by slot.
        prospects: what may come to serve, by slot.
        fails: called when the model of a slot fails at work, with the slot's name and the model.
        main: slot that the heartbeat tells of: the one that rounds train, or the first.
        faults: why a slot's model, or the one that should replace it, could not be loaded, by name.
        sources: streams that the configured sources deliver, also while they are silent.
        predictions: id of the newest prediction.
        last_prediction_s: monotonic time of it; None before the first of this process.
    """

    def __init__(
        self,
        buffer: BufferStore,
        clock: Clock,
        followers: Followers,
        last_id: int,
        *,
        alarms: AlarmDesk | None = None,
        queue_windows: int = 64,
        commit_due: Callable[[], object] | None = None,
        sources: Collection[str] = (),
    ) -> None:
        """Work on an open buffer.

        Args:
            buffer: takes what arrives and what is decided.
            clock: for latencies.
            followers: hear of every decision.
            last_id: number of the newest stored prediction.
            alarms: hold decisions and records against their rules; None for no alarms.
            queue_windows: windows of one model that may wait.
            commit_due: a `Committer`'s `flush_due`; None commits in the loop.
            sources: streams that the configured sources deliver, also while they are silent.
        """
        self._buffer = buffer
        self._clock = clock
        self._followers = followers
        self._alarms = alarms
        self._commit_due = commit_due or buffer.flush_due
        self.sources = frozenset(sources)
        self.engine = Engine(
            clock,
            queue_windows=queue_windows,
            decided=self._decided,
            lost=self._lost,
            fails=lambda name, model: self.fails(name, model),
        )
        self.shadows: dict[str, Shadow] = {}
        self.prospects: dict[str, Prospect] = {}
        self.fails: Fails = lambda _name, _model: None
        self._slots: dict[str, _Slot] = {}
        self._streams: dict[StreamId, _Stream] = {}
        self._keeper = Keeper(buffer)
        self._freshness = Freshness()
        self.main = ""
        self.faults: dict[str, BedsideError] = {}
        self.predictions = last_id
        self.last_prediction_s: float | None = None

    @property
    def store_error(self) -> BedsideError | None:
        """Why the buffer refuses; None while it takes everything."""
        return self._keeper.store_error

    @property
    def model_digest(self) -> bytes:
        """Which model decides in the slot `main`; empty while there is none."""
        worker = self.engine.slots.get(self.main)
        return worker.model.digest if worker is not None else b""

    def serve(self, served: ServedModel, streams: Sequence[str] = ()) -> None:
        """Decide with this model from now on; windows under way go on when they have the same form.

        Args:
            served: a model and its slot.
            streams: what it reads; empty = the stream that its manifest names.

        Raises:
            RefusedError: `too-many-models`.
        """
        names = [StreamId(name) for name in dict.fromkeys(streams or (served.window.stream,))]
        slot = self._slots.get(served.name)
        same_form = slot is not None and slot.window == served.window
        self.engine.serve(served.name, served.model, same_form=same_form)
        reference = tuple(served.reference)
        if slot is None or not same_form or list(slot.cutters) != names or slot.reference != reference:
            cutters = {name: WindowCutter(served.window, name) for name in names}
            self._slots[served.name] = _Slot(served.window, cutters, reference)
            for name in names if reference else ():  # what the stream was like until now is held against nothing
                stream = self._streams.setdefault(name, _Stream())
                stream.quality = QualityMonitor(reference, served.window.pick)
        self.faults.pop(served.name, None)
        self.main = self.main or served.name

    def served(self, name: str) -> tuple[Model, WindowSpec]:
        """What serves in a slot, and the windows that it takes.

        Raises:
            KeyError: nothing does.
        """
        return self.engine.slots[name].model, self._slots[name].window

    def streams_of(self, name: str) -> tuple[StreamId, ...]:
        """What a slot reads; empty where nothing serves."""
        slot = self._slots.get(name)
        return tuple(slot.cutters) if slot is not None else ()

    def release(self, name: str) -> None:
        """Serve a slot no longer."""
        self._slots.pop(name, None)
        self.engine.release(name)
        self.faults.pop(name, None)
        self.prospects.pop(name, None)
        if self.main == name:
            self.main = next(iter(self._slots), "")

    def questions(self) -> list[Question]:
        """To what serves, each bound to its stream: windows of these are worth keeping."""
        return [
            Question.to(self.engine.slots[of].model.head, msgspec.structs.replace(slot.window, stream=name))
            for of, slot in self._slots.items()
            for name in slot.cutters
        ]

    def consume(self, arrived: Event) -> None:
        """Take one event of a source."""
        if isinstance(arrived, Block):
            self._take_block(arrived)
        elif isinstance(arrived, Mark):
            self._keeper.mark(arrived)
        elif isinstance(arrived, Unmapped):
            self._buffer.quarantine(arrived)
        else:
            self._take_record(arrived)

    def flush_due(self) -> None:
        """Commit what has waited for a second, and let alarms grow old; a refusing disk is reported and tried again."""
        try:
            self._buffer.ahead.settle()
            self._commit_due()
        except StoreError as error:
            self._keeper.failed(error)
        if self._alarms is not None:
            self._alarms.tick()

    @property
    def deciders(self) -> Mapping[str, Decider]:
        """What is decided, by slot."""
        found = {}
        for name, slot in self._slots.items():
            head = self.engine.slots[name].model.head
            measures = head.task == "regression"
            labels, outputs = ((), head.labels) if measures else (head.labels, ())
            found[name] = Decider(labels, tuple(slot.cutters), outputs)
        return found

    @property
    def fed(self) -> frozenset[str]:
        """Streams that a source delivers, or that have arrived."""
        return self.sources.union(name for name, stream in self._streams.items() if stream.blocks or stream.records)

    def streams(self) -> list[StreamFacts]:
        """What arrived, by stream."""
        now_s = self._clock.monotonic_s()
        return [
            StreamFacts(
                stream=name,
                session_open=self._buffer.ahead.current(name) is not None,
                rate_hz=stream.rate_hz,
                blocks=stream.blocks,
                records=stream.records,
                gaps=max((slot.cutters[name].gaps for slot in self._slots.values() if name in slot.cutters), default=0),
                dropped_blocks=self._keeper.dropped[name],
                last_seen_age_ms=round((now_s - stream.last_seen_s) * 1000),
                quality=stream.quality.summary() if stream.blocks else None,
            )
            for name, stream in self._streams.items()
            if stream.blocks or stream.records
        ]

    def models(self) -> list[ModelFacts]:
        """How every slot does, and what could not be loaded."""
        facts = []
        for name, worker in self.engine.slots.items():
            slot, fault = self._slots[name], self.faults.get(name) or worker.error
            prospect = self.prospects.get(name, Prospect())
            facts.append(
                ModelFacts(
                    name=name,
                    digest=worker.model.digest,
                    streams=tuple(slot.cutters),
                    runtime=worker.model.runtime.name,
                    predictions=worker.predictions,
                    dropped_windows=worker.dropped,
                    waiting_windows=worker.waiting,
                    gaps=slot.gaps,
                    latencies=worker.latencies(),
                    error=fault.sentence if fault is not None else "",
                    idle=self._why_idle(slot),
                    prospect=prospect,
                )
            )
        absent = [(name, fault) for name, fault in self.faults.items() if name not in self._slots]
        return facts + [ModelFacts(name=name, error=fault.sentence) for name, fault in absent]

    def _why_idle(self, slot: _Slot) -> str:
        """Why a slot can decide nothing of a stream; empty where it can, or has not heard long enough to say."""
        fed, now_s = self.fed, self._clock.monotonic_s()
        for stream, cutter in slot.cutters.items():
            if stream not in fed:
                return f"reads stream {stream}, which no source feeds (streams here: {some(fed)})"
            if what := cutter.misfit(now_s):
                return f"takes {taken(slot.window)}; stream {stream} has {what}"
        return ""

    async def close(self, timeout_s: float) -> None:
        """Decide what waits, for at most so long."""
        await self.engine.close(timeout_s)

    def _take_block(self, block: Block) -> None:
        arrived_s = self._clock.monotonic_s()
        stream = self._streams.setdefault(block.stream, _Stream())
        stream.last_seen_s = arrived_s
        stream.blocks += 1
        session = self._keeper.block(block)
        if session is None:
            return
        stream.rate_hz = block.rate_hz
        stream.quality.observe(block)
        for name, slot in self._slots.items():
            cutter = slot.cutters.get(block.stream)
            if cutter is not None:
                for window in cutter.push(block, session, arrived_s):
                    self.engine.offer(name, window, cutter.gaps)

    def _take_record(self, record: Record) -> None:
        arrived_s = self._clock.monotonic_s()
        stream = self._streams.setdefault(record.stream, _Stream())
        stream.last_seen_s = arrived_s
        stream.records += 1
        session = self._keeper.record(record)
        if session is None or session != self._buffer.ahead.current(record.stream):
            return  # nobody's, or of a session that is over
        news = self._freshness.news(record, session, arrived_s)
        if news is None:
            return
        for name, slot in self._slots.items():
            cutter = slot.cutters.get(record.stream)
            if cutter is not None:
                for window in cutter.push_record(record, session, arrived_s):
                    self.engine.offer(name, window, cutter.gaps)
        if self._alarms is not None:
            self._alarms.recorded(news, session)

    def _decided(self, name: str, decision: Decision, stretch: int) -> None:
        window, now_s = decision.window, self._clock.monotonic_s()
        if window.session in self._buffer.erased:
            return
        prediction = Prediction(
            stream=StreamId(window.stream),
            session=SessionId(window.session),
            start_ns=window.start_ns,
            end_ns=window.end_ns,
            label=decision.answer.label,
            confidence=decision.answer.confidence,
            model=decision.model.digest,
            latency_s=now_s - window.closed_monotonic_s,
            model_name=name,
            outputs=decision.answer.outputs,
        )
        self.predictions = self._buffer.add_prediction(prediction)
        self.last_prediction_s = now_s
        self._followers.publish(prediction_message(prediction, self.predictions))
        if self._alarms is not None:
            self._alarms.decided(name, decision, stretch, self.predictions)
        if name in self.shadows:
            self.shadows[name].offer(decision)

    def _lost(self, window: ClosedWindow, counter: str) -> None:
        if window.session not in self._buffer.erased:
            self._buffer.count(StreamId(window.stream), window.session, counter, 1)
