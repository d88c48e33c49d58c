"""One round through the real ports: plan, openings, uploads, votes, answers, result, receipts."""

from __future__ import annotations

import asyncio

import numpy as np

from bedside.core.bundle.tensors import decode_tensors
from bedside.core.securesum.merkle import check_membership
from bedside.core.securesum.plans import open_plan
from bedside.core.securesum.ring import pack, reduce_in_place, unpack, word_dtype
from bedside.core.signing import digest, open_signed
from bedside.proto.v1.device_pb2 import OfferRequest
from bedside.proto.v1.operator_pb2 import RoundQuery
from bedside.proto.v1.plan_pb2 import Plan
from bedside.proto.v1.round_pb2 import Answer, Result


async def test_a_round_opens_the_plain_sum_and_every_stored_upload_looks_uniform(federation, bundle):
    async with federation.coordinator() as desk:
        await desk.populate(devices=3)
        assert await desk.start(bundle) == 1
        devices = desk.devices()
        serving = [asyncio.create_task(trustee.serve()) for trustee in desk.trustees()]
        for device in devices:
            await device.beat()
        offers = await asyncio.gather(*(device.take_part() for device in devices))
        detail = await desk.ended()
        for task in serving:
            task.cancel()

        assert detail.summary.phase == "opened"
        assert detail.summary.contributors == 6
        assert {one.state for one in detail.cohorts[0].devices} == {"counted"}
        assert {one.state for one in detail.cohorts[0].trustees} == {"answered"}
        checked = open_plan(detail.plan, bytes.fromhex(federation.public.sign_pk))
        word_bits = checked.plan.word_bits
        plain = np.zeros(checked.vector_words, word_dtype(word_bits))
        for device in devices:
            plain += device.words
        reduce_in_place(plain, word_bits)
        assert await desk.blob(detail.sum_digest) == pack(plain, word_bits)

        assert len(detail.upload_digests) == 6
        for name in detail.upload_digests:
            words = unpack(await desk.blob(name), checked.vector_words, word_bits)
            assert chi_square(words, word_bits) < LIMIT
        assert chi_square(plain, word_bits) > 10 * LIMIT

        result = Result.FromString(open_signed("result", detail.result, bytes.fromhex(federation.public.sign_pk)))
        assert result.checkpoint.digest != checked.plan.checkpoint.digest
        new = decode_tensors(await desk.blob(result.checkpoint.digest))
        assert {name: array.shape for name, array in new.items()} == {"w0": (128, 20), "b0": (20,)}
        counts = {count.name: count.sum for count in result.counts}
        place = checked.layout.placed()[1][1]
        assert counts == {"examples": int(plain[place].sum()), "correct": 6}

        receipt = (await devices[0].offer(open_plans=(digest(offers[0].plan.payload),), wait_ms=0)).receipts[0]
        answer = Answer.FromString(receipt.answer.payload)
        own = next(t for t in desk.trustees() if t.member.site == devices[0].member.site)
        open_signed("answer", receipt.answer, own.member.own.sign_pk)
        found = check_membership(answer.set_root, receipt.membership, devices[0].member.own.digest)
        assert found == digest(devices[0].header.payload)


async def test_the_next_round_names_the_result_before_it_and_starts_from_its_checkpoint(federation, bundle):
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        await desk.start(bundle, rounds=2)
        devices = desk.devices()
        serving = [asyncio.create_task(trustee.serve()) for trustee in desk.trustees()]
        for device in devices:
            await device.beat()
        known = b""
        for _ in range(2):
            for device in devices:
                await device.beat()
                offer = await device.offer(known=known)
                device.make(offer)
                await device.begin()
                await device.send()
            known = digest(offer.plan.payload)
        first, second = await desk.ended(1), await desk.ended(2)
        for task in serving:
            task.cancel()
        plans = [Plan.FromString(detail.plan.payload) for detail in (first, second)]
        assert plans[1].round_number == 2
        assert plans[1].previous_result_digest == digest(first.result.payload)
        assert plans[1].checkpoint == Result.FromString(first.result.payload).checkpoint
        assert plans[1].log_size == 9  # plan, 2 openings, set, 2 votes, 2 answers, result
        assert (await desk.round()).summary.round_number == 2
        asked = OfferRequest(wait_ms=20_000, known_result_digest=digest(first.result.payload))
        last = await devices[0].stub.GetOffer(asked)
        assert last.result == second.result, "the last round's model is offered although no round follows"
        assert digest(last.manifest.payload) == plans[1].bundle.digest
        known_now = OfferRequest(wait_ms=0, known_result_digest=digest(second.result.payload))
        assert not (await devices[0].stub.GetOffer(known_now)).HasField("result")


async def test_local_rates_fall_from_the_first_to_the_last_round_of_each_start(federation, bundle):
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        devices = desk.devices()
        serving = [asyncio.create_task(trustee.serve()) for trustee in desk.trustees()]
        await desk.start(bundle, rounds=3, final_learning_rate_e9=10_000_000)
        for device in devices:
            await device.beat()
        rates, known = [], b""
        for _ in range(3):
            for device in devices:
                await device.beat()
                offer = await device.offer(known=known)
                device.make(offer)
                await device.begin()
                await device.send()
            known = digest(offer.plan.payload)
            rates.append(Plan.FromString(offer.plan.payload).training.learning_rate_e9)
        await desk.ended(3)
        for task in serving:
            task.cancel()
        assert await desk.start(bundle, rounds=2, final_learning_rate_e9=10_000_000) == 4
        async for detail in desk.operator.WatchRound(RoundQuery(task="watch", round_number=4)):
            rates.append(Plan.FromString(detail.plan.payload).training.learning_rate_e9)
            break
    assert rates == [50_000_000, 30_000_000, 10_000_000, 50_000_000]


LIMIT = 400.0
"""Chi-square of 256 cells has mean 255 and standard deviation 22.6: above 400 is one case in 10^8."""


def chi_square(words: np.ndarray, word_bits: int) -> float:
    counts = np.bincount(words.astype(np.int64) >> (word_bits - 8), minlength=256)
    expected = words.size / 256
    return float(((counts - expected) ** 2 / expected).sum())
