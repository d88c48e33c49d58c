import numpy as np

from bedside.agent.sources.recordings.replay import ReplaySource
from bedside.core.ids import StreamId
from bedside.core.samples import Block
from bedside.firmware_bridge.recording import Recording

RATE_HZ = 50.0
STARTED_NS = 1_000_000_000_000


class StandingClock:
    """Moves only when a sleep asks it to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now_ns(self) -> int:
        return STARTED_NS + int(self.now_s * 1e9)

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


async def arrivals(*, history_s: float, not_before_ns: int = 0) -> tuple[list[Block], list[float]]:
    clock = StandingClock()
    recording = Recording(np.zeros((500, 2), np.float32), RATE_HZ)
    source = ReplaySource(
        "wrist",
        StreamId("wrist"),
        recording,
        clock,
        speed=2.0,
        history_s=history_s,
        not_before_ns=not_before_ns,
        sleep=clock.sleep,
    )
    found = [(event, clock.now_s) async for event in source.events() if isinstance(event, Block)]
    return [block for block, _ in found], [at for _, at in found]


async def test_history_arrives_at_once_and_the_rest_at_its_pace() -> None:
    blocks, times = await arrivals(history_s=6.0)

    history = [at for block, at in zip(blocks, times, strict=True) if (block.start_ns - blocks[0].start_ns) < 5.9e9]
    assert max(history) == 0.0
    assert abs(times[-1] - (10.0 - 6.0) / 2) < 0.05


async def test_history_lies_in_the_past() -> None:
    blocks, _ = await arrivals(history_s=6.0)

    assert blocks[0].start_ns == STARTED_NS - 6_000_000_000


async def test_a_restarted_device_does_not_deliver_its_history_again() -> None:
    blocks, times = await arrivals(history_s=6.0, not_before_ns=STARTED_NS + 5)

    assert blocks[0].start_ns == STARTED_NS + 5
    assert abs(times[-1] - 10.0 / 2) < 0.05
