"""Our errors on the wire: one table of gRPC status codes; class, code and remedy travel in trailing metadata.

Invariants:
    * What a peer sends is bounded and its code has the form of a code, before anybody sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc

from bedside.core.errors import (
    BedsideError,
    ConfigError,
    MalformedError,
    ProtocolError,
    RefusedError,
    StoreError,
    TrustError,
    UnavailableError,
)
from bedside.service.text import bounded

_STATUS: Final[dict[type[BedsideError], grpc.StatusCode]] = {
    MalformedError: grpc.StatusCode.INVALID_ARGUMENT,
    TrustError: grpc.StatusCode.UNAUTHENTICATED,
    ProtocolError: grpc.StatusCode.FAILED_PRECONDITION,
    RefusedError: grpc.StatusCode.PERMISSION_DENIED,
    ConfigError: grpc.StatusCode.FAILED_PRECONDITION,
    StoreError: grpc.StatusCode.INTERNAL,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
}
_CLASSES: Final = {kind.__name__: kind for kind in _STATUS}

_CLASS_KEY: Final = "bedside-error"
_CODE_KEY: Final = "bedside-code"
_REMEDY_KEY: Final = "bedside-remedy-bin"
UNEXPECTED: Final = "unexpected-error"
"""Code of an error that nobody thought of."""
_MAX_CODE_CHARS: Final = 64
_CODE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)

_FOREIGN: Final[dict[grpc.StatusCode, tuple[type[BedsideError], str, str]]] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: (UnavailableError, "peer-timeout", "did not answer in time"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (UnavailableError, "peer-busy", "is out of some resource"),
    grpc.StatusCode.UNIMPLEMENTED: (ProtocolError, "peer-version", "does not know this call"),
    grpc.StatusCode.UNAUTHENTICATED: (TrustError, "peer-refused-identity", "does not accept our identity"),
    grpc.StatusCode.PERMISSION_DENIED: (RefusedError, "peer-refused", "refused the call"),
    grpc.StatusCode.INVALID_ARGUMENT: (ProtocolError, "peer-rejected", "could not read our message"),
}
"""What a status means that did not come from our own code but from gRPC or a proxy."""

_TLS_SIGNS: Final = ("certificate_verify_failed", "certificate verify failed", "ssl handshake failed", "ssl_error_ssl")


def status_of(error: BedsideError) -> grpc.StatusCode:
    """Return the gRPC status that stands for an error's class."""
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), grpc.StatusCode.UNKNOWN)


def trailers_of(error: BedsideError) -> tuple[tuple[str, str | bytes], ...]:
    """Return the trailing metadata that carries an error's class, code and remedy."""
    name = next((kind.__name__ for kind in type(error).__mro__ if kind in _STATUS), ProtocolError.__name__)
    trailers: list[tuple[str, str | bytes]] = [(_CLASS_KEY, name), (_CODE_KEY, error.code)]
    if error.remedy:
        trailers.append((_REMEDY_KEY, bounded(error.remedy).encode()))
    return tuple(trailers)


def unexpected(error: Exception) -> BedsideError:
    """Make an error of a defect, or of what nobody thought of; a BedsideError stays itself.

    The sentence names the kind only: what is in the error's own words is not known.
    """
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, BedsideError):
        return error
    return ProtocolError(
        UNEXPECTED,
        f"a step failed with {type(error).__name__}, which should not happen",
        remedy="it is tried again by itself; report it together with the log",
    )


def from_rpc_error(error: grpc.aio.AioRpcError, peer: str) -> BedsideError:
    """Turn a failed call back into the error that the peer raised, or into what its status says.

    Args:
        error: of the call.
        peer: who was called, for the sentence, for instance `the coordinator gw:8443`.
    """
    trailers = {key: value for key, value in (error.trailing_metadata() or ()) if key.startswith("bedside-")}
    kind = _CLASSES.get(_text(trailers.get(_CLASS_KEY)))
    code = _text(trailers.get(_CODE_KEY))
    if kind is not None and len(code) <= _MAX_CODE_CHARS and _CODE.fullmatch(code):
        sentence = bounded(error.details() or code)
        return kind(code, sentence, remedy=bounded(_text(trailers.get(_REMEDY_KEY))))
    return _foreign(error, peer)


def _foreign(error: grpc.aio.AioRpcError, peer: str) -> BedsideError:
    details = bounded(error.details() or "", 200)
    if any(sign in (error.details() or "").lower() for sign in _TLS_SIGNS):
        return UnavailableError(
            "tls-handshake",
            f"{peer} and this machine do not accept each other's certificates ({details})",
            remedy="check that the CA fingerprint matches, and that no firewall inspects TLS on the way",
        )
    if error.code() in _FOREIGN:
        kind, code, words = _FOREIGN[error.code()]
        return kind(code, f"{peer} {words} ({details})" if details else f"{peer} {words}")
    return UnavailableError(
        "peer-unavailable",
        f"{peer} cannot be reached ({details or error.code().name.lower()})",
        remedy="it is tried again by itself; check that it runs and that the network lets us out",
    )


def _text(value: str | bytes | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""


@contextmanager
def remote_errors(peer: str) -> Iterator[None]:
    """Raise the peer's BedsideError for every failed call inside.

    Raises:
        BedsideError: of the class that the peer raised; UnavailableError for trouble with the connection.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, peer) from error
