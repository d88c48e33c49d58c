"""What must hold whatever happened: judged from what was committed and opened, by other means than the code under test.

Each device's vector is one-hot in a bucket that belongs to it and its round, so that every way of losing or counting
twice shows as a bucket that is neither 0 nor 1, or that is not the set's.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
from sim_stage import DEVICES, ROUNDS

from bedside.core.securesum.aggregator import CohortPhase
from bedside.core.securesum.device import ContributionState
from bedside.core.securesum.trustee import TrusteeState
from bedside.core.signing.envelope import digest
from bedside.proto.v1 import round_pb2

_BURNED = round_pb2.CLOSE_REASON_BURNED


class Violation(AssertionError):  # noqa: N818  # what is violated is the promise, not the program
    """A promise was broken."""


def require(holds: bool, sentence: str) -> None:
    if not holds:
        raise Violation(sentence)


class Oracle:
    """Watches what is committed, and judges the end."""

    def __init__(self) -> None:
        self.seen: Counter = Counter()
        self._words: dict[tuple, dict[str, bytes]] = defaultdict(dict)
        self._members: dict[bytes, tuple[int, ...]] = {}
        self._headers: dict[tuple[int, bytes], bytes] = {}

    def watch(self, what: str, *told: object) -> None:
        getattr(self, "_" + what.replace("-", "_"))(*told)

    def _transition(self, state, event) -> None:
        self.seen[type(state).__name__, state.value, event.value] += 1

    def _refused(self, _site, _key, code: str) -> None:
        self.seen["refused", code] += 1

    def _rejected(self, _site, _key, code: str) -> None:
        self.seen["rejected", code] += 1

    def _contradicted(self, number: int, state, event) -> None:
        """Two words of one trustee that cannot both be true; what a device in training hears changes nothing."""
        require(state is ContributionState.TRAINING, f"device {number} is {state.value} and hears {event.value}")

    def _sum_fails(self, key, code: str) -> None:
        raise Violation(f"the sum of cohort {key.cohort} of honest devices does not hold: {code}")

    def _sealed(self, root: bytes, members: tuple[int, ...]) -> None:
        self._members[root] = members

    def _committed(self, number: int, plan_digest: bytes, header) -> None:
        require((number, plan_digest) not in self._headers, f"device {number} committed two headers for one plan")
        self._headers[number, plan_digest] = digest(header.payload)

    def _said(self, site: str, key, kind: str, signed) -> None:
        """A trustee's words: one of a kind, one root from vote to answer, an answer or a closing."""
        words = self._words[site, key]
        require(kind not in words, f"trustee {site} committed two {kind}s")
        words[kind] = signed.payload
        require(not {"answer", "closed"} <= words.keys(), f"trustee {site} both answered and closed")
        if kind == "vote":
            require("closed" not in words, f"trustee {site} voted after it had closed")
        if kind == "answer":
            voted = round_pb2.Vote.FromString(words["vote"]).set_root if "vote" in words else b""
            answered = round_pb2.Answer.FromString(signed.payload).set_root
            require(answered == voted, f"trustee {site} answered another root than it voted for")
            for other in self._words:
                if other[1] == key and "answer" in self._words[other]:
                    root = round_pb2.Answer.FromString(self._words[other]["answer"]).set_root
                    require(root == answered, f"trustees {site} and {other[0]} answered different sets")
        if kind == "closed" and round_pb2.Closed.FromString(signed.payload).reason == _BURNED:
            opened = round_pb2.Opening.FromString(words["opening"]).chain.boot_id
            said = round_pb2.Closed.FromString(signed.payload).chain.boot_id
            require(opened == said, f"trustee {site} says burned on another boot than it opened on")

    def judge(self, simulation) -> None:
        """Judge the end of a schedule."""
        self._judge_answers(simulation)
        self._judge_sums(simulation)
        self._judge_receipts(simulation)
        self._judge_chains(simulation)

    def _judge_answers(self, simulation) -> None:
        """No device stands in two answers of one task and round."""
        rounds = {r.plan.digest: r.plan.plan.round_number for r in simulation.coordinator.rounds}
        answered: dict[tuple[int, int], set] = defaultdict(set)
        for (_, key), words in self._words.items():
            if "answer" in words:
                root = round_pb2.Answer.FromString(words["answer"]).set_root
                for number in self._members[root]:
                    answered[rounds[key.plan_digest], number].add((key, root))
        for (number_of_round, number), sets in answered.items():
            require(len(sets) == 1, f"device {number} stands in {len(sets)} answers of round {number_of_round}")

    def _judge_sums(self, simulation) -> None:
        """Every opened sum is, bit for bit, the indicator of its answered set; and no delta is counted twice."""
        total = np.zeros(DEVICES * ROUNDS, np.int64)
        for round_ in simulation.coordinator.rounds:
            for cohort in round_.cohorts:
                if cohort.opened is None:
                    require(cohort.phase is not CohortPhase.OPENED, "a cohort is opened without a sum")
                    continue
                expected = np.zeros(DEVICES * ROUNDS, np.int64)
                for site in cohort.sites:
                    answer = self._words[site, cohort.key]["answer"]
                    members = self._members[round_pb2.Answer.FromString(answer).set_root]
                    require(len(members) >= round_.plan.plan.min_contributors, "a set below the minimum was answered")
                    for number in members:
                        expected[simulation.devices[number].journal.contributions[round_.plan.digest].bucket] = 1
                opened = cohort.opened.astype(np.int64)
                require(int(opened.max()) <= 1, "a bucket is counted more than once in one sum")
                require(bool(np.array_equal(opened, expected)), "an opened sum is not that of the answered set")
                total += opened
        require(int(total.max()) <= 1, "a delta is counted in two sums")

    def _judge_receipts(self, simulation) -> None:
        """What a device was told about its contribution agrees with the sum."""
        for round_ in simulation.coordinator.rounds:
            for cohort in round_.cohorts:
                for device in simulation.devices:
                    made = device.journal.contributions.get(round_.plan.digest)
                    if made is None or device.site not in cohort.sites or made.state in simulation.open_states:
                        continue
                    words = self._words[device.site, cohort.key]
                    answer = words.get("answer")
                    inside = False
                    if answer is not None:
                        inside = device.number in self._members[round_pb2.Answer.FromString(answer).set_root]
                    told = made.state is ContributionState.COUNTED
                    require(told == inside, f"device {device.number} was told {made.state.value}, and that is not so")
                    if cohort.opened is not None:
                        counted = int(cohort.opened[made.bucket])
                        require(counted == told, f"the receipt of device {device.number} does not agree with the sum")

    def _judge_chains(self, simulation) -> None:
        """Each trustee's words, in the order of their links, are one chain without a gap."""
        parsers = {
            "opening": round_pb2.Opening,
            "vote": round_pb2.Vote,
            "answer": round_pb2.Answer,
            "closed": round_pb2.Closed,
        }
        for trustee in simulation.trustees.values():
            said = [words for (site, _), words in self._words.items() if site == trustee.site]
            links = [
                (parsers[kind].FromString(payload).chain, payload) for words in said for kind, payload in words.items()
            ]
            links.sort(key=lambda link: link[0].index)
            before = b""
            for index, (chain, payload) in enumerate(links, start=1):
                require(
                    (chain.index, chain.previous_digest) == (index, before), f"the chain of {trustee.site} is broken"
                )
                before = digest(payload)

    def judge_liveness(self, simulation) -> None:
        """After a tail without faults nothing is left waiting."""
        for round_ in simulation.coordinator.rounds:
            require(round_.ended, f"round {round_.plan.plan.round_number} has not ended")
        for device in simulation.devices:
            for made in device.journal.contributions.values():
                where = f"device {device.number} is left {made.state.value}"
                require(made.state not in simulation.open_states, where)
        for trustee in simulation.trustees.values():
            waiting = [
                s.state for s in trustee.disk.rounds.values() if s.state in (TrusteeState.OPEN, TrusteeState.VOTED)
            ]
            require(not waiting, f"trustee {trustee.site} is left {waiting}")
            require(not trustee.ram.secrets, f"trustee {trustee.site} still holds a round key")
