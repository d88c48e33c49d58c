"""The trustee's calls to the coordinator, with its errors as ours. Decides nothing and stores nothing but blobs."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import grpc

from bedside.core.errors import MalformedError
from bedside.core.limits import MAX_CHUNK_BYTES
from bedside.proto.v1.audit_pb2 import (
    CheckpointRequest,
    CheckpointView,
    EntriesRequest,
    PlanProof,
    PlanProofRequest,
    RoundBlobRequest,
    RoundRecordRequest,
)
from bedside.proto.v1.common_pb2 import BlobRef, BlobRequest, Chunk, Signed
from bedside.proto.v1.trustee_pb2 import AnswerChunk, CredentialDecision, Work, WorkRequest
from bedside.proto.v1.trustee_pb2_grpc import TrusteeServiceStub
from bedside.service.link.blobs import DigestKind, fetch_blob
from bedside.service.link.errors import remote_errors

CALL_TIMEOUT_S: Final = 30.0
TRANSFER_TIMEOUT_S: Final = 600.0
_WORK_SLACK_S: Final = 15.0
_MS_PER_S: Final = 1_000


class TrusteeLink:
    """`TrusteeService` on one channel. Every method raises BedsideError."""

    def __init__(self, channel: grpc.aio.Channel, peer: str) -> None:
        self._stub = TrusteeServiceStub(channel)
        self._peer = peer

    async def get_work(self, known: Sequence[bytes], wait_s: float) -> Work:
        """All that the coordinator waits for; returns at once when some of it is not in `known`."""
        request = WorkRequest(wait_ms=int(wait_s * _MS_PER_S), known_work=known)
        with remote_errors(self._peer):
            return await self._stub.GetWork(request, timeout=wait_s + _WORK_SLACK_S)

    async def put_word(self, kind: str, signed: Signed) -> None:
        """Send an opening, vote, closing or refusal."""
        calls = {
            "opening": self._stub.PutOpening,
            "vote": self._stub.PutVote,
            "closed": self._stub.PutClosed,
            "refusal": self._stub.PutRefusal,
        }
        with remote_errors(self._peer):
            await calls[kind](signed, timeout=CALL_TIMEOUT_S)

    async def put_answer(self, answer: Signed, words: bytes) -> None:
        """Send the answer with its packed sum of masks."""
        with remote_errors(self._peer):
            await self._stub.PutAnswer(_chunks(answer, words), timeout=TRANSFER_TIMEOUT_S)

    async def put_decision(self, decision: CredentialDecision) -> None:
        """Send the site's word on a credential request."""
        with remote_errors(self._peer):
            await self._stub.PutDecision(decision, timeout=CALL_TIMEOUT_S)

    async def get_blob(self, ref: BlobRef, target: Path, max_bytes: int) -> bytes:
        """Bring a BLAKE2b-named blob to `target` and return its bytes."""
        with remote_errors(self._peer):
            await fetch_blob(
                lambda request: self._stub.GetBlob(request, timeout=TRANSFER_TIMEOUT_S),
                ref.digest,
                target,
                max_bytes=max_bytes,
            )
        return target.read_bytes()

    async def get_log_checkpoint(self, from_size: int) -> CheckpointView:
        """The newest signed checkpoint, with a proof that the log began with `from_size` entries that are known."""
        with remote_errors(self._peer):
            return await self._stub.GetLogCheckpoint(CheckpointRequest(from_size=from_size), timeout=CALL_TIMEOUT_S)

    async def get_log_entries(self, first: int, count: int) -> Sequence[bytes]:
        """Leaves of the log from `first` on, at most `count`."""
        with remote_errors(self._peer):
            page = await self._stub.GetLogEntries(EntriesRequest(first=first, count=count), timeout=CALL_TIMEOUT_S)
        return page.leaves[:count]

    async def get_plan_proof(self, log_size: int, tree_size: int) -> PlanProof:
        """That a plan's log and the plan's own entry are in the tree of `tree_size` entries."""
        request = PlanProofRequest(log_size=log_size, tree_size=tree_size)
        with remote_errors(self._peer):
            return await self._stub.GetPlanProof(request, timeout=CALL_TIMEOUT_S)

    async def put_cosignature(self, signed: Signed) -> None:
        """Vouch for a checkpoint."""
        with remote_errors(self._peer):
            await self._stub.PutCosignature(signed, timeout=CALL_TIMEOUT_S)

    async def put_verdict(self, signed: Signed) -> None:
        """Publish what came of recomputing a round."""
        with remote_errors(self._peer):
            await self._stub.PutVerdict(signed, timeout=CALL_TIMEOUT_S)

    async def get_round_record(self, plan_digest: bytes, max_bytes: int) -> bytes:
        """The serialised record of a finished round."""
        data = bytearray()
        with remote_errors(self._peer):
            request = RoundRecordRequest(plan_digest=plan_digest)
            async for chunk in self._stub.GetRoundRecord(request, timeout=TRANSFER_TIMEOUT_S):
                if chunk.offset_bytes != len(data) or len(data) + len(chunk.data) > max_bytes:
                    raise MalformedError("bad-chunk", "a chunk does not continue the record of a round")
                data += chunk.data
        return bytes(data)

    async def get_round_blob(self, plan_digest: bytes, digest: bytes, target: Path, kind: DigestKind) -> bytes:
        """Bring a blob of a finished round to `target` and return its bytes."""

        def ask(wanted: BlobRequest) -> AsyncIterable[Chunk]:
            request = RoundBlobRequest(plan_digest=plan_digest, digest=digest, offset_bytes=wanted.offset_bytes)
            return self._stub.GetRoundBlob(request, timeout=TRANSFER_TIMEOUT_S)

        with remote_errors(self._peer):
            await fetch_blob(ask, digest, target, kind=kind)
        return target.read_bytes()


async def _chunks(answer: Signed, words: bytes) -> AsyncIterator[AnswerChunk]:
    yield AnswerChunk(answer=answer, data=words[:MAX_CHUNK_BYTES])
    for offset in range(MAX_CHUNK_BYTES, len(words), MAX_CHUNK_BYTES):
        yield AnswerChunk(offset_bytes=offset, data=words[offset : offset + MAX_CHUNK_BYTES])
