import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from bedside.core.errors import UnavailableError
from bedside.demo.operators import Operator, has_ended
from bedside.proto.v1.common_pb2 import Empty, Signed
from bedside.proto.v1.operator_pb2 import FleetSummary, RoundDetail, RoundQuery, RoundSummary, SiteSummary
from bedside.proto.v1.operator_pb2_grpc import OperatorServiceServicer, add_OperatorServiceServicer_to_server
from bedside.service.platform import SystemClock

Context = grpc.aio.ServicerContext[RoundQuery, RoundDetail]


def detail(number: int, phase: str, *, ended: bool = False) -> RoundDetail:
    made = RoundDetail(summary=RoundSummary(task="exercises", round_number=number, phase=phase))
    if ended:
        made.result.CopyFrom(Signed(kind="result"))
    return made


class Coordinator(OperatorServiceServicer):
    """Says what it was told to say, and notes which rounds were asked for."""

    def __init__(self, *said: RoundDetail) -> None:
        self.said = said
        self.asked: list[int] = []
        self.hold = asyncio.Event()

    async def WatchRound(self, request: RoundQuery, context: Context) -> AsyncIterator[RoundDetail]:  # noqa: N802
        self.asked.append(request.round_number)
        for one in self.said:
            yield one
        await self.hold.wait()

    async def FleetStatus(self, request: Empty, context: Context) -> FleetSummary:  # noqa: N802
        return FleetSummary(sites=[SiteSummary(site="hospital-a", devices=3, online=2, trustee_online=True)])


async def serve(socket: Path, service: Coordinator) -> grpc.aio.Server:
    server = grpc.aio.server()
    add_OperatorServiceServicer_to_server(service, server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    return server


async def test_a_round_is_followed_through_the_coordinators_death(tmp_path: Path) -> None:
    socket = tmp_path / "operator.sock"
    first = Coordinator(detail(1, "opened", ended=True), detail(2, "collecting"))
    server = await serve(socket, first)
    async with Operator(socket, "exercises", SystemClock()) as operator:
        operator.expect(2)
        await operator.wait_for(2, lambda one: one.summary.phase == "collecting", "collecting", 20)
        await server.stop(0)
        second = Coordinator(detail(2, "opened", ended=True))
        server = await serve(socket, second)

        ended = await operator.wait_for(2, has_ended, "its end", 30)

    await server.stop(0)
    assert ended.summary.phase == "opened"
    assert first.asked == [1]
    assert set(second.asked) == {2}
    assert sorted(operator.rounds) == [1, 2]


async def test_a_wait_ends_with_what_the_round_had_reached(tmp_path: Path) -> None:
    server = await serve(tmp_path / "operator.sock", Coordinator(detail(1, "opening")))
    async with Operator(tmp_path / "operator.sock", "exercises", SystemClock()) as operator:
        operator.expect(1)
        await operator.wait_for(1, lambda _: True, "anything", 20)

        with pytest.raises(UnavailableError, match="it is opening"):
            await operator.wait_for(1, has_ended, "its end", 0.1)

    await server.stop(0)


async def test_missing_devices_are_counted(tmp_path: Path) -> None:
    server = await serve(tmp_path / "operator.sock", Coordinator())
    async with Operator(tmp_path / "operator.sock", "exercises", SystemClock()) as operator:
        await operator.all_online(2, 1, 20)

        with pytest.raises(UnavailableError, match="2 of 3 devices and 1 of 1 trustees"):
            await operator.all_online(3, 1, 0.1)

    await server.stop(0)
