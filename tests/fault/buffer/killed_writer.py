"""The process that is killed: the real store behind a replayed recording that begins where the store's signal ends.

    python killed_writer.py DATABASE RECORDING

After each commit it prints how many samples are durable, as a device would tell a neighbour.
"""

import asyncio
import sys
from pathlib import Path

from bedside.agent.buffer.store import BufferStore
from bedside.agent.sources.replay import ReplaySource
from bedside.core.ids import StreamId
from bedside.core.samples import Block
from bedside.firmware_bridge.recording import Recording, read_recording
from bedside.service.platform import SystemClock, SystemEntropy

STREAM = StreamId("ecg")
KEY = bytes(range(32))
T0_NS = 1_700_000_000 * 10**9
BLOCKS_PER_COMMIT = 7


def rest_of(recording: Recording, begin_ns: int) -> Recording:
    """What the sensor will still say from a time on."""
    first = round((begin_ns - T0_NS) * recording.rate_hz / 1e9)
    return Recording(recording.values[first:], recording.rate_hz, (), (0,))


async def main() -> None:
    store = BufferStore(Path(sys.argv[1]), KEY, SystemClock(), SystemEntropy())
    begin_ns = max(T0_NS, store.sessions.last_end_ns(STREAM))
    recording = read_recording(Path(sys.argv[2]))
    source = ReplaySource(
        "replay", STREAM, rest_of(recording, begin_ns), SystemClock(), speed=0, start_ns=T0_NS, not_before_ns=begin_ns
    )
    blocks = 0
    async for event in source.events():
        if not isinstance(event, Block):
            continue
        store.append(event)
        blocks += 1
        if blocks % BLOCKS_PER_COMMIT == 0:
            store.flush()
            print(round((source.end_ns - T0_NS) * recording.rate_hz / 1e9), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
