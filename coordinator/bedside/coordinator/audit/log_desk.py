"""The log as others see it: signed checkpoints, proofs, pages of entries, and what trustees say about it.

Invariants:
    * One checkpoint is signed for each size; asked again, the same bytes come.
    * A cosignature or verdict is kept only when its trustee is on its site's newest roster and its words fit what is
      here: one that does not fit is an error with a code of its own, and an event.
"""

from __future__ import annotations

import logging
from typing import Final

from sqlalchemy import Connection

from bedside.coordinator.parts import Parts
from bedside.coordinator.store import log, tasks
from bedside.coordinator.store.log import CheckpointRow, CosignatureRow, VerdictRow
from bedside.core.errors import MalformedError, ProtocolError
from bedside.core.log.messages import open_checkpoint, open_cosignature, open_verdict, sign_checkpoint
from bedside.core.signing import VerifiedCredential, digest, parse_strict
from bedside.proto.v1.audit_pb2 import (
    CheckpointRequest,
    CheckpointView,
    CosignatureEntry,
    EntriesRequest,
    EntryPage,
    LogStatus,
    PlanProof,
    PlanProofRequest,
    Verdict,
    VerdictEntry,
)
from bedside.proto.v1.common_pb2 import Signed
from bedside.service.logs import event

MAX_PAGE_ENTRIES: Final = 1_000
"""Entries of one answer: about 150 KB."""
SHOWN_VERDICTS: Final = 100
_MS_PER_S: Final = 1_000
_LOGGER: Final = logging.getLogger(__name__)


class LogDesk:
    """Answers questions about the log."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def checkpoint(self, request: CheckpointRequest) -> CheckpointView:
        """The newest checkpoint; raises MalformedError `no-such-log` for more entries than there are."""

        def work(tx: Connection) -> CheckpointView:
            signed = self.newest(tx)
            size = self._size(signed)
            return CheckpointView(checkpoint=signed, consistency=log.consistency(tx, request.from_size, size))

        return self._parts.store.run_tx("log-checkpoint", work)

    def newest(self, tx: Connection) -> Signed:
        """The checkpoint of all entries; it is signed now when the log has grown since the last one."""
        size = log.size(tx)
        known = log.newest_checkpoint(tx)
        if known is not None and known.size == size:
            return parse_strict(Signed, known.signed)
        now_s = self._parts.now_ms() // _MS_PER_S
        signed = sign_checkpoint(self._federation, size, log.root(tx, size), now_s, self._parts.sign_key)
        log.put_checkpoint(tx, CheckpointRow(size, signed.SerializeToString(deterministic=True)))
        return signed

    def entries(self, request: EntriesRequest) -> EntryPage:
        """A page of leaves; raises MalformedError `bad-page`."""
        if not 0 < request.count <= MAX_PAGE_ENTRIES or request.first >= 1 << 62:
            raise MalformedError("bad-page", f"a page has 1 to {MAX_PAGE_ENTRIES} entries")
        page = self._parts.store.run_tx("log-entries", lambda tx: log.leaves(tx, request.first, request.count))
        return EntryPage(leaves=page)

    def plan_proof(self, request: PlanProofRequest) -> PlanProof:
        """That a plan's log, and the plan's own entry, are in a tree; raises MalformedError `no-such-log`."""

        def work(tx: Connection) -> PlanProof:
            consistency = log.consistency(tx, request.log_size, request.tree_size)
            (inclusion,) = log.inclusions(tx, [request.log_size], request.tree_size)
            (leaf,) = log.leaves(tx, request.log_size, 1)
            return PlanProof(consistency=consistency, leaf=leaf, inclusion=inclusion)

        return self._parts.store.run_tx("plan-proof", work)

    def cosignature(self, signed: Signed, trustee: VerifiedCredential) -> None:
        """Take a cosignature; raises as `open_cosignature`, or ProtocolError `other-log`."""
        told = open_cosignature(signed, trustee, self._federation)
        row = CosignatureRow(trustee.digest, told.size, signed.SerializeToString(deterministic=True))

        def work(tx: Connection) -> None:
            if told.size > log.size(tx) or log.root(tx, told.size) != told.root:
                raise ProtocolError("other-log", f"the trustee of site {trustee.site} has read another log than this")
            log.put_cosignature(tx, row)

        self._parts.store.run_tx("put-cosignature", work)

    def verdict(self, signed: Signed, trustee: VerifiedCredential) -> Verdict:
        """Take a verdict on a finished round; raises as `open_verdict`, or ProtocolError `unknown-plan`."""
        told = open_verdict(signed, trustee, self._federation)
        encoded = signed.SerializeToString(deterministic=True)

        def work(tx: Connection) -> bool:
            row = tasks.round_by_plan(tx, told.plan_digest)
            if row is None or row.result is None:
                raise ProtocolError("unknown-plan", "no finished round with this plan is known here")
            verdict = VerdictRow(told.plan_digest, trustee.digest, told.holds, encoded)
            return log.put_verdict(tx, verdict, digest(signed.payload))

        if self._parts.store.run_tx("put-verdict", work):
            self._parts.meters.judged(holds=told.holds)
        level = logging.INFO if told.holds else logging.ERROR
        event(_LOGGER, "verdict", level=level, site=trustee.site, plan=told.plan_digest, holds=told.holds,
              code=told.code)  # fmt: skip
        return told

    def status(self, root_pk: bytes) -> LogStatus:
        """Size, root, and who vouches for them."""

        def work(tx: Connection) -> LogStatus:
            return LogStatus(
                checkpoint=self.newest(tx),
                cosignatures=[self._cosigned(row) for row in log.cosignatures(tx)],
                verdicts=[self._judged(row) for row in log.verdicts(tx, SHOWN_VERDICTS)],
                root_pk=root_pk,
                federation=self._parts.registry.signed_federation,
            )

        return self._parts.store.run_tx("log-status", work)

    def _cosigned(self, row: CosignatureRow) -> CosignatureEntry:
        signed = parse_strict(Signed, row.signed)
        return CosignatureEntry(cosignature=signed, credential=self._credential(row.credential_digest))

    def _judged(self, row: VerdictRow) -> VerdictEntry:
        signed = parse_strict(Signed, row.signed)
        return VerdictEntry(verdict=signed, credential=self._credential(row.credential_digest))

    def _credential(self, credential_digest: bytes) -> Signed | None:
        credential = self._parts.registry.credential(credential_digest)
        return credential.signed if credential is not None else None

    def _size(self, signed: Signed) -> int:
        return open_checkpoint(signed, self._parts.sign_pk, self._federation).size

    @property
    def _federation(self) -> str:
        return self._parts.registry.federation.federation
