"""A `Source` on a serial port: one board, one stream of it.

It opens the port, asks for a hello, and yields blocks until the port fails; opening it again is the supervisor's
work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

import numpy as np

from bedside.core.clock import Clock
from bedside.core.errors import ConfigError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Quality, samples_per_block
from bedside.firmware_bridge.board_clock import BoardClock
from bedside.firmware_bridge.frames import Event, FrameCounts, FrameParser, Gap, write_frame
from bedside.firmware_bridge.messages import Hello, HelloRequest, Samples, StreamInfo
from bedside.firmware_bridge.port import SerialPort

_HELLO_WAIT_S: Final = 3.0


class SerialSource:
    """Reads one stream of the board on `port`.

    Attributes:
        name: of the source, for health and logs.
        counts: frames and errors since the port was last opened.
        hello: what the board last said of itself.
    """

    def __init__(
        self,
        name: str,
        port: str,
        stream: StreamId,
        clock: Clock,
        *,
        board_stream: str = "",
        channels: Sequence[int] = (),
        baud: int = 115_200,
        not_before_ns: int = 0,
    ) -> None:
        """Prepare; nothing is opened before `events`.

        Args:
            name: of the source.
            port: device file.
            stream: id that the blocks carry.
            clock: for the first time stamp of a boot.
            board_stream: the board's name of the stream; empty means its first.
            channels: columns to keep, in this order; empty means all.
            baud: bits per second; a pty ignores it.
            not_before_ns: end of what an earlier process delivered.
        """
        self.name = name
        self.counts = FrameCounts()
        self.hello: Hello | None = None
        self._port = port
        self._stream = stream
        self._clock = clock
        self._board_stream = board_stream
        self._channels = list(channels)
        self._baud = baud
        self._board_clock = BoardClock(not_before_ns)

    @property
    def zero_ns(self) -> int | None:
        """Host time of the board's clock zero, None before the first samples."""
        return self._board_clock.zero_ns

    async def events(self) -> AsyncIterator[Block]:
        """Yield blocks of at most 40 ms until the port is lost.

        Raises:
            UnavailableError: `serial-open`, `serial-silent` or `serial-lost`.
            ConfigError: `serial-stream` when the board has no such stream or channel.
        """
        parser = FrameParser()
        self.counts = parser.counts
        with SerialPort(self._port, self._baud) as port:
            port.write(write_frame(HelloRequest()))
            gap = False
            while True:
                limit_s = None if parser.counts.received_bytes else _HELLO_WAIT_S
                for event in parser.feed(await port.read(limit_s, "board")):
                    gap = gap or isinstance(event, Gap)
                    for block in self._take(event, parser, gap=gap):
                        gap = False
                        yield block

    def _take(self, event: Event, parser: FrameParser, *, gap: bool) -> list[Block]:
        if isinstance(event, Hello):
            self.hello = event
            self._board_clock.boot(event.boot_id)
            self._check_channels(self._info(event)[1])
        if not isinstance(event, Samples) or parser.hello is None:
            return []
        index, info = self._info(parser.hello)
        if event.stream != index:
            return []
        start_ns, jumped = self._board_clock.stamp(event, info, self._clock.now_ns())
        return self._blocks(event, info, start_ns, gap=gap or jumped)

    def _info(self, hello: Hello) -> tuple[int, StreamInfo]:
        for index, info in enumerate(hello.streams):
            if self._board_stream in ("", info.name):
                return index, info
        raise ConfigError(
            "serial-stream",
            f"board {hello.board_id} has no stream {self._board_stream!r}",
            remedy="use one of: " + ", ".join(info.name for info in hello.streams),
        )

    def _check_channels(self, info: StreamInfo) -> None:
        if self._channels and not all(0 <= channel < info.channels for channel in self._channels):
            raise ConfigError(
                "serial-stream",
                f"stream {info.name} has channels 0 to {info.channels - 1}, not all of {self._channels}",
                remedy="correct `channels` of this source",
            )

    def _blocks(self, samples: Samples, info: StreamInfo, start_ns: int, *, gap: bool) -> list[Block]:
        values = samples.values[:, self._channels] if self._channels else samples.values
        values = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False))
        step = samples_per_block(info.rate_hz)
        return [
            Block(
                stream=self._stream,
                start_ns=start_ns + first * 1_000_000_000_000 // info.rate_milli_hz,
                rate_hz=info.rate_hz,
                values=values[first : first + step],
                unit=info.unit,
                metric=info.metric,
                scale=info.scale,
                quality=Quality.GAP_BEFORE if gap and first == 0 else Quality.GOOD,
            )
            for first in range(0, len(values), step)
        ]
