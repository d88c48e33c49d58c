"""A round as the store has it, read in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sqlalchemy import Connection

from bedside.coordinator.store import contributions, tasks
from bedside.coordinator.store.contributions import CohortRow, RefusalRow, UploadRow, WordRow
from bedside.coordinator.store.tasks import RoundRow
from bedside.core.errors import ProtocolError
from bedside.core.securesum.aggregator import CohortPhase
from bedside.core.securesum.messages import words_digest
from bedside.core.securesum.plans import CheckedPlan, open_plan
from bedside.core.signing import parse_strict
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.round_pb2 import Opening

_CACHED_PLANS: Final = 64
FINAL_PHASES: Final = frozenset({CohortPhase.OPENED, CohortPhase.LEFT_OUT})


@dataclass(frozen=True, slots=True)
class RoundState:
    """Everything known of one round.

    Attributes:
        row: plan and result as stored.
        plan: the verified plan.
        cohorts: one row each, in order.
        words: openings, votes, answers and closings.
        uploads: headers, by credential.
        refusals: of devices and trustees.
    """

    row: RoundRow
    plan: CheckedPlan
    cohorts: tuple[CohortRow, ...]
    words: tuple[WordRow, ...]
    uploads: tuple[UploadRow, ...]
    refusals: tuple[RefusalRow, ...]

    def cohort(self, index: int) -> CohortRow:
        """One cohort's row.

        Raises:
            ProtocolError: `no-such-cohort`.
        """
        for row in self.cohorts:
            if row.cohort == index:
                return row
        raise ProtocolError("no-such-cohort", f"the plan has no cohort {index}")

    def trustees(self, cohort: int) -> list[bytes]:
        """Credential digests of a cohort's trustees, in the plan's order."""
        return [trustee.credential_digest for trustee in self.plan.cohort(cohort).trustees]

    def word(self, cohort: int, kind: str, credential_digest: bytes) -> WordRow | None:
        """One trustee's word of that kind."""
        for word in self.words:
            if (word.cohort, word.kind, word.credential_digest) == (cohort, kind, credential_digest):
                return word
        return None

    def signed_words(self, cohort: int, kind: str) -> list[Signed]:
        """The words of a cohort's trustees that are here, in the plan's order."""
        found = (self.word(cohort, kind, trustee) for trustee in self.trustees(cohort))
        return [parse_strict(Signed, word.signed) for word in found if word is not None]

    def opening(self, cohort: int, credential_digest: bytes) -> Opening | None:
        """What one trustee has promised."""
        word = self.word(cohort, "opening", credential_digest)
        return parse_strict(Opening, parse_strict(Signed, word.signed).payload) if word is not None else None

    def is_complete(self, cohort: int, kind: str) -> bool:
        """Whether all trustees of a cohort have said this."""
        return all(self.word(cohort, kind, trustee) is not None for trustee in self.trustees(cohort))

    def openings_digest(self, cohort: int) -> bytes:
        """What every header of the cohort must name, once all have opened."""
        return words_digest(self.signed_words(cohort, "opening"))

    def refusal(self, cohort: int, credential_digest: bytes) -> RefusalRow | None:
        """Why that device or trustee does not take part."""
        for refusal in self.refusals:
            if (refusal.cohort, refusal.credential_digest) == (cohort, credential_digest):
                return refusal
        return None

    def upload(self, credential_digest: bytes) -> UploadRow | None:
        """A device's upload, however far it is."""
        return next((row for row in self.uploads if row.credential_digest == credential_digest), None)

    @property
    def is_settled(self) -> bool:
        """Whether every cohort is opened or left out."""
        return all(phase_of(row) in FINAL_PHASES for row in self.cohorts)


def phase_of(row: CohortRow) -> CohortPhase:
    """The phase of a cohort."""
    return CohortPhase(row.phase)


def read_round(row: RoundRow, coordinator_pk: bytes) -> Callable[[Connection], RoundState]:
    """The work that reads one round."""

    def work(tx: Connection) -> RoundState:
        return RoundState(
            row=row,
            plan=checked_plan(row.plan, coordinator_pk),
            cohorts=tuple(contributions.cohorts(tx, row.plan_digest)),
            words=tuple(contributions.words(tx, row.plan_digest)),
            uploads=tuple(contributions.uploads(tx, row.plan_digest)),
            refusals=tuple(contributions.refusals(tx, row.plan_digest)),
        )

    return work


def find_round(plan_digest: bytes, coordinator_pk: bytes) -> Callable[[Connection], RoundState]:
    """The work that reads the round of a plan.

    Raises:
        ProtocolError: `unknown-plan`.
    """

    def work(tx: Connection) -> RoundState:
        row = tasks.round_by_plan(tx, plan_digest)
        if row is None:
            raise ProtocolError("unknown-plan", "no round with this plan is known here")
        return read_round(row, coordinator_pk)(tx)

    return work


def read_open_rounds(coordinator_pk: bytes) -> Callable[[Connection], list[RoundState]]:
    """The work that reads all rounds without a result, oldest first."""
    return lambda tx: [read_round(row, coordinator_pk)(tx) for row in tasks.open_rounds(tx)]


@lru_cache(maxsize=_CACHED_PLANS)
def checked_plan(signed: bytes, coordinator_pk: bytes) -> CheckedPlan:
    """A stored plan, verified; pure, so that it is verified once."""
    return open_plan(parse_strict(Signed, signed), coordinator_pk)
