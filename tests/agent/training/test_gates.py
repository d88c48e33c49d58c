"""When a device may train."""

from dataclasses import replace

import pytest

from bedside.agent.training.gates import Gates, MachineState
from bedside.agent.training.settings import GatesConfig

QUIET = MachineState(
    temperature_c=50.0,
    throttled=False,
    undervoltage=False,
    on_mains=True,
    battery_share=None,
    load_per_core=0.2,
    local_minute=12 * 60,
    open_streams=frozenset(),
    alarms=0,
)


def judged(config=None, **changes):
    return Gates(config or GatesConfig()).judge(replace(QUIET, **changes), 0.0)


def test_a_cool_idle_machine_trains() -> None:
    verdict = judged()
    assert (verdict.closed, verdict.sentence, verdict.unread) == (None, "", ())


@pytest.mark.parametrize(
    ("config", "changes", "gate", "sentence"),
    [
        ({}, {"temperature_c": 83.4}, "temperature", "temperature 83 C, limit 80"),
        ({}, {"throttled": True}, "throttling", "the processor is throttled"),
        ({}, {"undervoltage": True, "throttled": None}, "throttling", "the supply's voltage is low"),
        ({"power": "mains"}, {"on_mains": False, "battery_share": 0.9}, "power", "on battery"),
        ({"power": "mains"}, {"on_mains": None}, "power", "whether this device is on mains cannot be read"),
        ({"power": "battery"}, {"on_mains": False, "battery_share": 0.5}, "power", "battery 50%, limit 50%"),
        ({"power": "battery"}, {"on_mains": False}, "power", "on battery, and its charge cannot be read"),
        ({}, {"load_per_core": 4.2}, "load", "load 4.2 per core, limit 4"),
        ({"hours": ["22:00-06:00", "07:00-08:00"]}, {}, "hours", "trains between 22:00-06:00 and 07:00-08:00"),
        ({"idle_streams": ["bed-1"]}, {"open_streams": frozenset({"bed-1"})}, "session", "a session is open on bed-1"),
        ({"idle_streams": ["*"]}, {"open_streams": frozenset({"c", "b"})}, "session", "a session is open on b"),
        ({"while_alarm": False}, {"alarms": 2}, "alarm", "an alarm is raised"),
    ],
)
def test_each_gate_closes_and_says_why(config, changes, gate, sentence) -> None:
    verdict = judged(GatesConfig(**config), **changes)
    assert (verdict.closed, verdict.sentence) == (gate, sentence)


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        ({}, {"temperature_c": 80.0, "load_per_core": 4.0, "alarms": 3, "open_streams": frozenset({"bed-1"})}),
        ({"while_throttled": True}, {"throttled": True, "undervoltage": True}),
        ({}, {"on_mains": False, "battery_share": 0.01}),
        ({"power": "battery"}, {"on_mains": False, "battery_share": 0.51}),
        ({"power": "battery"}, {"on_mains": True, "battery_share": 0.01}),
        ({"hours": ["22:00-06:00"]}, {"local_minute": 23 * 60}),
        ({"hours": ["22:00-06:00"]}, {"local_minute": 5 * 60 + 59}),
        ({"hours": ["01:00-02:00", "11:00-13:00"]}, {}),
        ({"idle_streams": ["bed-1"]}, {"open_streams": frozenset({"bed-2"})}),
    ],
)
def test_within_its_limits_a_gate_is_open(config, changes) -> None:
    assert judged(GatesConfig(**config), **changes).closed is None


def test_what_cannot_be_read_is_open_and_told_but_for_power_that_somebody_asked_for() -> None:
    blind = dict.fromkeys(("temperature_c", "throttled", "undervoltage", "on_mains", "load_per_core", "alarms"))
    verdict = judged(GatesConfig(while_alarm=False), **blind)
    assert (verdict.closed, verdict.unread) == (None, ("temperature", "throttling", "load", "alarm"))
    assert judged(GatesConfig(power="battery"), **blind).closed == "power"


@pytest.mark.parametrize(
    ("config", "closing", "still", "again"),
    [
        ({}, {"temperature_c": 80.5}, {"temperature_c": 76.0}, {"temperature_c": 75.0}),
        ({}, {"load_per_core": 4.1}, {"load_per_core": 3.5}, {"load_per_core": 3.0}),
        (
            {"power": "battery"},
            {"on_mains": False, "battery_share": 0.49},
            {"on_mains": False, "battery_share": 0.54},
            {"on_mains": False, "battery_share": 0.56},
        ),
    ],
)
def test_a_closed_gate_opens_only_some_way_past_its_limit(config, closing, still, again) -> None:
    gates = Gates(GatesConfig(settle_s=0, **config))
    assert gates.judge(replace(QUIET, **still), 0).closed is None
    assert gates.judge(replace(QUIET, **closing), 1).closed
    assert gates.judge(replace(QUIET, **still), 2).closed
    assert gates.judge(replace(QUIET, **again), 3).closed is None
    assert gates.judge(replace(QUIET, **still), 4).closed is None


def test_each_gate_remembers_that_it_was_closed_also_behind_another_one() -> None:
    gates = Gates(GatesConfig(settle_s=0))
    assert gates.judge(replace(QUIET, temperature_c=90.0, load_per_core=4.1), 0).closed == "temperature"
    assert gates.judge(replace(QUIET, temperature_c=90.0, load_per_core=3.5), 1).closed == "temperature"
    assert gates.judge(replace(QUIET, load_per_core=3.5), 2).closed == "load"
    assert gates.judge(replace(QUIET, load_per_core=3.0), 3).closed is None


def test_training_goes_on_when_all_gates_have_been_open_for_a_while() -> None:
    gates, hot = Gates(GatesConfig(settle_s=60)), replace(QUIET, temperature_c=90.0)
    assert gates.judge(hot, 0).closed == "temperature"
    waiting = gates.judge(QUIET, 10)
    assert (waiting.closed, waiting.sentence) == ("temperature", "temperature 90 C, limit 80 until a moment ago")
    assert gates.judge(QUIET, 69).closed
    assert gates.judge(replace(QUIET, throttled=True), 69.5).closed == "throttling"
    assert gates.judge(QUIET, 70).closed, "counted anew"
    assert gates.judge(QUIET, 129).closed
    assert gates.judge(QUIET, 130).closed is None
