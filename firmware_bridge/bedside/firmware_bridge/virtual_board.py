"""A sensor board made of software: plays a recording into a pty as frames.

`python -m bedside.firmware_bridge.virtual_board --data FILE.npz --pty-link PATH --speed X` creates the pty, points
PATH at it, waits for a host's hello request, and then keeps the pace of its clock. When nobody reads, the pty
fills and the board's time stands still: unlike a real board it never drops a sample.
"""

from __future__ import annotations

import argparse
import os
import secrets
import select
import signal
import sys
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from bedside.core.errors import BedsideError, ConfigError
from bedside.core.samples import samples_per_block
from bedside.firmware_bridge.frames import FrameParser, write_frame
from bedside.firmware_bridge.messages import Hello, HelloRequest, RawSamples, Samples, SampleType, StreamInfo
from bedside.firmware_bridge.recording import Recording, read_recording

_FIRMWARE_VERSION: Final = "virtual-1"
_POLL_S: Final = 0.1
_RATE_MARGIN_S: Final = 0.002
"""Seconds by which a frame may be early: saves a system call per frame."""


class Timed(NamedTuple):
    """A frame and the board time, in seconds since boot, at which it is complete."""

    due_s: float
    frame: bytes


class VirtualBoard:
    """The frames that a board with this recording would send. Pure.

    float32 recordings travel as int32 in steps of `step`; integers travel as they are.
    """

    def __init__(self, recording: Recording, boot_id: int, *, name: str = "signal", step: float = 1e-6) -> None:
        values, scale = _on_grid(recording, step)
        self.values = values
        self.rate_milli_hz = round(recording.rate_hz * 1000)
        kind = SampleType.INT16 if values.dtype == np.int16 else SampleType.INT32
        info = StreamInfo(name, values.shape[1], self.rate_milli_hz, kind, recording.unit, recording.metric, scale)
        self.hello = Hello(boot_id, f"virtual-{boot_id:08x}", _FIRMWARE_VERSION, (info,))
        self._pieces = recording.pieces(min(info.max_samples, samples_per_block(recording.rate_hz)))

    def frames(self, *, loop: bool = False) -> Iterator[Timed]:
        """Yield every frame of samples in order; for ever when `loop`."""
        seq = count()
        for lap in count():
            for first, end in self._pieces:
                values = self.values[first:end]
                index = lap * len(self.values) + first
                message = Samples(0, next(seq) % (1 << 32), index * 1_000_000_000 // self.rate_milli_hz, values)
                yield Timed((index + len(values)) * 1000 / self.rate_milli_hz, write_frame(message))
            if not loop:
                return


def _on_grid(recording: Recording, step: float) -> tuple[RawSamples, float]:
    if recording.values.dtype == np.float32:
        grid = np.rint(recording.values.astype(np.float64) / step)
        return np.clip(grid, -(2**31), 2**31 - 1).astype(np.int32), step * recording.scale
    integers: RawSamples = recording.values  # type: ignore[assignment]  # int16 or int32 is what is left
    return integers, recording.scale


class PtyPlayer:
    """Writes a board's frames to the master side of a pty and answers hello requests."""

    def __init__(self, board: VirtualBoard, master: int, speed: float) -> None:
        self._board = board
        self._master = master
        self._speed = speed
        self._parser = FrameParser()
        self.sent_frames = 0
        os.set_blocking(master, False)

    def play(self, *, loop: bool) -> None:
        """Wait for a host, then play to the end (or for ever)."""
        while not self.serve_requests(_POLL_S):
            pass
        started_s = time.monotonic()
        for due_s, frame in self._board.frames(loop=loop):
            if self._speed > 0:
                self._wait_until(started_s + due_s / self._speed)
            self.serve_requests(0.0)  # a board that is late, or knows no pace, must hear a host that comes back
            self._write(frame)
            self.sent_frames += 1

    def _wait_until(self, moment_s: float) -> None:
        while (left_s := moment_s - time.monotonic()) > _RATE_MARGIN_S:
            self.serve_requests(left_s)

    def serve_requests(self, timeout_s: float) -> bool:
        """Answer hello requests for at most `timeout_s`; True when there was one."""
        readable, _, _ = select.select([self._master], [], [], timeout_s)
        if not readable:
            return False
        events = self._parser.feed(os.read(self._master, 4096))
        asked = any(isinstance(event, HelloRequest) for event in events)
        if asked:
            self._write(write_frame(self._board.hello))
        return asked

    def _write(self, frame: bytes) -> None:
        """Write the whole frame, waiting for room; a request that comes meanwhile is answered after it."""
        rest = memoryview(frame)
        while rest:
            select.select([], [self._master], [])
            try:
                rest = rest[os.write(self._master, rest) :]
            except BlockingIOError:
                continue


@contextmanager
def pty_at(link: Path) -> Iterator[int]:
    """Create a raw pty, point `link` at its device, and yield the master's descriptor.

    Raises:
        ConfigError: `pty-link` when `link` is something other than a symbolic link.
    """
    if link.exists() and not link.is_symlink():
        raise ConfigError("pty-link", f"{link} is in the way", remedy="name a path that is free")
    master, slave = os.openpty()
    try:
        tty.setraw(slave)
        link.unlink(missing_ok=True)
        link.symlink_to(os.ttyname(slave))
        yield master
    finally:
        link.unlink(missing_ok=True)
        os.close(slave)
        os.close(master)


def main(arguments: list[str] | None = None) -> int:
    """Run the board until the recording ends, or SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="virtual_board", description="Play a recording as a sensor board.")
    parser.add_argument("--data", type=Path, required=True, help="recording (.npz)")
    parser.add_argument("--pty-link", type=Path, required=True, help="path to point at the pty")
    parser.add_argument("--speed", type=float, default=1.0, help="times real time; 0 is as fast as possible")
    parser.add_argument("--name", default="signal", help="name of the board's stream")
    parser.add_argument("--loop", action="store_true", help="begin again at the end")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        board = VirtualBoard(read_recording(options.data), secrets.randbits(32), name=options.name)
        with pty_at(options.pty_link) as master:
            player = PtyPlayer(board, master, options.speed)
            player.play(loop=options.loop)
            _linger(player)
    except BedsideError as error:
        sys.stderr.write(error.diagnostics() + "\n")
        return error.exit_status
    except KeyboardInterrupt:
        return 0
    return 0


def _linger(player: PtyPlayer) -> None:
    """Stay until killed: closing a pty throws away what the host has not read yet."""
    while True:
        player.serve_requests(60.0)


if __name__ == "__main__":
    sys.exit(main())
