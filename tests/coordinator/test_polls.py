"""Calls that wait for news: many devices may, and none of them shuts the others out."""

from __future__ import annotations

import asyncio

from bedside.coordinator.polls import MAX_POLLS, Polls
from bedside.coordinator.signals import Signal
from bedside.core.errors import UnavailableError
from bedside.proto.v1.device_pb2 import OfferRequest
from bedside.service.link import server as link_server
from bedside.service.link.calls import CallLimit
from bedside.service.link.errors import remote_errors

DEADLINE_S = 20.0


async def until(holds) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0)


async def test_a_newer_call_ends_the_oldest_of_its_caller_at_once_and_nobody_elses() -> None:
    polls, signal = Polls(), Signal()

    def wait(caller: bytes) -> asyncio.Task[bool]:
        return asyncio.ensure_future(polls.wait(caller, signal, signal.version, DEADLINE_S))

    other = wait(b"other")
    mine = []
    for _ in range(MAX_POLLS + 3):
        mine.append(wait(b"mine"))
        await asyncio.sleep(0)
    await until(lambda: sum(task.done() for task in mine) == 3)
    assert [task.result() for task in mine[:3]] == [False] * 3
    assert not any(task.done() for task in (other, *mine[3:]))
    signal.bump()
    assert all(await asyncio.gather(other, *mine[3:]))
    assert not polls._turns


async def test_a_call_that_was_cut_off_leaves_no_turn() -> None:
    polls, signal = Polls(), Signal()
    task = asyncio.ensure_future(polls.wait(b"mine", signal, signal.version, DEADLINE_S))
    await until(lambda: polls._turns)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not polls._turns


async def test_hundreds_of_waiting_calls_of_one_device_and_of_all_devices_leave_room_for_heartbeats(
    federation, monkeypatch
):
    places = 6
    limits = []

    def limit() -> CallLimit:
        limits.append(CallLimit(max_calls=places))
        return limits[-1]

    monkeypatch.setattr(link_server, "CallLimit", limit)
    async with federation.coordinator() as desk:
        await desk.populate(devices=10)
        greedy, *others = desk.devices()
        waiting = [asyncio.ensure_future(device.stub.GetOffer(OfferRequest(wait_ms=60_000))) for device in others]

        refused = []

        async def poll(device) -> None:
            try:
                with remote_errors("coordinator"):
                    await device.stub.GetOffer(OfferRequest(wait_ms=60_000))
            except UnavailableError as error:
                refused.append(error.code)

        flood = [asyncio.ensure_future(poll(desk.device(greedy.member))) for _ in range(10) for _ in range(30)]
        await until(lambda: sum(task.done() for task in flood) >= len(flood) - MAX_POLLS)
        assert not any(task.done() for task in waiting)
        assert len(waiting) > places
        for device in others:
            await device.beat()
        assert await desk.trustees()[0].items(wait_ms=0) == []
        assert sum(task.done() for task in flood) == len(flood) - MAX_POLLS
        assert set(refused) <= {"peer-busy"}
        await until(lambda: not any(one.busy for one in limits))
        for task in (*waiting, *flood):
            task.cancel()
        await asyncio.gather(*waiting, *flood, return_exceptions=True)
