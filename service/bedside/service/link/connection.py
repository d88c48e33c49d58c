"""A client that stays connected for months: a fresh channel per attempt, and a pause that grows between failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc

from bedside.core.errors import BedsideError, UnavailableError
from bedside.service.link.channel import Backoff
from bedside.service.link.errors import from_rpc_error

Sleep = Callable[[float], Awaitable[None]]
Report = Callable[[BedsideError | None, float], None]
"""Told (error, seconds until the next attempt) on trouble, and (None, 0.0) when the peer answered."""


class Link:
    """What a session works with while it is connected.

    Attributes:
        channel: to the peer; closed when the session ends.
    """

    def __init__(self, channel: grpc.aio.Channel, answered: Callable[[], None]) -> None:
        self.channel = channel
        self._answered = answered

    def answered(self) -> None:
        """Say that the peer gave a good answer: the next pause is short again."""
        self._answered()


class Connection:
    """Runs a session against a peer over and over, until the session returns or fails for good."""

    def __init__(
        self,
        peer: str,
        connect: Callable[[], grpc.aio.Channel],
        backoff: Backoff,
        report: Report,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Prepare a connection.

        Args:
            peer: who is called, for sentences.
            connect: opens a channel; called for every attempt, so that renewed certificates are taken up.
            backoff: how long to wait after a failure.
            report: hears of trouble and recovery, for health and logs.
            sleep: waits; a test's own.
        """
        self._peer = peer
        self._connect = connect
        self._backoff = backoff
        self._report = report
        self._sleep = sleep
        self._troubled = True

    async def run(self, session: Callable[[Link], Awaitable[None]]) -> None:
        """Run `session` until it returns.

        Raises:
            BedsideError: whatever the session raised, except UnavailableError: that is waited out.
        """
        while True:
            try:
                await self._attempt(session)
            except UnavailableError as error:
                wait_s = self._backoff.next_s()
                self._troubled = True
                self._report(error, wait_s)
                await self._sleep(wait_s)
            else:
                return

    async def _attempt(self, session: Callable[[Link], Awaitable[None]]) -> None:
        channel = self._connect()
        try:
            await session(Link(channel, self._recovered))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, self._peer) from error
        finally:
            await channel.close()

    def _recovered(self) -> None:
        self._backoff.reset()
        if self._troubled:
            self._troubled = False
            self._report(None, 0.0)
