"""Following predictions: what is stored, what waits for its commit, and what is made, each once and in order."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from bedside.agent.api.follow import MAX_WAITING, Followers
from bedside.agent.api.server import AgentServicer
from bedside.proto.v1.local_pb2 import FollowRequest, Prediction


class Stored:
    """Predictions 1 to 3 are committed."""

    def after(self, since_id: int) -> list[Prediction]:
        return [Prediction(id=number) for number in range(since_id + 1, 4)][:2]


async def follow(followers: Followers, since_id: int, fresh: int, count: int) -> list[int]:
    """Ids that a follower gets when `fresh` is published after it came."""
    servicer = AgentServicer(lambda: None, Stored(), followers)
    got: list[int] = []
    async with asyncio.timeout(5), aclosing(servicer.Follow(FollowRequest(since_id=since_id), None)) as answers:
        asyncio.get_running_loop().call_soon(followers.publish, Prediction(id=fresh))
        async for prediction in answers:
            got.append(prediction.id)
            if len(got) == count:
                break
    return got


async def test_nothing_between_store_and_stream_is_left_out_or_told_twice() -> None:
    followers = Followers()
    for number in range(2, 7):
        followers.publish(Prediction(id=number))
    assert await follow(followers, since_id=1, fresh=7, count=6) == [2, 3, 4, 5, 6, 7]


async def test_without_a_beginning_only_what_is_made_from_now_on_comes() -> None:
    followers = Followers()
    followers.publish(Prediction(id=6))
    assert await follow(followers, since_id=0, fresh=7, count=1) == [7]


async def test_a_slow_follower_loses_its_oldest_and_never_holds_the_agent() -> None:
    followers = Followers()
    with followers.subscribe() as slow:
        for number in range(1, MAX_WAITING + 11):
            followers.publish(Prediction(id=number))
        first = await anext(aiter(slow))
    assert first.id == 11
