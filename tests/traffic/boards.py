"""Devices at the end of a cable: ptys with a sensor board and an Ivy 450C monitor, a chip with an IIO buffer."""

from __future__ import annotations

import asyncio
import os
import struct
import tty
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bedside.agent.sources.supervisor import SourceHealth
from bedside.firmware_bridge.frames import FrameParser, write_frame
from bedside.firmware_bridge.messages import HelloRequest
from bedside.firmware_bridge.recording import Recording
from bedside.firmware_bridge.virtual_board import Timed, VirtualBoard
from ivy_packets import LINES, packet
from traffic.feeder import Feeder


class Pty:
    """A port whose other end is ours."""

    def __init__(self) -> None:
        self._ours, self._theirs = os.openpty()
        tty.setraw(self._ours)
        tty.setraw(self._theirs)
        os.set_blocking(self._ours, False)
        self.port = os.ttyname(self._theirs)

    async def read(self) -> bytes:
        """What was written at the other end, as soon as there is something."""
        while True:
            try:
                return os.read(self._ours, 4096)
            except BlockingIOError:
                await asyncio.sleep(0.002)

    async def write(self, data: bytes) -> None:
        """Write all of it, as fast as it is read."""
        while data:
            try:
                data = data[os.write(self._ours, data) :]
            except BlockingIOError:
                await asyncio.sleep(0.002)

    async def opened(self) -> None:
        """Return when the other end was opened: what was written before is thrown away then."""
        descriptors = Path("/proc/self/fd")
        while sum(_leads_to(one, self.port) for one in descriptors.iterdir()) < 2:
            await asyncio.sleep(0.005)

    def close(self) -> None:
        os.close(self._ours)
        os.close(self._theirs)


def _leads_to(descriptor: Path, port: str) -> bool:
    with suppress(OSError):
        return os.readlink(descriptor) == port
    return False


class SerialFeeder(Feeder):
    """A board of three channels at 10 Hz; every minute one frame of ten samples arrives with a wrong checksum."""

    kind = "serial"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._pty = Pty()
        values = np.random.default_rng(3).integers(-500, 500, (6_000, 3)).astype(np.int16)
        self._board = VirtualBoard(Recording(values, 10.0, unit="m/s2"), boot_id=7)
        self._frames: Iterator[Timed] = self._board.frames(loop=True)
        self._boxed = 0

    def options(self) -> dict[str, Any]:
        return {"stream": self.name, "port": self._pty.port}

    async def start(self, health: SourceHealth) -> None:
        parser = FrameParser()
        while not any(isinstance(one, HelloRequest) for one in parser.feed(await self._pty.read())):
            pass
        await self._pty.write(write_frame(self._board.hello))

    async def minute(self, number: int, start_ns: int) -> None:
        for second in range(60):
            for at in range(10):
                frame = next(self._frames).frame
                damaged = second == 30 and at == 5
                if damaged:
                    frame = frame[:6] + bytes([frame[6] ^ 1 or 2]) + frame[7:]
                await self._pty.write(frame)
                self.sent.good += not damaged
                self.sent.lost += damaged

    async def stop(self) -> None:
        self._pty.close()


class IvyFeeder(Feeder):
    """A monitor that sends a second of waves and numbers, once a minute; one packet in twelve is cut short."""

    kind = "ivy450c"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._pty = Pty()

    def options(self) -> dict[str, Any]:
        return {"stream": self.name, "port": self._pty.port}

    def streams(self) -> tuple[str, ...]:
        return (self.name, *(f"{self.name}-{wave}" for wave in ("ecg", "resp", "pleth", "p1", "p2")))

    async def start(self, health: SourceHealth) -> None:
        await self._pty.opened()

    async def minute(self, number: int, start_ns: int) -> None:
        whole = packet(ecg=number % 200, lines=(*LINES, "STRANGE=1;5;") if number % 5 == 4 else LINES)
        if number % 12 == 11:
            whole = whole[:150] + whole[-1:]
            self.sent.bad["bad-message"] += 1
        else:
            self.sent.good += WAVE_SAMPLES + NUMBERS
            self.sent.bad["unknown-code"] += number % 5 == 4
        await self._pty.write(whole)

    async def stop(self) -> None:
        self._pty.close()


class IioFeeder(Feeder):
    """An accelerometer of two axes at 10 Hz, read for five seconds of every minute: the rest has overflowed.

    Its tree is made up, and its node is a FIFO.
    """

    kind = "iio"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._root = folder / "iio"
        chip = self._root / "sys/bus/iio/devices/iio:device0"
        for name, text in _CHIP.items():
            (chip / name).parent.mkdir(parents=True, exist_ok=True)
            (chip / name).write_text(f"{text}\n")
        (self._root / "dev").mkdir()
        self._node = self._root / "dev" / "iio:device0"
        os.mkfifo(self._node)
        self._writer = -1

    def options(self) -> dict[str, Any]:
        channels = ["accel_x", "accel_y"]
        chip = {"device": "lsm6dso", "channels": channels, "buffered": True, "root": str(self._root)}
        return {"stream": self.name, **chip}

    async def start(self, health: SourceHealth) -> None:
        while not health.gauge.connected:
            await asyncio.sleep(0.01)
        self._writer = os.open(self._node, os.O_WRONLY)

    async def minute(self, number: int, start_ns: int) -> None:
        scans = [struct.pack("<hh4xq", at + number % 100, -at, start_ns + at * 100_000_000) for at in range(IIO_SCANS)]
        os.write(self._writer, b"".join(scans))
        self.sent.good += IIO_SCANS
        self.sent.lost += 600 - IIO_SCANS if number else 0

    async def stop(self) -> None:
        if self._writer >= 0:
            os.close(self._writer)


IIO_SCANS = 50
_CHIP = {
    "name": "lsm6dso",
    "sampling_frequency": "10.0",
    "current_timestamp_clock": "realtime",
    "in_accel_scale": "0.000598",
    "buffer/enable": "0",
    "buffer/length": "0",
    **{f"scan_elements/in_{name}_en": "0" for name in ("accel_x", "accel_y", "timestamp")},
    **{f"scan_elements/in_{name}_type": "le:s16/16>>0" for name in ("accel_x", "accel_y")},
    "scan_elements/in_timestamp_type": "le:s64/64>>0",
    **{f"scan_elements/in_{name}_index": at for at, name in enumerate(("accel_x", "accel_y", "timestamp"))},
}
WAVE_SAMPLES = 200 + 50 + 50 + 50
"""Of a packet: ECG, respiration, pleth and the first pressure; the second has no transducer."""
NUMBERS = 17
"""On the screen: see `LINES`."""
