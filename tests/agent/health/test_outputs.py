"""What `sinks` says of the sinks."""

from __future__ import annotations

import pytest

from bedside.agent.health.facts import COMPONENTS, SinkFacts
from bedside.agent.health.outputs import STALLED_S, TOLD_S, judge_sinks
from bedside.agent.rounds.told import told_fault
from bedside.service.health import Level

WELL = SinkFacts("his", "fhir", "continuous", "idle", sent=7, skipped=2)
AWAY = SinkFacts(
    "his", "fhir", "continuous", "waiting", last_error="sink-unreachable: his:443 is away", stalled_s=STALLED_S + 120
)
LOST = SinkFacts("log", "csv", "continuous", "idle", skipped=3, refused=1, left_out_age_s=60.0)


@pytest.mark.parametrize(
    ("sinks", "level", "sentence"),
    [
        ([], Level.OK, "none is configured"),
        ([WELL], Level.OK, "deliver"),
        ([SinkFacts("his", "fhir", "continuous", "waiting", stalled_s=STALLED_S)], Level.OK, "deliver"),
        (
            [WELL, AWAY],
            Level.DEGRADED,
            "sink his has delivered nothing for 7 minutes: sink-unreachable: his:443 is away",
        ),
        ([WELL, LOST], Level.DEGRADED, "sink log left rows out: 3 skipped and 1 refused so far"),
        ([SinkFacts("log", "csv", "continuous", "idle", skipped=3, left_out_age_s=TOLD_S + 1)], Level.OK, "deliver"),
    ],
)
def test_a_sink_that_delivers_nothing_or_leaves_rows_out_is_named(sinks, level, sentence) -> None:
    assert judge_sinks(sinks) == (level, sentence)


def test_every_component_has_a_sentence_of_its_own_for_others() -> None:
    assert len({told_fault(name) for name in COMPONENTS}) == len(COMPONENTS)
