"""What is said of a status, in words."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from bedside.agent.cli import looking
from bedside.proto.v1 import device_pb2, local_pb2

OK = [device_pb2.ComponentHealth(component="ingest", state=device_pb2.COMPONENT_STATE_OK, sentence="samples arrive")]
MODELS = [local_pb2.ModelStatus(name=name, digest=b"m" * 32, predictions=count) for name, count in (("a", 3), ("b", 4))]


@pytest.fixture
def say(monkeypatch, tmp_path):
    def answer(name: str, **fields: object) -> str:
        status = local_pb2.AgentStatus(**{"components": OK, "models": MODELS, "predictions": 9_999} | fields)
        monkeypatch.setattr(looking, "ask_status", lambda _: status)
        return CliRunner().invoke(getattr(looking, name), [str(tmp_path)], catch_exceptions=False).output

    return answer


def test_health_counts_the_predictions_of_this_run_and_tells_how_old_the_last_one_is(say) -> None:
    streams = [local_pb2.StreamStatus(stream="wrist")]
    assert say("health", streams=streams, last_prediction_age_ms=2_000) == (
        "OK 1 stream, 7 predictions, the last 2 s ago\n"
    )
    waits = [device_pb2.ComponentHealth(component="trainer", state=OK[0].state, sentence="waiting: on battery")]
    assert (
        say("health", components=waits) == "OK 0 streams, no prediction since the start; trainer waiting: on battery\n"
    )
    assert say("health", streams=streams * 2) == "OK 2 streams, no prediction since the start\n"


def test_waiting_for_health_ends_with_a_decision_of_this_run_and_not_with_one_that_is_stored(
    monkeypatch, tmp_path
) -> None:
    fresh = local_pb2.AgentStatus(components=OK, models=MODELS, predictions=9_999)
    decided = local_pb2.AgentStatus(components=OK, models=MODELS, predictions=9_999, last_prediction_age_ms=5)
    answers = [fresh, fresh, decided]
    monkeypatch.setattr(looking, "ask_status", lambda _: answers.pop(0))
    monkeypatch.setattr(looking, "_LOOK_S", 0)
    done = CliRunner().invoke(looking.health, [str(tmp_path), "--wait", "60"], catch_exceptions=False)
    assert "the last 5 ms ago" in done.output
    assert answers == []


@pytest.mark.parametrize(
    ("open_alarms", "raised", "words"),
    [(0, 0, "none open"), (14, 1, "1 raised, 13 cleared and not seen"), (2, 2, "2 raised"), (1, 0, "1 cleared and")],
)
def test_status_counts_as_open_what_the_list_of_open_alarms_shows(say, open_alarms, raised, words) -> None:
    (line,) = [
        line for line in say("status", open_alarms=open_alarms, raised_alarms=raised).splitlines() if "alarms" in line
    ]
    assert words in line
