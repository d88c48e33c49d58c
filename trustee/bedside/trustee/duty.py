"""The trustee's work: open, seal, reveal, close. Every decision is committed before it is said.

Rules kept here on top of `core.securesum.trustee` (DESIGN section 5):
    * T1 a round is opened once, votes for one set, answers once; asked again, it sends the stored bytes.
    * T2 a round whose key, or whose boot id, is gone ends as `lost`. `burned` is said only by the process that held the
      key, after it destroyed it: a crash in between leaves `lost`, which claims less.
    * T4 rounds of a task go forward, one open round per task; no set that tells of a few by its difference.
    * T5 the opening promises the larger noise of policy and plan; that is charged at the vote and added to the answer.
    * T6 every word carries the next link of the chain.
    * T8 federation, rosters, log size and round numbers never go back.

The key is destroyed before the first byte of the answer leaves, so that no restored store can make another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import blake3

from bedside.core.clock import Clock, Entropy
from bedside.core.errors import (
    BedsideError,
    ConfigError,
    MalformedError,
    ProtocolError,
    StoreError,
    TrustError,
    UnavailableError,
)
from bedside.core.limits import MAX_TEXT_CHARS
from bedside.core.policy.history import inputs_of
from bedside.core.securesum.keys import RoundSecret
from bedside.core.securesum.merkle import set_root
from bedside.core.securesum.messages import CheckedOpening, open_openings
from bedside.core.securesum.plans import CheckedPlan, open_plan
from bedside.core.securesum.trustee import (
    AnswerNoise,
    CheckedSet,
    TrusteeInput,
    TrusteeState,
    judge_set,
    leaves_of,
    mask_sum,
    open_votes,
)
from bedside.core.signing.envelope import DIGEST_BYTES, digest, parse_strict
from bedside.core.signing.trust import Trust, open_federation, open_roster
from bedside.proto.v1 import round_pb2
from bedside.proto.v1.common_pb2 import BlobRef, Signed
from bedside.proto.v1.plan_pb2 import Plan
from bedside.proto.v1.trustee_pb2 import CloseRequest, HeaderSet, OpenRequest, RevealRequest, SealRequest
from bedside.service.files import write_durable
from bedside.service.identity import Identity
from bedside.trustee.budget import affordable_noise, check_budget
from bedside.trustee.clones import header_floors
from bedside.trustee.keys import RoundKeys, second_set
from bedside.trustee.ledger import Charge
from bedside.trustee.paths import SitePaths
from bedside.trustee.policy_file import PolicyFile
from bedside.trustee.rosters import RosterBook
from bedside.trustee.site_rules import SiteRules
from bedside.trustee.store import UNFINISHED, Floor, RoundKey, StoredRound, TrusteeStore, Word, check_floor
from bedside.trustee.voice import Promise, Voice

ANSWER_GRACE_S: Final = 86_400
"""Seconds after the close of a plan until which its opening is valid: a coordinator may be down for a day."""

MAX_HEADERS_BYTES: Final = 64 << 20
"""Bytes of one set of headers: 10,000 devices at five trustees stay below."""

_NS_PER_S: Final = 1_000_000_000

FetchBlob = Callable[[BlobRef], Awaitable[bytes]]
"""Brings a blob whose digest has been checked."""

CheckLog = Callable[[CheckedPlan], None]
"""Raises unless the plan, and the log that it names, are in the one log that this trustee reads."""

OUR_TROUBLE: Final = (StoreError, ConfigError, UnavailableError)
"""Errors that say nothing about the request; the coordinator asks again."""


class Duty:
    """One trustee at work. All methods return words to send; they are stored already."""

    def __init__(
        self,
        paths: SitePaths,
        identity: Identity,
        store: TrusteeStore,
        keys: RoundKeys,
        policy: PolicyFile,
        rosters: RosterBook,
        check_log: CheckLog,
        *,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._paths = paths
        self._identity = identity
        self._store = store
        self._keys = keys
        self._rosters = rosters
        self._check_log = check_log
        self._clock = clock
        self._entropy = entropy
        self._own = identity.require_credential()
        self._rules = SiteRules(policy, store, identity.pins.site)
        self._voice = Voice(identity.signing_key, self._own)
        self._root_pk = bytes.fromhex(identity.pins.root_pk)
        self._sequence = identity.sequence()

    def recover(self) -> list[Word]:
        """Put store and keys in step after a start; returns closings of rounds that were lost."""
        seen = self._keys.chain_seen()
        if seen is not None and seen[0] > self._store.chain_head()[0]:
            # An older store was put under a running machine: what it forgot may have been said.
            for plan_digest, cohort in self._keys.stored():
                self._keys.destroy(plan_digest, cohort)
            self._store.adopt_chain(*seen)
        unfinished = {stored.key: stored for stored in self._store.rounds(*UNFINISHED)}
        for plan_digest, cohort in self._keys.stored():
            if RoundKey(plan_digest, cohort) not in unfinished:
                self._keys.destroy(plan_digest, cohort)
        return [self._lost(stored) for stored in unfinished.values() if self._secret(stored) is None]

    def open(self, request: OpenRequest) -> list[Word]:
        """Step 2: judge the plan; an opening, or a refusal, which stays."""
        key = RoundKey(digest(request.plan.payload), request.cohort)
        stored = self._store.round(key)
        if stored is not None:
            return self._again(stored, "refusal" if stored.state is TrusteeState.REFUSED else "opening")
        plan = open_plan(request.plan, self._federation_key(request.federation))
        try:
            return [self._open_fresh(key, plan, request)]
        except OUR_TROUBLE:
            raise
        except BedsideError as error:
            return [self._refuse_plan(key, plan, error)]

    async def seal(self, request: SealRequest, fetch: FetchBlob) -> list[Word]:
        """Step 4: judge the set and lock the round on it."""
        stored = self._known(RoundKey(request.plan_digest, request.cohort))
        if stored.state not in (*UNFINISHED, TrusteeState.ANSWERED):
            return self._again(stored, "closed")
        headers = await self._headers(request.headers, fetch)
        if stored.set_root is not None:
            if set_root(leaves_of(headers)) != stored.set_root:
                raise second_set()
            return self._again(stored, "vote")
        secret = self._secret(stored)
        if secret is None:
            return [self._lost(stored)]
        try:
            return [await self._vote(stored, secret, request, headers)]
        except OUR_TROUBLE:
            raise
        except BedsideError as error:
            self._store.note_refused_set(stored, error.code, error.sentence)
            raise

    async def reveal(self, request: RevealRequest, fetch: FetchBlob) -> list[Word]:
        """Step 5: all votes are on one root; answer, and destroy the key."""
        stored = self._known(RoundKey(request.plan_digest, request.cohort))
        if stored.state is TrusteeState.ANSWERED:
            return self._again(stored, "answer")
        if stored.state not in UNFINISHED:
            return self._again(stored, "closed")
        secret = self._secret(stored)
        if secret is None:
            return [self._lost(stored)]
        if stored.seal is None or stored.set_root is None:
            raise ProtocolError("not-voted", "this trustee has not voted in that round yet")
        headers = await self._headers(stored.seal.headers, fetch)
        return [await self._answer(stored, secret, request, headers)]

    def close(self, request: CloseRequest) -> list[Word]:
        """The coordinator gave up: burn the key, or say that it was lost."""
        stored = self._known(RoundKey(request.plan_digest, request.cohort))
        if stored.state is TrusteeState.ANSWERED:
            return self._again(stored, "answer")
        if stored.state is TrusteeState.REFUSED:
            return self._again(stored, "refusal")
        if stored.state not in UNFINISHED:
            return self._again(stored, "closed")
        if self._secret(stored) is None:
            return [self._lost(stored)]
        self._keys.destroy(*stored.key)
        return [self._closed(stored, TrusteeInput.CLOSE, round_pb2.CLOSE_REASON_BURNED)]

    def refusal(self, key: RoundKey, error: BedsideError) -> Word:
        """Sign a refusal of a request; it locks nothing."""
        return Word(key, "refusal", self._voice.refusal(key, error, self._sequence.next()))

    def answer_words(self, answer: Signed) -> bytes:
        """The packed words that belong to a stored answer, from their file."""
        told = parse_strict(round_pb2.Answer, answer.payload)
        try:
            return self._answer_path(told.mask_sum_digest).read_bytes()
        except OSError as error:
            raise StoreError("answer-missing", f"the words of an answer cannot be read: {error.strerror}") from error

    def _federation_key(self, signed: Signed) -> bytes:
        return self._identity.save_federation(signed).coordinator.sign_pk

    def _open_fresh(self, key: RoundKey, plan: CheckedPlan, request: OpenRequest) -> Word:
        now_s = self._now_s()
        cohort = plan.cohort(key.cohort)
        named = {trustee.credential_digest: trustee.site for trustee in cohort.trustees}
        if self._own.digest not in named:
            raise TrustError("not-a-trustee", f"the plan does not name this trustee in cohort {key.cohort}")
        federation = self._identity.federation
        if plan.plan.federation != federation.federation:
            raise TrustError("other-federation", "the plan is for another federation")
        sites = {*cohort.sites, *named.values()}
        view = self._rosters.view(federation, request.rosters, sorted(sites), now_s=now_s)
        for credential_digest, site in named.items():
            if not view.trust.lists(site, credential_digest):
                raise TrustError("not-on-roster", f"a trustee of cohort {key.cohort} is not on the roster of {site}")
        floors = [*view.floors, *self._progress(plan.plan, key)]
        self._check_log(plan)
        loaded = self._rules.judge_opening(plan, request, now_s)
        multiplier_e6 = affordable_noise(self._store, plan, loaded.policy, len(cohort.trustees))
        fresh_key = self._keys.create(*key, self._entropy).public
        promise = Promise(
            loaded.policy.min_trusted,
            tuple(sorted(loaded.policy.trusted_sites)),
            multiplier_e6,
            {site: roster.version for site, roster in view.trust.rosters.items()},
            loaded.digest,
            now_s,
            plan.plan.close_at_s + ANSWER_GRACE_S,
        )
        build = partial(self._voice.opening, key, fresh_key, promise)
        fresh = StoredRound(
            key, plan.plan.task, plan.plan.round_number, TrusteeState.OPEN, plan.signed, self._keys.boot_id
        )
        return self._said(self._store.store_opening(fresh, inputs_of(plan), floors, build, now_s))

    def _progress(self, plan: Plan, key: RoundKey) -> list[Floor]:
        """Rules T4 and T8; returns what becomes the new floor."""
        for other in self._store.rounds(*UNFINISHED):
            if other.task == plan.task and other.key.plan_digest != key.plan_digest:
                raise ProtocolError(
                    "round-still-open",
                    f"round {other.round_number} of task {plan.task} is still open",
                    remedy="the coordinator closes it first",
                )
        floors = [
            Floor(f"round-number/{plan.task}", plan.round_number, key.plan_digest),
            Floor("log-size", plan.log_size, plan.log_root),
        ]
        for floor in floors:
            check_floor(self._store.floor(floor.name), floor)
        return floors

    async def _vote(self, stored: StoredRound, secret: RoundSecret, request: SealRequest, headers: HeaderSet) -> Word:
        now_s = self._now_s()
        plan = open_plan(stored.plan, self._federation_key(request.federation))
        cohort = plan.cohort(stored.key.cohort)
        sites = sorted({*cohort.sites, *(trustee.site for trustee in cohort.trustees)})
        view = self._rosters.view(self._identity.federation, request.rosters, sites, now_s=now_s)
        self._store.raise_floors(list(view.floors))
        judged = SealRequest()
        judged.CopyFrom(request)
        del judged.rosters[:]
        judged.rosters.extend(view.rosters)
        openings, own = self._openings(judged, plan, view.trust, now_s)
        if now_s > own.opening.not_after_s:
            raise ProtocolError("opening-expired", "this trustee's opening is no longer valid")
        checked = await asyncio.to_thread(
            judge_set, plan, stored.key.cohort, openings, headers, view.trust, own, secret, now_s=now_s
        )
        members = self._rules.judge_vote(plan, checked, own)
        multiplier_e6 = own.opening.noise_multiplier_e6
        check_budget(self._store, self._rules.policy, multiplier_e6, besides=stored.key)
        self._store.raise_floors(header_floors(stored.task, checked, self._own.site))
        self._keys.lock(*stored.key, checked.root)
        size = len(checked.members)
        build = partial(self._voice.vote, stored.key, checked)
        entry = Charge(
            *stored.key, stored.task, stored.round_number, plan.plan.purpose, checked.root, size, multiplier_e6, now_s
        )
        return self._said(self._store.store_vote(stored, judged, members, entry, self._keys.boot_id, build, now_s))

    async def _answer(
        self, stored: StoredRound, secret: RoundSecret, request: RevealRequest, headers: HeaderSet
    ) -> Word:
        plan, openings, own, checked = await self._judged_again(stored, secret, headers)
        votes_digest = open_votes(request.votes, plan, stored.key.cohort, openings, checked.root)
        noise = AnswerNoise.of(own, secret, checked.root)
        packed = await asyncio.to_thread(mask_sum, plan, checked, noise)
        sum_digest = blake3.blake3(packed).digest()
        write_durable(self._answer_path(sum_digest), packed)

        mask_words = BlobRef(digest=sum_digest, size_bytes=len(packed))
        build = partial(self._voice.answer, stored.key, checked.root, votes_digest, mask_words, noise.multiplier_e6)
        word = self._store.store_answer(stored, self._keys.boot_id, build, self._now_s())
        self._keys.destroy(*stored.key)
        return self._said(word)

    async def _judged_again(
        self, stored: StoredRound, secret: RoundSecret, headers: HeaderSet
    ) -> tuple[CheckedPlan, list[CheckedOpening], CheckedOpening, CheckedSet]:
        """Derive the masks anew from exactly what was judged at the vote: the lock holds, whatever changed since."""
        seal = stored.seal
        if seal is None:
            raise ProtocolError("not-voted", "this trustee has not voted in that round yet")
        federation = open_federation(seal.federation, self._root_pk)
        trust = Trust(federation, [open_roster(roster, federation) for roster in seal.rosters])
        plan = open_plan(stored.plan, federation.coordinator.sign_pk)
        openings, own = self._openings(seal, plan, trust, stored.judged_at_s)
        checked = await asyncio.to_thread(
            judge_set, plan, stored.key.cohort, openings, headers, trust, own, secret, now_s=stored.judged_at_s
        )
        if checked.root != stored.set_root:
            raise second_set()
        return plan, openings, own, checked

    def _openings(
        self, seal: SealRequest, plan: CheckedPlan, trust: Trust, now_s: int
    ) -> tuple[list[CheckedOpening], CheckedOpening]:
        openings = open_openings(seal.openings, plan, seal.cohort, trust, now_s=now_s)
        said = self._store.word(RoundKey(seal.plan_digest, seal.cohort), "opening")
        for opening in openings:
            if said is not None and opening.signed.payload == said.signed.payload:
                return openings, opening
        raise TrustError("not-among-openings", "this trustee's opening is not among those of the set")

    async def _headers(self, ref: BlobRef, fetch: FetchBlob) -> HeaderSet:
        if len(ref.digest) != DIGEST_BYTES:
            raise MalformedError("bad-headers", "the set of headers is not named by a digest of 32 bytes")
        if ref.size_bytes > MAX_HEADERS_BYTES:
            raise MalformedError("bad-headers", f"a set of headers of {ref.size_bytes} bytes is over the limit")
        data = await fetch(ref)
        return parse_strict(HeaderSet, data, MAX_HEADERS_BYTES)

    def _secret(self, stored: StoredRound) -> RoundSecret | None:
        if stored.boot_id != self._keys.boot_id:
            return None
        return self._keys.load(*stored.key)

    def _lost(self, stored: StoredRound) -> Word:
        self._keys.destroy(*stored.key)
        return self._closed(stored, TrusteeInput.KEY_LOST, round_pb2.CLOSE_REASON_LOST)

    def _closed(self, stored: StoredRound, event: TrusteeInput, reason: round_pb2.CloseReason.ValueType) -> Word:
        build = partial(self._voice.closed, stored.key, reason)
        return self._said(self._store.store_closed(stored, event, self._keys.boot_id, build, self._now_s()))

    def _refuse_plan(self, key: RoundKey, plan: CheckedPlan, error: BedsideError) -> Word:
        refused = StoredRound(
            key,
            plan.plan.task,
            plan.plan.round_number,
            TrusteeState.REFUSED,
            Signed(),  # nothing of a refused plan is needed again, and it may be large
            self._keys.boot_id,
            code=error.code,
            sentence=error.sentence[:MAX_TEXT_CHARS],
        )
        return self._store.store_refusal(refused, self.refusal(key, error).signed, self._now_s())

    def _said(self, word: Word) -> Word:
        self._keys.remember_chain(*self._store.chain_head())
        return word

    def _known(self, key: RoundKey) -> StoredRound:
        stored = self._store.round(key)
        if stored is None:
            raise ProtocolError("not-opened", "this trustee did not open that round")
        return stored

    def _again(self, stored: StoredRound, kind: str) -> list[Word]:
        """The stored word of `kind`, or how the round ended when there is none."""
        for wanted in (kind, "closed", "refusal"):
            word = self._store.word(stored.key, wanted)
            if word is not None:
                return [word]
        raise ProtocolError("no-such-word", f"this trustee never said {kind} in that round")

    def _answer_path(self, sum_digest: bytes) -> Path:
        return self._paths.answers / sum_digest.hex()

    def _now_s(self) -> int:
        return self._clock.now_ns() // _NS_PER_S
