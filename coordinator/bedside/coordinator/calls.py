"""The context of a gRPC call, typed: generic for the type checker only."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import grpc

if TYPE_CHECKING:
    Context: TypeAlias = grpc.aio.ServicerContext[object, object]
else:
    Context = grpc.aio.ServicerContext

__all__ = ["Context"]
