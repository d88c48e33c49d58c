"""Streams to a server that may refuse them early."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

Reply = TypeVar("Reply")


async def sent(call: Callable[[], Awaitable[Reply]]) -> Reply:
    """Send a stream as agents and trustees do: again when it was cut off.

    A server that refuses a stream ends it while chunks are still on their way; grpc.aio then reports the chunk that
    it could not send, now and then, in place of the refusal.
    """
    for _ in range(20):
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.details() != "Internal error from Core":
                raise
    return await call()
