"""What an audit says: one line per check, in the order in which a round happens, up to the first that does not hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CHECKS: Final = {
    "federation": "the federation document is signed by the pinned root",
    "plan": "the plan is signed by the federation's coordinator, whole, and within its bounds",
    "result": "the result is signed by the coordinator and is this plan's",
    "log": "plan, words, set and result are in the signed log, and the log only grew since the plan",
    "lineage": "the plan's checkpoint is the previous result's, or the bundle's first",
    "rosters": "the rosters of the cohort's sites are signed by their authorities",
    "openings": "all trustees of the cohort opened, each under its site's credential",
    "headers": "each header of the set is signed by a device on its site's roster, once",
    "votes": "all trustees voted for exactly this set, and it holds what they promised",
    "answers": "all trustees answered for exactly this set and these votes",
    "endings": "refusals and closings are signed by the cohort's trustees",
    "uploads": "each stored upload has the BLAKE3 digest in its signed header",
    "answer-words": "each stored sum of masks has the BLAKE3 digest in its signed answer",
    "sum": "masked sum minus answers is the result's opened sum, bit for bit",
    "bounds": "norm and counts of the opened sum are within what honest devices can make",
    "outcome": "the result states the cohort's set, answers and counts as they are",
    "checkpoint": "the server's step on the opened sums is the result's checkpoint, bit for bit",
}
"""What can fail, by stable code: what it means when it holds."""


class BrokenError(Exception):
    """A check does not hold; caught by the audit and never seen outside it."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class Line:
    """One check.

    Attributes:
        code: a key of `CHECKS`.
        cohort: which cohort; None for checks of the whole round.
        holds: whether it does.
        sentence: what holds, or what does not.
    """

    code: str
    cohort: int | None
    holds: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of an audit.

    Attributes:
        task: of the plan; empty when the plan cannot be believed.
        round_number: likewise 0.
        plan_digest: H of the plan in the record.
        result_digest: BLAKE2b-256 of the result's payload in the record.
        lines: checks in order; only the last may not hold.
    """

    task: str
    round_number: int
    plan_digest: bytes
    result_digest: bytes
    lines: tuple[Line, ...]

    @property
    def failure(self) -> Line | None:
        """The first thing that does not hold; None when everything does."""
        return next((line for line in self.lines if not line.holds), None)

    @property
    def holds(self) -> bool:
        """Whether the whole round does."""
        return self.failure is None
