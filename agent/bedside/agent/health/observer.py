"""Looks at the agent's parts and says how it is: the facts behind heartbeat, local API and health."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bedside.agent.alarms.desk import AlarmDesk
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.store import BufferStore
from bedside.agent.device_time import DeviceTime
from bedside.agent.health.facts import AgentFacts, RoundFacts, SinkFacts, SourceFacts
from bedside.agent.health.inputs import SourceSetup, few, judge, source_facts
from bedside.agent.health.machine import MachineFacts, read_machine
from bedside.agent.health.outputs import judge_sinks
from bedside.agent.health.runs import RunNote
from bedside.agent.pipeline import Pipeline
from bedside.agent.sources.supervisor import Supervisor
from bedside.agent.training.gates import MachineState
from bedside.agent.training.trainer import Reading, Trainer
from bedside.core.clock import Clock
from bedside.core.errors import BedsideError, RefusedError, StoreError, UnavailableError
from bedside.core.signing.trust import VerifiedCredential
from bedside.service.health import Health, Level
from bedside.service.identity import Identity
from bedside.service.platform import local_minute

if TYPE_CHECKING:
    from bedside.agent.rounds.journal import Contribution

MACHINE_INTERVAL_S: Final = 5.0
"""Seconds between two readings of the machine: they cost a few milliseconds each."""

FIELD_PATIENCE_S: Final = 600.0
"""Seconds after a start in which the first record of a field may come: a cuff or a spot check is not measured each
minute. An alarm on a field that is misspelt is told of by then."""

TRUSTEE_CODES: Final = frozenset(
    {"chain-rollback", "chain-fork", "no-own-trustee", "promise-too-small", "trusts-others"}
)
"""Refusals that the own site's trustee is the reason of."""

_NOT_JOINED: Final = frozenset({"offered", "training", "declined"})
"""Values of `ContributionState`, whose module a device that joins no round does not load."""

_NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True)
class Parts:
    """What the observer looks at.

    Attributes:
        setups: of the sources, by name.
        trainer: tells whether it trains, and why it waits.
        sinks: tells of every sink.
        models_come: whether models are configured, or may come with a plan.
    """

    identity: Identity
    buffer: BufferStore
    reader: BufferReader
    pipeline: Pipeline
    alarms: AlarmDesk
    supervisor: Supervisor
    newest_plan: Callable[[], Contribution | None]
    runs: RunNote
    time: DeviceTime
    setups: Mapping[str, SourceSetup]
    trainer: Trainer
    sinks: Callable[[], Sequence[SinkFacts]] = tuple
    models_come: bool = True


class Observer:
    """Keeps the components' health up to date and makes facts on demand.

    Attributes:
        clock_offset_ms: as the pulse saw it.
        config_digest: of the configuration that is in force.
        model_wanted: digest of the model that the newest plan or result names.
    """

    def __init__(self, parts: Parts, health: Health, clock: Clock, version: str, config_digest: bytes) -> None:
        self._parts = parts
        self._health = health
        self._clock = clock
        self._version = version
        self.config_digest = config_digest
        self._started_s = clock.monotonic_s()
        self._training_failed: BedsideError | None = None
        self._machine: MachineFacts | None = None
        self._machine_read_s = 0.0
        self.clock_offset_ms: int | None = None
        self.model_wanted = b""

    def facts(self) -> AgentFacts:
        """Everything as it is now."""
        self.look()
        parts, now_s = self._parts, self._clock.monotonic_s()
        credential, device = self._who()
        last_s, oldest_ns = parts.pipeline.last_prediction_s, parts.reader.oldest_ns()
        open_alarms, raised_alarms = parts.alarms.count_open()
        now_ns = self._clock.now_ns()
        wait = parts.trainer.wait
        issued_at_s = credential.credential.issued_at_s if credential is not None else now_ns // _NS_PER_S
        return AgentFacts(
            version=self._version,
            site=credential.site if credential is not None else "",
            device=device,
            uptime_s=int(now_s - self._started_s),
            restarts=parts.runs.restarts,
            last_exit=parts.runs.last_exit,
            components=self._health.snapshot(),
            streams=parts.pipeline.streams(),
            sources=self._sources(),
            sinks=parts.sinks(),
            models=parts.pipeline.models(),
            open_alarms=open_alarms,
            raised_alarms=raised_alarms,
            predictions=parts.pipeline.predictions,
            last_prediction_age_ms=round((now_s - last_s) * 1000) if last_s is not None else None,
            model_running=parts.pipeline.model_digest,
            model_wanted=self.model_wanted or parts.pipeline.model_digest,
            config_digest=self.config_digest,
            buffer_bytes=parts.reader.used_bytes,
            buffer_oldest_age_s=max(0, (now_ns - oldest_ns) // _NS_PER_S) if oldest_ns is not None else 0,
            clock_offset_ms=self.clock_offset_ms,
            key_age_s=max(0, now_ns // _NS_PER_S - issued_at_s),
            round=self._round(),
            machine=self.machine(),
            training_waits=wait.gate if wait is not None else None,
        )

    def look(self) -> None:
        """Bring every component but `link` up to date."""
        self._look_at_sources()
        self._look_at_buffer()
        self._look_at_models()
        self._look_at_trustee()
        self._look_at_trainer()
        self._health.set("sinks", *judge_sinks(self._parts.sinks()))

    def link(self, error: BedsideError | None) -> None:
        """The link's state as its users report it: it has failed when somebody must come and mend something."""
        if error is None:
            self._health.set("link", Level.OK, "connected")
        elif error.code == "not-enrolled" or isinstance(error, UnavailableError | RefusedError):
            self._health.set("link", Level.DEGRADED, error.sentence)
        else:
            self._health.set("link", Level.FAILED, f"{error.sentence}; {error.remedy}".removesuffix("; "))

    def trainer(self, error: BedsideError | None) -> None:
        """What is wrong with the last training; None when nothing is."""
        self._training_failed = error
        self._look_at_trainer()

    def machine(self) -> MachineFacts:
        """A reading of the machine that is some seconds old at most."""
        now_s = self._clock.monotonic_s()
        if self._machine is None or now_s - self._machine_read_s > MACHINE_INTERVAL_S:
            self._machine = read_machine(self._parts.identity.directory)
            self._machine_read_s = now_s
        return self._machine

    def reading(self) -> Reading:
        """What decides whether this device trains now."""
        machine, parts = self.machine(), self._parts
        try:
            alarms = parts.alarms.count_open()[1]
        except StoreError:
            alarms = None
        kernel, temperature_mc = machine.kernel, machine.temperature_mc
        state = MachineState(
            temperature_c=temperature_mc / 1000 if temperature_mc is not None else None,
            throttled=kernel.throttled,
            undervoltage=kernel.undervoltage,
            on_mains=kernel.on_mains,
            battery_share=kernel.battery_share,
            load_per_core=kernel.load_per_core,
            local_minute=local_minute(self._clock.now_ns() // _NS_PER_S),
            open_streams=parts.reader.open_streams(),
            alarms=alarms,
        )
        return Reading(state, machine.memory_free_bytes)

    def _who(self) -> tuple[VerifiedCredential | None, str]:
        """The credential and the device's id; without them where their files are damaged."""
        identity = self._parts.identity
        try:
            return identity.credential, identity.subject
        except BedsideError:
            return None, ""

    def _sources(self) -> list[SourceFacts]:
        return source_facts(self._parts.supervisor.health.values(), self._parts.setups, self._clock.monotonic_s())

    def _look_at_sources(self) -> None:
        self._health.set("ingest", *judge(self._sources(), self._clock.monotonic_s() - self._started_s))

    def _look_at_buffer(self) -> None:
        """Alarms that wait for the disk are told of here, so that what leaves the device tells of the disk alone."""
        alarms, clock = self._parts.alarms, self._parts.time.degraded
        degraded = self._parts.buffer.degraded or clock
        error = alarms.store_error or self._parts.pipeline.store_error
        if error is not None:
            waiting = f"; {alarms.waiting} alarms wait for it" if alarms.waiting else ""
            self._health.set("buffer", Level.FAILED, f"{error.sentence}{waiting}")
        else:
            self._health.set("buffer", Level.DEGRADED if degraded else Level.OK, degraded or "takes everything")

    def _look_at_models(self) -> None:
        """One model that fails leaves the others at work; the first that does is told of.

        What can never decide or be raised as the device is set up is no failure of a part, and is told of as well.
        """
        pipeline = self._parts.pipeline
        models = pipeline.models()
        failing = [model for model in models if model.error]
        starting = self._clock.monotonic_s() - self._started_s <= FIELD_PATIENCE_S
        alone = not models and not self._parts.models_come
        unwatched = self._parts.alarms.unwatched(pipeline.deciders, pipeline.fed, patient=starting, modelless=alone)
        in_vain = [f"model {model.name} {model.idle}" for model in models if model.idle] + unwatched
        in_vain += [f"model {model.name} {model.prospect.concern}" for model in models if model.prospect.concern]
        if alone:
            level = Level.DEGRADED if unwatched else Level.OK
            self._health.set("inference", level, few(unwatched or ["no model is configured"]))
        elif not models:
            self._health.set(
                "inference", Level.DEGRADED, few(["no model yet: it comes with the first plan", *unwatched])
            )
        elif failing:
            sentence = failing[0].error if len(models) == 1 else f"model {failing[0].name}: {failing[0].error}"
            self._health.set("inference", Level.FAILED if len(failing) == len(models) else Level.DEGRADED, sentence)
        elif in_vain:
            self._health.set("inference", Level.DEGRADED, few(in_vain))
        else:
            self._health.set("inference", Level.OK, "serves")

    def _look_at_trustee(self) -> None:
        """The own site's trustee fails when the newest plan was refused because of what it signed."""
        newest = self._parts.newest_plan()
        if newest is not None and newest.code in TRUSTEE_CODES:
            self._health.set("trustee", Level.FAILED, newest.sentence)
        else:
            self._health.set("trustee", Level.OK, "no complaint")

    def _round(self) -> RoundFacts:
        newest = self._parts.newest_plan()
        if newest is None:
            return RoundFacts()
        joined = newest.state.value not in _NOT_JOINED
        return RoundFacts(newest.task, newest.round_number, newest.state.value, joined, newest.code, newest.sentence)

    def _look_at_trainer(self) -> None:
        """Waiting is no fault: it is what the gates are for."""
        error = self._training_failed
        if error is not None:
            self._health.set("trainer", Level.DEGRADED, error.sentence)
        else:
            self._health.set("trainer", Level.OK, self._parts.trainer.sentence)
