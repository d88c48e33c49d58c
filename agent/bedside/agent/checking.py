"""Whether a device's configuration would start: every part of it is looked at, and nothing is opened or changed.

What is found is all that is wrong, and not the first of it: whoever edits a file on a ward restarts a gateway once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bedside.agent.alarms.rules import check_rules
from bedside.agent.config import AgentConfig
from bedside.agent.doubts import delivered, of_alarms, of_idle_streams, of_sink, of_source, reads, sends
from bedside.agent.failure import describe
from bedside.agent.sinks.kind import SinkContext
from bedside.agent.sinks.registry import build_sink, typed_sink
from bedside.agent.sources.kind import SourceContext, SourceOptions
from bedside.agent.sources.registry import build_source, typed_source
from bedside.core.clock import Clock, Entropy
from bedside.core.errors import BedsideError, ConfigError
from bedside.proto.v1.identity_pb2 import Role
from bedside.service.identity import DIRECTORY_NAME, find_identity
from bedside.service.policy_file import read_policy
from bedside.service.secret import CREDENTIAL_PREFIX, read_secret


@dataclass(frozen=True, slots=True)
class Warned:
    """What is most likely not meant, in a sentence."""

    sentence: str


Found = str | Warned
"""A note, or a warning."""

SECRETS: Final = ("password", "token", "secret")
"""Options, of whatever kind, that name where a secret lies."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One part of a configuration.

    Attributes:
        part: for instance `source ward`.
        error: what is wrong with it; None where nothing is.
        note: what it reads or sends, and what could not be looked at.
        warnings: what is most likely not meant, in sentences; the agent starts all the same.
    """

    part: str
    error: BedsideError | None = None
    note: str = ""
    warnings: tuple[str, ...] = ()


def check_device(
    directory: Path, config: AgentConfig, clock: Clock, entropy: Entropy, environ: Mapping[str, str] = os.environ
) -> list[Checked]:
    """Look at every part of a configuration that has been read, in the order of the file."""
    base = directory.absolute()

    def identity() -> str:
        return find_identity(config.state_dir / DIRECTORY_NAME, Role.ROLE_DEVICE).subject

    known: list[tuple[str, SourceOptions]] = []
    """Kind and options of the sources that can be read."""

    def fed() -> list[str]:
        return [stream for _, options in known for stream in options.streams()]

    def whole() -> bool:
        return len(known) == len(config.sources)

    def source(at: int) -> Iterator[Found]:
        options = typed_source(config.sources[at])
        known.append((config.sources[at].kind, options))
        context = SourceContext(clock, lambda _stream: 0, base, state_dir=config.state_dir)
        build_source(config.sources[at].kind, options, context)
        yield reads(options)
        yield from map(Warned, of_source(config.sources[at].kind, options, base))
        yield from _secrets(options, base, environ)

    def sink(at: int) -> Iterator[Found]:
        options = typed_sink(config.sinks[at])
        _check_alone(config, at, base)
        build_sink(config.sinks[at].kind, options, SinkContext(clock, entropy, base, ""))
        yield sends(options)
        yield from map(Warned, of_sink(options, fed()) if whole() else ())
        yield from _secrets(options, base, environ)

    def alarms() -> Iterator[Found]:
        check_rules(config.alarms)
        yield from map(Warned, of_alarms(config.alarms, fed(), delivered(known)) if whole() else ())

    def training() -> Iterator[Found]:
        read = [stream for model in config.models for stream in model.streams]
        yield from map(Warned, of_idle_streams(config.training.gates.idle_streams, {*fed(), *read}) if whole() else ())

    parts: list[tuple[str, Callable[[], object]]] = [
        ("identity", identity),
        ("policy", lambda: list(_policy(config))),
        *((f"model {bundle}", lambda bundle=bundle: _model(bundle)) for bundle in _bundles(config)),
        *((f"source {one.name}", lambda at=at: list(source(at))) for at, one in enumerate(config.sources)),
        *((f"sink {one.name}", lambda at=at: list(sink(at))) for at, one in enumerate(config.sinks)),
        ("alarms", lambda: list(alarms())),
        ("training", lambda: list(training())),
    ]
    return [_checked(part, look) for part, look in parts]


def _policy(config: AgentConfig) -> Iterator[Found]:
    if config.policy.exists() or _bundles(config):
        read_policy(config.policy)
    elif config.link.enabled:
        yield Warned(f"there is none at {config.policy}: this device takes part in nothing until the site's is there")
    else:
        yield "there is none, and none is needed: no model, and link.enabled = false"


def _check_alone(config: AgentConfig, at: int, base: Path) -> None:
    """Two sinks that write the same files would write them full of holes."""
    mine = _folder(config, at, base)
    for other in range(at if mine is not None else 0):
        if _folder(config, other, base) == mine:
            raise ConfigError(
                "sink-config",
                f"sink {config.sinks[at].name} writes the files of sink {config.sinks[other].name}",
                remedy="give each a directory of its own",
            )


def _folder(config: AgentConfig, at: int, base: Path) -> Path | None:
    """Where a sink writes files; None where it writes none."""
    folder = config.sinks[at].options.get("directory") if config.sinks[at].kind == "csv" else None
    return (base / folder).resolve() if isinstance(folder, str) else None


def _checked(part: str, look: Callable[[], object]) -> Checked:
    try:
        found = look()
    except BedsideError as error:
        return Checked(part, error)
    except Exception as error:  # noqa: BLE001 - one part never hides the others
        sentence = f"{part} cannot be looked at: {describe(error)}"
        return Checked(part, ConfigError("check-failed", sentence, remedy="report this: it should have said why"))
    said = found if isinstance(found, list) else []
    warnings = tuple(one.sentence for one in said if isinstance(one, Warned))
    return Checked(part, note="; ".join(one for one in said if not isinstance(one, Warned)), warnings=warnings)


def _secrets(options: msgspec.Struct, directory: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """Read what the options name; yields what only the agent's unit can see."""
    for name in SECRETS:
        where = getattr(options, name, "")
        if not where or not isinstance(where, str):
            continue
        if where.startswith(CREDENTIAL_PREFIX) and "CREDENTIALS_DIRECTORY" not in environ:
            yield f"{name} is a credential of the agent's unit, which is not visible here"
        else:
            read_secret(directory, where, environ, option=name)


def _bundles(config: AgentConfig) -> list[str]:
    return [bundle for bundle in (config.model, *(model.bundle for model in config.models)) if bundle]


def _model(bundle: str) -> None:
    if not Path(bundle).exists():
        raise ConfigError(
            "model-missing", f"there is no bundle at {bundle}", remedy="correct model or [[models]], or copy the bundle"
        )
