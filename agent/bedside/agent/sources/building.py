"""Makes the sources of one device, each with what it may need of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bedside.agent.buffer.acknowledging import Acknowledging
from bedside.agent.sources.kind import SourceContext, SourceGauge, SourceOptions
from bedside.agent.sources.registry import build_source
from bedside.core.samples import Source
from bedside.service.logs import event

if TYPE_CHECKING:
    from bedside.agent.buffer.committer import Committer
    from bedside.agent.buffer.store import BufferStore
    from bedside.agent.device_time import DeviceTime
    from bedside.core.clock import Clock
    from bedside.core.ids import StreamId

_LOGGER: Final = logging.getLogger(__name__)


class SourceBuilder:
    """Of one device.

    Args:
        directory: relative paths start here.
        state_dir: of the agent.
        clock: of the process.
        buffer: takes what arrives.
        committer: makes it durable.
        time: tells a wrong clock.
    """

    def __init__(
        self,
        directory: Path,
        state_dir: Path,
        clock: Clock,
        buffer: BufferStore,
        committer: Committer,
        time: DeviceTime,
    ) -> None:
        self._directory = directory.absolute()
        self._state_dir = state_dir
        self._clock = clock
        self._buffer = buffer
        self._committer = committer
        self._time = time

    def build(self, kind: str, options: SourceOptions, gauge: SourceGauge) -> Source:
        """Make a source; it opens no connection.

        Raises:
            ConfigError, MalformedError: as `build_source`.
        """
        context = SourceContext(
            self._clock,
            self._last_end_ns,
            self._directory,
            Acknowledging(self._committer, self._buffer.losses),
            gauge,
            self._state_dir,
            self._buffer.sessions.opened,
        )
        return build_source(kind, options, context)

    def _last_end_ns(self, stream: StreamId) -> int:
        """Where signal time goes on; not where a wrong clock has left it, which is logged."""
        stored_ns = self._buffer.sessions.last_end_ns(stream)
        end_ns = self._buffer.sessions.last_end_ns(stream, self._time.plausible_until_ns())
        if end_ns < stored_ns:
            event(_LOGGER, "stored-time-ahead", level=logging.WARNING, stream=stream)
        return end_ns
