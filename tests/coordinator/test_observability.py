"""Alert rules and dashboard: they are sound, and everything that they ask for is what our processes tell."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bedside.agent.api.exposition import exposition
from bedside.coordinator.metrics.state import render
from bedside.proto.v1.device_pb2 import ComponentHealth
from bedside.proto.v1.local_pb2 import AgentStatus, ModelStatus, SinkStatus, SourceStatus, StageLatency

FOLDER = Path(__file__).parents[2] / "packaging" / "observability"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = DASHBOARD["panels"]
GRAPHS = [panel for panel in PANELS if panel["type"] != "row"]
GIVEN = {"job", "instance"}
"""Labels that Prometheus adds."""

_METRIC = re.compile(r"\b((?:bedside|process)_\w+)(?:\{([^}]*)\})?")
_GROUPED = re.compile(r"\b(?:by|on) \(([\w, ]*)\)")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')

BUSY = AgentStatus(
    components=[ComponentHealth(component="ingest")],
    sources=[SourceStatus(name="a", kind="csv", last_seen_age_ms=1)],
    sinks=[SinkStatus(name="a", kind="fhir")],
    models=[ModelStatus(name="a", stages=[StageLatency(stage="infer")])],
    last_prediction_age_ms=1,
)


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in RULES)
    yield from (target["expr"] for panel in GRAPHS for target in panel["targets"])
    for variable in DASHBOARD["templating"]["list"]:
        yield str(variable.get("definition", ""))


@pytest.fixture
async def told(federation) -> dict[str, set[str]]:
    """Every series that a coordinator and a device tell, with the labels that it has."""
    async with federation.coordinator() as desk:
        await desk.populate(devices=1)
        meters = desk.alive.parts.meters
        meters.left_phase("sealed", 0, 1)
        meters.sealed(["alder"], ["birch"])
        meters.refused("device", "busy")
        meters.refused_call("no-round")
        pages = [render(desk.alive.parts), exposition(BUSY)]
    found = {"bedside_coordinator_privacy_epsilon": {"task", "site"}}  # it has no sample before the first vote
    found["bedside_coordinator_charged_rounds_total"] = {"task", "site"}
    for page in pages:
        for family in text_string_to_metric_families(page.decode()):
            if not family.samples:
                assert {family.name, f"{family.name}_total"} & set(found), f"{family.name} is not tried here"
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


async def test_every_metric_and_label_that_is_asked_for_is_told(told):
    asked = 0
    for expression in expressions():
        names = {name for name, _ in _METRIC.findall(expression)}
        assert names <= set(told), expression
        for name, matchers in _METRIC.findall(expression):
            assert set(_MATCHER.findall(matchers)) <= told[name] | GIVEN, expression
        labels = set().union(*(told[name] for name in names)) | GIVEN
        grouped = {label.strip() for inside in _GROUPED.findall(expression) for label in inside.split(",")} - {""}
        assert grouped <= labels, expression
        asked += len(names)
    assert asked > 40


async def test_the_page_lists_every_metric_and_no_other(told):
    page = (FOLDER.parents[1] / "docs" / "coordinator.md").read_text()
    listed = set()
    for prefix in ("bedside_coordinator_", "bedside_agent_"):
        table = page.split(f"after `{prefix}`")[1].split("\n\n")[0]
        listed |= {
            prefix + name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])
        }
    names = {re.sub(r"_(?:bucket|count|sum|created)$", "", name) for name in told if name.startswith("bedside_")}
    assert listed == names


async def test_what_an_alert_says_uses_labels_that_it_has(told):
    for rule in RULES:
        labels = set().union(*(told.get(name, set()) for name, _ in _METRIC.findall(rule["expr"]))) | GIVEN
        words = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", words)) <= labels, rule["alert"]


def test_every_alert_has_a_name_of_its_own_a_severity_and_a_remedy():
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"Bedside[A-Z]\w+", rule["alert"])
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "remedy"}
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_the_example_asks_where_the_configuration_says_and_loads_the_rules():
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert jobs == {"bedside-coordinator": ["127.0.0.1:9464"], "bedside-agent": ["127.0.0.1:9465"]}
    named = set(re.findall(r'job="([\w-]+)"', " ".join(rule["expr"] for rule in RULES)))
    assert named == set(jobs)


@pytest.mark.parametrize("arguments", [("check", "rules", "alerts.yml"), ("check", "config", "prometheus.yml"),
                                       ("test", "rules", "alerts_test.yml")])  # fmt: skip
def test_prometheus_itself_takes_them_and_alerts_fire_when_they_should(arguments):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = subprocess.run([promtool, *arguments], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    return not (beside or above)


def test_the_dashboard_lies_in_its_grid_and_every_panel_says_what_it_shows():
    places = [panel["gridPos"] for panel in PANELS]
    assert all(place["x"] + place["w"] <= 24 and place["h"] > 0 for place in places)
    assert not any(overlap(one, other) for at, one in enumerate(places) for other in places[:at])
    titles = [panel["title"] for panel in PANELS]
    assert len(set(titles)) == len(titles)
    assert [panel["title"] for panel in PANELS if panel["type"] == "row"] == ["Health", "Fleet", "Rounds", "Privacy"]
    for panel in GRAPHS:
        assert panel["type"] in {"stat", "timeseries"}
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert [target["refId"] for target in panel["targets"]] == list("ABC"[: len(panel["targets"])])


def test_the_dashboard_takes_any_data_source_and_uses_no_variable_that_it_lacks():
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    text = json.dumps(DASHBOARD)
    assert set(re.findall(r"\$\{?(\w+)\}?", text)) <= variables

    def sources(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            if "datasource" in value:
                yield value["datasource"]
            for inside in value.values():
                yield from sources(inside)
        elif isinstance(value, list):
            for inside in value:
                yield from sources(inside)

    assert {json.dumps(one) for one in sources(DASHBOARD)} == {
        json.dumps({"type": "prometheus", "uid": "${datasource}"})
    }
    assert "id" not in DASHBOARD
    assert all('job="$job"' in target["expr"] for panel in GRAPHS for target in panel["targets"])
