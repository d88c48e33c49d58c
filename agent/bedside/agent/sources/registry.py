"""From a source's configuration to the source. A new kind is one Struct and one branch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bedside.agent.buffer.bounds import END_NS
from bedside.agent.config import MAX_WAIT_S
from bedside.agent.sources.marks import read_track
from bedside.agent.sources.replay import ReplaySource
from bedside.core.clock import Clock
from bedside.core.errors import ConfigError
from bedside.core.ids import StreamId, check_id
from bedside.core.samples import Source
from bedside.firmware_bridge.recording import read_recording


class ReplayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="replay"):
    """A recording.

    Attributes:
        name: of the source.
        stream: id of the stream.
        data: recording (.npz).
        speed: times real time; 0 is as fast as possible.
        history_s: seconds of signal that are delivered at once, before that speed begins.
        loop: begin again at the end.
        start_ns: signal time of the first sample; now when absent.
    """

    name: str
    stream: str
    data: str
    speed: float = 1.0
    history_s: float = 0.0
    loop: bool = False
    start_ns: int | None = None


class SerialConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="serial"):
    """A sensor board on a serial port.

    Attributes:
        name: of the source.
        stream: id of the stream.
        port: device file.
        baud: bits per second.
        board_stream: the board's name of the stream; empty means its first.
        channels: columns to keep, in this order; empty means all.
        labels: recording (.npz) or CSV file (start_s, end_s, label) in the board's time; empty means none.
        loop: the board begins again at the end of what `labels` describes.
    """

    name: str
    stream: str
    port: str
    baud: int = 115_200
    board_stream: str = ""
    channels: tuple[int, ...] = ()
    labels: str = ""
    loop: bool = False


SourceConfig = ReplayConfig | SerialConfig
KINDS: Final = tuple(str(kind.__struct_config__.tag) for kind in (ReplayConfig, SerialConfig))
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


def build_source(config: SourceConfig, context: SourceContext) -> Source:
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
