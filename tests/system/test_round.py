"""A whole round through real processes: what operators see of it, and what the coordinator holds of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import numpy.typing as npt
import pytest
from federation import CLASSES, STREAM, TASK, Federation, bedside_json, run_bedside

from bedside.core.codec.layout import Layout, SegmentKind
from bedside.core.securesum.plans import layout_of
from bedside.core.securesum.ring import Words, pack, unpack
from bedside.core.signing import parse_strict
from bedside.proto.v1.plan_pb2 import Plan
from watched_rounds import wait_until

pytestmark = pytest.mark.system

MAX_EXAMPLES = 256
FLAT_SIGMAS = 6.0
"""Chi-square of a uniform vector stays below so many of its standard deviations, but for one run in 10^7."""


@pytest.fixture(scope="session")
def opened(federation: Federation) -> Any:
    """A round that has opened."""
    number = federation.start_round()
    detail = federation.finish_round(number)
    assert detail["phase"] == "opened", json.dumps(detail, indent=1)
    return detail


def devices_of(detail: Any) -> list[Any]:
    return [device for cohort in detail["cohorts"] for device in cohort["devices"]]


def test_a_round_opens_with_every_device_counted_once(federation: Federation, opened: Any) -> None:
    (cohort,) = opened["cohorts"]
    assert cohort["set_size"] == opened["contributors"] == len(federation.agents)
    assert sorted(device["label"] for device in cohort["devices"]) == sorted(federation.agents)
    assert {device["state"] for device in cohort["devices"]} == {"counted"}
    assert {trustee["state"] for trustee in cohort["trustees"]} == {"answered"}
    assert len(set(opened["upload_digests"])) == len(federation.agents)


def test_the_opened_counts_are_those_of_all_devices_together(federation: Federation, opened: Any) -> None:
    examples = opened["counts"]["examples"]
    assert examples == MAX_EXAMPLES * len(federation.agents)  # every recording holds more than the plan's maximum
    assert 0 <= opened["counts"]["correct"] <= examples


def test_watching_a_finished_round_prints_it_and_exits_0(federation: Federation, opened: Any) -> None:
    number = str(opened["round_number"])
    done = run_bedside("round", "watch", "--task", TASK, "--round", number, "--socket", federation.socket)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{TASK} round {number}: opened, {len(federation.agents)} devices" in done.stdout


def test_the_list_of_rounds_has_one_line_for_this_one(federation: Federation, opened: Any) -> None:
    listed = federation.ask("round", "list", "--task", TASK)
    found = [one for one in listed if one["round_number"] == opened["round_number"]]
    assert [one["phase"] for one in found] == ["opened"]
    assert found[0]["plan_digest"] == opened["plan_digest"]


def test_the_fleet_is_online_site_by_site(federation: Federation) -> None:
    sites = federation.ask("fleet", "status")["sites"]
    assert {site["site"] for site in sites} == set(federation.sites)
    assert all(site["trustee_online"] and site["online"] == site["devices"] > 0 for site in sites)


def test_every_device_tells_how_it_is_and_nothing_about_a_patient(federation: Federation, opened: Any) -> None:
    def look() -> Any:
        devices = [one for one in federation.ask("fleet", "devices") if one.get("label") in federation.agents]
        beats = [device.get("heartbeat", {}) for device in devices]
        names_round = all(int(beat.get("last_round", 0)) >= opened["round_number"] for beat in beats)
        states = {part["state"] for beat in beats for part in beat.get("components", ())}
        swapped = all(beat.get("model_running") == beat.get("model_wanted") for beat in beats)
        return devices if names_round and swapped and states == {"COMPONENT_STATE_OK"} else None

    devices = wait_until(look, "every heartbeat names the round, its model serves, and all is well", interval_s=0.3)
    assert {device["label"] for device in devices} == set(federation.agents)
    for device in devices:
        beat = device["heartbeat"]
        components = {part["component"] for part in beat["components"]}
        assert {"ingest", "buffer", "inference", "trainer", "link"} <= components
        assert int(beat.get("buffer_bytes", 0)) % (1 << 20) == 0  # in steps: how much is stored tells who is here
        assert int(beat["disk_free_bytes"]) > 0
        assert int(beat["rss_bytes"]) > 0
        assert beat["model_running"]
    words = set(re.findall(r"\w+", json.dumps(devices)))
    assert words.isdisjoint(CLASSES), "a heartbeat carries a label"


def test_a_healthy_agent_exits_0_and_says_what_it_runs(federation: Federation, opened: Any) -> None:
    for agent in federation.agents.values():
        done = run_bedside("agent", "health", agent.directory, "--json")
        assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_predictions_are_rows_with_labels_times_and_the_model_that_made_them(
    federation: Federation, opened: Any
) -> None:
    agent = next(iter(federation.agents.values()))

    def look() -> Any:
        return bedside_json("agent", "predictions", agent.directory, "--model", TASK)

    rows = wait_until(look, "there are predictions", interval_s=0.3)
    for row in rows:
        assert row["label"] in CLASSES
        assert row["stream"] == STREAM
        assert row["start_ns"] < row["end_ns"]


def test_trustees_report_the_round_as_answered(federation: Federation, opened: Any) -> None:
    for site in federation.sites:
        report = federation.trustee_status(site)
        states = {one["plan_digest"]: one["state"] for one in report["recent_rounds"]}
        assert states[opened["plan_digest"]] == "answered"
        assert report["exit_status"] == 0


def test_every_site_and_device_judges_the_plan_as_it_did_in_the_round(
    federation: Federation, opened: Any, tmp_path: Path
) -> None:
    number, plan = str(opened["round_number"]), tmp_path / "plan.bin"
    told = federation.ask("round", "plan", "--task", TASK, "--round", number, "--out", plan)
    assert told["plan_digest"] == opened["plan_digest"]
    homes = [site.directory for site in federation.sites.values()]
    homes += [agent.directory for agent in federation.agents.values()]
    for home in homes:
        done = run_bedside("policy", "check", home / "policy.toml", plan, "--as-issued", "--json")
        verdict = json.loads(done.stdout)
        assert (done.returncode, verdict["allowed"]) == (0, True), done.stdout
        assert not any("nobody has checked" in note for note in verdict["notes"]), "the root is pinned here"
    stricter = tmp_path / "policy.toml"
    stricter.write_text("min_trustees = 5\n" + (homes[0] / "policy.toml").read_text().replace("min_trustees", "# "))
    done = run_bedside(
        "policy", "check", stricter, plan, "--as-issued", "--json", "--site", next(iter(federation.sites))
    )
    refused = [rule["code"] for rule in json.loads(done.stdout)["rules"] if not rule["allowed"]]
    assert (done.returncode, refused) == (1, ["too-few-trustees"])


# What the coordinator holds


def blob(federation: Federation, digest: str) -> bytes:
    (path,) = (federation.hub / "blobs").rglob(digest)
    data = path.read_bytes()
    assert blake3.blake3(data).hexdigest() == digest
    return data


def vectors(federation: Federation, opened: Any) -> tuple[Layout, int, list[Words], Words, Words]:
    """Layout, w, uploads, the trustees' mask sums added up, and the opened sum: all from stored bytes."""
    plan = parse_strict(Plan, federation.detail(opened["round_number"]).plan.payload)
    layout, bits = layout_of(plan.layout), plan.word_bits
    uploads = [unpack(blob(federation, digest), layout.words, bits) for digest in opened["upload_digests"]]
    masks = sum(
        (unpack(data, layout.words, bits).astype(np.uint64) for data in federation.answers(opened["plan_digest"])),
        np.zeros(layout.words, np.uint64),
    )
    total = unpack(blob(federation, opened["sum_digest"]), layout.words, bits)
    return layout, bits, uploads, (masks % (1 << bits)).astype(total.dtype), total


def sigmas(words: npt.NDArray[Any], bits: int) -> float:
    """Chi-square of the upper and of the lower byte against uniform, the worse of both, in standard deviations."""
    worst = 0.0
    for byte in (words >> (bits - 8), words & 0xFF):
        counts = np.bincount(byte.astype(np.int64), minlength=256)
        expected = words.size / 256
        worst = max(worst, (float(((counts - expected) ** 2 / expected).sum()) - 255) / np.sqrt(2 * 255))
    return worst


def test_every_stored_upload_is_flat_and_only_the_sum_has_a_shape(federation: Federation, opened: Any) -> None:
    _, bits, uploads, masks, total = vectors(federation, opened)
    for upload in uploads:
        assert sigmas(upload, bits) < FLAT_SIGMAS
    assert sigmas(masks, bits) < FLAT_SIGMAS
    assert sigmas(total, bits) > 1_000  # the same measure sees an unmasked vector


def test_all_but_one_of_the_trustees_open_nothing(federation: Federation, opened: Any) -> None:
    _, bits, uploads, _, _ = vectors(federation, opened)
    answers = federation.answers(opened["plan_digest"])
    for missing in range(len(answers)):
        rest = np.sum([upload.astype(np.int64) for upload in uploads], axis=0)
        for data in answers[:missing] + answers[missing + 1 :]:
            rest -= unpack(data, rest.size, bits).astype(np.int64)
        assert sigmas(rest % (1 << bits), bits) < FLAT_SIGMAS


def test_the_opened_sum_is_uploads_minus_masks_bit_for_bit(federation: Federation, opened: Any) -> None:
    layout, bits, uploads, masks, total = vectors(federation, opened)
    plain = np.sum([upload.astype(np.int64) for upload in uploads], axis=0) - masks.astype(np.int64)
    words = (plain % (1 << bits)).astype(total.dtype)
    assert pack(words, bits) == blob(federation, opened["sum_digest"])
    for segment, place in layout.placed():
        assert int(words[place].max()) <= len(uploads) * segment.largest_word
        if segment.kind is SegmentKind.COUNT:
            assert int(words[place][0]) == opened["counts"][segment.name]


def test_no_blob_of_the_coordinator_is_an_unmasked_update(federation: Federation, opened: Any) -> None:
    """Blobs as long as a vector are uploads, answers and sums; of these only the sums are not flat."""
    layout, bits, uploads, _, _ = vectors(federation, opened)
    length = len(pack(uploads[0], bits))
    rounds = federation.ask("round", "list", "--task", TASK)
    sums = {federation.show(one["round_number"])["sum_digest"] for one in rounds}
    found = 0
    for path in (federation.hub / "blobs").rglob("*"):
        if path.is_file() and path.stat().st_size == length and path.name not in sums:
            found += 1
            assert sigmas(unpack(path.read_bytes(), layout.words, bits), bits) < FLAT_SIGMAS, path.name
    assert found >= len(uploads)
