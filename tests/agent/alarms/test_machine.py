"""The two tables of an alarm, and what they make of any run of values."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.agent.alarms.machine import (
    LIFE,
    WATCH,
    Act,
    Happens,
    Input,
    Life,
    Observation,
    Phase,
    Watch,
    classify,
    end,
    happen,
    life_of,
    observe,
    resume,
)
from bedside.agent.buffer.rows import Alarm
from bedside.agent.config import AlarmRule

S = 1_000_000_000
HIGH = AlarmRule(name="fall", label="fall", above=0.9, clear=0.6, hold_off_s=2.0)
LOW = AlarmRule(name="spo2", field="spo2", below=88.0, clear=92.0)
RAISED = Alarm("fall", "wrist", "s1", "low", 5, 0.95, number=3)


def run(rule: AlarmRule, values: list[float], *, step_s: float = 1.0, watch: Watch | None = None):
    """Hear values one after the other; return the acts by number of the value."""
    watch, acts = watch or Watch(), []
    for at, value in enumerate(values):
        watch, effects = observe(rule, watch, Observation("s1", 0, round((at + 1) * step_s * S), value))
        acts += [(at, effect.act) for effect in effects]
    return watch, acts


def test_only_what_the_table_holds_changes_anything() -> None:
    acts = {pair: act for pair, (act, _) in WATCH.items()}
    raising = {pair for pair, act in acts.items() if act is Act.RAISE}
    clearing = {pair for pair, act in acts.items() if act is Act.CLEAR}
    assert raising == {(Phase.QUIET, Input.HELD), (Phase.HOLDING, Input.HELD)}
    assert clearing == {(Phase.ACTIVE, Input.BACK), (Phase.ACTIVE, Input.END)}
    for phase, heard in product(Phase, Input):
        act, after = WATCH.get((phase, heard), (Act.NOTHING, phase))
        assert (act is Act.RAISE) == (phase is not Phase.ACTIVE and after is Phase.ACTIVE)
        assert (act is Act.CLEAR) == (phase is Phase.ACTIVE and after is not Phase.ACTIVE)


def test_an_alarm_is_raised_when_the_limit_was_passed_for_the_hold_off_and_cleared_past_clear() -> None:
    _, acts = run(HIGH, [0.1, 0.95, 0.95, 0.95, 0.99, 0.7, 0.61, 0.59, 0.7])
    assert acts == [(3, Act.RAISE), (7, Act.CLEAR)]


def test_what_dips_into_the_band_begins_the_hold_off_anew() -> None:
    _, acts = run(HIGH, [0.95, 0.95, 0.8, 0.95, 0.95, 0.95])
    assert acts == [(5, Act.RAISE)]


def test_a_value_at_the_limit_is_past_it_and_without_clear_there_is_no_band() -> None:
    _, acts = run(LOW, [88.0, 91.0, 92.0, 92.1, 87.9])
    assert acts == [(0, Act.RAISE), (3, Act.CLEAR), (4, Act.RAISE)]
    plain = AlarmRule(name="x", field="x", above=5.0)
    assert run(plain, [5.0, 4.999, 5.0])[1] == [(0, Act.RAISE), (1, Act.CLEAR), (2, Act.RAISE)]


def test_a_gap_begins_the_hold_off_anew_and_leaves_a_raised_alarm() -> None:
    watch, acts = run(HIGH, [0.95, 0.95])
    watch, effects = observe(HIGH, watch, Observation("s1", 1, 3 * S, 0.95))
    assert (acts, effects, watch.phase) == ([], [], Phase.HOLDING)
    watch, effects = observe(HIGH, watch, Observation("s1", 1, 5 * S, 0.95))
    assert [effect.act for effect in effects] == [Act.RAISE]
    watch, effects = observe(HIGH, watch, Observation("s1", 2, 6 * S, 0.7))
    assert (effects, watch.phase) == ([], Phase.ACTIVE)


def test_another_session_clears_the_alarm_of_the_one_before_and_starts_from_nothing() -> None:
    watch, _ = run(LOW, [80.0])
    watch, effects = observe(LOW, watch, Observation("s2", 0, 9 * S, 85.0))
    assert [(effect.act, effect.time_ns) for effect in effects] == [(Act.CLEAR, S), (Act.RAISE, 9 * S)]
    watch, effects = observe(LOW, watch, Observation("s1", 0, 2 * S, 99.0))  # late, of who was here before
    assert (effects, watch.phase, watch.session) == ([], Phase.ACTIVE, "s2")


def test_what_comes_late_of_a_session_that_has_ended_raises_nothing() -> None:
    watch, _ = run(LOW, [95.0])
    watch, effects = end(watch)
    assert effects == []
    assert observe(LOW, watch, Observation("s1", 0, 2 * S, 70.0)) == (watch, [])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_not_heard(value) -> None:
    watch, _ = run(LOW, [80.0])
    assert observe(LOW, watch, Observation("s1", 0, 2 * S, value)) == (watch, [])


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20), st.booleans()), max_size=60),
    st.floats(0.05, 0.95),
    st.floats(0, 0.9),
    st.floats(0, 5),
)
def test_raising_and_clearing_take_turns_and_say_what_is_so(steps, above, band, hold_off_s) -> None:
    rule = AlarmRule(name="x", label="x", above=above, clear=above * (1 - band), hold_off_s=hold_off_s)
    watch, time_ns, stretch, active, past_since_ns = Watch(), 0, 0, False, None
    for value, pause_s, gap in steps:
        time_ns += pause_s * S
        stretch += gap
        if gap or value < above:
            past_since_ns = None
        if value >= above and past_since_ns is None:
            past_since_ns = time_ns
        watch, effects = observe(rule, watch, Observation("s", stretch, time_ns, value))
        for effect in effects:
            assert effect.act is (Act.CLEAR if active else Act.RAISE)
            active = not active
            if active:
                assert value >= above
                assert time_ns - past_since_ns >= hold_off_s * 1e9
            else:
                assert value <= rule.clear
        assert active == (watch.phase is Phase.ACTIVE)
        if not active and past_since_ns is not None and watch.phase is Phase.HOLDING:
            assert time_ns - past_since_ns < hold_off_s * 1e9 + 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.data())
def test_after_a_kill_nothing_is_raised_twice_whatever_signal_comes_again(values, data) -> None:
    """The signal since some moment before the kill comes once more; what is raised is what a whole run raises."""
    rule = AlarmRule(name="x", label="x", above=0.7, clear=0.4)
    seen = [Observation("s", 0, (at + 1) * S, value) for at, value in enumerate(values)]
    whole, whole_raised = Watch(), []
    for one in seen:
        whole, effects = observe(rule, whole, one)
        whole_raised += [effect.time_ns for effect in effects if effect.act is Act.RAISE]
    killed_at = data.draw(st.integers(0, len(seen)))
    again_from = data.draw(st.integers(0, killed_at))
    watch, raised, last = Watch(), [], None
    for one in seen[:killed_at]:
        watch, effects = observe(rule, watch, one)
        for effect in effects:
            if effect.act is Act.RAISE:
                raised.append(effect.time_ns)
                last = Alarm("x", "w", "s", "low", effect.time_ns, effect.value)
            else:
                last = replace(last, cleared_ns=effect.time_ns)
    watch = resume(last) if last is not None else Watch()
    for one in seen[again_from:]:
        watch, effects = observe(rule, watch, one)
        raised += [effect.time_ns for effect in effects if effect.act is Act.RAISE]
    assert raised == whole_raised


def test_a_session_that_was_not_judged_before_the_kill_is_heard_from_its_beginning() -> None:
    watch = resume(replace(RAISED, raised_ns=50 * S, cleared_ns=60 * S))
    assert observe(HIGH, watch, Observation("s1", 0, 59 * S, 0.99))[0] == watch
    watch, _ = observe(AlarmRule(name="x", label="x", above=0.9), watch, Observation("s2", 0, 5 * S, 0.99))
    assert watch.phase is Phase.ACTIVE  # an earlier clock, and another person


@pytest.mark.parametrize("life", Life)
@pytest.mark.parametrize("event", Happens)
def test_an_alarm_lives_as_its_table_says(life, event) -> None:
    alarm = {
        Life.RAISED: RAISED,
        Life.ESCALATED: replace(RAISED, escalated_ns=6),
        Life.ACKNOWLEDGED: replace(RAISED, acknowledged_ns=7, acknowledged_by="nurse"),
        Life.CLEARED: replace(RAISED, cleared_ns=8),
        Life.CLOSED: replace(RAISED, cleared_ns=8, acknowledged_ns=7),
    }[life]
    assert life_of(alarm) is life
    after = happen(alarm, event, 99, "nurse")
    if (life, event) in LIFE:
        assert life_of(after) is LIFE[life, event]
    else:
        assert after is None


def test_escalation_is_louder_and_acknowledging_says_who() -> None:
    assert happen(RAISED, Happens.ESCALATE, 9).priority == "medium"
    assert happen(replace(RAISED, priority="high"), Happens.ESCALATE, 9).priority == "high"
    assert happen(RAISED, Happens.ACKNOWLEDGE, 9, "ward 3").acknowledged_by == "ward 3"
    assert happen(RAISED, Happens.CLEAR, 0).cleared_ns == 1  # a time of 0 would read as never


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(0, 1e6), st.booleans())
def test_above_and_below_are_mirror_images(value, limit, band, held) -> None:
    above = AlarmRule(name="a", field="x", above=limit, clear=limit - band)
    below = AlarmRule(name="b", field="x", below=-limit, clear=-limit + band)
    assert classify(above, value, held=held) is classify(below, -value, held=held)


def test_a_hold_off_goes_on_where_the_clock_of_the_signal_is_set_back() -> None:
    rule = AlarmRule(name="low", field="spo2", below=88.0, hold_off_s=10.0)
    watch, effects = observe(rule, Watch(), Observation("s", 0, 3_600 * S, 80.0))
    found = []
    for second in range(1, 13):
        watch, effects = observe(rule, watch, Observation("s", 0, second * S, 80.0))
        found += [(effect.act, effect.time_ns // S) for effect in effects]
    assert found == [(Act.RAISE, 11)]
