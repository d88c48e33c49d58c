"""From a source's configuration to the source. A new kind is one Struct and one branch here."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, get_args, get_origin, get_type_hints

import msgspec

from bedside.agent.buffer.bounds import END_NS
from bedside.agent.config import MAX_WAIT_S, SourceConfig
from bedside.agent.sources.marks import read_track
from bedside.agent.sources.replay import ReplaySource
from bedside.core.clock import Clock
from bedside.core.errors import ConfigError
from bedside.core.ids import StreamId, check_id
from bedside.core.samples import Source
from bedside.firmware_bridge.recording import read_recording
from bedside.service.text import bounded


def _option(words: str) -> msgspec.Meta:
    """An option in a few words, as an error lists it."""
    return msgspec.Meta(description=words)


class ReplayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="replay"):
    """A recording."""

    name: str
    stream: Annotated[str, _option("id of the stream")]
    data: Annotated[str, _option("recording, .npz")]
    speed: Annotated[float, _option("times real time, 0 as fast as possible")] = 1.0
    history_s: Annotated[float, _option("seconds that come at once, before")] = 0.0
    loop: Annotated[bool, _option("begin again at the end")] = False
    start_ns: Annotated[int | None, _option("time of the first sample, else now")] = None


class SerialConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="serial"):
    """A sensor board on a serial port."""

    name: str
    stream: Annotated[str, _option("id of the stream")]
    port: Annotated[str, _option("device file")]
    baud: Annotated[int, _option("bits per second")] = 115_200
    board_stream: Annotated[str, _option("the board's name of it, else its first")] = ""
    channels: Annotated[tuple[int, ...], _option("columns to keep, else all")] = ()
    labels: Annotated[str, _option(".npz or CSV (start_s, end_s, label) in the board's time")] = ""
    loop: Annotated[bool, _option("the board begins again where labels end")] = False


KINDS: Final[dict[str, type[ReplayConfig | SerialConfig]]] = {"replay": ReplayConfig, "serial": SerialConfig}
"""The kinds as `agent.toml` names them."""


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What every source may need.

    Attributes:
        clock: of the process.
        last_end_ns: end of what is stored of a stream, 0 when nothing is: signal time never goes back.
        directory: relative paths start here.
    """

    clock: Clock
    last_end_ns: Callable[[StreamId], int]
    directory: Path


def typed_source(source: SourceConfig) -> ReplayConfig | SerialConfig:
    """Read a source's options under the rules of its kind.

    Raises:
        ConfigError: `source-config`, naming the source; the remedy lists the options.
    """
    kind = KINDS.get(source.kind)
    if kind is None:
        raise ConfigError(
            "source-config",
            f"source {source.name}: there is no kind {source.kind[:40]!r}",
            remedy=f"the kinds are {', '.join(KINDS)}",
        )
    known = options_of(kind)
    remedy = f"{source.kind} takes " + "; ".join(f"{name}: {words}" for name, words in known.items())
    for strange in (name for name in source.options if name not in known):
        near = difflib.get_close_matches(strange, known, n=1, cutoff=0.5)
        raise ConfigError(
            "source-config",
            f"source {source.name}: there is no option {bounded(strange, 40)!r}",
            remedy=f"did you mean {near[0]!r}? {remedy}" if near else remedy,
        )
    try:
        return msgspec.convert({"kind": source.kind, "name": source.name, **source.options}, type=kind)
    except msgspec.ValidationError as error:
        raise ConfigError("source-config", f"source {source.name}: {error}", remedy=remedy) from error


def options_of(kind: type[ReplayConfig | SerialConfig]) -> dict[str, str]:
    """What a kind of source takes in `[sources.options]`: each option in a few words."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: get_args(hint)[1].description for name, hint in hints.items() if get_origin(hint) is Annotated}


def build_source(config: ReplayConfig | SerialConfig, context: SourceContext) -> Source:
    """Make the source that `config` describes; it opens nothing but recordings and label files.

    Raises:
        ConfigError: `recording-missing`, `labels-missing`, `bad-speed`, `bad-history`, `bad-start`.
        MalformedError: `bad-id`, `bad-recording`, `bad-labels`.
    """
    stream = StreamId(check_id(config.stream, "stream"))
    if isinstance(config, ReplayConfig):
        return _replay(config, stream, context)
    from bedside.agent.sources.serial_port import LabelledSerialSource
    from bedside.firmware_bridge.serial_source import SerialSource

    board = SerialSource(
        config.name,
        config.port,
        stream,
        context.clock,
        board_stream=config.board_stream,
        channels=config.channels,
        baud=config.baud,
        not_before_ns=context.last_end_ns(stream),
    )
    track = read_track(context.directory / config.labels, loop=config.loop) if config.labels else None
    return LabelledSerialSource(board, track)


def _replay(config: ReplayConfig, stream: StreamId, context: SourceContext) -> ReplaySource:
    if not config.speed >= 0:
        raise ConfigError(
            "bad-speed", f"source {config.name}: a speed of {config.speed} is impossible", remedy="0 or more"
        )
    if not 0 <= config.history_s <= MAX_WAIT_S:
        raise ConfigError(
            "bad-history",
            f"source {config.name}: {config.history_s} s of history are impossible",
            remedy=f"0 to {MAX_WAIT_S}: a year",
        )
    if config.start_ns is not None and not 0 <= config.start_ns < END_NS:
        raise ConfigError(
            "bad-start",
            f"source {config.name}: signal cannot begin at {config.start_ns} ns",
            remedy="use nanoseconds since 1970, before April 2262",
        )
    return ReplaySource(
        config.name,
        stream,
        read_recording(context.directory / config.data),
        context.clock,
        speed=config.speed,
        history_s=config.history_s,
        loop=config.loop,
        start_ns=config.start_ns,
        not_before_ns=context.last_end_ns(stream),
    )
