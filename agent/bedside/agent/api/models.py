"""The calls about models: what serves, and what may."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bedside.agent.inference.latency import LatencyFacts
from bedside.agent.rounds.slots import Verdict
from bedside.agent.serving.view import ShadowView, SlotView, slot_view
from bedside.proto.v1 import local_pb2

if TYPE_CHECKING:
    from bedside.agent.rounds.slots import Outcome
    from bedside.agent.serving.desk import ModelDesk


class ModelCalls:
    """Answers by a desk of models."""

    def __init__(self, desk: ModelDesk) -> None:
        self._desk = desk

    def slots(self) -> local_pb2.ModelSlotList:
        """Every slot."""
        return local_pb2.ModelSlotList(slots=[slot_message(view) for view in self._views().values()])

    async def roll_back(self, request: local_pb2.ModelRef) -> local_pb2.ModelSlot:
        """Serve the previous model again."""
        await self._desk.roll_back(request.name)
        return self._one(request.name)

    async def accept(self, request: local_pb2.ModelRef) -> local_pb2.ModelSlot:
        """Serve the newest model that was put away after all."""
        await self._desk.accept(request.name)
        return self._one(request.name)

    async def promote(self, request: local_pb2.ModelRef) -> local_pb2.ModelSlot:
        """Serve the candidate."""
        await self._desk.promote(request.name)
        return self._one(request.name)

    async def reject(self, request: local_pb2.ModelRef) -> local_pb2.ModelSlot:
        """Let the candidate go."""
        await self._desk.reject(request.name)
        return self._one(request.name)

    def _views(self) -> dict[str, SlotView]:
        return {name: slot_view(name, slot, table) for name, (slot, table) in self._desk.slots().items()}

    def _one(self, name: str) -> local_pb2.ModelSlot:
        return slot_message(self._views()[name])


def slot_message(view: SlotView) -> local_pb2.ModelSlot:
    """A slot for the wire."""
    return local_pb2.ModelSlot(
        name=view.name,
        current=bytes.fromhex(view.current),
        previous=bytes.fromhex(view.previous),
        candidate=bytes.fromhex(view.candidate),
        stage=view.stage,
        waiting=bytes.fromhex(view.waiting),
        withdrawn=map(bytes.fromhex, view.withdrawn),
        verdicts=[
            local_pb2.ModelVerdict(
                model=bytes.fromhex(verdict.model),
                outcome=verdict.outcome,
                sentence=verdict.sentence,
                score=verdict.score,
                windows=verdict.windows,
                old=verdict.old,
                new=verdict.new,
                at_s=verdict.at_s,
            )
            for verdict in view.verdicts
        ],
        concern=view.concern,
        shadow=_shadow_message(view.shadow) if view.shadow is not None else None,
    )


def slot_row(message: local_pb2.ModelSlot) -> SlotView:
    """A slot from the wire."""
    return SlotView(
        message.name,
        message.current.hex(),
        message.previous.hex(),
        message.candidate.hex(),
        message.stage,
        message.waiting.hex(),
        tuple(one.hex() for one in message.withdrawn),
        tuple(_verdict_row(verdict) for verdict in message.verdicts),
        message.concern,
        _shadow_row(message.shadow) if message.HasField("shadow") else None,
    )


def _verdict_row(message: local_pb2.ModelVerdict) -> Verdict:
    return Verdict(
        message.model.hex(),
        cast("Outcome", message.outcome),
        message.sentence,
        message.score,
        message.windows,
        message.old if message.HasField("old") else None,
        message.new if message.HasField("new") else None,
        message.at_s,
    )


def _shadow_message(view: ShadowView) -> local_pb2.ShadowRun:
    found = view.latency
    return local_pb2.ShadowRun(
        wanted=view.wanted,
        windows=view.windows,
        differing=view.differing,
        pairs=[
            local_pb2.ShadowPair(current=old, candidate=new, windows=windows)
            for (old, new), windows in view.pairs.items()
        ],
        failed=view.failed,
        dropped=view.dropped,
        latency=local_pb2.StageLatency(
            stage=found.stage, count=found.count, p50_us=found.p50_us, p99_us=found.p99_us, max_us=found.max_us
        ),
        error=view.error,
    )


def _shadow_row(message: local_pb2.ShadowRun) -> ShadowView:
    found = message.latency
    return ShadowView(
        message.wanted,
        message.windows,
        message.differing,
        {(pair.current, pair.candidate): pair.windows for pair in message.pairs},
        message.failed,
        message.dropped,
        LatencyFacts("infer", found.count, found.p50_us, found.p99_us, found.max_us),
        message.error,
    )
