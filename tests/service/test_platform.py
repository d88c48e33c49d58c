"""The machine's clock: small steps back are evened out, a clock that was wrong is not kept."""

import time

from bedside.service.platform import SET_BACK_NS, SystemClock


def test_a_step_back_is_waited_for_and_a_clock_that_was_far_ahead_is_left(monkeypatch) -> None:
    clock, base_ns = SystemClock(), 1_700_000_000_000_000_000
    at_ns = iter([base_ns, base_ns - 1, base_ns + 2 * SET_BACK_NS, base_ns + 3, base_ns + 2, base_ns + 4])
    monkeypatch.setattr(time, "time_ns", lambda: next(at_ns))
    read = [clock.now_ns() - base_ns for _ in range(6)]
    assert read == [0, 0, 2 * SET_BACK_NS, 3, 3, 4]
