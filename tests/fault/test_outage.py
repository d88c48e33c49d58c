"""No coordinator: the bedside goes on. When it comes back, devices take part again without a restart."""

from __future__ import annotations

import json
from typing import Any

import pytest
from federation import Federation, bedside_command, bedside_json
from test_kills import assert_all_counted_once

from watched_rounds import wait_until

pytestmark = pytest.mark.system


def test_devices_ingest_and_predict_without_a_coordinator_and_take_part_when_it_is_back(
    federation: Federation,
) -> None:
    federation.finish_round(federation.start_round())
    pids = {label: federation.table[agent.process].process.pid for label, agent in federation.agents.items()}
    agent = next(iter(federation.agents.values()))
    federation.table.kill("coordinator")
    before = {label: blocks(federation, label) for label in federation.agents}

    follow = federation.table.start(
        "follow", bedside_command("agent", "predictions", agent.directory, "--follow", "--json")
    )
    rows = wait_until(lambda: len(seen := lines(follow.log)) >= 3 and seen, "new predictions are printed")
    assert [row["id"] for row in rows] == sorted({row["id"] for row in rows})
    federation.table.kill("follow")
    for label, count in before.items():
        wait_until(lambda label=label, count=count: blocks(federation, label) > count, f"{label} ingests")

    federation.start_coordinator()
    assert_all_counted_once(federation, federation.finish_round(federation.start_round()))
    assert pids == {label: federation.table[agent.process].process.pid for label, agent in federation.agents.items()}
    assert all(federation.table[agent.process].is_running for agent in federation.agents.values())


def blocks(federation: Federation, label: str) -> int:
    """Blocks that a device has taken from its sensor so far."""
    streams = bedside_json("agent", "streams", federation.agents[label].directory)
    return sum(int(stream["blocks"]) for stream in streams)


def lines(log: Any) -> list[Any]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
