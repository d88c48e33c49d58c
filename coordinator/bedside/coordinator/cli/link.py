"""The commands' side of the operators' socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

import click

from bedside.core.errors import UnavailableError
from bedside.proto.v1.operator_pb2_grpc import OperatorServiceStub
from bedside.service.link.address import parse_address
from bedside.service.link.channel import open_channel
from bedside.service.link.errors import remote_errors

if TYPE_CHECKING:
    from bedside.proto.v1.operator_pb2_grpc import OperatorServiceAsyncStub

DEFAULT_SOCKET: Final = "/var/lib/bedside/coordinator/operator.sock"
SOCKET_VARIABLE: Final = "BEDSIDE_COORDINATOR_SOCKET"
CALL_TIMEOUT_S: Final = 60.0

Params = ParamSpec("Params")
Result = TypeVar("Result")


def socket_option(command: Callable[Params, Result]) -> Callable[Params, Result]:
    """Add `--socket`, which reaches the command as `socket: str`."""
    option = click.option(
        "--socket",
        envvar=SOCKET_VARIABLE,
        default=DEFAULT_SOCKET,
        show_default=True,
        help=f"Operators' socket of the coordinator, or the environment's {SOCKET_VARIABLE}.",
    )
    return option(command)


@asynccontextmanager
async def operator_stub(socket: str) -> AsyncIterator[OperatorServiceAsyncStub]:
    """Open the socket; every failed call inside raises the coordinator's own error.

    Raises:
        UnavailableError: `no-coordinator`.
    """
    path = Path(socket.removeprefix("unix:")).absolute()
    if not path.is_socket():
        raise UnavailableError(
            "no-coordinator",
            f"no coordinator listens on {path}",
            remedy="start it with bedside coordinator serve, or name its socket with --socket",
        )
    channel = open_channel(parse_address(f"unix:{path}"), None)
    try:
        with remote_errors("the coordinator"):
            yield OperatorServiceStub(channel)
    finally:
        await channel.close()


def ask(socket: str, question: Callable[[OperatorServiceAsyncStub], Awaitable[Result]]) -> Result:
    """Run one conversation with the coordinator and return what came of it."""

    async def talk() -> Result:
        async with operator_stub(socket) as stub:
            return await question(stub)

    return asyncio.run(talk())
