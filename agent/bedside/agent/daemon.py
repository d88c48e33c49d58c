"""The agent's process: sources, windows, inference and buffer in one loop; beside it the link, which may be away.

Nothing that the link does, or fails to do, reaches the sample path. Training happens in a short-lived child. The group
commit of the buffer runs in a thread, so that a slow disk delays no decision; one that hangs fails `buffer`.

Source: DESIGN sections 3, 4 and 8.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bedside.agent.alarms.desk import AlarmDesk
from bedside.agent.alarms.rules import check_rules
from bedside.agent.api.alarms import AlarmCalls
from bedside.agent.api.follow import AlarmFollowers, Followers
from bedside.agent.api.labels import LabelCalls
from bedside.agent.api.messages import prediction_messages
from bedside.agent.api.models import ModelCalls
from bedside.agent.api.personal import PersonalCalls
from bedside.agent.api.predictions import PredictionCalls
from bedside.agent.api.quarantine import QuarantineCalls
from bedside.agent.api.server import AgentServicer, Calls, start_api
from bedside.agent.api.sessions import SessionCalls
from bedside.agent.api.sinks import SinkCalls
from bedside.agent.api.status import BufferGauge
from bedside.agent.buffer.committer import Committer
from bedside.agent.buffer.configured import open_store
from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.labels import Labels
from bedside.agent.buffer.plausibility import Known, known_of
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.config import BUFFER_NAME, AgentConfig
from bedside.agent.device_time import DeviceTime
from bedside.agent.erasure import erase_session, unlearn
from bedside.agent.health.facts import COMPONENTS, AgentFacts
from bedside.agent.health.heartbeat import Detail, stricter
from bedside.agent.health.inputs import SourceSetup
from bedside.agent.health.observer import Observer, Parts
from bedside.agent.health.runs import RunNote
from bedside.agent.inference.answers import ModelAnswers
from bedside.agent.naming import configured_streams
from bedside.agent.personal.desk import PersonalDesk, Setting
from bedside.agent.personal.files import PersonalFiles
from bedside.agent.pipeline import Pipeline
from bedside.agent.reload import Reload, Working
from bedside.agent.rounds.models import ModelStore
from bedside.agent.serving.gate import Gate
from bedside.agent.serving.start import Serving
from bedside.agent.sinks.engine import SinkEngine
from bedside.agent.sources.building import SourceBuilder
from bedside.agent.sources.kind import SourceGauge
from bedside.agent.sources.registry import typed_source
from bedside.agent.sources.supervisor import Supervisor
from bedside.agent.training.trainer import Trainer
from bedside.agent.uplink import Uplink
from bedside.agent.windows.retention import Retention, RetentionRules
from bedside.agent.writer import become_writer
from bedside.core.clock import Clock, Entropy
from bedside.core.errors import BedsideError, ConfigError, UnavailableError
from bedside.core.ids import SessionId
from bedside.core.policy import SitePolicy
from bedside.proto.v1 import local_pb2
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.config import config_digest
from bedside.service.health import Health, Level
from bedside.service.identity import DIRECTORY_NAME, find_identity
from bedside.service.link.server import LinkServer
from bedside.service.logs import event
from bedside.service.notify import Notifier
from bedside.service.policy_file import read_policy
from bedside.service.scrape import ScrapeServer

if TYPE_CHECKING:
    from bedside.agent.health.pulse import Pulse

_LOGGER = logging.getLogger(__name__)

FLUSH_INTERVAL_S: Final = 0.02
"""Seconds between two looks at what must be committed: of the 100 ms that a second of signal may take to be durable,
blocks of 40 ms take up to two thirds."""

MODELS_FIRST_S: Final = 5.0
"""Seconds in which models may load before samples are taken; a new bundle may take longer, and samples do not wait."""

DRAIN_S: Final = 2.0
"""Seconds in which windows that wait at the end are still decided; what is left is counted."""

RETENTION_INTERVAL_S: Final = 60.0
"""Seconds between two looks whether something has expired."""
RETENTION_PAUSE_S: Final = 0.1
"""Seconds between two steps of retention: samples come first."""

_PAGE_ROWS: Final = 500
_CALL_CLOCK_TICKS: Final = 50
_NS_PER_S: Final = 1_000_000_000


class Agent:
    """One device, assembled.

    Attributes:
        reload: takes agent.toml up again.

    Raises:
        ConfigError: `not-initialised`, `key-mode`, `alarm-rule`, or from a source's configuration.
        StoreError: a database cannot be opened.
    """

    def __init__(self, directory: Path, config: AgentConfig, clock: Clock, entropy: Entropy, version: str) -> None:
        check_rules(config.alarms)
        self._directory = directory
        self._config = config
        self._clock = clock
        self._entropy = entropy
        identity = find_identity(config.state_dir / DIRECTORY_NAME, Role.ROLE_DEVICE)
        self._health = Health(clock, COMPONENTS)
        self._notifier = Notifier(clock)
        self._followers = Followers()
        self._alarm_followers = AlarmFollowers()
        keys = load_key_ring(identity.directory)
        database = config.state_dir / BUFFER_NAME
        self._buffer = open_store(config, keys, clock, entropy)
        self._time = DeviceTime(config.state_dir, clock)
        mended = self._buffer.sessions.mend_ends(self._time.plausible_until_ns())
        if mended:
            event(_LOGGER, "sessions-mended", level=logging.WARNING, sessions=mended)
        self._committer = Committer(self._buffer, clock)
        self._retention = Retention(database, keys, RetentionRules.of(config.buffer), entropy)
        self._reader = BufferReader(database, keys)
        self._open_reader = lambda: BufferReader(database, keys)
        last = self._reader.last_prediction()
        options = [typed_source(source) for source in config.sources]
        builder = SourceBuilder(directory, config.state_dir, clock, self._buffer, self._committer, self._time)
        self._alarms = AlarmDesk(config.alarms, self._buffer, clock, self._alarm_followers)
        self._pipeline = Pipeline(
            self._buffer,
            clock,
            self._followers,
            last.number if last is not None else 0,
            alarms=self._alarms,
            queue_windows=config.inference.queue_windows,
            commit_due=self._committer.flush_due,
            sources=[stream for one in options for stream in one.streams()],
        )
        own = self._own_files = PersonalFiles(config.state_dir, keys)
        self._models = ModelStore(config.state_dir, wish=config.inference.runtime, personal=own)
        gate = Gate(config.state_dir, identity.directory, config.serving, config.inference.runtime, clock)
        self._serving = Serving(config, self._models, self._pipeline, self._policy, gate)
        gauges = {source.name: SourceGauge() for source in config.sources}
        built = [
            builder.build(one.kind, its, gauges[one.name]) for one, its in zip(config.sources, options, strict=True)
        ]
        self._supervisor = Supervisor(built, self._pipeline.consume, clock, gauges=gauges)
        self._runs = RunNote(config.state_dir)
        self._trainer = Trainer(config.training, config.state_dir, clock, lambda: self._observer.reading())
        setting = Setting(
            config.personal, config.state_dir, identity.directory, config.inference.runtime,
            config.serving.gate_min_windows, config.training.enabled,
        )  # fmt: skip
        self._personal = PersonalDesk(
            setting, self._models, own, self._trainer, clock, self._serving.streams_of,
            lambda error: self._report("trainer", error),
        )  # fmt: skip
        self._buffer.doubted = self._doubt
        self._personal.reopen, self._serving.desk.prepare = self._serving.desk.reopen, self._personal.count
        self._uplink = Uplink(
            directory, config, identity, self._models, self._trainer, clock, entropy,
            on_model=self._serving.take, report=self._report, observe=self._facts, detail=self._detail,
        )  # fmt: skip
        self._sinks = SinkEngine(
            config, directory, self._buffer, keys, clock, entropy, identity.subject if config.sinks else ""
        )
        setups = {
            source.name: SourceSetup(source.kind, its.streams())
            for source, its in zip(config.sources, options, strict=True)
        }
        parts = Parts(
            identity,
            self._buffer,
            self._reader,
            self._pipeline,
            self._alarms,
            self._supervisor,
            self._uplink.newest,
            self._runs,
            self._time,
            setups,
            self._trainer,
            self._sinks.facts,
            models_come=config.link.enabled or bool(config.model or config.models),
        )
        self._observer = Observer(parts, self._health, clock, version, config_digest(config))
        self._streams = set(configured_streams(config))
        working = Working(
            identity, self._pipeline, self._alarms, self._supervisor, builder, self._sinks, self._trainer, gate,
            self._personal, self._uplink, self._observer, setups, self._streams, self._take,
        )  # fmt: skip
        self.reload = Reload(directory, config, working, self._health, self._notifier)

    def _take(self, config: AgentConfig) -> None:
        self._config = config

    async def run(self) -> None:
        """Work until cancelled; what arrived is then committed."""
        self._observer.trainer(None)
        if not self._config.link.enabled:
            self._health.set("link", Level.OK, "switched off in agent.toml")
        servicer = AgentServicer(self._observer.facts, self._gauge(), self._calls())
        server = await start_api(self._config.api.socket, servicer, self._health)
        scraped = ScrapeServer(self._config.metrics, servicer.exposition)
        await scraped.start()
        self._runs.begin()
        its = self._config
        event(
            _LOGGER, "started", sources=len(its.sources), sinks=len(its.sinks),
            models=len(its.models) + bool(its.model),
        )  # fmt: skip
        self._sinks.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                models = tasks.create_task(self._serving.start())
                await asyncio.wait({models}, timeout=MODELS_FIRST_S)
                tasks.create_task(self._work())
                tasks.create_task(self._retain())
                tasks.create_task(self._supervisor.run(for_ever=True))
                tasks.create_task(self.reload.run())
                await models
                tasks.create_task(self._uplink.run())
                tasks.create_task(self._personal.run())
        finally:
            self._notifier.stopping()
            await self._close(server, scraped)

    def _gauge(self) -> BufferGauge:
        return BufferGauge(self._config.state_dir / BUFFER_NAME, self._reader, self._config.buffer.cap_mib << 20)

    def _calls(self) -> Calls:
        answers = ModelAnswers(self._pipeline, self._buffer, self._reader, self._open_reader, self._clock)
        return Calls(
            PredictionCalls(_StoredPredictions(self._reader), self._followers, answers),
            SessionCalls(
                self._buffer,
                self._reader,
                self._time,
                self._config.buffer.session_gap_s,
                self._erase,
                self._streams,
                self._unlearn,
            ),
            LabelCalls(Labels(self._buffer, self._known, self._unlearn)),
            AlarmCalls(self._alarms, self._alarm_followers),
            QuarantineCalls(self._buffer, self._reader),
            SinkCalls(self._sinks),
            ModelCalls(self._serving.desk),
            PersonalCalls(self._personal),
        )

    def _known(self) -> Known:
        heads = [slot.model.head for slot in self._pipeline.engine.slots.values()]
        return known_of((head.task == "regression", head.labels) for head in heads)

    def _erase(self, session: SessionId) -> Mapping[str, int]:
        """Everything of a session, also what is held of it for those who follow."""
        self._followers.forget(session)
        self._alarm_followers.forget(session)
        self._trainer.forget()
        return erase_session(
            self._buffer, self._config.state_dir, session, self._clock, self._uplink.journal,
            personal=self._own_files, scrub=False,
        )  # fmt: skip

    def _unlearn(self, session: SessionId) -> None:
        """Nothing that this device learnt from a session, and has not sent, is used or finished any more."""
        self._trainer.forget()
        unlearn(self._config.state_dir, session, self._clock, self._uplink.journal, personal=self._own_files)

    def _doubt(self, session: SessionId) -> None:
        """As `_unlearn`, for a session that lost its consent by itself; signal goes on whatever the disk says."""
        try:
            self._unlearn(session)
        except (BedsideError, OSError) as error:
            event(_LOGGER, "unlearning-failed", level=logging.WARNING, error=str(error))

    async def _close(self, server: LinkServer, scraped: ScrapeServer) -> None:
        """Close everything, whatever fails to; the first failure is raised after the last."""
        async with contextlib.AsyncExitStack() as closing:
            closing.callback(self._runs.end)
            closing.callback(self._uplink.close)
            closing.callback(self._reader.close)
            closing.callback(self._committer.close)
            closing.callback(self._buffer.close)
            closing.push_async_callback(self._sinks.stop)
            closing.push_async_callback(self._pipeline.close, DRAIN_S)
            closing.callback(self._serving.desk.close)
            closing.callback(self._personal.close)
            closing.push_async_callback(server.stop, 0.5)
            closing.push_async_callback(scraped.stop)

    async def _work(self) -> None:
        """Commit what is due; the watchdog is fed here, because this loop shares its turn with ingest."""
        self._notifier.ready("samples are taken")
        ticks = 0
        while True:
            self._pipeline.flush_due()
            ticks += 1
            if ticks % _CALL_CLOCK_TICKS == 0:
                self._observer.look()
                self._notifier.watchdog()
            await asyncio.sleep(FLUSH_INTERVAL_S)

    async def _retain(self) -> None:
        """Let old signal expire, a minute of one stream at a time; it is read beside the loop and written in it."""
        while True:
            await asyncio.sleep(RETENTION_INTERVAL_S)
            try:
                await asyncio.to_thread(self._time.save_due)
                while (now_ns := self._time.expiry_ns()) is not None:
                    step = await asyncio.to_thread(self._retention.prepare, now_ns, self._pipeline.questions())
                    if step is None:
                        break
                    self._buffer.expire(step)
                    await asyncio.sleep(RETENTION_PAUSE_S)
            except BedsideError as error:
                event(_LOGGER, "retention-waits", level=logging.WARNING, error=error)
            except Exception:
                _LOGGER.exception("retention-failed")

    def _facts(self, pulse: Pulse) -> AgentFacts:
        self._observer.clock_offset_ms = pulse.clock_offset_ms
        self._observer.model_wanted = self._serving.wanted
        return self._observer.facts()

    def _report(self, component: str, error: BedsideError | None) -> None:
        (self._observer.link if component == "link" else self._observer.trainer)(error)

    def _policy(self) -> SitePolicy:
        return read_policy(self._config.policy).policy

    def _detail(self) -> Detail:
        """What both the configuration and the policy allow to be told; a policy with a mistake allows the least."""
        try:
            return stricter(self._config.heartbeat, self._policy().heartbeat)
        except ConfigError:
            return "minimal"


class _StoredPredictions:
    """The store as the local API reads it."""

    def __init__(self, reader: BufferReader) -> None:
        self._reader = reader

    def after(self, since_id: int) -> Sequence[local_pb2.Prediction]:
        """The next page above `since_id`."""
        return prediction_messages(self._reader.predictions(since_id, _PAGE_ROWS))


async def run_agent(directory: Path, config: AgentConfig, clock: Clock, entropy: Entropy, version: str) -> None:
    """Run until SIGTERM or SIGINT; returns then.

    Raises:
        UnavailableError: `agent-running`, or `store-in-use`.
    """
    with become_writer(config.state_dir, config.api.socket, clock) as writes:
        if not writes:
            raise UnavailableError(
                "agent-running",
                f"an agent already runs in {directory}: {config.api.socket} is its socket",
                remedy=f"look at it with `bedside agent status {directory}`, or stop it first",
            )
        agent = Agent(directory, config, clock, entropy, version)
        task = asyncio.create_task(agent.run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        loop.add_signal_handler(signal.SIGHUP, agent.reload.asked.set)
        with contextlib.suppress(asyncio.CancelledError):
            await task
    event(_LOGGER, "stopped")
