"""Thousands of schedules in which messages, processes and machines fail, and a coordinator that cheats.

`make test` runs some hundred seeds. More of them, on two cores; one of them again; and that one as a short list of
operations, to be kept in `schedules/`:

    BEDSIDE_SEEDS=2000 .venv/bin/pytest tests/simulation -k schedules
    BEDSIDE_SEED=17 .venv/bin/pytest tests/simulation -k one_schedule
    BEDSIDE_SEED=17 BEDSIDE_SHRINK=1000 .venv/bin/pytest tests/simulation -k one_schedule
"""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NoReturn

import pytest
from sim_run import Operation, Simulation
from sim_shrink import shrink

from bedside.core.securesum.aggregator import COHORT
from bedside.core.securesum.device import CONTRIBUTION
from bedside.core.securesum.trustee import TRUSTEE

ENOUGH_SEEDS = 150
SEEDS = int(os.environ.get("BEDSIDE_SEEDS", "250"))
SEEDS_WORTH_A_PROCESS = 1_000
SHRINKING_RUNS = int(os.environ.get("BEDSIDE_SHRINK", "0"))
ONE_SEED = os.environ.get("BEDSIDE_SEED")

OUT_OF_THE_SIMULATORS_REACH = {
    # Policy refuses before a device starts; a newer plan is offered only after the last one has ended.
    ("ContributionState", "offered", "refuse"),
    ("ContributionState", "offered", "superseded"),
    ("ContributionState", "training", "refuse"),
    ("ContributionState", "training", "superseded"),
    ("ContributionState", "ready", "superseded"),
    # A device that comes back trains before it dials out.
    ("ContributionState", "training", "closed"),
    # Who is sealed had uploaded; an upload that was acknowledged is never left out by an honest seal.
    ("ContributionState", "accepted", "receipt-out"),
    # What was dropped had been closed, or its delta went on into a later upload: it was never counted.
    ("ContributionState", "dropped", "receipt-in"),
    # Sums of honest devices hold.
    ("CohortPhase", "answered", "sum-fails"),
    # The coordinator hardly ever asks for a closing after a refusal, and recovery closes a lost round once.
    ("TrusteeState", "refused", "close"),
    ("TrusteeState", "lost", "key-lost"),
    # Deadlines pass in the tail only, where every honest trustee has answered its requests.
    ("CohortPhase", "sealed", "timed-out"),
    ("CohortPhase", "revealing", "timed-out"),
    ("CohortPhase", "revealing", "trustee-refused"),
    ("CohortPhase", "collecting", "timed-out"),
    ("CohortPhase", "opening", "timed-out"),
    ("CohortPhase", "collecting", "trustee-refused"),
}


def run(stage, seed: int) -> Simulation:
    simulation = Simulation(stage, seed)
    try:
        return simulation.run()
    except Exception as error:  # noqa: BLE001  # whatever it is, it is told with the seed
        command = f"BEDSIDE_SEED={seed} .venv/bin/pytest tests/simulation -k one_schedule"
        pytest.fail(f"seed {seed}: {type(error).__name__}: {error}\nreplay: {command}", pytrace=True)


def run_all(stage, seeds: range) -> Counter:
    total: Counter = Counter()
    for seed in seeds:
        total += run(stage, seed).oracle.seen
    return total


@pytest.fixture(scope="module")
def seen(stage) -> Counter:
    """What happened in all the seeds together."""
    if SEEDS < SEEDS_WORTH_A_PROCESS:
        return run_all(stage, range(SEEDS))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _report_and_leave(writing, lambda: run_all(stage, range(1, SEEDS, 2)))
    os.close(writing)
    total = run_all(stage, range(0, SEEDS, 2))
    with os.fdopen(reading, "rb") as pipe:
        told = pickle.load(pipe)
    os.waitpid(child, 0)
    assert isinstance(told, Counter), told
    return total + told


def _report_and_leave(writing: int, work: Callable[[], Counter]) -> NoReturn:
    """The second core's half: a forked process that tells its counts, or what failed, and ends at once."""
    told: object = "the second process did not finish"
    try:
        told = work()
    except BaseException as error:  # noqa: BLE001  # it is told to the parent
        told = str(error)
    finally:
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(told, pipe)
        os._exit(0)


@pytest.mark.timeout(1800)
def test_no_schedule_breaks_a_promise_and_every_round_ends(seen) -> None:
    assert seen["CohortPhase", "answered", "sum-holds"] > SEEDS


@pytest.mark.skipif(SEEDS < ENOUGH_SEEDS, reason="too few seeds to meet what is rare")
def test_schedules_reach_every_row_of_the_state_tables(seen) -> None:
    rows = {
        (type(state).__name__, state.value, event.value)
        for machine in (CONTRIBUTION, TRUSTEE, COHORT)
        for state, event in machine.transitions
    }
    assert rows >= OUT_OF_THE_SIMULATORS_REACH
    missed = rows - {key for key in seen if len(key) == 3} - OUT_OF_THE_SIMULATORS_REACH
    assert missed == set()


@pytest.mark.skipif(SEEDS < ENOUGH_SEEDS, reason="too few seeds to meet what is rare")
def test_schedules_meet_the_refusals_that_protect_a_set(seen) -> None:
    codes = {key[1] for key in seen if key[0] == "refused"}
    assert {"second-set", "votes-differ", "not-opened", "set-too-small"} <= codes


def test_a_schedule_replays_from_its_seed_and_from_its_operations(stage) -> None:
    first = run(stage, 3)
    again = run(stage, 3)
    assert again.done == first.done
    assert again.oracle.seen == first.oracle.seen
    listed = json.loads(json.dumps(first.done))
    from_list = Simulation(stage, 3).run(listed)
    assert from_list.oracle.seen == first.oracle.seen


@pytest.mark.skipif(ONE_SEED is None, reason="BEDSIDE_SEED names no seed to replay")
def test_one_schedule(stage) -> None:
    seed = int(ONE_SEED or 0)
    simulation = Simulation(stage, seed)
    try:
        simulation.run()
    except AssertionError:
        if SHRINKING_RUNS:
            short = shrink(simulation.done, lambda operations: breaks(stage, seed, operations), SHRINKING_RUNS)
            print(json.dumps({"seed": seed, "operations": short}))
        raise


def breaks(stage, seed: int, operations: Sequence[Operation]) -> bool:
    try:
        Simulation(stage, seed).run(operations)
    except AssertionError:
        return True
    return False
