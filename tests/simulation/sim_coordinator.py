"""The coordinator's shell in memory: it takes words and uploads, drives cohorts, opens sums, and hands out receipts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import blake3
from sim_network import Party
from sim_stage import COHORT_SITES, DEVICES_OF, Stage

from bedside.core.codec.decoder import check_sum
from bedside.core.errors import BedsideError, ProtocolError
from bedside.core.securesum import aggregator as rules
from bedside.core.securesum.aggregator import Aggregate, CohortInput, CohortPhase
from bedside.core.securesum.merkle import Leaf, prove_membership, set_root
from bedside.core.securesum.messages import (
    CheckedOpening,
    open_answer,
    open_closed,
    open_header,
    open_opening,
    open_refusal,
    open_vote,
    openings_digest,
    words_digest,
)
from bedside.core.securesum.plans import CheckedPlan
from bedside.core.securesum.ring import Words
from bedside.core.securesum.trustee import leaves_of
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.device_pb2 import OpeningEntry
from bedside.proto.v1.round_pb2 import Header, Receipt
from bedside.proto.v1.trustee_pb2 import HeaderEntry, HeaderSet
from bedside.trustee.store import RoundKey

_P, _I = CohortPhase, CohortInput
ENDED = (_P.OPENED, _P.LEFT_OUT)
ENDS = ("closed", "answer", "refusal")


@dataclass(slots=True)
class Cohort:
    key: RoundKey
    sites: tuple[str, ...]
    phase: CohortPhase = _P.OPENING
    words: dict[tuple[str, str], Signed] = field(default_factory=dict)
    uploads: dict[int, tuple[Signed, bytes]] = field(default_factory=dict)
    headers: HeaderSet | None = None
    members: tuple[int, ...] = ()
    leaves: list[Leaf] = field(default_factory=list)
    root: bytes = b""
    mask_sums: dict[str, bytes] = field(default_factory=dict)
    opened: Words | None = None
    unknown_to: set[str] = field(default_factory=set)
    strays: dict[str, Signed] = field(default_factory=dict)

    def said(self, kind: str) -> list[Signed]:
        """Words of that kind, in the order of the trustees; those that are missing are left out."""
        return [self.words[site, kind] for site in self.sites if (site, kind) in self.words]

    def complete(self, kind: str) -> bool:
        return len(self.said(kind)) == len(self.sites)


@dataclass(slots=True)
class Round:
    plan: CheckedPlan
    cohorts: list[Cohort]

    @property
    def ended(self) -> bool:
        return all(cohort.phase in ENDED for cohort in self.cohorts)


class SimCoordinator(Party):
    """Everything it knows is in its store: a crash loses what is in flight only."""

    def __init__(self, stage: Stage, word_bits: int, network, watch: Callable[..., None]) -> None:
        super().__init__("coordinator", network)
        self.stage, self._word_bits, self._watch = stage, word_bits, watch
        self.rounds: list[Round] = []
        self._openings: dict[RoundKey, list[CheckedOpening]] = {}
        self.denials = 0
        """Malice: so many devices are told that they came too late, and are counted all the same."""

    def forget(self) -> None:
        self._openings = {}

    def begin_round(self, hasty: bool) -> bool:
        """Plan the next round, once the last has ended and, unless hasty, its trustees have let go of it."""
        owed = any(self._work_of(site, round_) for site in DEVICES_OF for round_ in self.rounds)
        if self.rounds and (not self.rounds[-1].ended or (owed and not hasty)):
            return False
        plan = self.stage.plan(len(self.rounds) + 1, self._word_bits)
        self.rounds.append(Round(plan, [Cohort(RoundKey(plan.digest, i), s) for i, s in enumerate(COHORT_SITES)]))
        return True

    def on_work_wanted(self, site: str) -> None:
        items = [item for round_ in reversed(self.rounds) for item in self._work_of(site, round_)]
        if items:
            self.send(f"trustee {site}", "work", items)

    def on_word(self, body: tuple) -> None:
        site, key, kind, signed, packed = body
        round_, cohort = self._find(key)
        try:
            self._check_word(round_.plan, cohort, site, kind, signed, packed)
        except BedsideError as error:
            self._watch("rejected", site, key, error.code)
            if kind == "vote":
                cohort.strays[site] = signed
            self.send(f"trustee {site}", "kept", (key, kind))
            return
        self.point()
        if kind == "answer":
            cohort.mask_sums[site] = packed
        cohort.words.setdefault((site, kind), signed)
        self._drive(round_, cohort)
        self.send(f"trustee {site}", "kept", (key, kind))

    def on_no(self, body: tuple) -> None:
        """A request was refused: for good when the round is unknown there, else it ends the cohort."""
        site, key, asked, code, root = body
        round_, cohort = self._find(key)
        self.point()
        if asked == "shut" and code == "not-opened":
            cohort.unknown_to.add(site)
        elif asked == "seal" and root == cohort.root and cohort.phase is _P.SEALED:
            self._move(cohort, _I.TRUSTEE_REFUSED)
        self._drive(round_, cohort)

    def on_offer_wanted(self, body: tuple) -> None:
        number, newest, waiting = body
        site = self.stage.world.devices[number].credential.site
        receipts = [r for plan_digest in waiting if (r := self._receipt(number, site, plan_digest)) is not None]
        plan, index, entries = None, 0, []
        if self.rounds:
            round_ = self.rounds[-1]
            cohort = next(c for c in round_.cohorts if site in c.sites)
            if cohort.phase is _P.COLLECTING and round_.plan.digest != newest:
                plan, index, entries = round_.plan, cohort.key.cohort, self._entries(cohort)
        if plan is not None or receipts:
            self.send(f"device {number}", "offer", (plan, index, entries, receipts))

    def on_upload(self, body: tuple) -> None:
        number, signed, packed = body
        device = self.stage.world.devices[number].credential
        kept = [(r, c) for r in self.rounds for c in r.cohorts if number in c.uploads]
        found = [(r, c) for r, c in kept if c.uploads[number][0] == signed]
        if not found:
            claimed = Header.FromString(signed.payload).plan_digest
            round_ = next(r for r in self.rounds if r.plan.digest == claimed)
            cohort = next(c for c in round_.cohorts if device.site in c.sites)
            code = self._take_upload(round_, cohort, number, signed, packed)
            if code:
                self.send(f"device {number}", "not_taken", (cohort.key.plan_digest, code))
                return
            found = [(round_, cohort)]
        round_, cohort = found[0]
        if self.denials:
            self.denials -= 1
            self.send(f"device {number}", "not_taken", (cohort.key.plan_digest, "round-closed"))
        else:
            self.send(f"device {number}", "accepted", cohort.key.plan_digest)
        if cohort.phase is _P.COLLECTING and len(cohort.uploads) == sum(DEVICES_OF[site] for site in cohort.sites):
            self.seal(round_, cohort)

    def seal(self, round_: Round, cohort: Cohort) -> None:
        """Fix the set."""
        if cohort.phase is not _P.COLLECTING:
            return
        self.point()
        if len(cohort.uploads) < round_.plan.plan.min_contributors:
            self._move(cohort, _I.TOO_FEW)
            return
        devices = self.stage.world.devices
        cohort.members = tuple(sorted(cohort.uploads, key=lambda number: devices[number].credential.digest))
        cohort.headers = self.headers(cohort, cohort.members)
        cohort.leaves = leaves_of(cohort.headers)
        cohort.root = set_root(cohort.leaves)
        self._watch("sealed", cohort.root, cohort.members)
        self._move(cohort, _I.SEAL)

    def headers(self, cohort: Cohort, members: tuple[int, ...]) -> HeaderSet:
        devices = self.stage.world.devices
        return HeaderSet(
            entries=[
                HeaderEntry(header=cohort.uploads[number][0], credential=devices[number].credential.signed)
                for number in members
            ]
        )

    def stop(self, cohort: Cohort, event: CohortInput = _I.STOPPED) -> None:
        """Give a cohort up, wherever it stands."""
        if rules.COHORT.accepts(cohort.phase, event):
            self._move(cohort, event)

    def second_set(self, cohort: Cohort, site: str, victim: int) -> None:
        """Malice: ask a trustee for the set without one device."""
        members = [number for number in cohort.members if number != victim]
        if site in cohort.sites and 0 < len(members) < len(cohort.members):
            headers = self.headers(cohort, tuple(members))
            self._watch("sealed", set_root(leaves_of(headers)), tuple(members))
            self.send(f"trustee {site}", "work", [("seal", cohort.key, self._entries(cohort), headers)])

    def mixed_reveal(self, cohort: Cohort) -> None:
        """Malice: ask for answers on votes of which some are for another set."""
        votes = [cohort.strays.get(site) or cohort.words.get((site, "vote")) for site in cohort.sites]
        if all(votes) and 0 < len(cohort.strays) < len(cohort.sites):
            for site in cohort.sites:
                self.send(f"trustee {site}", "work", [("reveal", cohort.key, votes)])

    def _work_of(self, site: str, round_: Round) -> list[tuple]:
        items = []
        for cohort in round_.cohorts:
            if site not in cohort.sites or (site, "closed") in cohort.words or (site, "refusal") in cohort.words:
                continue
            if cohort.phase is _P.OPENING and (site, "opening") not in cohort.words:
                items.append(("open", cohort.key, round_.plan))
            elif cohort.phase is _P.SEALED and (site, "vote") not in cohort.words:
                items.append(("seal", cohort.key, self._entries(cohort), cohort.headers))
            elif cohort.phase is _P.REVEALING and (site, "answer") not in cohort.words:
                items.append(("reveal", cohort.key, cohort.said("vote")))
            elif cohort.phase is _P.LEFT_OUT and (site, "answer") not in cohort.words and site not in cohort.unknown_to:
                items.append(("shut", cohort.key))
        return items

    def _check_word(self, plan, cohort: Cohort, site: str, kind: str, signed: Signed, packed: bytes | None) -> None:
        trustee = self.stage.world.sites[site].trustee.credential
        if kind == "opening":
            open_opening(signed, trustee, plan, cohort.key.cohort)
            cohort.unknown_to.discard(site)
        elif kind == "vote":
            vote = open_vote(signed, trustee, plan, cohort.key.cohort)
            if vote.set_root != cohort.root:
                raise ProtocolError("votes-differ", "this vote is for another set")
        elif kind == "answer":
            answer = open_answer(signed, trustee, plan, cohort.key.cohort)
            if answer.set_root != cohort.root or answer.votes_digest != words_digest(cohort.said("vote")):
                raise ProtocolError("other-votes", "this answer is for other votes or another set")
            if blake3.blake3(packed).digest() != answer.mask_sum_digest:
                raise ProtocolError("answer-digest", "the words are not those that the answer signed")
        elif kind == "closed":
            open_closed(signed, trustee, plan, cohort.key.cohort)
        else:
            open_refusal(signed, trustee, plan, cohort.key.cohort)

    def _drive(self, round_: Round, cohort: Cohort) -> None:
        for kind, event in (("refusal", _I.TRUSTEE_REFUSED), ("closed", _I.TRUSTEE_CLOSED)):
            if cohort.said(kind) and rules.COHORT.accepts(cohort.phase, event):
                self._move(cohort, event)
        for phase, kind, event in (
            (_P.OPENING, "opening", _I.ALL_OPENED),
            (_P.SEALED, "vote", _I.ALL_VOTED),
            (_P.REVEALING, "answer", _I.ALL_ANSWERED),
        ):
            if cohort.phase is phase and cohort.complete(kind):
                self._move(cohort, event)
        if cohort.phase is _P.ANSWERED:
            self._open_sum(round_, cohort)

    def _open_sum(self, round_: Round, cohort: Cohort) -> None:
        total = Aggregate(round_.plan.layout, self._word_bits)
        for number in cohort.members:
            total.add_upload(cohort.uploads[number][1])
        for site in cohort.sites:
            total.subtract_answer(cohort.mask_sums[site])
        try:
            words = total.opened(len(cohort.members), len(cohort.sites))
            check_sum(words, round_.plan.layout, len(cohort.members), word_bits=self._word_bits)
        except BedsideError as error:
            self._watch("sum-fails", cohort.key, error.code)
            self._move(cohort, _I.SUM_FAILS)
            return
        cohort.opened = words
        self._move(cohort, _I.SUM_HOLDS)

    def _take_upload(self, round_: Round, cohort: Cohort, number: int, signed: Signed, packed: bytes) -> str:
        if cohort.phase is not _P.COLLECTING:
            return "round-closed"
        if number in cohort.uploads:
            return "already-contributed"
        device = self.stage.world.devices[number].credential
        try:
            checked = open_header(signed, device, round_.plan, cohort.key.cohort, openings_digest(self._opened(cohort)))
        except BedsideError as error:
            return error.code
        if blake3.blake3(packed).digest() != checked.header.upload_digest:
            return "upload-digest"
        self.point()
        cohort.uploads[number] = (signed, packed)
        return ""

    def _receipt(self, number: int, site: str, plan_digest: bytes) -> Receipt | None:
        round_ = next(r for r in self.rounds if r.plan.digest == plan_digest)
        cohort = next(c for c in round_.cohorts if site in c.sites)
        if (site, "closed") in cohort.words:
            return Receipt(plan_digest=plan_digest, cohort=cohort.key.cohort, closed=cohort.words[site, "closed"])
        if (site, "answer") not in cohort.words:
            return None
        proof = prove_membership(cohort.leaves, self.stage.world.devices[number].credential.digest)
        answer = cohort.words[site, "answer"]
        return Receipt(plan_digest=plan_digest, cohort=cohort.key.cohort, answer=answer, membership=proof)

    def _entries(self, cohort: Cohort) -> list[OpeningEntry]:
        trustees = self.stage.world.sites
        return [
            OpeningEntry(opening=cohort.words[site, "opening"], credential=trustees[site].trustee.credential.signed)
            for site in cohort.sites
        ]

    def _opened(self, cohort: Cohort) -> list[CheckedOpening]:
        if cohort.key not in self._openings:
            plan = next(r.plan for r in self.rounds if r.plan.digest == cohort.key.plan_digest)
            self._openings[cohort.key] = [
                open_opening(cohort.words[site, "opening"], self.stage.world.sites[site].trustee.credential, plan, c)
                for site, c in ((site, cohort.key.cohort) for site in cohort.sites)
            ]
        return self._openings[cohort.key]

    def _find(self, key: RoundKey) -> tuple[Round, Cohort]:
        round_ = next(r for r in self.rounds if r.plan.digest == key.plan_digest)
        return round_, round_.cohorts[key.cohort]

    def _move(self, cohort: Cohort, event: CohortInput) -> None:
        self._watch("transition", cohort.phase, event)
        cohort.phase = rules.advance(cohort.phase, event)
