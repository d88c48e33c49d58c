"""Gives a call its place, and ends it with the error that its handler raised.

Invariant: a bug in a handler reaches the peer as `internal-error` without its text, which might hold anything.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar, cast

import grpc

from bedside.core.errors import BedsideError, UnavailableError
from bedside.service.link.calls import CallLimit
from bedside.service.link.errors import status_of, trailers_of
from bedside.service.logs import event
from bedside.service.text import bounded

_LOGGER: Final = logging.getLogger(__name__)
_MAX_KINDS: Final = 1_000
_QUIET_S: Final = 10.0
"""Seconds between two lines about refused calls of one method and code."""

Request = TypeVar("Request")
Response = TypeVar("Response")

if TYPE_CHECKING:  # generic in the stubs only
    Context = grpc.aio.ServicerContext[object, object]
    Handler = grpc.RpcMethodHandler[Request, Response]
    _Call = Callable[[object, Context], Awaitable[object]]
    _Stream = Callable[[object, Context], AsyncIterator[object]]


def unheard(_code: str) -> None:
    """Nobody counts refused calls."""


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns a handler's BedsideError into status and trailers; logs every other exception and hides its text."""

    def __init__(self, limit: CallLimit, refused: Callable[[str], None] = unheard) -> None:
        self._limit = limit
        self._refusals = RefusalLog(refused)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler[Request, Response] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler[Request, Response] | None:
        """Guard the handler of one call."""
        handler = await continuation(handler_call_details)
        if handler is not None:
            for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
                behaviour = getattr(handler, kind)
                if behaviour is not None:
                    rebuilt = _rebuild(handler, kind, behaviour, handler_call_details, self._limit, self._refusals)
                    return cast("Handler[Request, Response]", rebuilt)
        return handler


def _rebuild(
    handler: Handler[Request, Response],
    kind: str,
    behaviour: object,
    details: grpc.HandlerCallDetails,
    limit: CallLimit,
    refusals: RefusalLog,
) -> object:
    # The stubs describe the synchronous API; grpc.aio accepts coroutines and asynchronous generators here.
    build = getattr(grpc, f"{kind}_rpc_method_handler")
    guarded: object
    if inspect.isasyncgenfunction(behaviour):
        guarded = _guard_stream(cast("_Stream", behaviour), details.method, limit, refusals)
    else:
        guarded = _guard_call(cast("_Call", behaviour), details.method, limit, refusals)
    return build(guarded, handler.request_deserializer, handler.response_serializer)


def _guard_call(behaviour: _Call, method: str, limit: CallLimit, refusals: RefusalLog) -> _Call:
    async def call(request: object, context: Context) -> object:
        try:
            with limit.place(context):
                return await behaviour(request, context)
        except Exception as error:  # noqa: BLE001  # the boundary of a call: every failure becomes a status
            await _abort(error, context, method, refusals)

    return call


def _guard_stream(behaviour: _Stream, method: str, limit: CallLimit, refusals: RefusalLog) -> _Stream:
    async def stream(request: object, context: Context) -> AsyncIterator[object]:
        try:
            with limit.place(context):
                async for response in behaviour(request, context):
                    yield response
        except Exception as error:  # noqa: BLE001  # the boundary of a call: every failure becomes a status
            await _abort(error, context, method, refusals)

    return stream


class RefusalLog:
    """Lines about refused calls: the first of a kind at once, then how many there were, at most each `_QUIET_S`.

    A peer chooses how often it is refused; it must not choose how much is logged.

    Attributes:
        heard: is told each code.
    """

    def __init__(self, heard: Callable[[str], None] = unheard) -> None:
        self.heard = heard
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}

    def tell(self, method: str, code: str, now_s: float) -> None:
        """Log a refusal, or count it for the next line of its method and code."""
        self.heard(code)
        told_s, untold = self._kinds.get((method, code), (-math.inf, 0))
        if now_s - told_s < _QUIET_S:
            self._kinds[method, code] = (told_s, untold + 1)
            return
        if len(self._kinds) >= _MAX_KINDS:
            self._kinds.clear()
        more = {"before": untold} if untold else {}
        event(_LOGGER, "call-refused", method=method, code=code, **more)
        self._kinds[method, code] = (now_s, 0)


async def _abort(error: Exception, context: Context, method: str, refusals: RefusalLog) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, BedsideError):
        event(_LOGGER, "call-failed", level=logging.ERROR, method=method, error=type(error).__name__)
        _LOGGER.debug("call-failed", exc_info=error)
        refusals.heard("internal-error")
        error = UnavailableError("internal-error", "the peer failed inside; its own log says where")
        await context.abort(grpc.StatusCode.INTERNAL, error.sentence, trailers_of(error))
    refusals.tell(method, error.code, asyncio.get_running_loop().time())
    await context.abort(status_of(error), bounded(error.sentence), trailers_of(error))
