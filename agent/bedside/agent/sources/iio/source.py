"""A sensor of Linux industrial IO: slow ones are asked every so often, fast ones deliver through their buffer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Final

import msgspec

from bedside.agent.config_bounds import MAX_WAIT_S
from bedside.agent.sources.iio.buffer import IioBuffer
from bedside.agent.sources.iio.device import IioDevice
from bedside.agent.sources.kind import SourceContext, SourceKind, SourceOptions, option
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.ids import StreamId
from bedside.core.limits import MAX_RATE_HZ
from bedside.core.samples import Record, Source, Unmapped
from bedside.core.vocabulary.normaliser import FieldRule, Normaliser
from bedside.core.vocabulary.reading import Reading

_CHANNEL: Final = re.compile(r"[a-z0-9_-]{1,60}")
_FASTEST_S: Final = 0.01
"""Between two polls; what is faster has a buffer."""


class IioOptions(SourceOptions, frozen=True, kw_only=True):
    """A sensor of Linux industrial IO."""

    stream: Annotated[str, option("id of the stream")]
    device: Annotated[str, option("iio:device0, or the name of its chip")]
    channels: Annotated[tuple[str, ...], option("such as temp or accel_x: its files without in_ and _raw")]
    buffered: Annotated[bool, option("true: a waveform from its buffer, else records by asking")] = False
    every_s: Annotated[float, option("seconds between two questions")] = 1.0
    rate_hz: Annotated[float, option("of the buffer, else what the device says")] = 0.0
    metric: Annotated[str, option("MDC reference id of the waveform")] = ""
    root: Annotated[str, option("where sys and dev are")] = "/"
    fields: Annotated[dict[str, FieldRule], option("by name: code (the channel), unit, low, high and others")] = (
        msgspec.field(default_factory=dict)
    )


class IioPolls:
    """A `Source` that asks a device."""

    def __init__(
        self,
        options: IioOptions,
        context: SourceContext,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = options.name
        self._options = options
        self._context = context
        self._sleep = sleep
        self._stream = StreamId(options.stream)
        self._normaliser = Normaliser(options.name, options.fields)

    async def events(self) -> AsyncIterator[Record | Unmapped]:
        """Yield a record a period until the device is gone; a channel that does not answer has no value in it.

        Raises:
            UnavailableError: `iio-missing`.
            ConfigError: `iio-ambiguous`.
        """
        clock, gauge = self._context.clock, self._context.gauge
        gauge.connected = False
        device = IioDevice.find(self._context.directory / self._options.root, self._options.device)
        due_s = clock.monotonic_s()
        try:
            while True:
                time_ns = clock.now_ns()
                readings = await asyncio.to_thread(self._ask, device)  # a slow bus holds up nobody
                gauge.connected = True
                for event in self._normaliser.events(self._stream, time_ns, readings, time_ns):
                    yield event
                due_s = max(due_s + self._options.every_s, clock.monotonic_s())
                await self._sleep(due_s - clock.monotonic_s())
        finally:
            gauge.connected = False

    def _ask(self, device: IioDevice) -> list[Reading]:
        return [self._reading(device, channel) for channel in self._options.channels]

    def _reading(self, device: IioDevice, channel: str) -> Reading:
        value: float | str | None
        try:
            value, unit = device.value(channel)
        except MalformedError:
            value, unit = "no number", ""
        return Reading(channel, value, "IIO", unit, valid=value is not None)


def _build(options: IioOptions, context: SourceContext) -> Source:
    def refuse(sentence: str, remedy: str) -> ConfigError:
        return ConfigError("source-config", f"source {options.name}: {sentence}", remedy=remedy)

    if not options.channels or not all(_CHANNEL.fullmatch(channel) for channel in options.channels):
        raise refuse("`channels` names no channel", "name them as their files do, such as temp of in_temp_raw")
    if len(set(options.channels)) < len(options.channels):
        raise refuse("a channel is named twice", "name every channel once")
    if not _FASTEST_S <= options.every_s <= MAX_WAIT_S:
        raise refuse(f"a period of {options.every_s} s is impossible", f"{_FASTEST_S} to {MAX_WAIT_S}; or `buffered`")
    if not 0 <= options.rate_hz <= MAX_RATE_HZ:
        raise refuse(f"a rate of {options.rate_hz} Hz is impossible", f"above 0, and {MAX_RATE_HZ} at most")
    if not options.buffered:
        return IioPolls(options, context)
    return IioBuffer(
        options.name,
        StreamId(options.stream),
        context,
        context.directory / options.root,
        options.device,
        options.channels,
        rate_hz=options.rate_hz,
        metric=options.metric,
    )


KIND: Final = SourceKind(IioOptions, _build)
