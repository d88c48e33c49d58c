"""What a training would cost here, and when a device says no."""

import pytest

from bedside.agent.training.budget import Budget, check_memory, check_time
from bedside.core.bundle.training import Cost, expected_cost
from bedside.core.errors import RefusedError

ROWS = (Cost("q1-all-sgd", 8, 1.0, 68.0), Cost("q1-all-sgd", 32, 4.0, 78.0), Cost("q1-all-sgd", 128, 16.0, 116.0))


@pytest.mark.parametrize(
    ("rows", "batch", "step_ms", "rss_mb"),
    [
        (ROWS, 8, 1.0, 68.0),
        (ROWS, 20, 2.5, 73.0),
        (ROWS, 128, 16.0, 116.0),
        (ROWS, 224, 28.0, 154.0),
        (ROWS[1:2], 32, 4.0, 78.0),
        (ROWS[1:2], 64, 8.0, 96.0),
        (ROWS[1:2], 16, 2.0, 69.0),
    ],
)
def test_a_step_of_any_batch_is_reckoned_from_those_that_were_measured(rows, batch, step_ms, rss_mb) -> None:
    cost = expected_cost(rows, batch)
    assert (cost.batch, cost.step_ms, cost.rss_mb) == (batch, pytest.approx(step_ms), pytest.approx(rss_mb))


def test_a_table_that_falls_never_promises_less_than_its_share() -> None:
    falling = (Cost("g", 8, 4.0, 90.0), Cost("g", 32, 2.0, 80.0))
    cost = expected_cost(falling, 1_000)
    assert cost.step_ms > 0
    assert cost.rss_mb > 0
    assert expected_cost((), 8) is None


def test_a_plan_that_needs_more_memory_than_there_is_is_declined_with_both_numbers() -> None:
    cost = expected_cost(ROWS, 128)
    check_memory(cost, Budget(memory_mb=116.0, examples_bytes=10_000_000), 0)
    with pytest.raises(RefusedError, match="takes 126 MB, and 120 MB are there") as caught:
        check_memory(cost, Budget(memory_mb=120.0, examples_bytes=10_000_000), 1 << 40)
    assert caught.value.code == "unaffordable-memory"
    check_memory(cost, Budget(memory_mb=120.0, examples_bytes=10_000_000), 3_000_000)
    check_memory(None, Budget(memory_mb=1.0), 1 << 40)


def test_a_plan_that_would_not_end_in_time_is_declined_with_both_numbers() -> None:
    check_time(0.1, 600, 0.0, Budget(timeout_s=60.0, closes_in_s=60.0))
    with pytest.raises(RefusedError, match=r"600 steps of 110.0 ms take 66 s here, and 60 s are left") as caught:
        check_time(0.11, 600, 0.0, Budget(timeout_s=60.0, closes_in_s=600.0))
    assert caught.value.code == "unaffordable-time"
    with pytest.raises(RefusedError, match=r"50 s are left until training\.timeout_s"):
        check_time(0.1, 600, 10.0, Budget(timeout_s=60.0))
    with pytest.raises(RefusedError, match="59 s are left until the round's close"):
        check_time(0.1, 600, 0.0, Budget(timeout_s=600.0, closes_in_s=59.0))
