"""Noise through the coordinator: plans, openings, answers, sums, and what it has cost."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from importlib.metadata import version

import numpy as np
import pytest

from bedside.coordinator.aggregation.result import _decode
from bedside.coordinator.privacy import accounting
from bedside.coordinator.rounds.judge import Crowd, Patience, judge_cohort
from bedside.coordinator.rounds.state import RoundState, find_round
from bedside.coordinator.store import tasks
from bedside.coordinator.store.contributions import CohortRow, WordRow
from bedside.coordinator.store.tasks import RoundRow
from bedside.core.bundle.tensors import decode_tensors
from bedside.core.errors import BedsideError, ConfigError
from bedside.core.learning.training_layout import narrowest_ring
from bedside.core.learning.weighting import bounded_examples
from bedside.core.privacy import noise_tails, zcdp_epsilon
from bedside.core.securesum.aggregator import CohortInput
from bedside.core.securesum.plans import open_plan
from bedside.proto.v1.operator_pb2 import PrivacyQuery
from bedside.proto.v1.plan_pb2 import Plan
from bedside.proto.v1.round_pb2 import Result

CODE = "from bedside.service.cli import main; main()"
HIDE = "import bedside.coordinator.privacy.accounting as accounting; accounting._PACKAGE = 'no-such-package'; "
"""As where the extra is not installed."""


async def bedside(*args: str, code: str = CODE) -> tuple[int, str, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await child.communicate()
    assert child.returncode is not None
    return child.returncode, out.decode(), err.decode()


async def play(desk, bundle, **changes):
    """One round of a task, to its end; its detail and the trustees that served it."""
    number = await desk.start(bundle, **changes)
    trustees = desk.trustees()
    serving = [asyncio.create_task(trustee.serve()) for trustee in trustees]
    await asyncio.gather(*(take_part(device) for device in desk.devices()))
    detail = await desk.ended(number, changes.get("task", "watch"))
    for task in serving:
        task.cancel()
    return detail, trustees


async def take_part(device):
    """In the round that is open, whatever ended before."""
    await device.beat()
    while not (offer := await device.offer()).HasField("plan") or not offer.openings:
        await device.beat()
    device.make(offer)
    await device.begin()
    assert (await device.send()).accepted


async def test_a_round_with_noise_is_planned_in_the_narrowest_ring_that_holds_it_and_opens(federation, bundle):
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        detail, trustees = await play(desk, bundle, noise_multiplier_e6=700_000)
        assert detail.summary.phase == "opened", detail
        checked = open_plan(detail.plan, bytes.fromhex(federation.public.sign_pk))
        assert checked.noise_multiplier_e6 == 700_000
        contributors = checked.plan.max_contributors
        tails = noise_tails(checked.layout, [700_000] * len(checked.plan.cohorts[0].trustees))
        assert 16 < checked.plan.word_bits == narrowest_ring(checked.layout, contributors, tails)
        with pytest.raises(BedsideError):
            checked.layout.check_fits(contributors, checked.plan.word_bits - 1, tails)
        result = Result.FromString(detail.result.payload)
        assert result.checkpoint.digest != checked.plan.checkpoint.digest
        for trustee in trustees:
            assert trustee.openings[checked.digest].opening.noise_multiplier_e6 == 700_000


async def test_a_count_that_noise_has_drowned_divides_by_what_honest_devices_can_have_counted(federation, bundle):
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        detail, _ = await play(desk, bundle, noise_multiplier_e6=30_000_000)
        assert detail.summary.phase == "opened", detail
        parts = desk.alive.parts
        state = parts.store.run_tx("read", find_round(detail.summary.plan_digest, parts.sign_pk))
        decoded = _decode(state, state.cohorts[0], parts.blobs).decoded
        counted = int(decoded.counts["examples"])
        cap = state.plan.plan.training.max_examples
        weight = np.float32(cap / min(max(counted, 4), 4 * cap))  # four devices with one example at least
        before = decode_tensors(await desk.blob(state.plan.plan.checkpoint.digest))
        after = decode_tensors(await desk.blob(detail.checkpoint.digest))
        for name, moved in decoded.tensors.items():
            np.testing.assert_allclose(after[name], before[name] + moved * weight, rtol=1e-5)


async def test_noise_that_sites_add_beyond_the_plan_ends_a_round_before_anybody_trains(federation, bundle):
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        await desk.start(bundle, rounds=3)
        for trustee in desk.trustees():
            trustee.noise_multiplier_e6 = 3_000_000
            (item,) = await trustee.items()
            await trustee.work(item)
        detail = await desk.ended()
        assert detail.summary.phase == "failed"
        assert "noise does not fit the ring" in detail.summary.reason
        assert not any(device.received_bytes for device in detail.cohorts[0].devices)
        task = desk.alive.parts.store.run_tx("read", lambda tx: tasks.task(tx, "watch"))
        assert (task.state, (await desk.round()).summary.round_number) == (tasks.FAILED, 1), "asking again is no use"


async def test_an_answer_with_other_noise_than_its_opening_promised_is_refused(federation, bundle):
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        await desk.start(bundle, noise_multiplier_e6=500_000)
        devices, trustees = desk.devices(), desk.trustees()
        serving = [asyncio.create_task(trustee.serve()) for trustee in trustees[1:]]
        giving = [asyncio.create_task(take_part(device)) for device in devices]
        liar = trustees[0]
        liar.claims_e6 = 400_000
        liar.chunk_bytes = 1 << 20  # refused in mid-stream, a client may see the stream's end before the reason
        with pytest.raises(BedsideError) as caught:
            await liar.serve(until="reveal")
        assert caught.value.code == "other-noise"
        await asyncio.gather(*giving)
        for task in serving:
            task.cancel()


async def test_what_was_spent_is_shown_by_task_and_site(federation, bundle, tmp_path):
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        for task, multiplier_e6 in (("watch", 800_000), ("watch", 800_000), ("other", 2_000_000)):
            detail, _ = await play(desk, bundle, task=task, noise_multiplier_e6=multiplier_e6)
            assert detail.summary.phase == "opened"
        sock = str(federation.home.directory / "operator.sock")
        status, out, _ = await bedside("privacy", "show", "--json", "--socket", sock)
        assert status == 0
        told = json.loads(out)
        by_place = {(one["task"], one["site"]): one for one in told["spent"]}
        assert set(by_place) == {(task, site) for task in ("watch", "other", "all") for site in federation.sites}
        watch, together = by_place["watch", "alder"], by_place["all", "alder"]
        assert (watch["rounds"], watch["noise_multipliers"]) == (2, [0.8])
        assert watch["zcdp_epsilon"] == pytest.approx(zcdp_epsilon(2 / (2 * 0.8**2), 1e-5))
        assert 0 < watch["pld_epsilon"] < watch["zcdp_epsilon"]
        assert together["rounds"] == 3
        assert together["zcdp_epsilon"] > watch["zcdp_epsilon"]
        assert told["accountant"] == f"dp-accounting {version('dp-accounting')}"

        status, out, _ = await bedside("privacy", "show", "--task", "other", "--delta", "1e-6", "--socket", sock)
        assert status == 0
        assert "delta of 1e-06" in out
        assert "watch" not in out
        status, out, _ = await bedside("privacy", "show", "--json", "--socket", sock, code=HIDE + CODE)
        without = json.loads(out)
        assert without["remedy"] == "pip install 'bedside[privacy]'"
        assert {one["pld_epsilon"] for one in without["spent"]} == {None}
        assert all(one["zcdp_epsilon"] for one in without["spent"])
        status, out, _ = await bedside("privacy", "show", "--socket", sock, code=HIDE + CODE)
        assert "pip install 'bedside[privacy]'" in out


async def test_a_round_counts_from_its_vote_on_and_one_without_noise_has_no_bound(federation, bundle):
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        await desk.start(bundle)
        sock = str(federation.home.directory / "operator.sock")
        assert not (await desk.operator.PrivacySpent(PrivacyQuery())).charges
        first, *others = desk.trustees()
        for trustee in (first, *others):
            (item,) = await trustee.items()
            await trustee.work(item)
        await asyncio.gather(*(take_part(device) for device in desk.devices()))
        (item,) = await first.items()
        await first.work(item)
        charges = (await desk.operator.PrivacySpent(PrivacyQuery())).charges
        assert [(one.task, one.site, one.rounds, one.noise_multiplier_e6) for one in charges] == [
            ("watch", first.member.site, 1, 0)
        ]
        assert not (await desk.operator.PrivacySpent(PrivacyQuery(task="other"))).charges
        status, out, _ = await bedside("privacy", "show", "--json", "--socket", sock)
        (one,) = json.loads(out)["spent"]
        assert (status, one["zcdp_epsilon"], one["pld_epsilon"], one["rounds_without_noise"]) == (0, None, None, 1)
        _, out, _ = await bedside("privacy", "show", "--socket", sock)
        assert "no bound" in out


async def test_the_noise_that_an_operator_asks_for_is_bounded(federation, bundle, tmp_path):
    (tmp_path / "bundle.tar").write_bytes(bundle)
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        sock = str(federation.home.directory / "operator.sock")
        begin = ("round", "start", "--bundle", str(tmp_path / "bundle.tar"), "--task", "watch", "--socket", sock)
        status, _, err = await bedside(*begin, "--noise-multiplier", "-1")
        assert status != 0
        assert "--noise-multiplier" in err
        status, _, _ = await bedside(*begin, "--noise-multiplier", "0.7")
        assert status == 0
        (item,) = await desk.trustees()[0].items()
        assert Plan.FromString(item.open.plan.payload).noise.noise_multiplier_e6 == 700_000
        with pytest.raises(BedsideError) as caught:
            await desk.start(bundle, task="loud", noise_multiplier_e6=1_000_000_001)
        assert caught.value.code == "bad-task"


def test_a_cohort_whose_openings_fit_collects(world):
    for multiplier_e6, event in ((100_000, CohortInput.ALL_OPENED), (5_000_000, CohortInput.TRUSTEE_REFUSED)):
        plan = world.plan()
        openings, _ = world.open_round(plan, noise_multiplier_e6=multiplier_e6)
        words = tuple(
            WordRow(plan.digest, 0, o.credential.digest, "opening", o.digest, o.signed.SerializeToString())
            for o in openings
        )
        row = CohortRow(plan.digest, 0, "opening", 0, "", "", None, 0, 0, None, 0)
        state = RoundState(RoundRow(plan.digest, "watch", 1, b"", 0, 0, None), plan, (row,), words, (), ())
        decision = judge_cohort(state, row, Crowd([], lambda _: True), Patience(1, 1), 0)
        assert decision.event is event
        assert decision.code == ("" if event is CohortInput.ALL_OPENED else "ring-overflow")


@pytest.mark.parametrize(("noisy", "kept"), [(-500, 30), (0, 30), (31, 31), (299, 299), (10_000, 300)])
def test_a_noisy_count_of_examples_stays_within_what_honest_devices_count(noisy, kept):
    assert bounded_examples(noisy, contributors=3, least=10, cap=100) == kept
    assert bounded_examples(noisy, contributors=3, least=0, cap=100) >= 3


def test_the_right_accountant_was_resolved():
    """It pins attrs below 24; a resolver that gives way to a neighbour takes 0.4.4 and numpy 1.26 without a word."""
    assert accounting.installed_accountant() == version("dp-accounting")
    assert tuple(int(part) for part in version("dp-accounting").split(".")[:2]) >= accounting.OLDEST
    assert int(version("numpy").split(".")[0]) >= 2


@pytest.mark.parametrize("found", ["0.4.4", "0.5"])
def test_an_old_accountant_is_named(monkeypatch, found):
    monkeypatch.setattr(accounting, "version", lambda _: found)
    with pytest.raises(ConfigError) as caught:
        accounting.installed_accountant()
    assert caught.value.code == "old-accountant"
    assert "bedside[privacy]" in caught.value.remedy


@pytest.mark.parametrize(("z", "rounds"), [(0.8, 1), (2.0, 20), (4.0, 300)])
def test_the_bound_lies_above_the_accountants_figure_and_near_it(z, rounds):
    tight = accounting.pld_epsilon({round(z * 1e6): rounds}, 1e-5)
    bound = zcdp_epsilon(rounds / (2 * z * z), 1e-5)
    assert tight < bound < 1.3 * tight


def test_rounds_of_several_multipliers_compose_and_silence_is_priceless():
    both = accounting.pld_epsilon({1_000_000: 2, 3_000_000: 5}, 1e-5)
    assert both > accounting.pld_epsilon({1_000_000: 2}, 1e-5)
    assert math.isinf(accounting.pld_epsilon({1_000_000: 2, 0: 1}, 1e-5))
