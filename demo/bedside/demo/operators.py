"""The operator's side of a running coordinator: follows rounds, and fetches what it has stored.

The coordinator is killed on purpose during a run, so everything here waits for it to come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from bedside.core.clock import Clock
from bedside.core.errors import BedsideError, UnavailableError
from bedside.core.securesum.plans import layout_of
from bedside.core.signing.envelope import parse_strict
from bedside.demo.result import View
from bedside.demo.views import coordinator_view
from bedside.proto.v1.common_pb2 import BlobRequest, Empty
from bedside.proto.v1.operator_pb2 import Participant, RoundDetail, RoundQuery
from bedside.proto.v1.operator_pb2_grpc import OperatorServiceStub
from bedside.proto.v1.plan_pb2 import Plan
from bedside.service.link.address import parse_address
from bedside.service.link.channel import open_channel
from bedside.service.link.errors import remote_errors

_PEER: Final = "the coordinator"
_RETRY_S: Final = 0.3
_CALL_TIMEOUT_S: Final = 10.0
_MAX_RECONNECT_S: Final = 1.0


class Operator:
    """Follows one task's rounds.

    Attributes:
        rounds: newest detail of every round that was seen, by number.
        newest: number of the newest; 0 before the first.
    """

    def __init__(self, socket: Path, task: str, clock: Clock) -> None:
        self._channel = open_channel(parse_address(f"unix:{socket}"), None, max_reconnect_s=_MAX_RECONNECT_S)
        self._stub = OperatorServiceStub(self._channel)
        self._task = task
        self._clock = clock
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._expected = 0
        self._follower: asyncio.Task[None] | None = None
        self.rounds: dict[int, RoundDetail] = {}
        self.newest = 0

    async def __aenter__(self) -> Operator:
        self._follower = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._follower is not None:
            self._follower.cancel()
            with suppress(asyncio.CancelledError):
                await self._follower
        await self._channel.close()

    async def wait_for(
        self, number: int, holds: Callable[[RoundDetail], bool], what: str, timeout_s: float
    ) -> RoundDetail:
        """Return the detail of a round as soon as it is as wanted.

        Raises:
            UnavailableError: `demo-waited`, saying for what and how far the round is.
        """
        deadline_s = self._clock.monotonic_s() + timeout_s
        while True:
            detail = self.rounds.get(number)
            if detail is not None and holds(detail):
                return detail
            self._changed.clear()
            left_s = deadline_s - self._clock.monotonic_s()
            if left_s <= 0:
                raise UnavailableError(
                    "demo-waited",
                    f"round {number} did not reach {what!r} within {timeout_s:.0f} s; {_how_far(detail)}",
                    remedy="look at the logs folder of this run",
                )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left_s)

    async def all_online(self, devices: int, trustees: int, timeout_s: float) -> None:
        """Return when the coordinator hears from so many devices and trustees.

        Raises:
            UnavailableError: `demo-waited`, saying how many it hears from.
        """
        deadline_s = self._clock.monotonic_s() + timeout_s
        while (heard := await self._online()) != (devices, trustees):
            if self._clock.monotonic_s() > deadline_s:
                raise UnavailableError(
                    "demo-waited",
                    f"after {timeout_s:.0f} s the coordinator hears from {heard[0]} of {devices} devices and "
                    f"{heard[1]} of {trustees} trustees",
                    remedy="look at the run's logs folder",
                )
            await asyncio.sleep(_RETRY_S)

    async def _online(self) -> tuple[int, int]:
        try:
            with remote_errors(_PEER):
                fleet = await self._stub.FleetStatus(Empty(), timeout=_CALL_TIMEOUT_S)
        except BedsideError:
            return 0, 0
        return sum(site.online for site in fleet.sites), sum(site.trustee_online for site in fleet.sites)

    async def blob(self, digest: bytes) -> bytes:
        """Fetch one blob of the coordinator's store, whatever it is."""
        with remote_errors(_PEER):
            return b"".join([chunk.data async for chunk in self._stub.GetBlob(BlobRequest(digest=digest))])

    async def view(self, detail: RoundDetail) -> View:
        """Count the words of a stored upload and of the opened sum of a round that opened."""
        plan = parse_strict(Plan, detail.plan.payload)
        upload = await self.blob(detail.upload_digests[0])
        opened = await self.blob(detail.sum_digest)
        return coordinator_view(
            upload,
            opened,
            layout_of(plan.layout, plan.subsample_e32),
            plan.word_bits,
            contributors=detail.summary.contributors,
            round_number=detail.summary.round_number,
        )

    def expect(self, number: int) -> None:
        """Follow rounds up to this number: they were asked for."""
        self._expected = max(self._expected, number)
        self._wanted.set()

    async def _follow(self) -> None:
        while True:
            await self._wanted.wait()
            with suppress(BedsideError):
                await self._watch()
            if self._next_number() > self._expected:
                self._wanted.clear()
            else:
                await asyncio.sleep(_RETRY_S)

    async def _watch(self) -> None:
        """Take details until the task has ended or the coordinator is gone."""
        query = RoundQuery(task=self._task, round_number=self._next_number(), follow_task=True)
        with remote_errors(_PEER):
            async for detail in self._stub.WatchRound(query):
                number = detail.summary.round_number
                self.rounds[number] = detail
                self.newest = max(self.newest, number)
                self._changed.set()

    def _next_number(self) -> int:
        """The newest round while it runs, the one after it when it has ended."""
        newest = self.rounds.get(self.newest)
        ended = newest is not None and newest.HasField("result")
        return self.newest + 1 if ended else max(1, self.newest)


def devices_of(detail: RoundDetail) -> list[Participant]:
    """All devices of a round, cohort by cohort."""
    return [one for cohort in detail.cohorts for one in cohort.devices]


def trustees_of(detail: RoundDetail) -> list[Participant]:
    """All trustees of a round, cohort by cohort."""
    return [one for cohort in detail.cohorts for one in cohort.trustees]


def has_ended(detail: RoundDetail) -> bool:
    """Whether the coordinator has signed the round's result."""
    return detail.HasField("result")


def _how_far(detail: RoundDetail | None) -> str:
    if detail is None:
        return "the coordinator has not begun it"
    states = ", ".join(f"{one.label or one.site} {one.state}" for one in (*trustees_of(detail), *devices_of(detail)))
    return f"it is {detail.summary.phase}: {states}"
