"""The commands, as an operator types them, against a running coordinator."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys

import pytest

from bedside.coordinator.cli.fleet import unwell
from bedside.coordinator.home import Home
from bedside.core.bundle.tensors import decode_tensors
from bedside.core.errors import ConfigError, TrustError, UnavailableError
from bedside.core.signing import digest
from bedside.proto.v1.device_pb2 import ComponentHealth, ComponentState

CODE = "from bedside.service.cli import main; main()"


async def bedside(*args: str) -> tuple[int, str, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CODE, *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await child.communicate()
    assert child.returncode is not None
    return child.returncode, out.decode(), err.decode()


async def test_a_refused_round_is_watched_with_its_sentence_and_exit_status_1(federation, bundle, tmp_path):
    (tmp_path / "bundle.tar").write_bytes(bundle)
    async with federation.coordinator() as desk:
        await desk.populate(devices=1)
        sock = str(federation.home.directory / "operator.sock")
        watching = asyncio.create_task(
            bedside(
                *("round", "start", "--watch", "--bundle", str(tmp_path / "bundle.tar"), "--task", "watch"),
                *("--rounds", "1", "--min-contributors", "1", "--socket", sock),
            )
        )
        (item,) = await desk.trustees()[0].items()
        await desk.trustees()[0].refuse(item.open, "min-trusted", "the set is too small for site alder")
        status, out, _ = await watching
        assert status == 1
        assert "trustee of site alder refused (min-trusted): the set is too small for site alder" in out
        status, out, _ = await bedside("round", "list", "--json", "--socket", sock)
        assert (status, json.loads(out)[0]["phase"]) == (0, "failed")
        status, out, _ = await bedside("fleet", "devices", "--json", "--socket", sock)
        assert {entry["state"] for entry in json.loads(out)} == {"never"}
        status, _, err = await bedside("round", "show", "--task", "other", "--socket", sock)
        assert status != 0
        assert "no-round" in err
        assert err.count("\n") == 1


async def test_a_plan_is_written_to_a_file_that_a_site_judges(federation, bundle, tmp_path):
    (tmp_path / "bundle.tar").write_bytes(bundle)
    (tmp_path / "policy.toml").write_text("")
    async with federation.coordinator() as desk:
        await desk.populate(devices=1)
        sock = str(federation.home.directory / "operator.sock")
        start = ("round", "start", "--bundle", str(tmp_path / "bundle.tar"), "--task", "watch", "--socket", sock)
        assert (await bedside(*start, "--min-contributors", "1"))[0] == 0
        await desk.trustees()[0].items()
        plan = str(tmp_path / "plan.bin")
        status, out, err = await bedside("round", "plan", "--task", "watch", "--out", plan, "--json", "--socket", sock)
        assert status == 0, err
        told = json.loads(out)
        status, _, err = await bedside("round", "plan", "--task", "other", "--out", plan, "--socket", sock)
        assert (status != 0, "no-round" in err, err.count("\n")) == (True, True, 1)
    status, out, err = await bedside(
        "policy", "check", str(tmp_path / "policy.toml"), plan, "--site", "alder", "--json"
    )
    judged = json.loads(out)
    assert (status, judged["allowed"], judged["plan_digest"]) == (1, False, told["plan_digest"])
    assert judged["rules"][-1]["code"] == "unknown-signer"


async def test_the_model_of_a_task_is_written_to_a_file(federation, bundle, tmp_path):
    out = tmp_path / "model.safetensors"
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        await desk.start(bundle)
        fetch = ("round", "model", "--task", "watch", "--out", str(out), "--json", "--socket")
        sock = str(federation.home.directory / "operator.sock")
        serving = [asyncio.create_task(trustee.serve()) for trustee in desk.trustees()]
        status, text, err = await bedside(*fetch, sock)
        assert (status, err) == (0, "")
        start = json.loads(text)["digest"]
        assert decode_tensors(out.read_bytes()).keys() == {"w0", "b0"}, "the running round's own start"
        for device in desk.devices():
            await device.beat()
        await asyncio.gather(*(device.take_part() for device in desk.devices()))
        ended = await desk.ended()
        for task in serving:
            task.cancel()
        status, text, _ = await bedside(*fetch, sock)
        told = json.loads(text)
        assert (status, told["digest"]) == (0, ended.checkpoint.digest.hex())
        assert digest(out.read_bytes()).hex() == told["digest"] != start
        assert told["size_bytes"] == out.stat().st_size
        blob = next(federation.home.blobs_path.rglob(ended.checkpoint.digest.hex()))
        blob.write_bytes(b"altered" + blob.read_bytes()[7:])
        kept = out.read_bytes()
        status, _, err = await bedside(*fetch, sock)
        assert (status != 0, err.count("\n"), out.read_bytes()) == (True, 1, kept)
        status, _, err = await bedside("round", "model", "--task", "other", "--out", str(out), "--socket", sock)
        assert (status != 0, "no-round" in err) == (True, True)


async def test_an_operator_chooses_the_combiner_and_sees_it_again(new_federation, bundle, tmp_path):
    (tmp_path / "bundle.tar").write_bytes(bundle)
    federation = new_federation("alder", "birch", "cedar")
    async with federation.coordinator() as desk:
        await desk.populate(devices=1)
        sock = str(federation.home.directory / "operator.sock")
        start = ("round", "start", "--bundle", str(tmp_path / "bundle.tar"), "--task", "watch", "--socket", sock)
        trimmed = ("--combiner", "trimmed-mean", "--trim-cohorts", "1", "--cohort", "alder", "--cohort", "birch")
        trimmed = (*trimmed, "--min-contributors", "1")
        status, _, err = await bedside(*start, *trimmed)
        assert (status, err.count("\n")) == (65, 1)
        assert "a trimmed mean (1 left out at either end) needs at least 3 cohorts; the plan has 2" in err
        assert "[bad-combiner]" in err
        status, _, err = await bedside(*start, *trimmed, "--cohort", "cedar")
        assert (status, err) == (0, "")
        assert await desk.trustees()[0].items(), "the round is planned"
        status, out, _ = await bedside("round", "show", "--task", "watch", "--json", "--socket", sock)
        shown = json.loads(out)
        assert (status, shown["combiner"], shown["trim_cohorts"]) == (0, "trimmed-mean", 1)
        status, out, _ = await bedside("round", "show", "--task", "watch", "--socket", sock)
        assert "cohorts combined by: trimmed-mean, 1 left out at either end" in out


async def test_what_the_fleet_cannot_do_is_refused_before_a_task_is_made_of_it(new_federation, bundle, tmp_path):
    (tmp_path / "bundle.tar").write_bytes(bundle)
    federation = new_federation("alder", "birch")
    async with federation.coordinator() as desk:
        await desk.populate(devices=1)
        sock = str(federation.home.directory / "operator.sock")
        start = ("round", "start", "--bundle", str(tmp_path / "bundle.tar"), "--task", "watch", "--socket", sock)
        for more, code, words in (
            (("--cohort", "alder, ward-q"), "unknown-site", "--cohort ward-q: the federation names no such site"),
            (("--min-contributors", "3"), "too-few-devices", "alder, birch has 2 devices, and a round needs 3"),
            (("--min-contributors", "2", "--cohort", "alder"), "too-few-devices", "alder has 1 device, and a"),
        ):
            status, _, err = await bedside(*start, *more)
            assert (status, err.count("\n"), f"[{code}]" in err, words in err) == (78, 1, True, True), err
        status, _, err = await bedside("round", "stop", "--task", "watch", "--socket", sock)
        assert "[no-task]" in err, "no task was made"


async def test_lists_and_stops_know_which_tasks_there_are(new_federation, bundle, tmp_path):
    (tmp_path / "bundle.tar").write_bytes(bundle)
    federation = new_federation("alder")
    async with federation.coordinator() as desk:
        await desk.populate(devices=3)
        sock = str(federation.home.directory / "operator.sock")
        status, _, err = await bedside("round", "list", "--task", "nope", "--socket", sock)
        assert (status, "no round of task nope is known [no-round]" in err) == (76, True)
        start = ("round", "start", "--bundle", str(tmp_path / "bundle.tar"), "--task", "watch", "--socket", sock)
        assert (await bedside(*start))[0] == 0
        assert await desk.trustees()[0].items(), "the round is planned"
        status, out, _ = await bedside("round", "stop", "--task", "watch", "--at-once", "--socket", sock)
        assert (status, out) == (0, "task watch stops now\n")
        assert (await bedside("round", "watch", "--task", "watch", "--follow", "--socket", sock))[0] == 1
        status, _, err = await bedside("round", "stop", "--task", "watch", "--socket", sock)
        assert (status, "task watch has ended already: " in err, "[task-ended]" in err) == (76, True, True)


def test_an_unwell_part_of_a_device_shows_its_state_with_or_without_a_sentence():
    part = ComponentHealth(component="link", state=ComponentState.COMPONENT_STATE_DEGRADED)
    assert unwell(part) == "link degraded"
    part.sentence = "the coordinator is away"
    assert unwell(part) == "link degraded: the coordinator is away"


async def test_a_broken_bundle_is_refused_in_one_line(federation, bundle, tmp_path):
    (tmp_path / "bundle.tar").write_bytes(bundle[:-2000] + b"x" + bundle[-1999:])
    async with federation.coordinator():
        sock = str(federation.home.directory / "operator.sock")
        status, _, err = await bedside(
            "round", "start", "--bundle", str(tmp_path / "bundle.tar"), "--task", "watch", "--socket", sock
        )
    assert status != 0
    assert err.count("\n") == 1
    assert "bad-archive" in err or "bundle-file" in err


async def test_a_port_in_use_and_a_second_coordinator_are_named(federation):
    async with federation.coordinator() as desk:
        with pytest.raises(UnavailableError) as caught:
            async with federation.coordinator():
                pass
        assert caught.value.code == "already-running"
        federation.home = Home(_clone(federation))
        with pytest.raises(UnavailableError) as caught:
            async with federation.coordinator(service_address=desk.service_address):
                pass
        assert caught.value.code == "port-in-use"


async def test_a_federation_by_a_stranger_is_not_installed(federation):
    home = federation.home
    signed = home.signed_federation
    with pytest.raises(ConfigError) as caught:
        home.install(signed, b"x" * 32)
    assert caught.value.code == "root-differs"
    signed.signature = bytes(64)
    with pytest.raises(TrustError):
        home.install(signed, None)


def _clone(federation):
    target = federation.directory / "clone"
    shutil.copytree(federation.home.directory / "identity", target / "identity")
    return target
