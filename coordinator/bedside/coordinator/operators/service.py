"""The operators' calls: gRPC around tasks, rounds and fleet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Final

from bedside.coordinator.audit.log_desk import LogDesk
from bedside.coordinator.audit.records import Records, record_chunks
from bedside.coordinator.blobs.stream import stream_blob
from bedside.coordinator.calls import Context
from bedside.coordinator.models.bundles import import_bundle
from bedside.coordinator.parts import Parts
from bedside.coordinator.privacy.charges import report_charges
from bedside.coordinator.rounds.detail import describe, summarise
from bedside.coordinator.rounds.state import RoundState, read_round
from bedside.coordinator.rounds.tasking import Tasks
from bedside.coordinator.rounds.work import bundle_manifest, previous_envelope
from bedside.coordinator.store import tasks
from bedside.core.errors import MalformedError, ProtocolError
from bedside.core.limits import MAX_BLOB_BYTES
from bedside.core.signing.tokens import mint_token
from bedside.core.signing.trust import authority_of
from bedside.proto.v1.audit_pb2 import LogStatus, RoundRecordRequest
from bedside.proto.v1.common_pb2 import BlobRequest, Chunk, Empty
from bedside.proto.v1.identity_pb2 import Role, Token
from bedside.proto.v1.operator_pb2 import (
    DeviceList,
    FleetSummary,
    ImportedBundle,
    ListRoundsRequest,
    MintedToken,
    MintTokenRequest,
    PlanFile,
    PrivacyQuery,
    PrivacyReport,
    RoundDetail,
    RoundList,
    RoundQuery,
    StartTaskRequest,
    StopTaskRequest,
    TaskStarted,
)
from bedside.proto.v1.operator_pb2_grpc import OperatorServiceServicer
from bedside.service.logs import event

_LOGGER: Final = logging.getLogger(__name__)
_MS_PER_S: Final = 1_000
_HOUR_S: Final = 3_600
MAX_LISTED_ROUNDS: Final = 1_000
_SEED_BYTES: Final = 32
WATCH_AGAIN_S: Final = 1.0
"""While a round runs, times and bytes change without news: send them so often."""


class OperatorService(OperatorServiceServicer):
    """Calls of the coordinator's own operators."""

    def __init__(self, parts: Parts, root_pk: bytes, enrolment_address: Callable[[], str]) -> None:
        self._parts = parts
        self._tasks = Tasks(parts)
        self._log = LogDesk(parts)
        self._records = Records(parts)
        self._root_pk = root_pk
        self._enrolment_address = enrolment_address

    async def ImportBundle(  # noqa: N802
        self, request_iterator: AsyncIterator[Chunk], context: Context
    ) -> ImportedBundle:
        """Take a bundle."""
        data = bytearray()
        async for chunk in request_iterator:
            if chunk.offset_bytes != len(data) or len(data) + len(chunk.data) > MAX_BLOB_BYTES:
                raise MalformedError("bad-chunk", "a chunk does not continue the bundle")
            data += chunk.data
        imported = await asyncio.to_thread(import_bundle, bytes(data), self._parts.store, self._parts.blobs)
        event(_LOGGER, "bundle-imported", name=imported.name, version=imported.version)
        return imported

    async def StartTask(self, request: StartTaskRequest, context: Context) -> TaskStarted:  # noqa: N802
        """Start a task."""
        started = self._tasks.start(request)
        event(_LOGGER, "task-started", task=started.task, first_round=started.first_round, rounds=request.rounds)
        return started

    async def StopTask(self, request: StopTaskRequest, context: Context) -> Empty:  # noqa: N802
        """Stop a task."""
        self._tasks.stop(request)
        event(_LOGGER, "task-stopped", task=request.task, at_once=request.at_once)
        return Empty()

    async def ListRounds(self, request: ListRoundsRequest, context: Context) -> RoundList:  # noqa: N802
        """List the newest rounds."""
        limit = min(request.limit or MAX_LISTED_ROUNDS, MAX_LISTED_ROUNDS)
        rows = self._parts.store.run_tx("list-rounds", lambda tx: tasks.rounds(tx, request.task, limit))
        return RoundList(rounds=[summarise(self._read(row)) for row in rows])

    async def ShowRound(self, request: RoundQuery, context: Context) -> RoundDetail:  # noqa: N802
        """Show one round."""
        row = self._find(request.task, request.round_number)
        if row is None:
            raise self._no_round(request)
        return describe(self._parts, self._read(row))

    async def ExportPlan(self, request: RoundQuery, context: Context) -> PlanFile:  # noqa: N802
        """Send a plan with everything that a site judges it by."""
        row = self._find(request.task, request.round_number)
        if row is None:
            raise self._no_round(request)
        state = self._read(row)
        sites = sorted({site for cohort in state.plan.plan.cohorts for site in cohort.sites})
        return PlanFile(
            plan=state.plan.signed,
            federation=self._parts.registry.signed_federation,
            rosters=self._parts.registry.rosters(sites),
            manifest=bundle_manifest(self._parts, state),
            previous_result=previous_envelope(self._parts, state),
        )

    async def WatchRound(self, request: RoundQuery, context: Context) -> AsyncIterator[RoundDetail]:  # noqa: N802
        """Send a round's detail whenever it changes, until it ends, or until its task has ended."""
        signal = self._parts.signals.rounds
        number = request.round_number
        last = b""
        if not self._is_active(request.task) and self._find(request.task, number) is None:
            raise self._no_round(request)
        while True:
            seen = signal.version
            active = self._is_active(request.task)
            row = self._find(request.task, number)
            if row is not None:
                number = row.number
                detail = describe(self._parts, self._read(row))
                if (encoded := detail.SerializeToString(deterministic=True)) != last:
                    last = encoded
                    yield detail
                if row.result is not None:
                    if not request.follow_task or not self._has_next(row.task, number, active=active):
                        return
                    number += 1
                    continue
            if not active:
                raise self._no_round(request)  # also of a round that cannot go on
            await signal.wait(seen, WATCH_AGAIN_S)

    async def FleetStatus(self, request: Empty, context: Context) -> FleetSummary:  # noqa: N802
        """The fleet by site."""
        store = self._parts.store
        waiting = 0 if store.trouble else self._parts.desk.pending_count()
        summary = self._parts.roll.summary(waiting)
        summary.store, summary.store_trouble = store.kind, store.trouble
        return summary

    async def ListDevices(self, request: Empty, context: Context) -> DeviceList:  # noqa: N802
        """Every device."""
        return DeviceList(devices=self._parts.roll.entries())

    async def GetBlob(self, request: BlobRequest, context: Context) -> AsyncIterator[Chunk]:  # noqa: N802
        """Send any blob, masked uploads and opened sums included: they are what the coordinator sees."""
        async for chunk in stream_blob(self._parts.blobs, request):
            yield chunk

    async def PrivacySpent(self, request: PrivacyQuery, context: Context) -> PrivacyReport:  # noqa: N802
        """Count what was charged."""
        return self._parts.store.run_tx("privacy-spent", lambda tx: report_charges(tx, request.task))

    async def MintToken(self, request: MintTokenRequest, context: Context) -> MintedToken:  # noqa: N802
        """Make a token whose bearers wait for their site's approval."""
        federation = self._parts.registry.federation
        if not 1 <= request.uses <= 10_000 or not 1 <= request.hours <= 24 * 365:
            raise MalformedError(
                "bad-token-request",
                "a token has 1 to 10,000 uses and lasts 1 hour to a year",
                remedy="see bedside coordinator token --help",
            )
        now_s = self._parts.now_ms() // _MS_PER_S
        token = Token(
            federation=federation.federation,
            site=request.site,
            role=Role.ROLE_DEVICE,
            uses=request.uses,
            issued_at_s=now_s,
            not_after_s=now_s + request.hours * _HOUR_S,
            label=request.label,
            root_pk=self._root_pk,
            ca_digest=federation.coordinator.ca_digest,
            enrolment_address=self._enrolment_address(),
            authority_pk=authority_of(federation, request.site),
        )
        seed = self._parts.entropy.token_bytes(_SEED_BYTES)
        return MintedToken(token=mint_token(token, seed, self._parts.sign_key).text())

    async def GetRoundRecord(  # noqa: N802
        self, request: RoundRecordRequest, context: Context
    ) -> AsyncIterator[Chunk]:
        """Send the record of a finished round."""
        for chunk in record_chunks(await asyncio.to_thread(self._records.record, request)):
            yield chunk

    async def GetLogStatus(self, request: Empty, context: Context) -> LogStatus:  # noqa: N802
        """The log, and who vouches for it."""
        return self._log.status(self._root_pk)

    def _find(self, task: str, number: int) -> tasks.RoundRow | None:
        return self._parts.store.run_tx("find-round", lambda tx: tasks.round_of_task(tx, task, number))

    def _read(self, row: tasks.RoundRow) -> RoundState:
        return self._parts.store.run_tx("read-round", read_round(row, self._parts.sign_pk))

    def _is_active(self, task: str) -> bool:
        active = self._parts.store.run_tx("active-tasks", tasks.active_tasks)
        return any(row.task == task for row in active) if task else bool(active)

    def _has_next(self, task: str, number: int, *, active: bool) -> bool:
        return active or self._find(task, number + 1) is not None

    def _no_round(self, request: RoundQuery) -> ProtocolError:
        """Why there is no such round: often its task could not plan it."""
        task = self._parts.store.run_tx("read-task", lambda tx: tasks.task(tx, request.task))
        if task is not None and task.state == tasks.FAILED and task.reason:
            return ProtocolError("task-failed", f"task {task.task} has ended: {task.reason}")
        which = f"round {request.round_number}" if request.round_number else "round"
        where = f" of task {request.task[:64]}" if request.task else ""
        return ProtocolError("no-round", f"there is no {which}{where}", remedy="bedside round list")
