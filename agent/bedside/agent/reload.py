"""What SIGHUP does: agent.toml is read again, judged as `bedside agent check` judges it, and taken up part by part.

Invariants:
    * A file with a mistake changes nothing: what was in force stays, and the component `config` is degraded until there
      is a good one.
    * A source or sink whose table is as it was goes on undisturbed; not a sample of it is lost.
    * What only a restart can change keeps its value, and is named.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bedside.agent.alarms.desk import AlarmDesk
from bedside.agent.config import AgentConfig, SourceConfig, load_agent_config
from bedside.agent.health.inputs import SourceSetup
from bedside.agent.health.observer import Observer
from bedside.agent.naming import configured_streams
from bedside.agent.personal.desk import PersonalDesk
from bedside.agent.pipeline import Pipeline
from bedside.agent.resident import speaks_tls
from bedside.agent.serving.gate import Gate
from bedside.agent.sinks.engine import SinkEngine
from bedside.agent.sources.building import SourceBuilder
from bedside.agent.sources.kind import SourceGauge
from bedside.agent.sources.registry import typed_source
from bedside.agent.sources.supervisor import Supervisor
from bedside.agent.training.trainer import Trainer
from bedside.agent.uplink import Uplink
from bedside.core.errors import BedsideError, ConfigError, UnavailableError
from bedside.ondevice.confinement import read_outcome
from bedside.service.config import config_digest
from bedside.service.health import Health, Level
from bedside.service.identity import Identity
from bedside.service.link.errors import unexpected
from bedside.service.logs import event
from bedside.service.notify import Notifier

LIVE: Final = ("heartbeat", "policy", "alarms", "training", "serving", "personal", "sinks", "sources")
"""Keys and tables that a reload takes up; the others are what the process was built from."""

COMPONENT: Final = "config"
CHECK_S: Final = 120.0
"""Seconds that the child which judges a file may take."""

_LOGGER: Final = logging.getLogger(__name__)


class _Part(msgspec.Struct, frozen=True):
    """What the child says of one part."""

    part: str
    ok: bool
    code: str
    sentence: str
    remedy: str


@dataclass(frozen=True)
class Working:
    """The parts that can change.

    Attributes:
        setups: of the sources, by name; changed in place.
        streams: that the configuration names; changed in place.
        take: gets the configuration that is in force from now on.
    """

    identity: Identity
    pipeline: Pipeline
    alarms: AlarmDesk
    supervisor: Supervisor
    builder: SourceBuilder
    sinks: SinkEngine
    trainer: Trainer
    gate: Gate
    personal: PersonalDesk
    uplink: Uplink
    observer: Observer
    setups: dict[str, SourceSetup]
    streams: set[str]
    take: Callable[[AgentConfig], None]


class Reload:
    """Of one agent. Use from its event loop.

    Attributes:
        asked: set by SIGHUP.
    """

    def __init__(
        self,
        directory: Path,
        config: AgentConfig,
        working: Working,
        health: Health,
        notifier: Notifier,
    ) -> None:
        self._directory = directory
        self._config = config
        self._sources = {source.name: source for source in config.sources}
        self._working = working
        self._health = health
        self._notifier = notifier
        self.asked = asyncio.Event()
        health.set(COMPONENT, Level.OK, "in force")

    async def run(self) -> None:
        """Reload whenever that is asked for; nothing that goes wrong in it ends the agent."""
        while True:
            await self.asked.wait()
            self.asked.clear()
            self._notifier.reloading()
            try:
                level, sentence = await self._reload()
            except Exception as error:
                known = unexpected(error)
                if known is not error:
                    _LOGGER.exception("reload-failed")
                level, sentence = Level.FAILED, f"a reload came to no end, restart the agent: {known.sentence}"
            self._health.set(COMPONENT, level, sentence)
            event(_LOGGER, "reload", level=logging.INFO if level is Level.OK else logging.WARNING, outcome=sentence)
            self._notifier.ready(sentence)

    async def _reload(self) -> tuple[Level, str]:
        try:
            wanted = await self._judged()
        except BedsideError as error:
            return Level.DEGRADED, f"agent.toml is refused, what was in force stays: {error.sentence}"
        before = self._config
        changed = [name for name in wanted.__struct_fields__ if getattr(wanted, name) != getattr(before, name)]
        waiting = [name for name in changed if name not in LIVE]
        if speaks_tls(wanted) and sys.modules.get("ssl", sys) is None:  # see `resident`: this process has done without
            waiting += [name for name in ("sources", "sinks") if name in changed]
        taken = msgspec.structs.replace(wanted, **{name: getattr(before, name) for name in waiting})
        hanging = await self._apply(before, taken)
        done = [name for name in changed if name not in waiting]
        nothing = "nothing yet" if waiting else "nothing has changed"
        said = [f"reloaded: {', '.join(done) or nothing}"]
        said += [f"a restart is needed for {', '.join(waiting)}"] if waiting else []
        said += [f"a restart is needed to end {', '.join(hanging)}"] if hanging else []
        return Level.DEGRADED if waiting or hanging else Level.OK, "; ".join(said)

    async def _judged(self) -> AgentConfig:
        """The file as it stands now.

        A child judges it, where the libraries of kinds that are only asked about take no memory of this process, and
        where those that it has done without are there.

        Raises:
            ConfigError: it has a mistake.
            UnavailableError: `child-died`, `child-timeout`: it could not be judged.
        """
        wanted = await asyncio.to_thread(load_agent_config, self._directory)
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "bedside.service", "agent", "check", str(self._directory), "--json"),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(CHECK_S):
                told, _ = await child.communicate()
        except TimeoutError as error:
            raise UnavailableError("child-timeout", f"it was not judged within {CHECK_S:g} s") from error
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        wrong = [part for part in read_outcome(told, list[_Part]) if not part.ok]
        for part in wrong:
            event(_LOGGER, "config-refused", level=logging.WARNING, part=part.part, code=part.code, why=part.sentence)
        if wrong:
            more = f", and {len(wrong) - 1} more" if wrong[1:] else ""
            raise ConfigError(wrong[0].code, f"{wrong[0].sentence}{more}", remedy=wrong[0].remedy)
        return wanted

    async def _apply(self, before: AgentConfig, taken: AgentConfig) -> list[str]:
        """Put a judged configuration in force; names of what hangs, and goes on as it was."""
        its = self._working
        its.alarms.change(taken.alarms)
        its.trainer.configure(taken.training)
        its.gate.rules = taken.serving
        its.personal.configure(taken.personal, taken.serving, taken.training)
        its.uplink.configure(taken.policy, taken.training, taken.serving)
        hanging = [f"source {name}" for name in await self._change_sources(taken.sources)]
        if taken.sinks != before.sinks:
            device = its.identity.subject if taken.sinks else ""
            hanging += [f"sink {name}" for name in await its.sinks.change(taken.sinks, device)]
        self._config = taken
        its.take(taken)
        its.observer.config_digest = config_digest(taken)
        its.streams.clear()
        its.streams.update(configured_streams(taken))
        return hanging

    async def _change_sources(self, after: Sequence[SourceConfig]) -> list[str]:
        """End what has changed or is gone, and begin what has changed or is new."""
        its, new = self._working, {source.name: source for source in after}
        leaving = [name for name, source in self._sources.items() if new.get(name) != source]
        ended = await asyncio.gather(*(its.supervisor.remove(name) for name in leaving))
        hanging = [name for name, has_ended in zip(leaving, ended, strict=True) if not has_ended]
        for name in set(leaving) - set(hanging):
            del its.setups[name], self._sources[name]
        for source in after:
            if source.name in self._sources:
                continue
            options, gauge = typed_source(source), SourceGauge()
            its.supervisor.add(its.builder.build(source.kind, options, gauge), gauge)
            its.setups[source.name] = SourceSetup(source.kind, options.streams())
            self._sources[source.name] = source
        its.pipeline.sources = frozenset(stream for setup in its.setups.values() for stream in setup.streams)
        return hanging
