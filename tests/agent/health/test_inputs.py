"""What `ingest` says of the sources, and their facts."""

from __future__ import annotations

import pytest

from bedside.agent.health.facts import SourceFacts
from bedside.agent.health.inputs import SILENT_PEER_S, SourceSetup, judge, source_facts
from bedside.agent.sources.kind import SourceGauge
from bedside.agent.sources.supervisor import SourceHealth, SourceState
from bedside.service.health import Level

FED = SourceFacts("wrist", "serial", "running", last_seen_age_ms=20)
AWAY = SourceFacts("ward", "mqtt", "running", connected=False, detail="broker.ward:8883")
FAILS = SourceFacts("his", "mllp", "waiting", last_error="port-in-use: port 2575 is taken")


@pytest.mark.parametrize(
    ("sources", "level", "sentence"),
    [
        ([FED], Level.OK, "samples arrive"),
        ([], Level.DEGRADED, "no source is configured"),
        ([FED, FAILS], Level.DEGRADED, "source his fails: port-in-use: port 2575 is taken"),
        ([FAILS], Level.FAILED, "source his fails: port-in-use: port 2575 is taken"),
        ([FED, AWAY], Level.DEGRADED, "source ward is not connected: broker.ward:8883"),
        ([SourceFacts("bed", "mllp", "running", connected=True, last_seen_age_ms=60_000)], Level.OK, "samples arrive"),
        ([SourceFacts("bed", "serial", "running", last_seen_age_ms=60_000)], Level.DEGRADED, "no samples from bed"),
        ([SourceFacts("bed", "serial", "running")], Level.DEGRADED, "no samples from bed"),
    ],
)
def test_ingest_names_what_does_not_deliver(sources, level, sentence) -> None:
    assert judge(sources, 700.0) == (level, sentence)


def test_a_peer_that_is_there_may_be_silent_for_some_time_and_not_for_ever() -> None:
    quiet = SourceFacts("bed", "mllp", "running", connected=True, last_seen_age_ms=round(SILENT_PEER_S * 1000) + 1)
    assert judge([quiet], 1e5) == (Level.DEGRADED, "no samples from bed")


def test_what_has_just_been_started_is_given_time() -> None:
    assert judge([AWAY, SourceFacts("bed", "serial", "running")], 3.0)[0] is Level.OK


def test_facts_hold_what_the_supervisor_counted_and_what_the_source_says() -> None:
    gauge = SourceGauge(connected=True, detail="2 peers", clock_offset_s=-1.5, dropped=3, duplicates=4)
    health = SourceHealth("ward", SourceState.RUNNING, records=2, values=9, unmapped=5, gauge=gauge, errors=1)
    health.last_seen_ns, health.last_seen_monotonic_s = 1, 10.0
    (facts,) = source_facts([health], {"ward": SourceSetup("mllp", ("bed",))}, 12.5)
    assert facts == SourceFacts(
        "ward", "mllp", "running", ("bed",), connected=True, detail="2 peers", last_seen_age_ms=2_500, records=2,
        values=9, unmapped=5, dropped=3, duplicates=4, errors=1, clock_offset_ms=-1_500,
    )  # fmt: skip


def test_a_listener_that_nobody_has_come_to_is_well_and_one_whose_sender_is_gone_is_not() -> None:
    alone = SourceFacts("ward", "mllp", "running", listens=True, connected=False)
    assert judge([alone], 1e5) == (Level.OK, "source ward waits for its first sender")
    assert judge([FED, alone], 1e5) == (Level.OK, "samples arrive; source ward waits for its first sender")
    gone = SourceFacts("ward", "mllp", "running", listens=True, connected=False, last_seen_age_ms=1)
    assert judge([gone], 1e5) == (Level.DEGRADED, "source ward is not connected")
