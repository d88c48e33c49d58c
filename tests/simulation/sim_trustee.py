"""A trustee's shell in memory, statement by statement as `bedside.trustee.duty` has it, around the real rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import blake3
from sim_network import Party
from sim_stage import Bytes, Stage

from bedside.core.errors import BedsideError, ProtocolError
from bedside.core.securesum import trustee as rules
from bedside.core.securesum.keys import RoundSecret
from bedside.core.securesum.merkle import set_root
from bedside.core.securesum.messages import open_opening, open_openings
from bedside.core.securesum.plans import CheckedPlan
from bedside.core.securesum.trustee import CheckedSet, TrusteeInput, TrusteeState
from bedside.core.signing.envelope import digest
from bedside.proto.v1 import round_pb2
from bedside.proto.v1.common_pb2 import BlobRef, Signed
from bedside.proto.v1.device_pb2 import OpeningEntry
from bedside.proto.v1.trustee_pb2 import HeaderSet
from bedside.trustee.keys import second_set
from bedside.trustee.store import RoundKey
from bedside.trustee.voice import Promise, Voice

UNFINISHED = (TrusteeState.OPEN, TrusteeState.VOTED)
NOT_AFTER_S = 4_000_000_000


@dataclass(slots=True)
class Round:
    plan: CheckedPlan
    state: TrusteeState
    boot_id: bytes
    openings: list[OpeningEntry] = field(default_factory=list)
    headers: HeaderSet | None = None
    root: bytes | None = None


@dataclass(slots=True)
class Disk:
    rounds: dict[RoundKey, Round] = field(default_factory=dict)
    words: dict[tuple[RoundKey, str], Signed] = field(default_factory=dict)
    mask_sums: dict[RoundKey, bytes] = field(default_factory=dict)
    outbox: dict[tuple[RoundKey, str], None] = field(default_factory=dict)
    highest_round: int = 0
    chain: tuple[int, bytes] = (0, b"")


@dataclass(slots=True)
class Ram:
    """What tmpfs holds: outlives the process, not the machine."""

    boot_id: bytes
    secrets: dict[RoundKey, RoundSecret] = field(default_factory=dict)
    roots: dict[RoundKey, bytes] = field(default_factory=dict)


class SimTrustee(Party):
    """One site's trustee."""

    def __init__(self, stage: Stage, site: str, seed: int, network, watch: Callable[..., None]) -> None:
        super().__init__(f"trustee {site}", network)
        self.stage, self.site, self._watch = stage, site, watch
        party = stage.world.sites[site].trustee
        self.own = party.credential
        self._voice = Voice(party.key, self.own)
        self._boots = Bytes(f"boot/{site}/{seed}")
        self._keys = Bytes(f"round keys/{site}", kinds=32)
        self.disk = Disk()
        self.reboot()
        self.up = True
        self._judged: dict[RoundKey, CheckedSet] = {}

    def forget(self) -> None:
        self._judged = {}

    def reboot(self) -> None:
        self.ram = Ram(self._boots.token_bytes(16))
        self.crash()

    def recover(self) -> None:
        unfinished = {key for key, stored in self.disk.rounds.items() if stored.state in UNFINISHED}
        for key in [key for key in self.ram.secrets if key not in unfinished]:
            self._destroy(key)
        for key in sorted(unfinished):
            if self._secret(key) is None:
                self._close(key, TrusteeInput.KEY_LOST, round_pb2.CLOSE_REASON_LOST)

    def poll(self) -> None:
        for key, kind in list(self.disk.outbox):
            self._deliver(key, kind)
        self.send("coordinator", "work_wanted", self.site)

    def on_kept(self, word: tuple[RoundKey, str]) -> None:
        self.disk.outbox.pop(word, None)

    def _deliver(self, key: RoundKey, kind: str) -> None:
        body = (self.site, key, kind, self.disk.words[key, kind], self.disk.mask_sums.get(key))
        self.send("coordinator", "word", body)

    def on_work(self, items: list[tuple]) -> None:
        for kind, key, *told in items:
            try:
                self._deliver(key, getattr(self, "_" + kind)(key, *told))
            except BedsideError as error:
                self._watch("refused", self.site, key, error.code)
                self.send("coordinator", "no", (self.site, key, kind, error.code, _root_of(told)))

    def _open(self, key: RoundKey, plan: CheckedPlan) -> str:
        if key in self.disk.rounds:
            return self._again(key, "opening")
        error = self._reason_against(plan)
        if error is not None:
            return self._refuse(key, plan, error)
        self._destroy(key)
        self.ram.secrets[key] = RoundSecret.create(self._keys)
        self.point()
        public = self.ram.secrets[key].public
        sites = tuple(sorted(plan.cohort(key.cohort).sites))
        promise = Promise(3, sites, 0, dict.fromkeys(sites, 1), b"p" * 32, 1, NOT_AFTER_S)
        fresh = Round(plan, rules.advance(TrusteeState.ASKED, TrusteeInput.OPEN), self.ram.boot_id)
        self._watch("transition", TrusteeState.ASKED, TrusteeInput.OPEN)
        signed = self._sign(partial(self._voice.opening, key, public, promise))
        self.disk.highest_round = max(self.disk.highest_round, plan.plan.round_number)
        self.disk.rounds[key] = fresh
        self._say(key, "opening", signed)
        return "opening"

    def _reason_against(self, plan: CheckedPlan) -> BedsideError | None:
        """Rule T4."""
        for other, stored in self.disk.rounds.items():
            if stored.state in UNFINISHED and other.plan_digest != plan.digest:
                return ProtocolError("round-still-open", "a round of this task is still open")
        if plan.plan.round_number < self.disk.highest_round:
            return ProtocolError("round-number-rollback", "the round number went back")
        return None

    def _refuse(self, key: RoundKey, plan: CheckedPlan, error: BedsideError) -> str:
        self._watch("transition", TrusteeState.ASKED, TrusteeInput.REFUSE)
        self.point()
        state = rules.advance(TrusteeState.ASKED, TrusteeInput.REFUSE)
        self.disk.rounds[key] = Round(plan, state, self.ram.boot_id)
        self.disk.words[key, "refusal"] = self._voice.refusal(key, error, 1)
        return "refusal"

    def _seal(self, key: RoundKey, openings: list[OpeningEntry], headers: HeaderSet) -> str:
        stored = self._known(key)
        if stored.state not in (*UNFINISHED, TrusteeState.ANSWERED):
            return self._again(key, "closed")
        if stored.root is not None:
            if set_root(rules.leaves_of(headers)) != stored.root:
                raise second_set()
            self._move(stored, TrusteeInput.SAME_SET)
            return self._again(key, "vote")
        if self._secret(key) is None:
            return self._close(key, TrusteeInput.KEY_LOST, round_pb2.CLOSE_REASON_LOST)
        checked = self._judge(key, stored.plan, openings, headers)
        if self.ram.roots.setdefault(key, checked.root) != checked.root:
            raise second_set()
        self.point()
        signed = self._sign(partial(self._voice.vote, key, checked))
        self._move(stored, TrusteeInput.VOTE)
        stored.openings, stored.headers, stored.root = openings, headers, checked.root
        self._say(key, "vote", signed)
        self._judged[key] = checked
        return "vote"

    def _reveal(self, key: RoundKey, votes: list[Signed]) -> str:
        stored = self._known(key)
        if stored.state is TrusteeState.ANSWERED:
            self._move(stored, TrusteeInput.ANSWER)
            return self._again(key, "answer")
        if stored.state not in UNFINISHED:
            return self._again(key, "closed")
        if self._secret(key) is None:
            return self._close(key, TrusteeInput.KEY_LOST, round_pb2.CLOSE_REASON_LOST)
        if stored.headers is None:
            raise ProtocolError("not-voted", "this trustee has not voted in that round yet")
        checked = self._judged.get(key) or self._judge(key, stored.plan, stored.openings, stored.headers)
        if checked.root != stored.root:
            raise second_set()
        openings = open_openings(stored.openings, stored.plan, key.cohort, self.stage.trust)
        votes_digest = rules.open_votes(votes, stored.plan, key.cohort, openings, checked.root)
        packed = rules.mask_sum(stored.plan, checked)
        self.point()
        words = BlobRef(digest=blake3.blake3(packed).digest(), size_bytes=len(packed))
        signed = self._sign(partial(self._voice.answer, key, checked.root, votes_digest, words, 0))
        self._move(stored, TrusteeInput.ANSWER)
        self.disk.mask_sums[key] = packed
        self._say(key, "answer", signed)
        self.point()
        self._destroy(key)
        return "answer"

    def _shut(self, key: RoundKey) -> str:
        stored = self._known(key)
        if stored.state is TrusteeState.ANSWERED:
            return self._again(key, "answer")
        if stored.state not in UNFINISHED:
            self._move(stored, TrusteeInput.CLOSE)
            return self._again(key, "closed")
        if self._secret(key) is None:
            return self._close(key, TrusteeInput.KEY_LOST, round_pb2.CLOSE_REASON_LOST)
        self._destroy(key)
        self.point()
        return self._close(key, TrusteeInput.CLOSE, round_pb2.CLOSE_REASON_BURNED)

    def _close(self, key: RoundKey, event: TrusteeInput, reason: int) -> str:
        self._destroy(key)
        signed = self._sign(partial(self._voice.closed, key, reason))
        self._move(self.disk.rounds[key], event)
        self._say(key, "closed", signed)
        return "closed"

    def _judge(self, key: RoundKey, plan: CheckedPlan, entries: list[OpeningEntry], headers: HeaderSet) -> CheckedSet:
        trust = self.stage.trust
        openings = open_openings(entries, plan, key.cohort, trust)
        own = open_opening(self.disk.words[key, "opening"], self.own, plan, key.cohort)
        return rules.judge_set(plan, key.cohort, openings, headers, trust, own, self.ram.secrets[key])

    def _known(self, key: RoundKey) -> Round:
        if key not in self.disk.rounds:
            raise ProtocolError("not-opened", "this trustee did not open that round")
        return self.disk.rounds[key]

    def _secret(self, key: RoundKey) -> RoundSecret | None:
        return self.ram.secrets.get(key) if self.disk.rounds[key].boot_id == self.ram.boot_id else None

    def _destroy(self, key: RoundKey) -> None:
        self.ram.secrets.pop(key, None)
        self.ram.roots.pop(key, None)

    def _move(self, stored: Round, event: TrusteeInput) -> None:
        self._watch("transition", stored.state, event)
        stored.state = rules.advance(stored.state, event)

    def _sign(self, build: Callable[[round_pb2.Chain], Signed]) -> Signed:
        index, previous = self.disk.chain
        return build(round_pb2.Chain(boot_id=self.ram.boot_id, index=index + 1, previous_digest=previous))

    def _say(self, key: RoundKey, kind: str, signed: Signed) -> None:
        """The end of the transaction; the crash point before it is at the caller, the one after it at the send."""
        self.disk.words[key, kind] = signed
        self.disk.outbox[key, kind] = None
        self.disk.chain = (self.disk.chain[0] + 1, digest(signed.payload))
        self._watch("said", self.site, key, kind, signed)

    def _again(self, key: RoundKey, kind: str) -> str:
        return next(wanted for wanted in (kind, "closed", "refusal") if (key, wanted) in self.disk.words)


def _root_of(told: list) -> bytes | None:
    return set_root(rules.leaves_of(told[-1])) if told and isinstance(told[-1], HeaderSet) else None
