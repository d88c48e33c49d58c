"""The devices' calls on the mTLS port: gRPC around roll, offers and uploads."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Final

from bedside.coordinator.blobs.stream import stream_blob
from bedside.coordinator.calls import Context
from bedside.coordinator.enrolment.peers import Peers
from bedside.coordinator.fleet.pacing import ASK_AGAIN_MS, next_call_ms
from bedside.coordinator.parts import Parts
from bedside.coordinator.polls import Polls
from bedside.coordinator.rounds.offers import Offers
from bedside.coordinator.rounds.uploads import Uploads
from bedside.core.errors import BedsideError, ProtocolError
from bedside.core.signing import VerifiedCredential
from bedside.proto.v1.common_pb2 import BlobRequest, Chunk, Empty, Signed
from bedside.proto.v1.device_pb2 import HeartbeatAnswer, Offer, OfferRequest, UploadChunk, UploadState
from bedside.proto.v1.device_pb2_grpc import DeviceServiceServicer
from bedside.service.logs import event

_LOGGER: Final = logging.getLogger(__name__)
_MS_PER_S: Final = 1_000
MAX_OPEN_PLANS: Final = 64
"""Receipts that one call may ask for."""

DRAINED_CHUNKS: Final = 16


class DeviceService(DeviceServiceServicer):
    """Calls of devices; each checks the caller against its credential and the newest roster."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._peers = Peers(parts.registry)
        self._offers = Offers(parts)
        self._uploads = Uploads(parts)
        self._polls = Polls()

    def _caller(self, context: Context) -> VerifiedCredential:
        device = self._peers.caller(context, "device")
        self._parts.roll.device_called(device)
        return device

    async def Heartbeat(self, request: Signed, context: Context) -> HeartbeatAnswer:  # noqa: N802
        """Take a heartbeat and say when the next one is due."""
        device = self._caller(context)
        self._parts.roll.take(request, device)
        wait_ms = next_call_ms(self._parts.config.heartbeat_s, device.digest)
        return HeartbeatAnswer(next_call_ms=wait_ms, server_time_s=self._parts.now_ms() // _MS_PER_S)

    async def GetOffer(self, request: OfferRequest, context: Context) -> Offer:  # noqa: N802
        """Answer with what is new for the device, waiting for it as long as the device allows."""
        signal = self._parts.signals.offers
        deadline_s = self._parts.clock.monotonic_s() + min(request.wait_ms / _MS_PER_S, self._parts.config.poll_s)
        while True:
            seen = signal.version
            device = self._caller(context)
            open_plans = request.open_plan_digests[:MAX_OPEN_PLANS]
            offer = self._offers.offer(device, request.known_plan_digest, request.known_result_digest, open_plans)
            left_s = deadline_s - self._parts.clock.monotonic_s()
            if offer.HasField("plan") or offer.HasField("result") or offer.receipts or left_s <= 0:
                if request.wait_ms:
                    offer.next_call_ms = ASK_AGAIN_MS
                return offer
            if not await self._polls.wait(device.digest, signal, seen, left_s):
                return offer

    async def BeginUpload(self, request: Signed, context: Context) -> UploadState:  # noqa: N802
        """Take a header; answers with how many bytes have arrived."""
        return await self._uploads.begin(request, self._caller(context))

    async def Upload(  # noqa: N802
        self, request_iterator: AsyncIterator[UploadChunk], context: Context
    ) -> UploadState:
        """Take the bytes of an upload from where it was cut off."""
        device = self._caller(context)
        try:
            state = await self._receive(request_iterator, device)
        except BedsideError:
            await _drain(request_iterator)
            raise
        if state.accepted:
            event(_LOGGER, "upload-accepted", device=device.credential.subject, bytes=state.received_bytes)
        return state

    async def _receive(self, chunks: AsyncIterator[UploadChunk], device: VerifiedCredential) -> UploadState:
        row = None
        async for chunk in chunks:
            if row is None:
                row = self._uploads.expect(chunk.header_digest, device)
            await self._uploads.append(row, chunk.offset_bytes, chunk.data)
        if row is None:
            raise ProtocolError("empty-upload", "an upload needs at least one chunk")
        return await self._uploads.finish(row)

    async def Decline(self, request: Signed, context: Context) -> Empty:  # noqa: N802
        """Take a device's reason for not taking part."""
        device = self._caller(context)
        refusal = self._uploads.decline(request, device)
        event(_LOGGER, "device-declined", device=device.credential.subject, code=refusal.code)
        return Empty()

    async def GetBlob(self, request: BlobRequest, context: Context) -> AsyncIterator[Chunk]:  # noqa: N802
        """Send a model blob from an offset on."""
        self._caller(context)
        async for chunk in stream_blob(self._parts.blobs, request, families=("blake2b",)):
            yield chunk


async def _drain(chunks: AsyncIterator[UploadChunk]) -> None:
    """Read a little on before refusing: a sender that is still writing would see a broken call, not the reason."""
    left = DRAINED_CHUNKS
    async for _ in chunks:
        left -= 1
        if not left:
            return
