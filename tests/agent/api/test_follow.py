"""Following predictions: what is stored, what waits for its commit, and what is made, each once and in order."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, aclosing

import pytest

from bedside.agent.api.follow import MAX_FOLLOWERS, MAX_WAITING, Followers
from bedside.agent.api.predictions import PredictionCalls
from bedside.core.errors import UnavailableError
from bedside.proto.v1.local_pb2 import FollowRequest, Prediction
from bedside.service.link.calls import CallLimit


class Stored:
    """Predictions 1 to 3 are committed."""

    def after(self, since_id: int) -> list[Prediction]:
        return [Prediction(id=number) for number in range(since_id + 1, 4)][:2]


async def follow(followers: Followers, since_id: int | None, fresh: int, count: int) -> list[int]:
    """Ids that a follower gets when `fresh` is published after it came."""
    calls = PredictionCalls(Stored(), followers, None)
    got: list[int] = []
    async with asyncio.timeout(5), aclosing(calls.follow(FollowRequest(since_id=since_id))) as answers:
        asyncio.get_running_loop().call_soon(followers.publish, Prediction(id=fresh))
        async for prediction in answers:
            got.append(prediction.id)
            if len(got) == count:
                break
    return got


@pytest.mark.parametrize(("since_id", "first"), [(0, 1), (1, 2), (3, 4), (5, 6)])
async def test_nothing_between_store_and_stream_is_left_out_or_told_twice(since_id, first) -> None:
    followers = Followers()
    for number in range(2, 7):
        followers.publish(Prediction(id=number))
    expected = list(range(first, 8))
    assert await follow(followers, since_id=since_id, fresh=7, count=len(expected)) == expected


async def test_without_a_beginning_only_what_is_made_from_now_on_comes() -> None:
    followers = Followers()
    followers.publish(Prediction(id=6))
    assert await follow(followers, since_id=None, fresh=7, count=1) == [7]


async def test_a_slow_follower_gets_from_the_store_what_its_queue_had_no_room_for() -> None:
    class All:
        """Everything but the newest hundred is committed."""

        def after(self, since_id: int) -> list[Prediction]:
            return [Prediction(id=number) for number in range(since_id + 1, MAX_WAITING * 3 - 100)][:500]

    followers = Followers()
    calls = PredictionCalls(All(), followers, None)
    async with asyncio.timeout(10), aclosing(calls.follow(FollowRequest())) as answers:
        asyncio.get_running_loop().call_soon(followers.publish, Prediction(id=7))
        got = [(await anext(answers)).id]
        for number in range(8, MAX_WAITING * 3):
            followers.publish(Prediction(id=number))
        got += [(await anext(answers)).id for _ in range(8, MAX_WAITING * 3)]
    assert got == list(range(7, MAX_WAITING * 3))


async def test_a_full_queue_loses_its_oldest_and_never_holds_the_agent() -> None:
    followers = Followers()
    with followers.subscribe() as slow:
        for number in range(1, MAX_WAITING + 11):
            followers.publish(Prediction(id=number))
        first = await anext(aiter(slow))
    assert first.id == 11


async def test_what_was_erased_is_told_to_nobody_who_comes_later() -> None:
    followers = Followers()
    for number, session in ((4, "a"), (5, "b"), (6, "a")):
        followers.publish(Prediction(id=number, session=session))
    followers.forget("a")
    assert await follow(followers, since_id=3, fresh=7, count=2) == [5, 7]


class NoCertificate:
    def auth_context(self) -> dict[str, list[bytes]]:
        return {}


async def test_followers_that_wait_take_no_place_of_other_calls(served) -> None:
    limit, busy = CallLimit(), []

    async def wait(messages) -> None:
        with limit.place(NoCertificate()):
            async for _ in messages:
                busy.append(limit.busy)

    feeds = [served.calls.predictions.follow(FollowRequest()), served.calls.alarms.follow()]
    tasks = [asyncio.create_task(wait(feed)) for feed in feeds]
    async with asyncio.timeout(5):
        while limit.busy or not all(feed._queues for feed in (served.followers, served.book.followers)):
            await asyncio.sleep(0)
        served.followers.publish(Prediction(id=1))
        served.book.raise_alarm("high")
        while len(busy) < len(feeds):
            await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert max(busy) >= 1
    assert limit.busy == 0


async def test_no_more_than_so_many_follow_one_feed() -> None:
    followers = Followers()
    with ExitStack() as stack:
        for _ in range(MAX_FOLLOWERS):
            stack.enter_context(followers.subscribe())
        with pytest.raises(UnavailableError, match="follow this already"), followers.subscribe():
            pass
    with followers.subscribe():  # their places are free again
        pass
