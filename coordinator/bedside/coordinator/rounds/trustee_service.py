"""The trustees' calls on the mTLS port: gRPC around the work list and the trustees' words."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

from bedside.coordinator.audit.log_desk import LogDesk
from bedside.coordinator.audit.records import Records, record_chunks
from bedside.coordinator.blobs.stream import stream_blob
from bedside.coordinator.calls import Context
from bedside.coordinator.enrolment.peers import Peers
from bedside.coordinator.fleet.pacing import next_call_ms
from bedside.coordinator.parts import Parts
from bedside.coordinator.polls import Polls
from bedside.coordinator.rounds.words import TrusteeWords
from bedside.coordinator.rounds.work import WorkList
from bedside.core.errors import MalformedError, StoreError
from bedside.core.limits import MAX_CHUNK_BYTES
from bedside.core.signing import VerifiedCredential
from bedside.proto.v1.audit_pb2 import (
    CheckpointRequest,
    CheckpointView,
    EntriesRequest,
    EntryPage,
    PlanProof,
    PlanProofRequest,
    RoundBlobRequest,
    RoundRecordRequest,
)
from bedside.proto.v1.common_pb2 import BlobRequest, Chunk, Empty, Signed
from bedside.proto.v1.trustee_pb2 import AnswerChunk, CredentialDecision, Work, WorkRequest
from bedside.proto.v1.trustee_pb2_grpc import TrusteeServiceServicer
from bedside.service.logs import event

_LOGGER: Final = logging.getLogger(__name__)
_MS_PER_S: Final = 1_000


class TrusteeService(TrusteeServiceServicer):
    """Calls of trustees; each checks the caller against its credential and the newest roster."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._peers = Peers(parts.registry)
        self._words = TrusteeWords(parts)
        self._work = WorkList(parts)
        self._polls = Polls()
        self._log = LogDesk(parts)
        self._records = Records(parts)

    async def GetWork(self, request: WorkRequest, context: Context) -> Work:  # noqa: N802
        """Answer with what is waited for, as soon as there is something the trustee does not know."""
        signal = self._parts.signals.work
        deadline_s = self._parts.clock.monotonic_s() + min(request.wait_ms / _MS_PER_S, self._parts.config.poll_s)
        while True:
            seen = signal.version
            trustee = self._caller(context)
            items = self._work.items(trustee, request.known_work)
            left_s = deadline_s - self._parts.clock.monotonic_s()
            step_s = min(left_s, self._parts.config.heartbeat_s)
            if items or left_s <= 0 or not await self._polls.wait(trustee.digest, signal, seen, step_s):
                wait_ms = next_call_ms(self._parts.config.heartbeat_s, trustee.digest)
                return Work(items=items, next_call_ms=wait_ms)

    async def PutOpening(self, request: Signed, context: Context) -> Empty:  # noqa: N802
        """Take an opening."""
        trustee = self._caller(context)
        self._words.opening(request, trustee)
        return self._taken("opening", trustee)

    async def PutRefusal(self, request: Signed, context: Context) -> Empty:  # noqa: N802
        """Take a refusal, with its code."""
        trustee = self._caller(context)
        refusal = self._words.refusal(request, trustee)
        return self._taken("refusal", trustee, refusal.code)

    async def PutVote(self, request: Signed, context: Context) -> Empty:  # noqa: N802
        """Take a vote."""
        trustee = self._caller(context)
        self._words.vote(request, trustee)
        return self._taken("vote", trustee)

    async def PutAnswer(  # noqa: N802
        self, request_iterator: AsyncIterator[AnswerChunk], context: Context
    ) -> Empty:
        """Take an answer and its words; what it signs bounds what is read, and nothing else is kept."""
        trustee = self._caller(context)
        signed: Signed | None = None
        size = 0
        with self._parts.staging.incoming() as words:
            async for chunk in request_iterator:
                if signed is None:
                    signed = chunk.answer
                    size = self._words.check_answer(signed, trustee).mask_sum_bytes
                fits = chunk.offset_bytes == words.received_bytes and words.received_bytes + len(chunk.data) <= size
                if not fits or len(chunk.data) > MAX_CHUNK_BYTES:
                    raise MalformedError("bad-chunk", "a chunk does not continue the answer's words")
                await asyncio.to_thread(words.write, chunk.data)
            if signed is None:
                raise MalformedError("bad-chunk", "an answer without a signed message")
            await self._words.answer(signed, words, trustee)
        return self._taken("answer", trustee)

    async def PutClosed(self, request: Signed, context: Context) -> Empty:  # noqa: N802
        """Take a closing."""
        trustee = self._caller(context)
        self._words.closed(request, trustee)
        self._parts.signals.offers.bump()
        return self._taken("closed", trustee)

    async def PutDecision(self, request: CredentialDecision, context: Context) -> Empty:  # noqa: N802
        """Take the site's word on a credential request."""
        trustee = self._caller(context)
        self._parts.desk.decide(trustee, request)
        self._parts.signals.requests.bump()
        return self._taken("decision", trustee, request.code)

    async def GetBlob(self, request: BlobRequest, context: Context) -> AsyncIterator[Chunk]:  # noqa: N802
        """Send a blob of signed things from an offset on."""
        self._caller(context)
        async for chunk in stream_blob(self._parts.blobs, request, families=("blake2b",)):
            yield chunk

    async def GetLogCheckpoint(self, request: CheckpointRequest, context: Context) -> CheckpointView:  # noqa: N802
        """Send the newest signed checkpoint."""
        self._caller(context)
        return self._log.checkpoint(request)

    async def GetLogEntries(self, request: EntriesRequest, context: Context) -> EntryPage:  # noqa: N802
        """Send a page of the log."""
        self._caller(context)
        return self._log.entries(request)

    async def GetPlanProof(self, request: PlanProofRequest, context: Context) -> PlanProof:  # noqa: N802
        """Prove a plan's place in the log."""
        self._caller(context)
        return self._log.plan_proof(request)

    async def PutCosignature(self, request: Signed, context: Context) -> Empty:  # noqa: N802
        """Take a cosignature."""
        trustee = self._caller(context)
        self._log.cosignature(request, trustee)
        return self._taken("cosignature", trustee)

    async def PutVerdict(self, request: Signed, context: Context) -> Empty:  # noqa: N802
        """Take a verdict."""
        trustee = self._caller(context)
        verdict = self._log.verdict(request, trustee)
        return self._taken("verdict", trustee, verdict.code)

    async def GetRoundRecord(  # noqa: N802
        self, request: RoundRecordRequest, context: Context
    ) -> AsyncIterator[Chunk]:
        """Send the record of a round of this trustee."""
        self._records.check_trustee(request.plan_digest, self._caller(context))
        for chunk in record_chunks(await asyncio.to_thread(self._records.record, request)):
            yield chunk

    async def GetRoundBlob(self, request: RoundBlobRequest, context: Context) -> AsyncIterator[Chunk]:  # noqa: N802
        """Send a blob of a round of this trustee, masked uploads and sums included."""
        self._records.check_trustee(request.plan_digest, self._caller(context))
        if request.digest not in self._records.blob_names(request.plan_digest):
            raise StoreError("no-blob", "that round has no such blob")
        wanted = BlobRequest(digest=request.digest, offset_bytes=request.offset_bytes)
        async for chunk in stream_blob(self._parts.blobs, wanted):
            yield chunk

    def _caller(self, context: Context) -> VerifiedCredential:
        trustee = self._peers.caller(context, "trustee")
        self._parts.roll.trustee_called(trustee.site)
        return trustee

    @staticmethod
    def _taken(what: str, trustee: VerifiedCredential, code: str = "") -> Empty:
        event(_LOGGER, "trustee-said", what=what, site=trustee.site, code=code)
        return Empty()
