"""The page of a device for Prometheus: read back by its own client, and quiet about patients."""

from __future__ import annotations

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from bedside.agent.api.exposition import PREFIX, exposition, families
from bedside.proto.v1.device_pb2 import ComponentHealth, ComponentState
from bedside.proto.v1.local_pb2 import (
    AgentStatus,
    BufferStatus,
    ModelStatus,
    SinkStatus,
    SourceStatus,
    StageLatency,
    StreamStatus,
)
from ports import free_port

FULL = AgentStatus(
    version="1.2",
    site="alder",
    device="d-secret",
    uptime_s=90,
    components=[
        ComponentHealth(component="ingest", state=ComponentState.COMPONENT_STATE_OK),
        ComponentHealth(component="link", state=ComponentState.COMPONENT_STATE_DEGRADED, sentence="secret words"),
        ComponentHealth(component="trainer", state=ComponentState.COMPONENT_STATE_FAILED),
    ],
    streams=[StreamStatus(stream="bed-secret", blocks=3)],
    sources=[SourceStatus(name='a"\\\n', kind="mllp", state="running", samples=7, unmapped=2, last_seen_age_ms=1500)],
    sinks=[SinkStatus(name="out", kind="fhir", waiting=4, sent=1 << 60)],
    models=[
        ModelStatus(name="ecg", predictions=5, stages=[StageLatency(stage="infer", count=5, p50_us=80, p99_us=900)]),
        ModelStatus(name="broken", error="secret words"),
    ],
    buffer=BufferStatus(bytes=10, cap_bytes=20),
    predictions=5,
    last_prediction_age_ms=250,
    last_task="secret-task",
)


def read(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_the_page_says_what_the_status_says():
    told = read(exposition(FULL))
    assert told["info", (("site", "alder"), ("version", "1.2"))] == 1
    levels = {labels[0][1]: value for (name, labels), value in told.items() if name == "component_level"}
    assert levels == {"ingest": 0, "link": 1, "trainer": 2}
    source = (("kind", "mllp"), ("source", 'a"\\\n'))
    assert told["source_samples_total", source] == 7
    assert (told["source_running", source], told["source_last_seen_age_seconds", source]) == (1, 1.5)
    assert told["sink_sent_total", (("kind", "fhir"), ("sink", "out"))] == 1 << 60
    assert told["model_serving", (("model", "ecg"),)] == 1
    assert told["model_serving", (("model", "broken"),)] == 0
    assert told["model_latency_seconds", (("model", "ecg"), ("quantile", "0.99"), ("stage", "infer"))] == 0.0009
    assert (told["buffer_bytes", ()], told["last_prediction_age_seconds", ()]) == (10, 0.25)


def test_the_page_names_no_device_no_stream_and_no_sentence():
    assert b"secret" not in exposition(FULL)


def test_what_is_not_known_has_no_sample():
    told = {name for name, _ in read(exposition(AgentStatus()))}
    assert "last_prediction_age_seconds" not in told
    assert not any(name.startswith(("source", "sink", "model")) for name in told)
    assert {family.name for family in families(AgentStatus())} == {family.name for family in families(FULL)}


def test_an_agent_answers_where_it_is_configured_to(device):
    port = free_port()
    file = device.path / "agent.toml"
    file.write_text(f'{file.read_text()}\n[metrics]\nlisten = "127.0.0.1:{port}"\n')
    device.start()
    device.await_predictions()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        told = read(answer.read())
    assert told["source_running", (("kind", "replay"), ("source", "wrist"))] == 1
    assert told["predictions_total", ()] > 0
    assert {"ingest", "buffer"} <= {labels[0][1] for name, labels in told if name == "component_level"}
    assert device.stop() == 0
