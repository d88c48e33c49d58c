"""The buffer of an industrial IO device: scans read from its node, as blocks of one stream."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.agent.sources.iio.device import IioDevice
from bedside.agent.sources.iio.setup import ScanSetUp, begin, end, read_set_up
from bedside.agent.sources.kind import SourceContext
from bedside.agent.sources.nominal_time import MeasuredRate, NominalTime
from bedside.core.errors import UnavailableError
from bedside.core.ids import StreamId
from bedside.core.samples import Block, Quality, samples_per_block
from bedside.firmware_bridge.port import readable

_SILENT_S: Final = 5.0
_SILENT_SCANS: Final = 50
"""A buffer that delivers nothing for so long, and for so many scans, is set up again."""
_READ_SCANS: Final = 1_024
_NS_PER_S: Final = 1_000_000_000
_REALTIME_WITHIN_S: Final = 60
"""Of ours; a time that is farther away is not of the clock that the device names."""
_LONGEST_GAP_NS: Final = 60 * _NS_PER_S
_LONGEST_STEP: Final = 1.5
"""Periods between two scans; where it is more, the kernel's buffer was full."""


class IioBuffer:
    """A `Source` on a device's buffer, which it sets up unless another program has."""

    def __init__(
        self,
        name: str,
        stream: StreamId,
        context: SourceContext,
        root: Path,
        device: str,
        channels: Sequence[str],
        *,
        rate_hz: float = 0.0,
        metric: str = "",
    ) -> None:
        """Prepare; nothing is opened.

        Args:
            name: of the source.
            stream: id that the blocks carry.
            context: of the source.
            root: of sys and dev.
            device: see `IioDevice.find`.
            channels: columns of the blocks.
            rate_hz: 0 is what the device says.
            metric: MDC reference id.
        """
        self.name = name
        self._stream = stream
        self._context = context
        self._root = root
        self._device = device
        self._channels = channels
        self._rate_hz = rate_hz
        self._metric = metric
        self._end_ns = context.last_end_ns(stream)

    async def events(self) -> AsyncIterator[Block]:
        """Yield blocks of at most 40 ms until the device is gone.

        Raises:
            UnavailableError: `iio-missing`, `iio-setup`, `iio-open`, `iio-silent`, `iio-lost`.
            ConfigError: `iio-ambiguous`, `iio-channel`, `iio-units`, `iio-rate`.
            MalformedError: `bad-iio-type`, `bad-iio-scan`, `bad-iio-number`: the kernel's files are of another form.
        """
        gauge = self._context.gauge
        gauge.connected = False
        device = IioDevice.find(self._root, self._device)
        ours = begin(device, self._channels)
        try:
            made = read_set_up(device, self._channels, self._rate_hz)
            descriptor = self._open(device)
            try:
                gauge.connected = True
                async with aclosing(self._read_on(descriptor, made)) as blocks:
                    async for block in blocks:
                        yield block
            finally:
                os.close(descriptor)
        finally:
            gauge.connected = False
            if ours:
                with suppress(UnavailableError):  # it may be gone
                    end(device)

    async def _read_on(self, descriptor: int, made: ScanSetUp) -> AsyncGenerator[Block, None]:
        time, measured = NominalTime(made.rate_hz, self._end_ns), MeasuredRate()
        scan_bytes = made.layout.scan_bytes
        last_stamp, rest = 0, b""
        while True:
            await self._await_scans(descriptor, made.rate_hz)
            data = rest + self._read(descriptor, scan_bytes)
            whole = len(data) // scan_bytes * scan_bytes
            data, rest = data[:whole], data[whole:]
            raw = made.layout.decode(data)
            for piece, missing, end_ns in self._pieces(raw, made, last_stamp):
                if missing is not None:
                    self._context.gauge.dropped += missing
                    time.lose()
                    measured.begin()
                start_ns, gap = time.place(len(piece), end_ns)
                if rate_hz := measured.take(len(piece), end_ns):
                    self._context.gauge.detail = f"{rate_hz:.4g} Hz measured"
                for block in self._blocks(piece[:, made.columns], made, start_ns, gap=gap):
                    yield block
            if made.stamp is not None and len(raw):
                last_stamp = int(raw[-1, made.stamp])

    def _open(self, device: IioDevice) -> int:
        try:
            return os.open(device.node, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise UnavailableError(
                "iio-open",
                f"{device.node} cannot be opened: {error.strerror}",
                remedy="let this user read it (udev), and no other program",
            ) from error

    async def _await_scans(self, descriptor: int, rate_hz: float) -> None:
        try:
            async with asyncio.timeout(max(_SILENT_S, _SILENT_SCANS / rate_hz)):
                await readable(descriptor)
        except TimeoutError as error:
            raise UnavailableError(
                "iio-silent", f"{self._device} delivers nothing", remedy="check its trigger and its interrupt"
            ) from error

    def _read(self, descriptor: int, scan_bytes: int) -> bytes:
        try:
            data = os.read(descriptor, scan_bytes * _READ_SCANS)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise UnavailableError("iio-lost", f"{self._device} was lost: {error.strerror}") from error
        if not data:
            raise UnavailableError("iio-lost", f"{self._device} delivers no more")
        return data

    def _pieces(
        self, raw: npt.NDArray[np.int64], made: ScanSetUp, last_stamp: int
    ) -> Iterator[tuple[npt.NDArray[np.int64], int | None, int]]:
        """Scans that follow each other, how many are missing before them (None: no gap), and when the last one ended.

        A longer step than a minute is a clock that was set: nobody can tell what is missing.
        """
        period_ns = _NS_PER_S / made.rate_hz
        now_ns = self._context.clock.now_ns()
        cuts = steps = np.zeros(0, np.int64)
        if made.stamp is not None and len(raw):
            steps = np.diff(raw[:, made.stamp], prepend=last_stamp or int(raw[0, made.stamp]))
            cuts = np.flatnonzero((steps > _LONGEST_STEP * period_ns) | (steps < 0))
        for first, last in zip([0, *cuts], [*cuts, len(raw)], strict=True):
            if first == last:
                continue
            end_ns = now_ns - round((len(raw) - last) * period_ns)
            if made.stamp is not None and made.realtime:
                stamped_ns = int(raw[last - 1, made.stamp]) + round(period_ns)
                if abs(stamped_ns - now_ns) < _REALTIME_WITHIN_S * _NS_PER_S:
                    end_ns = stamped_ns
            missing = None
            if first in cuts:
                step_ns = int(steps[first])
                missing = round(step_ns / period_ns) - 1 if 0 < step_ns < _LONGEST_GAP_NS else 0
            yield raw[first:last], missing, end_ns

    def _blocks(self, raw: npt.NDArray[np.int64], made: ScanSetUp, start_ns: int, gap: bool) -> Iterator[Block]:
        step = samples_per_block(made.rate_hz)
        for first in range(0, len(raw), step):
            piece = raw[first : first + step]
            quality = Quality.GAP_BEFORE if gap and first == 0 else Quality.GOOD
            if made.saturated(piece):
                quality |= Quality.SATURATED
            block = Block(
                self._stream,
                start_ns + round(first * _NS_PER_S / made.rate_hz),
                made.rate_hz,
                made.values(piece),
                made.unit,
                self._metric,
                1.0 if made.dtype == "float32" else float(made.scale[0]),
                quality,
            )
            self._end_ns = start_ns + round((first + len(piece)) * _NS_PER_S / made.rate_hz)
            yield block
