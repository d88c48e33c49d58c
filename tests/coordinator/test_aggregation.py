"""Results follow from stored bytes alone, and FedAdam carries its state from round to round."""

from __future__ import annotations

import asyncio

import numpy as np

from bedside.coordinator.aggregation.result import make_result
from bedside.coordinator.rounds.state import find_round
from bedside.core.bundle.tensors import decode_tensors
from bedside.core.learning.optimisers import FedAdam
from bedside.core.signing import digest
from bedside.proto.v1 import plan_pb2
from bedside.proto.v1.plan_pb2 import Plan
from bedside.proto.v1.round_pb2 import Result

FEDADAM = plan_pb2.ServerStep(
    optimiser=plan_pb2.SERVER_OPTIMISER_FEDADAM,
    learning_rate_e6=10_000,
    beta1_e6=900_000,
    beta2_e6=990_000,
    tau_e9=1_000_000,
)


async def test_a_result_computed_again_is_the_same_bytes_and_fedadam_goes_on_from_its_state(federation, bundle):
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        await desk.start(bundle, rounds=2, server=FEDADAM)
        serving = [asyncio.create_task(trustee.serve()) for trustee in desk.trustees()]
        devices, known, results = desk.devices(), b"", []
        for device in devices:
            await device.beat()
        for number in (1, 2):
            for device in devices:
                await device.beat()
                offer = await device.offer(known=known)
                device.make(offer)
                await device.begin()
                await device.send()
            known = digest(offer.plan.payload)
            detail = await desk.ended(number)
            results.append(Result.FromString(detail.result.payload))
        for task in serving:
            task.cancel()

        parts = desk.alive.parts
        state = parts.store.run_tx("read", find_round(known, parts.sign_pk))
        again = make_result(state, results[0].optimiser_state, parts.blobs)
        assert again.SerializeToString(deterministic=True) == detail.result.payload
        fresh = make_result(state, None, parts.blobs)
        assert fresh.checkpoint.digest != again.checkpoint.digest

        before = decode_tensors(await desk.blob(Plan.FromString(detail.plan.payload).checkpoint.digest))
        after = decode_tensors(await desk.blob(results[1].checkpoint.digest))
        kept = decode_tensors(await desk.blob(results[1].optimiser_state.digest))
        adam = FedAdam(10_000, 900_000, 990_000, 1_000_000)
        for name, old in before.items():
            tau = np.float32(adam.tau_e9 / 1e9)
            step = kept["m/" + name] * np.float32(0.01) / (np.sqrt(kept["v/" + name]) + tau)
            assert np.array_equal(old + step, after[name])
