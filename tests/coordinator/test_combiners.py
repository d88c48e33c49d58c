"""Cohorts of whole sites become one step: a compromised site moves the mean, and not the median."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from bedside.coordinator.cli.present import round_data
from bedside.coordinator.cli.watch import plain_lines
from bedside.coordinator.store import tasks
from bedside.core.bundle.tensors import decode_tensors
from bedside.core.errors import BedsideError
from bedside.core.securesum.plans import open_plan
from bedside.proto.v1 import plan_pb2
from bedside.proto.v1.round_pb2 import Result

SITES = ("alder", "birch", "cedar")
MEAN, TRIMMED, MEDIAN = plan_pb2.COMBINER_MEAN, plan_pb2.COMBINER_TRIMMED_MEAN, plan_pb2.COMBINER_MEDIAN
HONEST, EXTREME = 0.01, -0.19
"""EXTREME in 2,580 coordinates has norm 9.65: inside the clip of 10."""


UNIFORM = plan_pb2.Training(
    level=plan_pb2.LEVEL_Q1,
    epochs=1,
    batch_size=32,
    learning_rate_e9=50_000_000,
    weighting=plan_pb2.WEIGHTING_UNIFORM,
    min_examples=1,
    max_examples=100,
    min_local_steps=4,
    min_sessions=1,
)


async def start(desk, bundle, combiner, trim=0, *, sites=SITES, **changes):
    """A task with a cohort for each site; devices count alike, so that an honest cohort's mean is what each sends."""
    server = plan_pb2.ServerStep(
        optimiser=plan_pb2.SERVER_OPTIMISER_FEDAVG, learning_rate_e6=1_000_000, combiner=combiner, trim_cohorts=trim
    )
    cohorts = [plan_pb2.Cohort(index=at, sites=[site]) for at, site in enumerate(sites)]
    return await desk.start(bundle, server=server, training=UNIFORM, cohorts=cohorts, **changes)


async def run_round(desk, number=1, *, known=b"", liar="cedar", refusing=""):
    """One round in which all devices of the liar's site send an extreme vector inside the clip."""
    trustees = desk.trustees()
    serving = [asyncio.create_task(trustee.serve()) for trustee in trustees if trustee.member.site != refusing]
    devices = [device for device in desk.devices() if device.member.site != refusing]
    for device in devices:
        await device.beat()
    for trustee in trustees:
        if trustee.member.site == refusing:
            (item,) = await trustee.items()
            await trustee.refuse(item.open, "task-not-allowed", f"site {refusing} does not take part")
    for device in devices:
        offer = await device.offer(known=known)
        device.make(offer, everywhere=EXTREME if device.member.site == liar else HONEST)
        await device.begin()
        await device.send()
    detail = await desk.ended(number)
    for task in serving:
        task.cancel()
    return detail


async def mean_move(desk, detail):
    """How far the parameters moved, on average over them."""
    result = Result.FromString(detail.result.payload)
    before = decode_tensors(await desk.blob(plan_of(detail).checkpoint.digest))
    after = decode_tensors(await desk.blob(result.checkpoint.digest))
    return float(np.mean(np.concatenate([(after[name] - before[name]).reshape(-1) for name in before])))


def plan_of(detail):
    return plan_pb2.Plan.FromString(detail.plan.payload)


@pytest.mark.parametrize(("combiner", "trim"), [(MEAN, 0), (MEDIAN, 0), (TRIMMED, 1)])
async def test_one_site_with_an_extreme_sum_inside_the_bound_moves_the_mean_alone(
    new_federation, bundle, combiner, trim
):
    async with new_federation(*SITES).coordinator() as desk:
        await desk.populate(devices=3)
        await start(desk, bundle, combiner, trim)
        detail = await run_round(desk)
        assert [cohort.phase for cohort in detail.cohorts] == ["opened"] * 3
        wanted = (2 * HONEST + EXTREME) / 3 if combiner == MEAN else HONEST
        assert await mean_move(desk, detail) == pytest.approx(wanted, abs=0.003)


async def test_a_round_names_its_combiner(new_federation, bundle):
    async with new_federation(*SITES).coordinator() as desk:
        await desk.populate(devices=1)
        await start(desk, bundle, TRIMMED, 1, min_contributors=1)
        detail = await desk.round()
        assert "  cohorts combined by: trimmed-mean, 1 left out at either end" in plain_lines(detail)
        shown = round_data(detail)
        assert (shown["combiner"], shown["trim_cohorts"], shown["no_step_code"]) == ("trimmed-mean", 1, "")


async def test_a_round_with_too_few_opened_cohorts_takes_no_step_and_says_so(new_federation, bundle):
    async with new_federation(*SITES).coordinator() as desk:
        await desk.populate(devices=3)
        await start(desk, bundle, MEDIAN)
        detail = await run_round(desk, liar="", refusing="cedar")
        assert sorted(cohort.phase for cohort in detail.cohorts) == ["failed", "opened", "opened"]
        result = Result.FromString(detail.result.payload)
        assert result.no_step_code == "too-few-cohorts"
        assert result.checkpoint == plan_of(detail).checkpoint
        assert not result.HasField("optimiser_state")
        assert detail.summary.phase == "failed"
        sentence = "2 cohorts were opened and the median needs 3: the model stays as it was"
        assert sentence in detail.summary.reason
        assert f"  no step was taken (too-few-cohorts): {sentence}" in plain_lines(detail)
        assert round_data(detail)["no_step_code"] == "too-few-cohorts"
        assert {count.name: count.sum for count in detail.counts}["correct"] == 6, "counts are published all the same"
        task = desk.alive.parts.store.run_tx("read", lambda tx: tasks.task(tx, "watch"))
        assert (task.state, task.reason) == (tasks.FAILED, result.no_step_sentence)


async def test_the_mean_goes_on_without_a_cohort_that_was_left_out(new_federation, bundle):
    async with new_federation(*SITES).coordinator() as desk:
        await desk.populate(devices=3)
        await start(desk, bundle, MEAN)
        detail = await run_round(desk, liar="", refusing="cedar")
        assert detail.summary.phase == "opened"
        assert await mean_move(desk, detail) == pytest.approx(HONEST, abs=0.003)


@pytest.mark.parametrize(("combiner", "trim", "sites"), [(MEDIAN, 0, SITES[:2]), (TRIMMED, 2, SITES), (MEAN, 1, SITES)])
async def test_a_task_whose_cohorts_cannot_be_combined_is_not_started(new_federation, bundle, combiner, trim, sites):
    async with new_federation(*SITES).coordinator() as desk:
        await desk.populate(devices=1)
        with pytest.raises(BedsideError) as caught:
            await start(desk, bundle, combiner, trim, sites=sites)
        assert caught.value.code == "bad-combiner"


async def test_robust_combiners_want_whole_updates(new_federation, bundle):
    async with new_federation(*SITES).coordinator() as desk:
        await desk.populate(devices=1)
        with pytest.raises(BedsideError) as caught:
            await start(desk, bundle, MEDIAN, subsample_e32=1 << 30)
        assert caught.value.code == "bad-combiner"


async def test_a_round_that_sends_a_quarter_of_the_coordinates_uploads_a_quarter_and_moves_the_model(
    new_federation, bundle
):
    async with new_federation(*SITES).coordinator() as desk:
        await desk.populate(devices=3)
        await start(desk, bundle, MEAN, subsample_e32=1 << 30)
        detail = await run_round(desk, liar="")
        assert detail.summary.phase == "opened"
        checked = open_plan(detail.plan, bytes.fromhex(desk.world.public.sign_pk))
        assert checked.vector_words == 3 * 1_024 // 4 + 2
        assert await mean_move(desk, detail) == pytest.approx(HONEST, abs=0.01)
        before = decode_tensors(await desk.blob(plan_of(detail).checkpoint.digest))
        after = decode_tensors(await desk.blob(Result.FromString(detail.result.payload).checkpoint.digest))
        moved = np.concatenate([(after[name] - before[name]).reshape(-1) for name in before])
        # the error of one cohort has 3 times the squared norm of the update; three cohorts draw other coordinates
        assert float(np.linalg.norm(moved)) == pytest.approx((1 + 3 / 3) ** 0.5 * HONEST * moved.size**0.5, rel=0.15)
