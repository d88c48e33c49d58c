"""What leaves the device about itself."""

from __future__ import annotations

import dataclasses

import pytest

from bedside.agent.health.facts import COMPONENTS, AgentFacts, RoundFacts, SourceFacts, StreamFacts
from bedside.agent.health.heartbeat import age_step_s, build_heartbeat, stricter
from bedside.agent.health.kernel import KernelFacts
from bedside.agent.health.machine import MachineFacts
from bedside.agent.rounds.told import told_code
from bedside.proto.v1.device_pb2 import COMPONENT_STATE_DEGRADED
from bedside.service.health import ComponentState, Level

DIGEST = b"c" * 32
FACTS = AgentFacts(
    version="1.0",
    site="alder",
    device="device-1",
    uptime_s=5_000,
    restarts=3,
    last_exit="killed",
    components={name: ComponentState(Level.DEGRADED, f"{name} tells a reason", 1) for name in COMPONENTS},
    streams=[StreamFacts("wrist", True, 50.0, 900, 0, 2, 1, 61_000)],
    models=[],
    open_alarms=0,
    raised_alarms=0,
    predictions=77,
    last_prediction_age_ms=9_000,
    model_running=b"r" * 32,
    model_wanted=b"w" * 32,
    config_digest=b"d" * 32,
    buffer_bytes=(5 << 20) + 77,
    buffer_oldest_age_s=90_000,
    clock_offset_ms=-2_000,
    key_age_s=100,
    round=RoundFacts("watch", 4, "declined", False, "too-few-sessions", "3 sessions are too few"),
    machine=MachineFacts(
        "Debian", 60 << 20, (9 << 30) + 5, 51_000, 1 << 30, KernelFacts(True, False, False, 0.42, 0.5)
    ),
)


def beat(detail, facts=FACTS):
    return build_heartbeat(facts, detail, credential_digest=DIGEST, sequence=8, now_s=1_800_000_000)


def test_minimal_holds_versions_uptime_and_component_states_and_nothing_else() -> None:
    made = beat("minimal")
    fields = {field.name for field, _ in made.ListFields()}
    signed = {"suite", "credential_digest", "sequence", "sent_at_s"}
    assert fields == signed | {"agent_version", "uptime_s", "components"}
    assert made.uptime_s == 3_600
    assert [(c.component, c.state, c.sentence) for c in made.components] == [
        (name, COMPONENT_STATE_DEGRADED, "") for name in COMPONENTS
    ]


def test_minimal_is_the_same_whether_a_bed_is_occupied_or_not() -> None:
    empty = dataclasses.replace(FACTS, streams=[], predictions=0, last_prediction_age_ms=None, buffer_bytes=0)
    assert beat("minimal", empty) == beat("minimal")


def test_standard_tells_the_machine_and_the_newest_round() -> None:
    made = beat("standard")
    assert (made.restarts, made.last_exit_reason) == (3, "killed")
    assert (made.last_task, made.last_round) == ("watch", 4)
    assert (made.throttled, made.undervoltage, made.battery_percent) == (True, False, 42)
    assert (made.model_running, made.model_wanted) == (b"r" * 32, b"w" * 32)


def test_standard_tells_the_sentences_of_codes_and_components_and_no_other() -> None:
    made = beat("standard")
    assert made.last_refusal == f"{told_code('not-enough-here')} [not-enough-here]"
    assert not [c for c in made.components if not c.sentence or "tells a reason" in c.sentence]
    well = {name: ComponentState(Level.OK, f"{name} counts 7 windows", 1) for name in COMPONENTS}
    assert {c.sentence for c in beat("standard", dataclasses.replace(FACTS, components=well)).components} == {""}


def test_standard_tells_ages_and_sizes_in_steps_only() -> None:
    made = beat("standard")
    (stream,) = made.streams
    assert (stream.last_seen_age_ms, made.last_prediction_age_ms) == (600_000, 10_000)
    assert (made.buffer_oldest_age_s, made.buffer_bytes, made.disk_free_bytes) == (172_800, 5 << 20, 9 << 30)
    nearby = dataclasses.replace(
        FACTS,
        streams=[dataclasses.replace(FACTS.streams[0], last_seen_age_ms=599_000, blocks=1, session_open=False, gaps=0)],
        predictions=1,
        last_prediction_age_ms=1,
        buffer_bytes=5 << 20,
        buffer_oldest_age_s=172_799,
    )
    assert beat("standard", nearby) == made


@pytest.mark.parametrize(
    ("age_s", "step_s"),
    [(0, 10), (10, 10), (11, 60), (61, 600), (3_601, 86_400), (86_401, 172_800), (172_801, 259_200)],
)
def test_an_age_is_rounded_up_to_a_coarse_step(age_s, step_s) -> None:
    assert age_step_s(age_s) == step_s


def test_the_stricter_of_configuration_and_policy_holds() -> None:
    assert stricter("standard", "minimal") == stricter("minimal", "standard") == "minimal"
    assert stricter("standard", "standard") == "standard"


def test_a_round_that_was_joined_is_no_refusal() -> None:
    joined = dataclasses.replace(FACTS, round=RoundFacts("watch", 4, "dropped", True, "not-in-set", "opened without"))
    assert beat("standard", joined).last_refusal == ""


@pytest.mark.parametrize(
    ("failed", "heard", "step_ppm"),
    [(0, 0, 0), (0, 900, 0), (1, 900_000, 10), (9, 991, 10_000), (500, 500, 1_000_000), (7, 0, 1_000_000)],
)
def test_error_rates_are_told_by_stream_and_in_steps(failed, heard, step_ppm) -> None:
    ours = SourceFacts("board", "serial", "running", ("wrist",), blocks=heard, dropped=failed, last_error="secret")
    other = SourceFacts("ward", "mllp", "running", ("bed",), values=1, unmapped=1)
    facts = dataclasses.replace(FACTS, sources=[ours, other])
    assert [stream.error_ppm for stream in beat("standard", facts).streams] == [step_ppm]
    assert b"secret" not in beat("standard", facts).SerializeToString()
    assert beat("minimal", facts) == beat("minimal")


def test_why_a_training_waits_is_told_unless_it_tells_who_lies_in_which_bed() -> None:
    well = {name: ComponentState(Level.OK, "ready", 1) for name in COMPONENTS}

    def told(gate, detail="standard") -> set[str]:
        made = beat(detail, dataclasses.replace(FACTS, components=well, training_waits=gate))
        return {component.sentence for component in made.components} - {""}

    assert told("temperature") == {"training waits: the device is too warm"}
    assert told("hours") == {"training waits for its hours"}
    assert told("session") == told("alarm") == told(None) == told("temperature", "minimal") == set()
