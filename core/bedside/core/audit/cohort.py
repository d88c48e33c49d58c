"""The part of an audit that looks at one cohort: who spoke, what was summed, and what the sum was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bedside.core.audit.record import MAX_HEADERS_BYTES, BlobName, ReadBlob, checked_blob
from bedside.core.audit.report import BrokenError
from bedside.core.learning.step import CohortSum, check_weight
from bedside.core.securesum.merkle import set_root
from bedside.core.securesum.messages import (
    CheckedHeader,
    CheckedOpening,
    open_answer,
    open_closed,
    open_header,
    open_opening,
    open_openings,
    open_refusal,
    open_vote,
    openings_digest,
    words_digest,
)
from bedside.core.securesum.opening import MaskSum, added, check_opened, decode_opened, open_sum
from bedside.core.securesum.plans import CheckedPlan
from bedside.core.securesum.trustee import leaves_of
from bedside.core.signing.envelope import parse_strict
from bedside.core.signing.trust import Trust, authority_of, open_credential, open_roster
from bedside.proto.v1.audit_pb2 import CohortRecord
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.identity_pb2 import Credential, Federation, Role
from bedside.proto.v1.round_pb2 import COHORT_OUTCOME_OPENED, Answer, Closed, CohortResult, Refusal
from bedside.proto.v1.trustee_pb2 import HeaderSet

Step = tuple[str, Callable[[], None]]


class CohortAudit:
    """One cohort; `steps` are taken in order, each resting on those before."""

    def __init__(
        self, plan: CheckedPlan, record: CohortRecord, outcome: CohortResult, federation: Federation, read: ReadBlob
    ) -> None:
        self._plan = plan
        self._record = record
        self._outcome = outcome
        self._federation = federation
        self._read = read
        self._trust = Trust(federation, ())
        self._openings: list[CheckedOpening] = []
        self._headers: list[CheckedHeader] = []
        self._answers: list[Answer] = []
        self._root = b""
        self._packed = b""
        self._multipliers_e6: list[int] = []

    def steps(self) -> Iterator[Step]:
        """The checks of this cohort; one that was left out has those for what was said before."""
        opened = self._outcome.outcome == COHORT_OUTCOME_OPENED
        yield "rosters", self._check_rosters
        yield "openings", self._check_openings if opened else self._check_some_openings
        yield "endings", self._check_endings
        if not opened:
            return
        yield "headers", self._check_headers
        yield "votes", self._check_votes
        yield "answers", self._check_answers
        yield "outcome", self._check_outcome
        yield "uploads", self._add
        yield "answer-words", lambda: None  # read in the same pass, and named there
        yield "sum", self._check_sum
        yield "bounds", self._check_bounds

    def opened_sum(self) -> CohortSum:
        """What was opened, after all steps."""
        opened = self._decoded()
        self._packed = b""
        return opened

    def _check_rosters(self) -> None:
        rosters = [open_roster(signed, self._federation) for signed in self._record.rosters]
        self._trust = Trust(self._federation, rosters)

    def _check_openings(self) -> None:
        self._openings = open_openings(self._record.openings, self._plan, self._record.cohort, self._trust)

    def _check_some_openings(self) -> None:
        """Of a cohort that was left out: no set was sealed, so that no rosters of that time are kept."""
        for entry in self._record.openings:
            site = parse_strict(Credential, entry.credential.payload).site
            credential = open_credential(entry.credential, authority_of(self._federation, site))
            self._openings.append(open_opening(entry.opening, credential, self._plan, self._record.cohort))

    def _check_endings(self) -> None:
        cohort = self._record.cohort
        speakers = {opening.credential.digest: opening.credential for opening in self._openings}
        for signed in self._record.closings:
            speaker = speakers.get(parse_strict(Closed, signed.payload).credential_digest)
            if speaker is None:
                raise BrokenError("endings", "somebody closed a round that it had not opened")
            open_closed(signed, speaker, self._plan, cohort)
        for signed in self._record.refusals:
            # A trustee that never opened is known by the plan only: its refusal ends the cohort, and opens nothing.
            speaker = speakers.get(parse_strict(Refusal, signed.payload).credential_digest)
            if speaker is not None:
                open_refusal(signed, speaker, self._plan, cohort)

    def _check_headers(self) -> None:
        record, plan = self._record, self._plan
        name = BlobName("blake2b", record.headers.digest)
        data = checked_blob(self._read, name, "headers", f"the set of cohort {record.cohort}")
        headers = parse_strict(HeaderSet, data, MAX_HEADERS_BYTES)
        self._root = set_root(leaves_of(headers))
        every = openings_digest(self._openings)
        for entry in headers.entries:
            credential = self._trust.credential(entry.credential, Role.ROLE_DEVICE)
            self._headers.append(open_header(entry.header, credential, plan, record.cohort, every))
        if not plan.plan.min_contributors <= len(self._headers) <= plan.plan.max_contributors:
            raise BrokenError("headers", f"a set of {len(self._headers)} is smaller or larger than the plan allows")
        if len({one.header.x25519_pk for one in self._headers}) != len(self._headers):
            raise BrokenError("headers", "two headers of the set share an ephemeral key")

    def _check_votes(self) -> None:
        votes = self._words("votes", self._record.votes)
        for signed, opening in votes:
            vote = open_vote(signed, opening.credential, self._plan, self._record.cohort)
            trusted = self._trusted(opening)
            if vote.set_root != self._root or (vote.set_size, vote.trusted_size) != (len(self._headers), trusted):
                raise BrokenError("votes", f"{opening.opening.trustee} voted for another set")
            own = any(header.credential.site == opening.opening.site for header in self._headers)
            if own and trusted < opening.opening.min_trusted:
                raise BrokenError("votes", f"the set holds less than {opening.opening.trustee} promised to its devices")

    def _trusted(self, opening: CheckedOpening) -> int:
        sites = {opening.opening.site, *opening.opening.trusted_sites}
        return sum(header.credential.site in sites for header in self._headers)

    def _check_answers(self) -> None:
        votes = words_digest(self._record.votes)
        for signed, opening in self._words("answers", self._record.answers):
            answer = open_answer(signed, opening.credential, self._plan, self._record.cohort)
            if answer.set_root != self._root or answer.votes_digest != votes:
                raise BrokenError("answers", f"{opening.opening.trustee} answered for another set or other votes")
            if answer.noise_multiplier_e6 != opening.opening.noise_multiplier_e6:
                raise BrokenError("answers", f"{opening.opening.trustee} added other noise than its opening promised")
            self._answers.append(answer)

    def _check_outcome(self) -> None:
        stated = (self._outcome.set_root, self._outcome.set_size, self._outcome.answers_digest)
        if stated != (self._root, len(self._headers), words_digest(self._record.answers)):
            raise BrokenError("outcome", "the result states another set or other answers")

    def _add(self) -> None:
        """One pass over uploads and answers, one of them in memory at a time."""
        self._packed, self._multipliers_e6 = open_sum(
            added(self._plan, self._uploads()),
            self._mask_sums(),
            contributors=len(self._headers),
            trustees=len(self._openings),
        )

    def _uploads(self) -> Iterator[bytes]:
        for one in self._headers:
            what = f"the upload of {one.credential.credential.subject}"
            yield checked_blob(self._read, BlobName("blake3", one.header.upload_digest), "uploads", what)

    def _mask_sums(self) -> Iterator[MaskSum]:
        for answer, opening in zip(self._answers, self._openings, strict=True):
            what = f"the sum of masks of {opening.opening.trustee}"
            name = BlobName("blake3", answer.mask_sum_digest)
            yield MaskSum(answer, checked_blob(self._read, name, "answer-words", what))

    def _check_sum(self) -> None:
        stored = checked_blob(self._read, BlobName("blake3", self._outcome.sum_digest), "sum", "the opened sum")
        if stored != self._packed or self._outcome.sum_bytes != len(self._packed):
            raise BrokenError("sum", "masked uploads minus answers give another sum than the result's")

    def _check_bounds(self) -> None:
        check_opened(self._plan, self._packed, len(self._headers), self._multipliers_e6)
        check_weight(self._plan.plan, self._decoded())

    def _decoded(self) -> CohortSum:
        size = len(self._headers)
        decoded = decode_opened(self._plan, self._packed, openings_digest(self._openings), size)
        return CohortSum(decoded, size, any(self._multipliers_e6))

    def _words(self, code: str, signed: Sequence[Signed]) -> Iterator[tuple[Signed, CheckedOpening]]:
        if len(signed) != len(self._openings):
            raise BrokenError(code, f"{len(signed)} of {len(self._openings)} trustees are in the record")
        return zip(signed, self._openings, strict=True)
