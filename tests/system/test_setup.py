"""From an empty folder to a device at work, with a coordinator and a trustee that are real processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from federation import bedside, bedside_json, free_ports, run_bedside

from bedside.core.errors import ConfigError
from bedside.demo.processes import ProcessTable, bedside_command
from bedside.demo.runtime import memory_folder
from bedside.service.mounts import is_in_memory
from bedside.service.platform import SystemClock
from watched_rounds import wait_until

pytestmark = pytest.mark.system


class Hospital:
    """One coordinator and one site, which run."""

    def __init__(self, folder: Path, runtime: Path, table: ProcessTable) -> None:
        self.hub, self.site, self.table = folder / "hub", folder / "site", table
        service, enrolment = (f"127.0.0.1:{port}" for port in free_ports(2))
        self.ports = [enrolment, service]
        root_pk = bedside_json("federation", "init", folder / "root", "--name", "test")["root_pk"]
        bedside("coordinator", "init", self.hub, "--service-address", service, "--enrolment-address", enrolment)
        bedside("site", "init", self.site, "--site", "alder")
        document = folder / "federation.bin"
        publics = ("--coordinator", self.hub / "coordinator.public.json", "--site", self.site / "site.public.json")
        bedside("federation", "sign", "--root", folder / "root", *publics, "--out", document)
        bedside("coordinator", "install", self.hub, document)
        table.start("coordinator", bedside_command("coordinator", "serve", self.hub))
        wait_until(lambda: self.operator("status").returncode == 0, "the coordinator answers", interval_s=0.1)
        bedside("site", "join", self.site, document, "--root-pk", root_pk, "--enrolment-address", enrolment)
        table.start("trustee", bedside_command("trustee", "run", self.site, "--runtime-dir", runtime / "alder"))

    def operator(self, *words: str):
        return run_bedside("coordinator", *words, "--socket", self.hub / "operator.sock")


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    try:
        with memory_folder() as runtime, ProcessTable(tmp_path / "logs", SystemClock()) as table:
            yield Hospital(tmp_path, runtime, table)
    except ConfigError as error:
        if error.code != "no-memory-folder":
            raise
        pytest.skip(f"{error.sentence}: round keys need one")


def secret(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_from_an_empty_folder_to_a_health_line_and_from_a_request_that_waits_to_a_member(
    hospital: Hospital, tmp_path: Path
) -> None:
    forced = ("--force",) if is_in_memory(tmp_path) else ()  # a test's folder may lie in memory, a device's may not
    first, second = tmp_path / "first", tmp_path / "second"
    token = secret(tmp_path / "token", bedside_json("site", "token", hospital.site)["token"])
    policy = hospital.site / "policy.toml"
    told = bedside_json("agent", "setup", first, "--token", token, "--policy", policy, *forced)
    assert (told["state"], told["site"], told["ports"]) == ("enrolled", "alder", hospital.ports)
    assert token.read_text() not in json.dumps(told)

    hospital.table.start("agent", bedside_command("agent", "run", first))
    done = wait_until(
        lambda: (again := run_bedside("agent", "setup", first)).stdout.count("nothing was changed") and again,
        "the second call finds the agent at work",
        interval_s=0.2,
    )
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("health       DEGRADED ingest: no source is configured")

    # Every check of a device that belongs to a site, by the processes themselves.
    def link_is_up() -> object:
        found = json.loads(run_bedside("doctor", first, "--json").stdout)["findings"]
        agent = [one for one in found if one["part"] == "agent"]
        return all("link" not in one["found"] for one in agent if one["check"] == "agent") and agent

    by_check = {one["check"]: one for one in wait_until(link_is_up, "the agent's link is up", interval_s=0.2)}
    for check in ("keys", "enrolment", "certificate", "enrolment-port", "service-port", "onnxruntime", "litert"):
        assert by_check[check]["level"] == "ok", by_check[check]
    assert "takes this machine's certificate" in by_check["service-port"]["found"]
    site = json.loads(run_bedside("doctor", hospital.site, hospital.hub, "--json").stdout)["findings"]
    unwell = {one["check"] for one in site if one["level"] == "fail" and one["part"] != "machine"}
    assert unwell <= {"disk"}, site

    # A coordinator's token waits for a person of the site.
    minted = json.loads(hospital.operator("token", "--site", "alder", "--json").stdout)["token"]
    words = ("agent", "setup", second, "--token", secret(tmp_path / "other", minted), "--json", *forced)
    waits = run_bedside(*words)
    assert waits.returncode == 75, waits.stderr
    told = json.loads(waits.stdout)
    assert told["state"] == "pending"
    bedside("site", "approve", hospital.site, told["fingerprint"], "--yes")
    told = bedside_json("agent", "setup", second, "--wait", "30", *forced)
    assert (told["state"], told["site"]) == ("enrolled", "alder")
