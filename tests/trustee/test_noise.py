"""Rule T5 at one trustee: what it promises, charges and adds, what it refuses, and what a crash leaves behind."""

import shutil
import sqlite3

import numpy as np
import pytest

from bedside.core.errors import StoreError
from bedside.core.privacy import Spending, segment_sigmas_e6
from bedside.core.securesum.aggregator import Aggregate
from bedside.core.securesum.ring import reduce_in_place, word_dtype
from bedside.core.securesum.trustee import TrusteeState
from bedside.proto.v1 import plan_pb2
from bedside.trustee.budget import checked_entries
from bedside.trustee.ledger import check_ledger, entries
from bedside.trustee.spending import read_spending


def plan_with_noise(bench, multiplier=0.0, **changes):
    return bench.plan(noise=plan_pb2.Noise(noise_multiplier_e6=round(multiplier * 1e6)), word_bits=24, **changes)


def next_plan(bench, number, multiplier=0.0, **changes):
    return plan_with_noise(
        bench, multiplier, round_number=number, previous_result_digest=b"r" * 32 if number > 1 else b"", **changes
    )


def play(bench, plan):
    """A whole round at the trustee under test; the others keep the plan's noise."""
    begun = begin(bench, plan)
    vote = bench.seal(begun)
    return begun, vote, bench.reveal(begun, bench.others_vote(begun, vote))


def begin(bench, plan, **changes):
    make = bench.world.opening_message
    asked = plan.plan.noise.noise_multiplier_e6

    def opening_message(plan, site, secret):
        return make(plan, site, secret, **({"noise_multiplier_e6": asked} | changes))

    bench.world.opening_message = opening_message
    try:
        return bench.begin(plan)
    finally:
        bench.world.opening_message = make


@pytest.mark.parametrize(("policy", "asked", "kept"), [(0.5, 0, 0.5), (0.5, 0.8, 0.8), (0.8, 0.5, 0.8), (0, 0, 0)])
def test_the_larger_noise_of_policy_and_plan_is_promised_charged_and_stated(bench, policy, asked, kept):
    bench.write_policy(noise_multiplier=str(float(policy)))
    begun, _, answer = play(bench, plan_with_noise(bench, asked))
    opening = bench.said(bench.store.word(bench.key(begun), "opening"))
    ((charged, _),) = entries(bench.store.database.connection)
    stated = (opening, charged, bench.said(answer))
    assert {told.noise_multiplier_e6 for told in stated} == {round(kept * 1e6)}


def test_the_opened_sum_is_off_by_this_trustees_noise_and_by_no_more(bench):
    bench.write_policy(noise_multiplier="2.0")
    begun, _, answer = play(bench, plan_with_noise(bench))
    total = Aggregate(begun.plan.layout, 24)
    expected = np.zeros(begun.plan.vector_words, word_dtype(24))
    for words, packed in begun.uploads.values():
        total.add_upload(packed)
        expected += words
    for packed in [bench.duty.answer_words(answer.signed), *bench.peers_answer(begun)]:
        total.subtract_answer(packed)
    reduce_in_place(expected, 24)
    error = (total.opened(8, 3).astype(np.int64) - expected + (1 << 23)) % (1 << 24) - (1 << 23)
    for (_, place), sigma_e6 in zip(
        begun.plan.layout.placed(), segment_sigmas_e6(begun.plan.layout, 2_000_000), strict=True
    ):
        assert error[place].any()
        assert np.abs(error[place]).max() < 9.4 * sigma_e6 / 1e6 + 1


def test_what_was_promised_is_kept_when_the_policy_changes_afterwards(bench):
    bench.write_policy(noise_multiplier="2.0")
    begun = begin(bench, plan_with_noise(bench))
    bench.write_policy(noise_multiplier="0.0")
    vote = bench.seal(begun)
    answer = bench.reveal(begun, bench.others_vote(begun, vote))
    ((charged, _),) = entries(bench.store.database.connection)
    assert charged.noise_multiplier_e6 == bench.said(answer).noise_multiplier_e6 == 2_000_000


# The ring


def test_a_plan_whose_ring_does_not_hold_the_sites_own_noise_is_refused_at_the_opening(bench):
    bench.write_policy(noise_multiplier="2.0")
    narrow = bench.plan()
    refusal = bench.said(bench.open(narrow))
    assert refusal.code == "ring-overflow"
    assert bench.keys.stored() == []
    assert bench.open(plan_with_noise(bench, task="wide")).kind == "opening"


def test_openings_of_others_that_overflow_the_ring_are_refused_at_the_vote(bench):
    begun = begin(bench, plan_with_noise(bench), noise_multiplier_e6=900_000_000)
    assert bench.code(bench.seal, begun) == "ring-overflow"
    assert entries(bench.store.database.connection) == []


# The budget


def budget(bench, rounds, multiplier=1.0, delta=1e-5):
    """A bound that holds exactly so many rounds."""
    return f"{Spending.of([round(multiplier * 1e6)] * rounds).epsilon(delta) * 1.000001:.9f}"


def test_a_round_that_would_pass_the_sites_bound_is_not_opened(bench):
    bench.write_policy(noise_multiplier="1.0", max_epsilon=budget(bench, 2))
    for number in (1, 2):
        play(bench, next_plan(bench, number))
    refusal = bench.said(bench.open(next_plan(bench, 3)))
    assert refusal.code == "privacy-budget"
    assert "allows an epsilon of" in refusal.sentence
    bench.write_policy(noise_multiplier="1.0", max_epsilon=budget(bench, 3))
    assert bench.open(next_plan(bench, 4)).kind == "opening"


def test_rounds_of_other_tasks_and_purposes_count_too_and_so_do_closed_ones(bench):
    bench.write_policy(noise_multiplier="1.0", max_epsilon=budget(bench, 2))
    play(bench, plan_with_noise(bench))
    begun = begin(bench, plan_with_noise(bench, task="other"))
    bench.seal(begun)
    bench.close(begun)
    assert bench.said(bench.open(plan_with_noise(bench, task="third"))).code == "privacy-budget"


def test_a_round_that_is_open_holds_its_share_until_it_is_closed(bench):
    bench.write_policy(noise_multiplier="1.0", max_epsilon=budget(bench, 1))
    begun = begin(bench, plan_with_noise(bench))
    assert bench.said(bench.open(plan_with_noise(bench, task="other"))).code == "privacy-budget"
    bench.close(begun)
    assert bench.open(plan_with_noise(bench, task="third")).kind == "opening"


def test_with_a_bound_a_round_without_noise_is_refused(bench):
    bench.write_policy(max_epsilon="100.0")
    refusal = bench.said(bench.open(plan_with_noise(bench)))
    assert refusal.code == "privacy-budget"
    assert "without noise costs infinitely much" in refusal.sentence
    assert bench.open(plan_with_noise(bench, 1.0, task="noisy")).kind == "opening", "the plan's own noise is enough"


def test_an_earlier_round_without_noise_cannot_be_taken_back(bench):
    play(bench, plan_with_noise(bench))
    bench.write_policy(noise_multiplier="1.0", max_epsilon="100.0")
    refusal = bench.said(bench.open(next_plan(bench, 2)))
    assert refusal.code == "privacy-budget"
    assert "1 earlier sums had no noise" in refusal.sentence


def test_the_bound_is_judged_again_at_the_vote(bench):
    bench.write_policy(noise_multiplier="1.0", max_epsilon=budget(bench, 1))
    begun = begin(bench, plan_with_noise(bench))
    bench.write_policy(noise_multiplier="1.0", max_epsilon="1.0")
    assert bench.code(bench.seal, begun) == "privacy-budget"
    assert entries(bench.store.database.connection) == []
    bench.write_policy(noise_multiplier="1.0", max_epsilon=budget(bench, 1))
    assert bench.seal(begun).kind == "vote"


def test_a_store_that_was_restored_under_a_running_machine_has_no_budget_left(bench, tmp_path):
    bench.write_policy(noise_multiplier="1.0", max_epsilon=budget(bench, 5))
    begun = begin(bench, plan_with_noise(bench))
    bench.store.close()
    shutil.copy(bench.paths.database, tmp_path / "backup.db")
    bench.start()
    bench.seal(begun)
    bench.store.close()
    for old in bench.paths.directory.glob("trustee.db*"):
        old.unlink()
    shutil.copy(tmp_path / "backup.db", bench.paths.database)
    bench.start()
    refusal = bench.said(bench.open(next_plan(bench, 2)))
    assert refusal.code == "privacy-budget"
    assert "restored" in refusal.sentence
    assert read_spending(bench.store, bench.policy.current().policy, "alder").restored


# The ledger


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE ledger SET noise_multiplier_e6 = 9000000 WHERE entry = 1",
        "DELETE FROM ledger WHERE entry = 1",
        "DELETE FROM ledger WHERE entry = 2",
        "DELETE FROM ledger",
    ],
)
def test_a_ledger_that_was_altered_or_cut_opens_nothing_more_under_a_bound(bench, harm):
    bench.write_policy(noise_multiplier="1.0", max_epsilon=budget(bench, 9))
    for number in (1, 2):
        play(bench, next_plan(bench, number))
    bench.store.database.connection.execute(harm)
    assert bench.code(bench.open, next_plan(bench, 3)) == "ledger-broken"
    with pytest.raises(StoreError):
        read_spending(bench.store, bench.policy.current().policy, "alder")


def test_what_is_spent_is_told_by_task_and_together(bench):
    bench.write_policy(noise_multiplier="1.0", max_epsilon=budget(bench, 9))
    play(bench, next_plan(bench, 1))
    play(bench, next_plan(bench, 2, 3.0))
    play(bench, plan_with_noise(bench, task="other"))
    report = read_spending(bench.store, bench.policy.current().policy, "alder")
    assert [(one.task, one.sums, one.noise_multipliers) for one in report.tasks] == [
        ("other", 1, [1.0]),
        ("watch", 2, [1.0, 3.0]),
    ]
    assert report.total.epsilon == Spending.of([1_000_000, 3_000_000, 1_000_000]).epsilon(1e-5)
    assert report.total.epsilon > max(one.epsilon for one in report.tasks)
    assert report.ledger_head == check_ledger(entries(bench.store.database.connection)).hex()


# Crashes


class PowerCut(BaseException):
    """The process ends here."""


class Cut:
    """A connection that ends with the process before its statement number `at`; the files stay as they are then."""

    def __init__(self, connection, at, leave):
        self._connection, self._left, self._leave = connection, at, leave

    def execute(self, *statement):
        if statement[0] == "ROLLBACK":
            return self._connection.execute(*statement)
        if self._left == 0:
            self._leave()
            raise PowerCut
        self._left -= 1
        return self._connection.execute(*statement)

    def __getattr__(self, name):
        return getattr(self._connection, name)


def cut_vote(bench, begun, at, directory):
    """Vote, but for a power cut before the transaction's statement `at`; returns whether there was one."""
    store, run_tx = bench.store, bench.store.database.run_tx

    def leave():
        directory.mkdir()
        for file in bench.paths.directory.glob("trustee.db*"):
            shutil.copy(file, directory)

    def run_cut(name, work):
        if name != "store vote":
            return run_tx(name, work)
        plain = store.database.connection
        store.database.connection = Cut(plain, at, leave)
        try:
            return run_tx(name, work)
        finally:
            store.database.connection = plain

    store.database.run_tx = run_cut
    try:
        bench.seal(begun)
    except PowerCut:
        return True
    finally:
        del store.database.run_tx
    return False


def test_no_crash_between_any_two_statements_of_the_vote_loses_a_charge(make_bench, make_world, tmp_path):
    """A vote that may have left the machine is charged in what a restart finds; what is not charged was never voted."""
    at, was_cut, charged_before_the_end = 0, True, []
    while was_cut:
        (tmp_path / f"cut-{at}").mkdir()
        bench = make_bench(make_world({"alder": 3, "birch": 3, "cedar": 2}), tmp_path / f"cut-{at}")
        bench.write_policy(noise_multiplier="1.0", max_epsilon=budget(bench, 1))
        begun = begin(bench, plan_with_noise(bench))
        found = tmp_path / f"found-{at}"
        was_cut = cut_vote(bench, begun, at, found)
        bench.store.close()
        if was_cut:
            for old in bench.paths.directory.glob("trustee.db*"):
                old.unlink()
            for file in found.iterdir():
                shutil.copy(file, bench.paths.directory)
        bench.start()
        vote = bench.store.word(bench.key(begun), "vote")
        charges = checked_entries(bench.store)
        assert len(charges) == (vote is not None), at
        charged_before_the_end.append(bool(charges))
        again = bench.seal(begun)
        assert again.kind == "vote"
        assert vote is None or again == vote
        assert [charge.noise_multiplier_e6 for charge in checked_entries(bench.store)] == [1_000_000]
        assert bench.said(bench.open(plan_with_noise(bench, task="other"))).code == "privacy-budget"
        bench.store.close()
        at += 1
    assert at >= 8, "begin, update, head, insert, chain, ledger head, link, word, commit"
    assert charged_before_the_end == [False] * (at - 1) + [True], "only the commit makes it so, and that all at once"


def test_a_crash_after_the_commit_and_before_the_vote_leaves_the_machine_is_charged(bench):
    bench.write_policy(noise_multiplier="1.0", max_epsilon=budget(bench, 1))
    begun = begin(bench, plan_with_noise(bench))

    def cut(*_):
        raise PowerCut

    bench.keys.remember_chain = cut
    with pytest.raises(PowerCut):
        bench.seal(begun)
    bench.restart()
    assert len(checked_entries(bench.store)) == 1
    assert bench.store.round(bench.key(begun)).state is TrusteeState.VOTED
    assert bench.seal(begun).kind == "vote"
    assert len(checked_entries(bench.store)) == 1


def test_a_second_charge_for_one_cohort_breaks_the_transaction(bench):
    play(bench, plan_with_noise(bench))
    row = bench.store.database.connection.execute("SELECT * FROM ledger").fetchone()
    columns = ", ".join(row.keys()[1:])
    marks = ", ".join("?" * (len(row) - 1))
    with pytest.raises(sqlite3.IntegrityError):
        bench.store.database.connection.execute(f"INSERT INTO ledger ({columns}) VALUES ({marks})", tuple(row)[1:])
