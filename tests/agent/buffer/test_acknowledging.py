"""What a source may acknowledge: what is on the disk or counted there, and nothing that the disk has refused."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bedside.agent.buffer import ahead, waiting
from bedside.agent.buffer.acknowledging import Acknowledging
from bedside.agent.keeping import Keeper
from bedside.core.errors import StoreError, UnavailableError
from bedside.core.samples import Mark, MarkKind, Record, Unmapped

sys.path.insert(0, str(Path(__file__).parent))
from held_disk import BED, DEADLINE_S, ECG, T0, Device


class Source:
    """What stands behind one source: its way into the buffer, and its acknowledgements."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.keeper = Keeper(device.store)
        self.durable = Acknowledging(device.committer, device.store.losses)
        self.said = 0

    def say(self) -> Record:
        record = Record(BED, T0 + self.said * 10**9, {"pulse": float(self.said)}, {})
        self.said += 1
        self.keeper.record(record)
        return record

    def wait(self, *streams: str) -> asyncio.Task[None]:
        return asyncio.create_task(self.durable(streams or (BED,)))

    def work(self) -> None:
        """What the agent does every 20 ms."""
        try:
            self.device.store.ahead.settle()
            self.device.committer.flush_due()
        except StoreError as error:
            self.keeper.failed(error)

    async def until(self, holds: Callable[[], bool], step_s: float = 0.02) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < deadline_s
            self.device.clock.at_s += step_s
            self.work()
            await asyncio.sleep(0.001)

    async def for_some_rounds(self) -> None:
        """Let whatever can happen now happen, commits of the thread among it."""
        for _ in range(20):
            self.device.clock.at_s += 1
            self.work()
            await self.until_idle()

    async def until_idle(self) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while self.device.committer.busy and self.device.gate.open.is_set():
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)


@pytest.fixture
def device(tmp_path):
    made = Device(tmp_path / "b.db")
    yield made
    made.gate.fails = lambda: False
    made.gate.open.set()
    made.close()


@pytest.fixture
def source(device):
    return Source(device)


def pulses(device: Device) -> list[float]:
    return device.stored()[1]


async def test_it_returns_when_the_record_is_on_the_disk_without_waiting_for_a_second(source, device) -> None:
    source.say()
    told = source.wait()
    await asyncio.sleep(0)
    assert pulses(device) == []
    await source.until(told.done, step_s=0.0)
    assert pulses(device) == [0.0]


async def test_it_waits_for_the_disk_and_for_no_clock_and_many_share_a_commit(source, device) -> None:
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(20):
            source.say()
            await source.durable((BED,))  # nobody calls flush_due
        for _ in range(50):
            source.say()
        await asyncio.gather(*(source.durable((BED,)) for _ in range(50)))
    assert pulses(device) == [float(number) for number in range(70)]
    assert device.gate.commits <= 30


async def test_a_failure_of_such_a_commit_is_told_to_who_looks(source, device) -> None:
    source.say()
    device.store.flush()
    source.say()
    device.gate.fails = lambda: True
    told = source.wait()
    deadline_s = time.monotonic() + DEADLINE_S
    while device.committer._failure is None:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.001)
    assert source.keeper.store_error is None
    source.work()
    assert source.keeper.store_error is not None
    device.gate.fails = lambda: False
    await source.until(told.done)
    assert pulses(device) == [0.0, 1.0]


async def test_a_part_that_is_still_open_is_closed_for_it(source, device) -> None:
    device.say(1, predict=False)
    assert device.stored()[0] == []
    told = source.wait(ECG)
    await source.until(told.done)
    assert device.stored()[0] == list(range(5))


async def test_what_came_during_a_commit_waits_for_the_next_one(source, device) -> None:
    device.say(2)
    device.hold()
    source.said = 10
    source.say()
    told = source.wait()
    await asyncio.sleep(0)
    device.let_go()
    assert not told.done()  # the commit that has ended did not hold it
    await source.until(told.done)
    assert pulses(device)[-1] == 10.0


async def test_while_the_disk_fails_nothing_is_acknowledged_and_then_it_is_all_there(source, device) -> None:
    source.say()
    device.gate.fails = lambda: True
    told = source.wait()
    await source.for_some_rounds()
    assert not told.done()
    assert pulses(device) == []
    device.gate.fails = lambda: False
    await source.until(told.done)
    assert told.exception() is None
    assert pulses(device) == [0.0]


async def test_while_the_disk_hangs_nothing_is_acknowledged(source, device) -> None:
    source.say()
    told = source.wait()
    await asyncio.sleep(0)
    device.hold()
    for _ in range(100):
        device.clock.at_s += 1
        source.work()
        await asyncio.sleep(0)
    assert not told.done()
    device.gate.open.set()
    await source.until(told.done)
    assert pulses(device) == [0.0]


async def test_a_commit_that_failed_and_was_taken_back_by_somebody_else_acknowledges_nothing(source, device) -> None:
    """The loop settles the thread's failed batch itself, and fails as well: its rows wait, and so does the source."""
    source.say()
    told = source.wait()
    await asyncio.sleep(0)
    device.hold()
    device.gate.fails = lambda: True
    device.opens_when_asked()
    with pytest.raises(StoreError, match="store-write"):
        device.store.flush()
    device.gate.open.set()
    await source.for_some_rounds()
    assert not told.done()
    assert pulses(device) == []
    device.gate.fails = lambda: False
    await source.until(told.done)
    assert pulses(device) == [0.0]


async def test_a_commit_of_the_loop_acknowledges_as_well(source, device) -> None:
    source.say()
    told = source.wait()
    await asyncio.sleep(0)
    device.store.flush()
    source.work()
    await asyncio.sleep(0)
    assert told.done()


async def test_a_source_that_is_cancelled_while_it_waits_disturbs_no_other(source, device) -> None:
    device.gate.fails = lambda: True
    source.say()
    gone, stays = source.wait(), source.wait()
    await source.for_some_rounds()
    gone.cancel()
    await asyncio.sleep(0)
    assert gone.cancelled()
    device.gate.fails = lambda: False
    await source.until(stays.done)
    assert not device.committer._awaited


async def test_a_session_that_the_disk_has_not_taken_acknowledges_nothing(source, device) -> None:
    source.say()
    device.store.flush()
    device.gate.fails = lambda: True
    source.keeper.mark(Mark(BED, T0 + 2, T0 + 2, "", "adt", MarkKind.SESSION_OPEN))
    assert device.store.ahead.waits(BED)
    told = source.wait()
    other = source.wait(ECG)
    await source.for_some_rounds()
    assert not told.done()
    device.gate.fails = lambda: False
    await source.until(lambda: told.done() and other.done())
    assert told.exception() is None
    assert len(device.store.database.rows("SELECT 1 FROM sessions WHERE origin = 'adt'")) == 1


async def test_a_session_change_too_many_to_wait_is_never_acknowledged(source, device, monkeypatch) -> None:
    monkeypatch.setattr(ahead, "MAX_AHEAD", 1)
    device.gate.fails = lambda: True
    for second in (1, 2):
        source.keeper.mark(Mark(BED, T0 + second, T0 + second, "", "adt", MarkKind.SESSION_OPEN))
    device.gate.fails = lambda: False
    await not_kept(source)


async def not_kept(source: Source) -> None:
    told = source.wait()
    await source.until(told.done)
    with pytest.raises(StoreError, match="not-kept"):
        told.result()


async def test_what_the_disk_refused_is_counted_and_told_to_every_waiter_and_kept_when_it_comes_again(
    source, device
) -> None:
    device.gate.fails = lambda: True
    record = source.say()  # its session cannot be opened
    device.gate.fails = lambda: False
    other = Acknowledging(device.committer, device.store.losses)  # a source that is started now
    await asyncio.gather(not_kept(source), not_kept(source))
    device.clock.at_s += 60
    await source.until((told := source.wait()).done)
    assert told.exception() is None
    fresh = asyncio.create_task(other((BED,)))
    await source.until(fresh.done)
    assert fresh.exception() is None
    source.keeper.record(record)
    await source.until((told := source.wait()).done)
    assert pulses(device) == [0.0]
    assert device.counters() == {"dropped-records": 1}


async def test_a_loss_is_told_however_late_the_source_asks(source, device) -> None:
    """A file is read to its end before anybody waits."""
    device.gate.fails = lambda: True
    source.say()
    device.gate.fails = lambda: False
    device.clock.at_s += 600
    source.say()
    await not_kept(source)


async def test_a_row_that_goes_because_too_much_waits_is_not_acknowledged(source, device, monkeypatch) -> None:
    source.say()
    device.store.flush()
    monkeypatch.setattr(waiting, "MAX_WAITING_BYTES", 200)
    device.gate.fails = lambda: True
    told = source.wait()
    for _ in range(5):
        source.say()
    await source.for_some_rounds()
    assert not told.done()
    device.gate.fails = lambda: False
    await source.until(told.done)
    with pytest.raises(StoreError, match="not-kept"):
        told.result()
    stored, counters = len(pulses(device)), device.counters()
    assert (stored + counters["dropped-records"], counters.keys()) == (6, {"dropped-records"})


async def test_what_can_never_be_kept_is_acknowledged_once_its_count_is_durable(source, device) -> None:
    source.keeper.record(Record(BED, -1, {"pulse": 1.0}, {}))
    source.keeper.record(Record(BED, T0, {"pulse": float("inf")}, {}))
    source.keeper.record(Record(BED, T0, {}, {}))
    source.keeper.mark(Mark(BED, -1, -1, "", "adt", MarkKind.SESSION_OPEN))
    device.store.quarantine(Unmapped("ward", "unknown-code", "hr", T0, 4))
    told = source.wait()
    await source.until(told.done)
    assert told.exception() is None
    assert device.counters() == {"refused-records": 3, "refused-marks": 1}
    (row,) = device.store.database.rows("SELECT * FROM quarantine")
    assert (row["what"], row["count"]) == ("hr", 4)


async def test_when_the_agent_stops_who_waits_is_not_answered(source, device) -> None:
    device.gate.fails = lambda: True
    source.say()
    told = source.wait()
    await source.for_some_rounds()
    device.committer.close()
    with pytest.raises(UnavailableError, match="agent-stops"):
        await told
    with pytest.raises(UnavailableError, match="agent-stops"):
        await source.durable((BED,))


@pytest.mark.parametrize("seed", range(6))
async def test_on_a_disk_that_often_fails_every_acknowledged_record_is_there(source, device, seed) -> None:
    rng = random.Random(seed)
    device.gate.fails = lambda: rng.random() < 0.4
    told: dict[asyncio.Task[None], float] = {}
    for number in range(150):
        source.say()
        if rng.random() < 0.5:
            told[source.wait()] = float(number)
        if rng.random() < 0.1:
            device.store.ahead.open(BED, T0 + number * 10**9, "adt")
        device.clock.at_s += rng.random()
        source.work()
        await asyncio.sleep(0)
        if rng.random() < 0.3:
            await source.until_idle()
            acknowledged = [at for one, at in told.items() if one.done() and one.exception() is None]
            assert set(acknowledged) <= set(pulses(device))
    device.gate.fails = lambda: False
    await source.until(lambda: all(one.done() for one in told))
    device.store.flush()
    counters = device.counters()
    assert len(pulses(device)) + counters.get("dropped-records", 0) == 150
    assert {one.exception() is None for one in told} == {True, False}
