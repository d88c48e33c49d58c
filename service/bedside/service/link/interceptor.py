"""Gives a call its place, and ends it with the error that its handler raised.

Invariant: a bug in a handler reaches the peer as `internal-error` without its text, which might hold anything.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar, cast

import grpc

from bedside.core.errors import BedsideError, UnavailableError
from bedside.service.link.calls import CallLimit
from bedside.service.link.errors import status_of, trailers_of
from bedside.service.logs import event
from bedside.service.text import bounded

_LOGGER: Final = logging.getLogger(__name__)

Request = TypeVar("Request")
Response = TypeVar("Response")

if TYPE_CHECKING:  # generic in the stubs only
    Context = grpc.aio.ServicerContext[object, object]
    Handler = grpc.RpcMethodHandler[Request, Response]
    _Call = Callable[[object, Context], Awaitable[object]]
    _Stream = Callable[[object, Context], AsyncIterator[object]]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns a handler's BedsideError into status and trailers; logs every other exception and hides its text."""

    def __init__(self, limit: CallLimit) -> None:
        self._limit = limit

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
                    rebuilt = _rebuild(handler, kind, behaviour, handler_call_details, self._limit)
                    return cast("Handler[Request, Response]", rebuilt)
        return handler


def _rebuild(
    handler: Handler[Request, Response],
    kind: str,
    behaviour: object,
    details: grpc.HandlerCallDetails,
    limit: CallLimit,
) -> object:
    # The stubs describe the synchronous API; grpc.aio accepts coroutines and asynchronous generators here.
    build = getattr(grpc, f"{kind}_rpc_method_handler")
    guarded: object
    if inspect.isasyncgenfunction(behaviour):
        guarded = _guard_stream(cast("_Stream", behaviour), details.method, limit)
    else:
        guarded = _guard_call(cast("_Call", behaviour), details.method, limit)
    return build(guarded, handler.request_deserializer, handler.response_serializer)


def _guard_call(behaviour: _Call, method: str, limit: CallLimit) -> _Call:
    async def call(request: object, context: Context) -> object:
        try:
            with limit.place(context):
                return await behaviour(request, context)
        except Exception as error:  # noqa: BLE001  # the boundary of a call: every failure becomes a status
            await _abort(error, context, method)

    return call


def _guard_stream(behaviour: _Stream, method: str, limit: CallLimit) -> _Stream:
    async def stream(request: object, context: Context) -> AsyncIterator[object]:
        try:
            with limit.place(context):
                async for response in behaviour(request, context):
                    yield response
        except Exception as error:  # noqa: BLE001  # the boundary of a call: every failure becomes a status
            await _abort(error, context, method)

    return stream


async def _abort(error: Exception, context: Context, method: str) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, BedsideError):
        event(_LOGGER, "call-failed", level=logging.ERROR, method=method, error=type(error).__name__)
        _LOGGER.debug("call-failed", exc_info=error)
        error = UnavailableError("internal-error", "the peer failed inside; its own log says where")
        await context.abort(grpc.StatusCode.INTERNAL, error.sentence, trailers_of(error))
    event(_LOGGER, "call-refused", method=method, code=error.code)
    await context.abort(status_of(error), bounded(error.sentence), trailers_of(error))
