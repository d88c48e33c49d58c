"""The process that is killed: the real store behind a replayed recording that begins where the store's signal ends.

    python killed_writer.py DATABASE RECORDING flush|beside

After each commit it prints how many samples are durable, as a device would tell a neighbour. `flush` commits in the
process's one thread, `beside` in another one, as the agent does; its clock runs so fast that it commits all the time.
"""

import asyncio
import sys
import time
from pathlib import Path

from bedside.agent.buffer.committer import Committer
from bedside.agent.buffer.group import Batch
from bedside.agent.buffer.store import BufferStore
from bedside.agent.sources.recordings.replay import ReplaySource
from bedside.core.ids import StreamId
from bedside.core.samples import Block
from bedside.firmware_bridge.recording import Recording, read_recording
from bedside.service.platform import SystemClock, SystemEntropy

STREAM = StreamId("ecg")
KEY = bytes(range(32))
T0_NS = 1_700_000_000 * 10**9
BLOCKS_PER_COMMIT = 7
HURRY = 200.0


class HurriedClock(SystemClock):
    """Two hundred seconds pass in one."""

    def monotonic_s(self) -> float:
        return HURRY * super().monotonic_s()


class Beside:
    """Commits in another thread, and knows how many samples each commit made durable."""

    def __init__(self, store: BufferStore) -> None:
        self._committer = Committer(store, SystemClock())  # by a clock in a hurry a busy disk would count as hanging
        self._take, store.take_batch = store.take_batch, self._take_and_count
        self._samples: list[int] = []

    def commit_due(self) -> int:
        """Samples that are durable since the last call."""
        samples = self._samples.pop(0) if self._committer.flush_due() else 0
        if self._committer.busy:
            time.sleep(0.001)  # as fast as a sensor, or the recording ends before the killing does
        return samples

    def _take_and_count(self, *, now: bool = False) -> Batch | None:
        batch = self._take(now=now)
        if batch is not None:
            self._samples.append(sum(int(row.columns["samples"]) for row in batch.waiting.rows))
        return batch


def rest_of(recording: Recording, begin_ns: int) -> Recording:
    """What the sensor will still say from a time on."""
    first = round((begin_ns - T0_NS) * recording.rate_hz / 1e9)
    return Recording(recording.values[first:], recording.rate_hz, (), (0,))


async def main() -> None:
    clock = HurriedClock()
    store = BufferStore(Path(sys.argv[1]), KEY, clock, SystemEntropy())
    beside = Beside(store) if sys.argv[3] == "beside" else None
    begin_ns = max(T0_NS, store.sessions.last_end_ns(STREAM))
    recording = read_recording(Path(sys.argv[2]))
    source = ReplaySource(
        "replay", STREAM, rest_of(recording, begin_ns), SystemClock(), speed=0, start_ns=T0_NS, not_before_ns=begin_ns
    )
    blocks, before = 0, round((begin_ns - T0_NS) * recording.rate_hz / 1e9)
    async for event in source.events():
        if not isinstance(event, Block):
            continue
        store.append(event)
        blocks += 1
        if beside is not None:
            if samples := beside.commit_due():
                before += samples
                print(before, flush=True)
        elif blocks % BLOCKS_PER_COMMIT == 0:
            store.flush()
            print(round((source.end_ns - T0_NS) * recording.rate_hz / 1e9), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
