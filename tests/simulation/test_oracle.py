"""The oracle can fail: each bug that is put into the code under test is found within a few seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sim_coordinator
import sim_trustee
from sim_coordinator import SimCoordinator
from sim_device import SimDevice
from sim_oracle import Violation
from sim_run import Simulation
from sim_shrink import shrink
from sim_trustee import SimTrustee

from bedside.core.securesum import aggregator, trustee
from bedside.core.securesum.aggregator import Aggregate
from bedside.core.securesum.device import CONTRIBUTION, ContributionInput, ContributionState
from bedside.core.securesum.trustee import TrusteeInput, TrusteeState
from bedside.proto.v1 import round_pb2

WITHIN_SEEDS = 40
SCHEDULES = sorted((Path(__file__).parent / "schedules").glob("*.json"))


def counts_an_upload_twice(patch) -> None:
    real = Aggregate.add_upload

    def add(self, packed) -> None:
        real(self, packed)
        if not self.uploads % 7:
            real(self, packed)
            self.uploads -= 1

    patch(Aggregate, "add_upload", add)
    patch(sim_coordinator, "check_sum", lambda *_, **__: None)


def forgets_an_upload(patch) -> None:
    real = Aggregate.add_upload

    def add(self, packed) -> None:
        if self.uploads == 4:
            self.uploads += 1
            return
        real(self, packed)

    patch(Aggregate, "add_upload", add)
    patch(sim_coordinator, "check_sum", lambda *_, **__: None)


def forgets_a_mask(patch) -> None:
    real = trustee.mask_sum

    def short(plan, checked):
        return real(plan, trustee.CheckedSet(checked.root, checked.members[1:], 0, 0))

    patch(trustee, "mask_sum", short)
    patch(sim_coordinator, "check_sum", lambda *_, **__: None)


def votes_for_a_second_set(patch) -> None:
    """The lock is forgotten: whatever set is asked for is voted for."""
    real = SimTrustee._seal

    def seal(self, key, openings, headers):
        stored = self.disk.rounds.get(key)
        if stored is not None and stored.state is TrusteeState.VOTED and self._secret(key) is not None:
            stored.root, stored.state = None, TrusteeState.OPEN
            self.ram.roots.pop(key, None)
        return real(self, key, openings, headers)

    patch(SimTrustee, "_seal", seal)


def answers_without_looking_at_the_votes(patch) -> None:
    """With votes for different sets, trustees answer different sets."""
    patch(trustee, "open_votes", lambda votes, *_: trustee.words_digest(votes))


def answers_again_after_a_closing(patch) -> None:
    patch(
        trustee.TRUSTEE,
        "transitions",
        trustee.TRUSTEE.transitions | {(TrusteeState.VOTED, TrusteeInput.CLOSE): TrusteeState.VOTED},
    )
    patch(SimTrustee, "_destroy", lambda self, key: None)


def says_burned_where_the_key_was_lost(patch) -> None:
    real = SimTrustee._close
    burned = round_pb2.CLOSE_REASON_BURNED
    patch(SimTrustee, "_close", lambda self, key, event, _: real(self, key, event, burned))


def lies_in_receipts(patch) -> None:
    """A device believes that it was counted whatever its proof says."""
    real = SimDevice._move

    def move(self, made, event) -> None:
        real(self, made, ContributionInput.RECEIPT_IN if event is ContributionInput.RECEIPT_OUT else event)

    patch(SimDevice, "_move", move)


def takes_a_device_twice(patch) -> None:
    """A device trains anew after its upload was committed, and forgets that it did."""
    real = SimDevice.poll

    def poll(self) -> None:
        for made in self.journal.contributions.values():
            if made.state is ContributionState.READY and made.header is not None:
                made.state = ContributionState.TRAINING
                self._train(made)
        real(self)

    patch(SimDevice, "poll", poll)


def loses_an_acknowledged_upload(patch) -> None:
    real = SimCoordinator.forget

    def forget(self) -> None:
        for round_ in self.rounds:
            for cohort in round_.cohorts:
                if cohort.phase is aggregator.CohortPhase.COLLECTING and cohort.uploads:
                    number, (header, packed) = next(iter(cohort.uploads.items()))
                    cohort.uploads[number] = (header, bytes(len(packed)))
        real(self)

    patch(SimCoordinator, "forget", forget)


def frees_a_delta_on_the_coordinators_word(patch) -> None:
    """`Too late` is believed: a coordinator that counts the upload all the same gets the delta twice."""
    awaiting = (ContributionState.READY, ContributionInput.TURNED_AWAY)
    patch(CONTRIBUTION, "transitions", CONTRIBUTION.transitions | {awaiting: ContributionState.FREED})


def frees_a_delta_that_was_counted(patch) -> None:
    counted = {
        (state, ContributionInput.RECEIPT_IN): ContributionState.FREED
        for state in (ContributionState.READY, ContributionState.ACCEPTED, ContributionState.AWAITING)
    }
    patch(CONTRIBUTION, "transitions", CONTRIBUTION.transitions | counted)


def never_closes_what_it_gave_up(patch) -> None:
    real = SimTrustee._shut

    def shut(self, key) -> str:
        open_still = key in self.disk.rounds and self.disk.rounds[key].state is TrusteeState.OPEN
        return "opening" if open_still else real(self, key)

    patch(SimTrustee, "_shut", shut)


BUGS = [
    (counts_an_upload_twice, "bucket|not that of the answered set"),
    (forgets_an_upload, "bucket|not that of the answered set"),
    (forgets_a_mask, "bucket|not that of the answered set"),
    (votes_for_a_second_set, "committed two votes"),
    (answers_without_looking_at_the_votes, "answered different sets"),
    (answers_again_after_a_closing, "closed|come to rest"),
    (says_burned_where_the_key_was_lost, "says burned on another boot"),
    (lies_in_receipts, "was told counted, and that is not so|is counted and hears receipt-out"),
    (takes_a_device_twice, "committed two headers"),
    (loses_an_acknowledged_upload, "sum of"),
    (frees_a_delta_on_the_coordinators_word, "hears receipt-in|counted in two sums|and that is not so"),
    (frees_a_delta_that_was_counted, "counted in two sums|and that is not so|hears receipt-in"),
    (never_closes_what_it_gave_up, "come to rest"),
]


def run_seeds(stage) -> None:
    for seed in range(WITHIN_SEEDS):
        Simulation(stage, seed).run()


@pytest.mark.parametrize(("bug", "sentence"), BUGS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bug_is_found(stage, monkeypatch, bug, sentence) -> None:
    bug(monkeypatch.setattr)
    with pytest.raises(Violation, match=sentence):
        run_seeds(stage)


def test_a_schedule_that_fails_is_made_short_and_fails_alone(stage, monkeypatch) -> None:
    counts_an_upload_twice(monkeypatch.setattr)
    simulation = Simulation(stage, 0)
    with pytest.raises(Violation):
        simulation.run()

    def fails(operations) -> bool:
        try:
            Simulation(stage, 0).run(operations)
        except Violation:
            return True
        return False

    short = shrink(simulation.done, fails, runs=40)
    assert len(short) < len(simulation.done) / 8
    assert fails(short)


@pytest.mark.parametrize("path", SCHEDULES, ids=lambda path: path.stem)
def test_a_schedule_that_broke_a_promise_holds_now_and_breaks_it_with_the_bug(stage, monkeypatch, path) -> None:
    kept = json.loads(path.read_text())
    Simulation(stage, kept["seed"]).run(kept["operations"])
    bug, sentence = next((bug, sentence) for bug, sentence in BUGS if bug.__name__ == kept["breaks"])
    bug(monkeypatch.setattr)
    with pytest.raises(Violation, match=sentence):
        Simulation(stage, kept["seed"]).run(kept["operations"])


def test_every_bug_is_a_change_and_not_a_crash() -> None:
    assert len({bug.__name__ for bug, _ in BUGS}) == len(BUGS)
    assert sim_trustee.rules is trustee
