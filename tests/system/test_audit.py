"""A round of real processes, recomputed by its trustees, by its operator, and on a machine without a coordinator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from federation import TASK, Federation, bedside_json, run_bedside

from watched_rounds import wait_until

pytestmark = pytest.mark.system


@pytest.fixture(scope="session")
def opened(federation: Federation) -> Any:
    detail = federation.finish_round(federation.start_round())
    assert detail["phase"] == "opened", json.dumps(detail, indent=1)
    return detail


def test_every_trustee_recomputes_the_round_and_vouches_for_the_log(federation: Federation, opened: Any) -> None:
    def verdicts() -> Any:
        found = federation.ask("audit", "log")["verdicts"]
        mine = [one for one in found if one["plan_digest"] == opened["plan_digest"]]
        return mine if len(mine) == len(federation.sites) else None

    said = wait_until(verdicts, "every trustee has recomputed the round", interval_s=0.5)
    assert {one["site"] for one in said} == set(federation.sites)
    assert [one["sentence"] for one in said if not one["holds"]] == []
    log = wait_until(lambda: _vouched(federation), "every trustee vouches for the whole log", interval_s=0.5)
    assert log["size"] >= 14
    for site in federation.sites:
        report = federation.trustee_status(site)
        assert report["foreign_words"] == []
        assert next(one for one in report["components"] if one["component"] == "log")["level"] == "ok"


def _vouched(federation: Federation) -> Any:
    log = federation.ask("audit", "log")
    return log if sum(one["covers"] for one in log["cosignatures"]) == len(federation.sites) else None


def test_an_operator_recomputes_it_and_a_hospital_verifies_the_export(
    federation: Federation, opened: Any, tmp_path: Path
) -> None:
    report = federation.ask("audit", "round", f"{TASK}/{opened['round_number']}", "--root-pk", federation.root_pk)
    assert report["holds"]
    assert report["plan_digest"] == opened["plan_digest"]
    archive = tmp_path / "round.tar"
    federation.ask("audit", "export", opened["plan_digest"], "--out", archive)
    again = bedside_json("audit", "verify", archive, "--root-pk", federation.root_pk)
    assert again["checks"] == report["checks"]
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1  # in the middle lies a blob
    archive.write_bytes(data)
    done = run_bedside("audit", "verify", archive, "--root-pk", federation.root_pk)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "does not hold: the stored bytes of " in done.stdout
