"""Acknowledgements wait for the disk, and for company as long as that holds up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager, suppress

import pytest

from bedside.agent.mqtt import acknowledger
from bedside.agent.mqtt.acknowledger import MANY, Acknowledger
from bedside.core.errors import StoreError
from bedside.core.ids import StreamId

ECG, VITALS = StreamId("ecg"), StreamId("vitals")


class Disk:
    """Refuses until it is told otherwise."""

    def __init__(self) -> None:
        self.asked: list[set[StreamId]] = []
        self.ready = asyncio.Event()
        self.sent: list[int] = []

    async def durable(self, streams: Collection[StreamId]) -> None:
        self.asked.append(set(streams))
        await self.ready.wait()

    def send(self, numbers: Iterable[int]) -> None:
        assert self.ready.is_set(), "nothing is acknowledged before"
        self.sent += numbers


@asynccontextmanager
async def running(one: Acknowledger, disk: Disk) -> AsyncIterator[None]:
    task = asyncio.create_task(one.run(disk.send))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(good) -> None:
    async with asyncio.timeout(10):
        while not good():
            await asyncio.sleep(0)


async def test_many_are_acknowledged_together_and_in_order(monkeypatch) -> None:
    monkeypatch.setattr(acknowledger, "PATIENCE_S", 1_000.0)
    disk = Disk()
    one = Acknowledger(disk.durable)
    async with running(one, disk):
        for number in range(MANY):
            one.written(VITALS)
            one.add(number)
        await until(lambda: disk.asked)
        one.written(ECG)
        assert not disk.sent
        disk.ready.set()
        await until(lambda: disk.sent)
        assert disk.sent == list(range(MANY))
        for number in range(MANY):
            one.add(number)
        await until(lambda: len(disk.asked) == 2)
    assert disk.asked == [{VITALS}, {ECG}]


async def test_one_alone_waits_no_longer_than_its_patience(monkeypatch) -> None:
    monkeypatch.setattr(acknowledger, "PATIENCE_S", 0.01)
    disk = Disk()
    disk.ready.set()
    one = Acknowledger(disk.durable)
    async with running(one, disk):
        one.add(7)
        await until(lambda: disk.sent)
    assert disk.sent == [7]


async def test_a_few_do_not_wait_once_nothing_comes_any_more(monkeypatch) -> None:
    monkeypatch.setattr(acknowledger, "PATIENCE_S", 1_000.0)
    disk = Disk()
    disk.ready.set()
    one = Acknowledger(disk.durable)
    async with running(one, disk):
        for number in range(20):
            one.add(number)
        await until(lambda: disk.sent)
    assert disk.sent == list(range(20))


async def test_a_connection_that_is_lost_forgets_its_numbers_and_not_what_was_written(monkeypatch) -> None:
    monkeypatch.setattr(acknowledger, "PATIENCE_S", 0.01)
    disk = Disk()
    one = Acknowledger(disk.durable)
    async with running(one, disk):
        one.written(ECG)
        one.add(1)
        await until(lambda: disk.asked)
        one.add(2)
    one.begin()
    disk.ready.set()
    async with running(one, disk):
        one.add(3)
        await until(lambda: disk.sent)
    assert disk.sent == [3]
    assert disk.asked[-1] == {ECG}


async def test_no_more_is_taken_while_too_many_wait_for_the_disk() -> None:
    disk = Disk()
    one = Acknowledger(disk.durable)
    one.begin()
    async with running(one, disk):
        for number in range(acknowledger.MOST):
            await one.room()
            one.add(number)
        waiting = asyncio.create_task(one.room())
        await until(lambda: disk.asked)
        assert not waiting.done()
        disk.ready.set()
        async with asyncio.timeout(10):
            await waiting
    assert disk.sent


async def test_who_waits_for_room_does_not_wait_for_a_disk_that_has_refused() -> None:
    async def refusing(streams: Collection[StreamId]) -> None:
        await asyncio.sleep(0)
        raise StoreError("not-kept", "the disk has refused it")

    one = Acknowledger(refusing)
    one.begin()
    for number in range(acknowledger.MOST):
        one.add(number)
    task = asyncio.create_task(one.run(list))
    async with asyncio.timeout(10):
        await one.room()
        with pytest.raises(StoreError):
            await task
