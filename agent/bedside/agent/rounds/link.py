"""The device's calls to its coordinator over one mTLS channel that connects, and comes back, by itself.

Source: DESIGN sections 5 and 7; `device.proto`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import grpc

from bedside.core.errors import ConfigError
from bedside.proto.v1.common_pb2 import BlobRequest, Chunk, Signed
from bedside.proto.v1.device_pb2 import HeartbeatAnswer, Offer, OfferRequest, UploadChunk, UploadState
from bedside.proto.v1.device_pb2_grpc import DeviceServiceStub
from bedside.service.identity import Identity
from bedside.service.link.address import check_told_address, parse_address
from bedside.service.link.channel import ClientTls, open_channel
from bedside.service.link.errors import remote_errors

CALL_TIMEOUT_S: Final = 30.0
"""Seconds that an ordinary call may take. Streams have no limit: keepalive notices a dead peer."""

MAX_RECONNECT_S: Final = 10.0
"""Seconds at most between two attempts to connect: after an outage a ward is back within that time."""


class CoordinatorLink:
    """One channel and its stub. Every method raises the coordinator's BedsideError, or UnavailableError."""

    def __init__(self, channel: grpc.aio.Channel, peer: str) -> None:
        self._channel = channel
        self._stub = DeviceServiceStub(channel)
        self._peer = f"the coordinator {peer}"

    @classmethod
    def open(cls, identity: Identity, service_address: str = "") -> CoordinatorLink:
        """Open a channel with the identity's certificate; nothing is sent yet.

        Raises:
            ConfigError: `not-enrolled` or `bad-pem`.
            MalformedError: `bad-address`.
        """
        address = service_address or identity.pins.service_address
        certificate_pem = identity.certificate_pem
        if certificate_pem is None or not address:
            raise ConfigError(
                "not-enrolled",
                "this device has no certificate yet",
                remedy="run `bedside agent enrol` with a token of `bedside site token`",
            )
        tls = ClientTls(ca_pem=identity.ca_pem, certificate_pem=certificate_pem, key_pem=identity.tls_key_pem)
        return cls(
            open_channel(parse_address(check_told_address(address)), tls, max_reconnect_s=MAX_RECONNECT_S), address
        )

    async def close(self) -> None:
        """End every call and the connection."""
        await self._channel.close()

    async def heartbeat(self, signed: Signed) -> HeartbeatAnswer:
        """Send a heartbeat."""
        with remote_errors(self._peer):
            return await self._stub.Heartbeat(signed, timeout=CALL_TIMEOUT_S)

    async def get_offer(self, request: OfferRequest) -> Offer:
        """Ask for an offer; waits up to `request.wait_ms` on the other side."""
        with remote_errors(self._peer):
            return await self._stub.GetOffer(request, timeout=CALL_TIMEOUT_S + request.wait_ms / 1000)

    async def decline(self, signed: Signed) -> None:
        """Send a refusal."""
        with remote_errors(self._peer):
            await self._stub.Decline(signed, timeout=CALL_TIMEOUT_S)

    async def begin_upload(self, header: Signed) -> UploadState:
        """Announce a header."""
        with remote_errors(self._peer):
            return await self._stub.BeginUpload(header, timeout=CALL_TIMEOUT_S)

    async def upload(self, chunks: AsyncIterator[UploadChunk]) -> UploadState:
        """Send the words of a header."""
        with remote_errors(self._peer):
            return await self._stub.Upload(chunks)

    async def get_blob(self, request: BlobRequest) -> AsyncIterator[Chunk]:
        """Stream a blob from an offset."""
        with remote_errors(self._peer):
            async for chunk in self._stub.GetBlob(request):
                yield chunk
