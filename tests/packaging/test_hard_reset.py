"""The installed agent on a kernel of its own, whose power is cut in the midst of ingest and of a round.

The machine is emulated (`virtual`). Everything else is a federation of processes outside of it, which see the cut as
others see it: a monitor that sends HL7 messages and counts what is acknowledged, and a coordinator that has received
the first part of an upload. Figures are printed: make slow, or pytest -s.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from chaos_proxy import ChaosProxy
from federation import STREAM, Agent, Federation, bedside_json
from founding import SESSION_S, SESSIONS, founded, motion, write_policy
from monitor import Monitor
from packages import built_packages
from virtual import ADDRESS, Virtual, virtual, why_no_virtual

from bedside.firmware_bridge.recording import write_recording
from watched_rounds import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1_500),
    pytest.mark.skipif(bool(why_no_virtual()), reason=why_no_virtual()),
]

AGENT = "bedside-agent"
HOME = "/var/lib/bedside/agent"
SITE = "cedar"
LABEL = "cedar-2"
BED = "bed"
MLLP_PORT = 2575
MAX_EXAMPLES = 256
HELD_BYTES = 400_000
"""Bytes of the upload that pass before the link holds: more than its first chunk, and less than all of it."""
MESSAGES = 200
LONG_S = 300.0
TABLES = ("blobs", "predictions", "labels", "records")
AGENT_TOML = f"""\
model = "/srv/bedside/bundle"
[[sources]]
kind = "replay"
name = "{STREAM}"
[sources.options]
stream = "{STREAM}"
data = "/srv/bedside/recording.npz"
history_s = {SESSIONS * SESSION_S}
loop = true
[[sources]]
kind = "mllp"
name = "monitor"
[sources.options]
listen = "{ADDRESS}:{MLLP_PORT}"
stream = "{BED}"
[training.gates]
load_per_core = 1000.0
[serving]
gate = false
[link]
heartbeat_s = 1.0
poll_wait_ms = 5000
"""


@pytest.fixture
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with founded(tmp_path_factory.mktemp("fed")) as running:  # a short path, for its sockets
        yield running


@pytest.fixture
def link(federation: Federation) -> Iterator[ChaosProxy]:
    with ChaosProxy(federation.service_port) as proxy:
        yield proxy


@pytest.fixture
def machine(federation: Federation, link: ChaosProxy, tmp_path: Path) -> Iterator[Virtual]:
    """A machine with the agent's package, and all that its administrator brings before `bedside agent setup`."""
    shared, folder = tmp_path / "shared", tmp_path / "machine"
    shared.mkdir()
    folder.mkdir()
    shutil.copytree(federation.bundle, shared / "bundle")
    write_recording(shared / "recording.npz", motion(9))
    write_policy(shared / "policy.toml", federation.author_pk)
    packages = [path for path in built_packages().glob("*.deb") if path.name.split("_")[0] in ("bedside-common", AGENT)]
    files = {"etc/bedside/agent.toml": AGENT_TOML}
    reached = {federation.service_port: link.port, federation.enrolment_port: federation.enrolment_port}
    with virtual(folder, packages, files, {"srv/bedside": shared}, reached=reached, served=(MLLP_PORT,)) as made:
        yield made


@contextmanager
def timed(what: str) -> Iterator[None]:
    began_s = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began_s:.1f} s", flush=True)


def set_up(machine: Virtual, federation: Federation) -> None:
    token = bedside_json("site", "token", federation.sites[SITE].directory, "--uses", "1")["token"]
    words = ["--token", "-", "--label", LABEL, "--policy", "/srv/bedside/policy.toml", "--yes"]
    told = machine.json("bedside", "agent", "setup", *words, given=token)
    assert told["state"] == "running", told
    federation.agents[LABEL] = Agent(LABEL, SITE, Path(HOME))  # for those who count them


def device(detail: Any) -> Any:
    (found,) = [one for cohort in detail["cohorts"] for one in cohort["devices"] if one["label"] == LABEL]
    return found


def is_held(detail: Any) -> bool:
    """Whether the device is in the midst of its upload, and all others have sent theirs."""
    states = {one["label"]: one["state"] for cohort in detail["cohorts"] for one in cohort["devices"]}
    held = states.pop(LABEL) == "uploading" and device(detail)["received_bytes"] > 0
    return held and set(states.values()) == {"accepted"}


def finished(federation: Federation, number: int) -> Any:
    detail = federation.show(number)
    return detail if detail["finished_at_s"] else None


def rows(machine: Virtual) -> dict[str, list[Any]]:
    """What the device has stored, table by table: what a reader sees is on the disk."""
    statement = " UNION ALL ".join(f"SELECT '{table}' AS source, id, tag FROM {table}" for table in TABLES)
    words = ["bedside", "agent", "db", "query", HOME, statement, "--limit", "1000000"]
    found: dict[str, list[Any]] = {table: [] for table in TABLES}
    for row in machine.json(*words, user=AGENT):
        found[row["source"]].append((row["id"], row["tag"]))
    return found


def decides(machine: Virtual) -> bool:
    """Whether it has predicted since its start."""
    (model,) = machine.json("bedside", "agent", "models", HOME, user=AGENT)
    return model["predictions"] > 0


def received(machine: Virtual) -> Counter[float]:
    """How often the device has each value that the monitor sent."""
    machine.run("bedside", "agent", "db", "export", HOME, "/var/tmp/bed.csv", "--kind", "records", "--stream", BED,
                "--force", user=AGENT)  # fmt: skip
    lines = machine.run("cut", "-d,", "-f5", "/var/tmp/bed.csv").splitlines()
    return Counter(float(value) for value in lines[1:])


def identity(machine: Virtual) -> list[str]:
    return machine.run("sha256sum", f"{HOME}/state/identity/sign.key", f"{HOME}/state/identity/tls.key").splitlines()


def test_a_power_cut_in_ingest_and_in_a_round_loses_nothing_that_was_acknowledged(
    federation: Federation, link: ChaosProxy, machine: Virtual
) -> None:
    with timed("boot"):
        machine.boot()
    with timed("set-up"):
        set_up(machine, federation)
    with Monitor(machine.ports[MLLP_PORT]) as monitor:
        wait_until(lambda: len(monitor.acknowledged) >= MESSAGES, "messages are acknowledged", deadline_s=LONG_S)
        link.hold_after(HELD_BYTES)
        number = federation.start_round()
        with timed("a round, until the upload is under way"):
            wait_until(lambda: is_held(federation.show(number)), "an upload is under way", deadline_s=LONG_S)
        before, begun = identity(machine), device(federation.show(number))
        stored = rows(machine)
        more = len(monitor.acknowledged) + MESSAGES
        wait_until(lambda: len(monitor.acknowledged) >= more, "messages are acknowledged", deadline_s=LONG_S)

        machine.cut_power()
        acknowledged = tuple(monitor.acknowledged)
        passed = link.upstream_bytes
        print(f"{len(acknowledged)} messages acknowledged, {machine.lost_writes} writes lost")
        link.cut()
        link.release()
        with timed("from power to active"):
            machine.boot()
        assert machine.run("systemctl", "is-active", AGENT).strip() == "active"
        with timed("from active to a finished round"):
            detail = wait_until(lambda: finished(federation, number), "the round ends", deadline_s=LONG_S)
        wait_until(lambda: decides(machine), "predictions go on", deadline_s=LONG_S)
        wait_until(lambda: monitor.acknowledged[-1] > acknowledged[-1], "more is acknowledged", deadline_s=LONG_S)
    found = received(machine)
    assert [value for value in monitor.acknowledged if found[value] != 1] == []
    assert max(found.values()) == 1
    assert identity(machine) == before
    kept = rows(machine)
    for table, earlier in stored.items():
        assert earlier, table
        assert set(earlier) - set(kept[table]) == set(), table
    machine.run("bedside", "agent", "db", "verify", HOME, user=AGENT)

    assert detail["phase"] == "opened", json.dumps(detail, indent=1)
    labels = [one["label"] for cohort in detail["cohorts"] for one in cohort["devices"] if one["state"] == "counted"]
    assert sorted(labels) == sorted(federation.agents)
    assert detail["counts"]["examples"] == len(federation.agents) * MAX_EXAMPLES
    size = device(detail)["received_bytes"]
    assert link.upstream_bytes - passed < size - begun["received_bytes"] + 60_000
