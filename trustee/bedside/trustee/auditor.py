"""Recomputes rounds that were drawn, with the same code that an auditor runs, and says what came of it.

One blob is on disk and in memory at a time. A coordinator that cannot be reached is no finding: the round stays due.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future
from pathlib import Path
from typing import Final, Protocol

from nacl.signing import SigningKey

from bedside.core.audit.record import MAX_RECORD_BYTES, BlobName, Family, read_record
from bedside.core.audit.report import Line
from bedside.core.audit.round import audit_round
from bedside.core.clock import Clock
from bedside.core.errors import BedsideError, StoreError, UnavailableError
from bedside.core.limits import MAX_TEXT_CHARS
from bedside.core.log.messages import VERDICT
from bedside.core.signing.envelope import SUITE, digest, sign_message
from bedside.core.signing.trust import VerifiedCredential
from bedside.proto.v1.audit_pb2 import RoundRecord, Verdict
from bedside.proto.v1.common_pb2 import Signed
from bedside.service.logs import event
from bedside.trustee.log_store import DueAudit, LogStore

_NS_PER_S: Final = 1_000_000_000
_LOGGER = logging.getLogger(__name__)


class RoundSource(Protocol):
    """Where rounds are read: the coordinator's calls. All raise BedsideError."""

    async def get_round_record(self, plan_digest: bytes, max_bytes: int) -> bytes: ...

    async def get_round_blob(self, plan_digest: bytes, digest: bytes, target: Path, kind: Family) -> bytes: ...


class RoundAuditor:
    """One trustee as an auditor."""

    def __init__(
        self, store: LogStore, own: VerifiedCredential, key: SigningKey, root_pk: bytes, folder: Path, clock: Clock
    ) -> None:
        self._store = store
        self._own = own
        self._key = key
        self._root_pk = root_pk
        self._folder = folder
        self._clock = clock

    async def work(self, source: RoundSource) -> None:
        """Give every round that is due its verdict.

        Raises:
            UnavailableError, StoreError: our own trouble; the round stays due.
        """
        for due in self._store.due_audits():
            failure = await self._recompute(source, due)
            signed = self._verdict(due, failure)
            self._store.store_verdict(due.plan_digest, signed)
            level = logging.INFO if failure is None else logging.CRITICAL
            event(_LOGGER, "round-recomputed", level=level, plan=due.plan_digest, holds=failure is None,
                  code=failure.code if failure else "")  # fmt: skip

    async def _recompute(self, source: RoundSource, due: DueAudit) -> Line | None:
        try:
            record = read_record(await source.get_round_record(due.plan_digest, MAX_RECORD_BYTES))
        except (UnavailableError, StoreError):
            raise
        except BedsideError as error:
            return Line("result", None, holds=False, sentence=f"the coordinator shows no such round: {error.sentence}")
        shown = digest(record.plan.payload), digest(record.result.payload)
        if shown != (due.plan_digest, due.result_digest):
            sentence = "the coordinator shows another plan or result than the log holds"
            return Line("result", None, holds=False, sentence=sentence)
        reader = _Reader(source, due.plan_digest, self._folder)
        try:
            return await asyncio.to_thread(self._failure, record, reader)
        finally:
            reader.stop()

    def _failure(self, record: RoundRecord, reader: _Reader) -> Line | None:
        return audit_round(record, reader.read, self._root_pk).failure

    def _verdict(self, due: DueAudit, failure: Line | None) -> Signed:
        told = Verdict(
            suite=SUITE,
            federation=self._own.credential.federation,
            plan_digest=due.plan_digest,
            result_digest=due.result_digest,
            credential_digest=self._own.digest,
            holds=failure is None,
            code=failure.code if failure else "",
            sentence=failure.sentence[:MAX_TEXT_CHARS] if failure else "",
            checked_at_s=self._clock.now_ns() // _NS_PER_S,
        )
        return sign_message(VERDICT, told, self._key)


class _Reader:
    """Brings blobs to a thread from the event loop that made this."""

    def __init__(self, source: RoundSource, plan_digest: bytes, folder: Path) -> None:
        self._source = source
        self._plan_digest = plan_digest
        self._folder = folder
        self._loop = asyncio.get_running_loop()
        self._pending: Future[bytes] | None = None
        self._stopped = False

    def read(self, name: BlobName) -> bytes:
        """In the thread: the bytes of a blob; UnavailableError when that cannot be said now."""
        if self._stopped:
            raise UnavailableError("audit-stopped", "this trustee is stopping")
        self._pending = asyncio.run_coroutine_threadsafe(self._fetch(name), self._loop)
        return self._pending.result()

    def stop(self) -> None:
        """Let the thread end, whatever it waits for."""
        self._stopped = True
        if self._pending is not None:
            self._pending.cancel()

    async def _fetch(self, name: BlobName) -> bytes:
        target = self._folder / name.digest.hex()
        try:
            return await self._source.get_round_blob(self._plan_digest, name.digest, target, name.family)
        except StoreError as error:
            if error.code == "no-blob":
                raise  # the coordinator has lost it: a finding
            raise UnavailableError("audit-disk", error.sentence) from error
        except OSError as error:
            raise UnavailableError("audit-disk", f"a blob cannot be read: {error.strerror}") from error
        finally:
            target.unlink(missing_ok=True)
