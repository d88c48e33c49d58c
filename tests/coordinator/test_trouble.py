"""What fails in one round ends or delays that round: the others go on, and operators read why."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest

from bedside.coordinator.blobs import BlobStore, files
from bedside.coordinator.rounds import driver
from bedside.coordinator.rounds.driver import Driver
from bedside.coordinator.store import contributions
from bedside.coordinator.store.contributions import WordRow
from bedside.core.errors import ProtocolError, StoreError
from bedside.core.securesum.plans import open_plan
from bedside.core.securesum.ring import pack, reduce_in_place, word_dtype
from bedside.core.signing import digest, sign_message
from bedside.core.signing.envelope import SUITE
from bedside.proto.v1 import round_pb2
from bedside.proto.v1.round_pb2 import COHORT_OUTCOME_OPENED, Result

DEADLINE_S = 30.0


@asynccontextmanager
async def answered_by_all(federation, bundle, before_the_answer):
    """A round that goes to its answers; `before_the_answer(desk, plan)` does the harm just before."""
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        await desk.start(bundle, rounds=3)
        trustees, devices = desk.trustees(), desk.devices()
        for trustee in trustees:
            await trustee.serve(until="open")
        for device in devices:
            await device.beat()
        for device in devices:
            await device.take_part()
        for trustee in trustees:
            await trustee.serve(until="seal")
        before_the_answer(desk, next(iter(trustees[0].plans.values())))
        for trustee in trustees:
            await trustee.serve(until="reveal")
        yield desk, devices


async def ended(desk, number: int = 1, task: str = "watch"):
    async with asyncio.timeout(DEADLINE_S):
        return await desk.ended(number, task)


async def test_a_disk_that_is_full_for_a_moment_costs_no_answered_cohort(federation, bundle, monkeypatch):
    real, failures = files.write_durable, []

    def full_twice(path, data, *more) -> None:
        if "blake3" in path.parts and len(failures) < 2:
            failures.append(path)
            raise StoreError("file-write", "No space left on device")
        real(path, data, *more)

    monkeypatch.setattr(driver, "STORE_RETRY_S", 0.02)
    monkeypatch.setattr(files, "write_durable", full_twice)
    async with answered_by_all(federation, bundle, lambda *_: None) as (desk, devices):
        detail = await ended(desk)
        assert detail.summary.phase == "opened"
        assert len(failures) == 2
        checked = open_plan(detail.plan, bytes.fromhex(federation.public.sign_pk))
        plain = np.zeros(checked.vector_words, word_dtype(checked.plan.word_bits))
        for device in devices:
            plain += device.words
        reduce_in_place(plain, checked.plan.word_bits)
        assert await desk.blob(detail.sum_digest) == pack(plain, checked.plan.word_bits), "the sum was made again"


@pytest.mark.parametrize("lost", ["sum", "checkpoint"])
@pytest.mark.parametrize("how", ["gone", "damaged"])
async def test_a_lost_blob_ends_its_task_with_the_reason_and_no_other(
    federation, bundle, new_bundle, monkeypatch, lost, how
):
    real = driver.make_result

    def harm(blobs: BlobStore, name: bytes) -> None:
        (path,) = blobs.root.rglob(name.hex())
        path.unlink() if how == "gone" else path.write_bytes(bytes(path.stat().st_size))

    def make_result(state, before, blobs):
        harm(blobs, state.cohorts[0].sum_digest if lost == "sum" else state.plan.plan.checkpoint.digest)
        return real(state, before, blobs)

    monkeypatch.setattr(driver, "make_result", make_result)
    async with answered_by_all(federation, bundle, lambda *_: None) as (desk, devices):
        detail = await ended(desk)
        assert detail.summary.phase == "failed"
        result = Result.FromString(detail.result.payload)
        assert result.cohorts[0].outcome == COHORT_OUTCOME_OPENED
        assert result.no_step_code == ("no-blob" if how == "gone" else "blob-damaged")
        assert result.no_step_sentence in detail.summary.reason
        assert result.checkpoint == open_plan(detail.plan, desk.alive.parts.sign_pk).plan.checkpoint
        with pytest.raises(ProtocolError) as caught:
            await ended(desk, 2)
        assert caught.value.code == "task-failed"
        await desk.start(new_bundle(seed=2), task="other")
        assert (await devices[0].offer(open_plans=(digest(detail.plan.payload),), wait_ms=0)).receipts
        assert (await desk.trustees()[0].items())[0].WhichOneof("item") == "open"


@pytest.mark.parametrize("number", [0, 99])
async def test_a_closing_for_a_reason_that_is_not_known_ends_its_round(federation, bundle, number):
    """Stored by an earlier version, or said by a later one."""
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        await desk.start(bundle)
        birch = desk.trustees()[1]
        (item,) = await birch.items()
        plan, own = digest(item.open.plan.payload), birch.member.own.digest
        told = round_pb2.Closed(
            suite=SUITE, plan_digest=plan, credential_digest=own, chain=round_pb2.Chain(boot_id=b"b" * 16, index=1)
        )
        told.MergeFrom(round_pb2.Closed.FromString(b"\x28" + bytes([number])) if number else round_pb2.Closed())
        assert told.reason == number
        signed = sign_message("closed", told, birch.member.key)
        row = WordRow(plan, 0, own, "closed", digest(signed.payload), signed.SerializeToString(deterministic=True))
        parts = desk.alive.parts
        parts.store.run_tx("harm", lambda tx: contributions.put_word(tx, row))
        parts.signals.rounds.bump()
        detail = await ended(desk)
        assert "a reason that this version does not know" in detail.summary.reason
        assert not any(worker.done() for worker in desk.alive.workers)


@pytest.mark.parametrize("where", ["judge_cohort", "read_round"])
async def test_a_bug_in_one_round_ends_that_round_and_the_others_go_on(
    federation, bundle, new_bundle, monkeypatch, where
):
    real = getattr(driver, where)

    def fail(first, *more):
        row = first.row if where == "judge_cohort" else first
        if row.task == "watch":
            raise ValueError("secret words of a bug")
        return real(first, *more)

    monkeypatch.setattr(driver, where, fail)
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        await desk.start(bundle, rounds=5)
        await desk.start(new_bundle(seed=2), task="other")
        if where == "judge_cohort":
            reason = (await ended(desk)).summary.reason
        else:
            with pytest.raises(ProtocolError) as caught:
                await ended(desk)
            assert caught.value.code == "task-failed"
            reason = caught.value.sentence
        assert "the coordinator failed inside (ValueError)" in reason
        assert "secret" not in reason
        serving = [asyncio.create_task(trustee.serve()) for trustee in desk.trustees()]
        for device in desk.devices():
            await device.beat()
        wanted = [await device.offer() for device in desk.devices()]
        assert {open_plan(offer.plan, desk.alive.parts.sign_pk).plan.task for offer in wanted} == {"other"}
        for task in serving:
            task.cancel()


async def test_a_bug_between_rounds_stops_nobody_from_driving(federation, bundle, monkeypatch):
    real, failures = Driver.step, []

    async def fail_once(self: Driver) -> float:
        if not failures:
            failures.append(1)
            raise KeyError("a bug")
        return await real(self)

    monkeypatch.setattr(driver, "STORE_RETRY_S", 0.02)
    monkeypatch.setattr(Driver, "step", fail_once)
    async with federation.coordinator() as desk:
        await desk.populate(devices=1)
        await desk.start(bundle)
        assert (await desk.trustees()[0].items())[0].WhichOneof("item") == "open"
        assert failures
