"""The process that is killed: records of a sender that repeats what it saw no acknowledgement of.

    python acknowledging_writer.py DATABASE FIRST

It sends the records from number FIRST on, and prints each number once its acknowledgement is there. A record of each
ten comes late, and one in ten twice; every seventh kind is quarantined.
"""

import asyncio
import sys
from pathlib import Path

from bedside.agent.buffer.acknowledging import Acknowledging
from bedside.agent.buffer.committer import Committer
from bedside.agent.buffer.store import BufferStore
from bedside.agent.keeping import Keeper
from bedside.core.errors import BedsideError
from bedside.core.ids import StreamId
from bedside.core.samples import Record, Unmapped
from bedside.service.platform import SystemClock, SystemEntropy

BED = StreamId("bed")
KEY = bytes(range(32))
T0_NS = 1_700_000_000 * 10**9
IN_FLIGHT = 4


def record(number: int) -> Record:
    late = 5 if number % 10 == 9 else 0
    return Record(BED, T0_NS + (number - late) * 10**9, {"number": float(number)}, {})


async def main() -> None:
    clock = SystemClock()
    store = BufferStore(Path(sys.argv[1]), KEY, clock, SystemEntropy())
    committer, keeper = Committer(store, clock), Keeper(store)
    durable = Acknowledging(committer, store.losses)

    async def send(number: int) -> None:
        keeper.record(record(number))
        if number % 10 == 3:
            keeper.record(record(number))
        if number % 7 == 0:
            store.quarantine(Unmapped("ward", "unknown-code", "hr", T0_NS))
        try:
            await durable((BED,))
        except BedsideError as error:
            sys.exit(str(error))
        print(number, flush=True)

    async def commit() -> None:
        while True:
            committer.flush_due()
            await asyncio.sleep(0.001)

    committing = asyncio.create_task(commit())
    number = int(sys.argv[2])
    waiting: set[asyncio.Task[None]] = set()
    while not committing.done():
        while len(waiting) < IN_FLIGHT:
            waiting.add(asyncio.create_task(send(number)))
            number += 1
        _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)


if __name__ == "__main__":
    asyncio.run(main())
