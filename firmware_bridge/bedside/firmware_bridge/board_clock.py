"""From a board's clock to signal time.

Invariants:
    * Consecutive messages of a stream get exactly consecutive nominal times: jitter of the link never shows.
    * Within one boot the offset between board clock and host clock is fixed, also across reconnects, so that a gap
      is as long as it was. A new boot gets a new offset, never before what was already delivered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bedside.firmware_bridge.messages import Samples, StreamInfo

_NS_PER_S: Final = 1_000_000_000


@dataclass(slots=True)
class _Run:
    start_ns: int
    samples: int
    rate_milli_hz: int

    def end_ns(self) -> int:
        return self.start_ns + self.samples * 1000 * _NS_PER_S // self.rate_milli_hz


class BoardClock:
    """Time stamps for the samples of one board.

    Attributes:
        zero_ns: host time of the board's clock zero; None before the first samples of a boot.
    """

    def __init__(self, not_before_ns: int = 0) -> None:
        self.zero_ns: int | None = None
        self._boot_id: int | None = None
        self._latest_ns = not_before_ns
        self._runs: dict[int, _Run] = {}

    def boot(self, boot_id: int) -> None:
        """Note the boot id of a hello."""
        if boot_id != self._boot_id:
            self._boot_id = boot_id
            self.zero_ns = None
            self._runs.clear()

    def stamp(self, samples: Samples, info: StreamInfo, arrived_ns: int) -> tuple[int, bool]:
        """Return the start of `samples` in ns since the epoch, and whether a gap lies before it."""
        count = len(samples.values)
        span_ns = count * 1000 * _NS_PER_S // info.rate_milli_hz
        if self.zero_ns is None:
            first_ns = max(arrived_ns - span_ns, self._latest_ns)
            self.zero_ns = first_ns - samples.clock_us * 1000
        measured_ns = self.zero_ns + samples.clock_us * 1000
        run = self._runs.get(samples.stream)
        half_period_ns = 500 * _NS_PER_S // info.rate_milli_hz
        continues = (
            run is not None
            and run.rate_milli_hz == info.rate_milli_hz
            and abs(run.end_ns() - measured_ns) <= half_period_ns
        )
        if run is None or not continues:
            run = self._runs[samples.stream] = _Run(measured_ns, 0, info.rate_milli_hz)
        start_ns = run.end_ns()
        run.samples += count
        self._latest_ns = max(self._latest_ns, run.end_ns())
        return start_ns, not continues
