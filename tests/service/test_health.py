import pytest

from bedside.service.health import OVERALL, Health, Level


class SteppingClock:
    def __init__(self):
        self.now = 0

    def now_ns(self):
        self.now += 1
        return self.now

    def monotonic_s(self):
        return float(self.now)


def test_a_component_that_has_not_reported_is_starting_for_a_minute_and_has_then_failed():
    clock = SteppingClock()
    health = Health(clock, ("ingest", "link"))
    health.set("ingest", Level.OK, "3 streams")
    assert health.exit_status == 0
    assert health.snapshot()["link"].sentence == "starting"
    clock.now += 60
    assert health.exit_status == 2
    assert health.worst().sentence == "has not started yet"


def test_the_worst_component_decides_the_exit_status():
    health = Health(SteppingClock(), ("ingest", "link"))
    health.set("ingest", Level.OK, "3 streams")
    health.set("link", Level.DEGRADED, "coordinator away")
    assert health.exit_status == 1
    health.set("link", Level.OK, "connected")
    assert health.exit_status == 0


def test_since_moves_with_the_level_and_not_with_the_sentence():
    health = Health(SteppingClock(), ("link",))
    health.set("link", Level.DEGRADED, "away")
    since_ns = health.snapshot()["link"].since_ns
    health.set("link", Level.DEGRADED, "away, second try")
    assert health.snapshot()["link"].since_ns == since_ns
    health.set("link", Level.OK, "connected")
    assert health.snapshot()["link"].since_ns > since_ns


def test_listeners_hear_the_present_and_then_changes_only():
    health = Health(SteppingClock(), ("a", "b"))
    heard = []
    health.subscribe(lambda name, level: heard.append((name, level)))
    assert heard == [("a", Level.FAILED), ("b", Level.FAILED), (OVERALL, Level.FAILED)]
    heard.clear()
    health.set("a", Level.OK, "")
    health.set("a", Level.OK, "again")
    health.set("b", Level.OK, "")
    assert heard == [("a", Level.OK), ("b", Level.OK), (OVERALL, Level.OK)]


def test_an_unknown_component_is_a_bug():
    with pytest.raises(KeyError):
        Health(SteppingClock(), ()).set("x", Level.OK, "")
