"""Reads the coordinator's whole log as it grows, and vouches for what it has read.

Rules kept here (DESIGN section 1, promise 7; `docs/audit.md`):
    * A checkpoint is accepted only when its log begins with the one that was read before, and every new entry hashes
      to its root; it is cosigned in the transaction that accepts it.
    * An opening, vote, answer or closing under this trustee's credential that it did not say raises the alarm
      `foreign-word`: somebody else holds its key. Until a person has handled it, nothing is opened.
    * A plan is opened only when the log that it names is the beginning of the log that was read, and the plan itself is
      the next entry: two views of the log cannot share a round.
    * One in `audit_one_in` results of own rounds is drawn by own entropy, after it was logged.

Memory of one page and log2(n) hashes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from nacl.signing import SigningKey

from bedside.core.clock import Clock, Entropy
from bedside.core.errors import BedsideError, MalformedError, RefusedError, StoreError, TrustError, UnavailableError
from bedside.core.log.entries import CHAINED, KINDS, NAMES, read_entry
from bedside.core.log.messages import open_checkpoint, sign_cosignature
from bedside.core.securesum.plans import CheckedPlan
from bedside.core.signing.envelope import digest, parse_strict
from bedside.core.signing.trust import VerifiedCredential
from bedside.core.tree import Frontier, verify_consistency, verify_inclusion
from bedside.proto.v1.audit_pb2 import CheckpointView, LogCheckpoint, LogEntry, PlanProof
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.identity_pb2 import Federation
from bedside.proto.v1.plan_pb2 import Plan
from bedside.service.logs import event
from bedside.trustee.log_store import DueAudit, ForeignWord, LogStore, Reading

PAGE_ENTRIES: Final = 1_000
"""Entries that are asked for at once: about 150 KB."""

MAX_FOREIGN_WORDS: Final = 1_000
"""Foreign words that are kept of one reading: the first is alarm enough, and a hostile log has no end."""

_DRAW_BYTES: Final = 8
_NS_PER_S: Final = 1_000_000_000
_LOGGER = logging.getLogger(__name__)


class LogSource(Protocol):
    """Where the log is read: the coordinator's calls. All raise BedsideError."""

    async def get_log_checkpoint(self, from_size: int) -> CheckpointView: ...

    async def get_log_entries(self, first: int, count: int) -> Sequence[bytes]: ...

    async def get_plan_proof(self, log_size: int, tree_size: int) -> PlanProof: ...


@dataclass(frozen=True, slots=True)
class _Proven:
    """A proof with the verified tree that it is to lead to; the log may be read on meanwhile."""

    size: int
    root: bytes
    proof: PlanProof


class LogBook:
    """One trustee's view of the log."""

    def __init__(
        self, store: LogStore, own: VerifiedCredential, key: SigningKey, *, clock: Clock, entropy: Entropy
    ) -> None:
        self.store = store
        self._own = own
        self._key = key
        self._clock = clock
        self._entropy = entropy
        self._turn = asyncio.Lock()
        self._proofs: dict[bytes, _Proven | BedsideError] = {}
        """What was found out about the plan that is about to be judged, by H."""

    async def follow(self, source: LogSource, federation: Federation, audit_one_in: int) -> bool:
        """Read what is new; whether there was something.

        Raises:
            TrustError: `log-inconsistent`: the log shrank, or an entry is none; `log-fork`: it is another log.
            UnavailableError: try again later; nothing was accepted.
        """
        async with self._turn:
            before = self.store.frontier()
            told = await source.get_log_checkpoint(before.size)
            checkpoint = open_checkpoint(told.checkpoint, federation.coordinator.sign_pk, federation.federation)
            _check_growth(before, checkpoint, told.consistency)
            if checkpoint.size == before.size:
                return False
            reading = await self._read(source, before, checkpoint, audit_one_in)
            self.store.accept(reading, self._now_s())
        for word in reading.foreign:
            event(_LOGGER, "foreign-word", level=logging.CRITICAL, kind=word.kind, plan=word.plan_digest,
                  cohort=word.cohort, position=word.position)  # fmt: skip
        return True

    async def prepare(self, source: LogSource, federation: Federation, signed: Signed, audit_one_in: int) -> None:
        """Find out what there is to know of the log before a plan is judged by `check_plan`.

        Raises:
            UnavailableError, StoreError: no word on the log; the coordinator asks again later.
        """
        name = digest(signed.payload)
        self._proofs.clear()
        try:
            await self.follow(source, federation, audit_one_in)
            claimed = parse_strict(Plan, signed.payload)
            read = self.store.frontier()
            proof = await source.get_plan_proof(claimed.log_size, read.size)
            self._proofs[name] = _Proven(read.size, read.root(), proof)
        except (UnavailableError, StoreError):
            raise
        except BedsideError as error:
            self._proofs[name] = error

    def check_plan(self, plan: CheckedPlan) -> None:
        """Refuse a plan that is not in the one log that was read.

        Raises:
            RefusedError: `foreign-word`, while the alarm stands.
            TrustError: `log-fork` or `log-inconsistent`.
        """
        self.check_alarm()
        proven = self._proofs.pop(plan.digest, None)
        if isinstance(proven, TrustError):
            raise proven
        if proven is None or isinstance(proven, BedsideError):
            why = proven.sentence if proven is not None else "nothing was asked"
            raise TrustError("log-inconsistent", f"the plan's place in the log was not proven: {why}")
        told, proof = plan.plan, proven.proof
        if not verify_consistency(told.log_size, told.log_root, proven.size, proven.root, proof.consistency):
            raise TrustError("log-fork", "the log that the plan names is not the one that this trustee has read")
        in_place = verify_inclusion(proven.root, proof.leaf, told.log_size, proven.size, proof.inclusion)
        if not in_place or not _is_plan(proof.leaf, plan.digest):
            raise TrustError("log-inconsistent", "the plan is not the entry that follows the log which it names")

    def check_alarm(self) -> None:
        """Refuse while somebody else seems to hold this trustee's key: RefusedError `foreign-word`."""
        foreign = self.store.foreign_words()
        if foreign:
            first = foreign[0]
            raise RefusedError(
                "foreign-word",
                f"the log holds {len(foreign)} words under the key of this trustee that it never said; the first is a "
                f"{first.kind} at position {first.position}",
                remedy="treat the key as stolen: see docs/audit.md, then bedside trustee clear-alarm",
            )

    async def _read(self, source: LogSource, before: Frontier, checkpoint: LogCheckpoint, audit_one_in: int) -> Reading:
        frontier = before.copy()
        foreign: list[ForeignWord] = []
        drawn: list[DueAudit] = []
        while frontier.size < checkpoint.size:
            count = min(PAGE_ENTRIES, checkpoint.size - frontier.size)
            leaves = await source.get_log_entries(frontier.size, count)
            if not leaves:
                raise TrustError("log-inconsistent", f"the log ends before the {checkpoint.size} entries it claims")
            for leaf in leaves[:count]:
                entry = _entry(leaf)
                if len(foreign) < MAX_FOREIGN_WORDS and self._is_foreign(entry):
                    foreign.append(_foreign(frontier.size, entry))
                if self._is_drawn(entry, audit_one_in):
                    drawn.append(DueAudit(entry.plan_digest, entry.payload_digest))
                frontier.append(leaf)
        if frontier.root() != checkpoint.root:
            raise TrustError("log-fork", "the entries of the log do not hash to the root that was signed")
        return Reading(frontier, foreign, drawn, sign_cosignature(checkpoint, self._own, self._now_s(), self._key))

    def _is_foreign(self, entry: LogEntry) -> bool:
        own = entry.kind in CHAINED and entry.credential_digest == self._own.digest
        return own and not self.store.said(entry.payload_digest)

    def _is_drawn(self, entry: LogEntry, one_in: int) -> bool:
        if entry.kind != KINDS["result"] or one_in == 0 or not self.store.opened(entry.plan_digest):
            return False
        return int.from_bytes(self._entropy.token_bytes(_DRAW_BYTES), "big") % one_in == 0

    def _now_s(self) -> int:
        return self._clock.now_ns() // _NS_PER_S


def _check_growth(before: Frontier, checkpoint: LogCheckpoint, proof: Sequence[bytes]) -> None:
    if checkpoint.size < before.size:
        raise TrustError(
            "log-inconsistent",
            f"the log shrank from {before.size} to {checkpoint.size} entries",
            remedy="the coordinator was set back or shows two logs: ask its operator, and open nothing until then",
        )
    if not verify_consistency(before.size, before.root(), checkpoint.size, checkpoint.root, proof):
        raise TrustError(
            "log-fork",
            f"the log does not begin with the {before.size} entries that this trustee has read",
            remedy="the coordinator shows two logs: compare `bedside trustee status` with other sites",
        )


def _entry(leaf: bytes) -> LogEntry:
    try:
        return read_entry(leaf)
    except MalformedError as error:
        raise TrustError("log-inconsistent", f"an entry of the log cannot be read: {error.sentence}") from error


def _foreign(position: int, entry: LogEntry) -> ForeignWord:
    return ForeignWord(position, NAMES[entry.kind], entry.plan_digest, entry.cohort, entry.payload_digest)


def _is_plan(leaf: bytes, plan_digest: bytes) -> bool:
    entry = _entry(leaf)
    return entry.kind == KINDS["plan"] and entry.payload_digest == plan_digest
