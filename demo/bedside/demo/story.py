"""The run itself: all rounds, with the scenes at their places, and what every round gave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from bedside.core.bundle.tensors import decode_tensors
from bedside.core.bundle.verify import Parameters, check_parameters
from bedside.core.errors import ConfigError
from bedside.demo.evaluation import float_accuracy
from bedside.demo.operators import has_ended
from bedside.demo.result import RoundFigures, Scene
from bedside.demo.scenes import ROUND_TIMEOUT_S, kill_coordinator, kill_device, raise_minimum
from bedside.demo.world import World
from bedside.ondevice.training.examples import Windows
from bedside.proto.v1.operator_pb2 import RoundDetail

FEWEST_ROUNDS: Final = 3
_EXAMPLES: Final = "examples"
_CORRECT: Final = "correct"
_MS_PER_S: Final = 1_000

Act = Callable[[World, int], Awaitable[Scene]]


class Story:
    """Plays one run.

    Attributes:
        history: figures of every round, in order.
        parameters: of the newest checkpoint.
        checkpoint: its digest, as devices' predictions carry it.
        model_bytes: its size.
    """

    def __init__(self, world: World, rounds: int, held_out: Windows) -> None:
        """Prepare.

        Raises:
            ConfigError: `demo-rounds` when there are too few for three scenes.
        """
        if rounds < FEWEST_ROUNDS:
            raise ConfigError(
                "demo-rounds",
                f"{rounds} rounds are too few for three scenes",
                remedy=f"use --rounds {FEWEST_ROUNDS} or more",
            )
        self._world = world
        self._rounds = rounds
        self._held_out = held_out
        self.history: list[RoundFigures] = []
        self.parameters: Parameters = dict(world.bundle.parameters)
        self.checkpoint = b""
        self.model_bytes = 0

    async def play(self) -> None:
        """Run all rounds. The last one comes after the scene in which a hospital refuses."""
        world = self._world
        acts: dict[int, Act] = {max(1, self._rounds // 4): kill_coordinator, max(2, self._rounds // 2): kill_device}
        world.started_s = world.clock.monotonic_s()
        first = await world.start_rounds(self._rounds - 1)
        for number in range(first, first + self._rounds - 1):
            act = acts.get(number - first + 1)
            if act is not None:
                await self._perform(act(world, number))
            await self._finish(number)
        await self._perform(raise_minimum(world))
        for number in (first + self._rounds - 1, first + self._rounds):
            await self._finish(number)

    async def _perform(self, act: Awaitable[Scene]) -> None:
        scene = await act
        self._world.board.scenes.append(scene)
        for check in scene.checks:
            self._world.say(f"{'✓' if check.passed else '✗'} {check.sentence}")

    async def _finish(self, number: int) -> None:
        """Wait for a round's end and measure what it gave."""
        world = self._world
        detail = await world.operator.wait_for(number, has_ended, "its end", ROUND_TIMEOUT_S)
        opened = detail.summary.phase == "opened"
        accuracy = await self._measure(detail) if opened else None
        figures = _figures(detail, accuracy)
        self.history.append(figures)
        if accuracy is None:
            world.say(f"Round {number} did not open: {detail.summary.reason}")
            return
        world.board.accuracies[number] = accuracy
        world.say(
            f"Round {number}: {figures.contributors} devices in one sum, {figures.seconds:.1f} s, "
            f"accuracy on people who never trained {accuracy:.3f}"
        )
        await world.show_view(number)

    async def _measure(self, detail: RoundDetail) -> float:
        data = await self._world.operator.blob(detail.checkpoint.digest)
        bundle = self._world.bundle
        shared = cast("dict[str, npt.NDArray[np.float32]]", decode_tensors(data))
        self.parameters = check_parameters(bundle.manifest, {**bundle.parameters, **shared})
        self.checkpoint, self.model_bytes = detail.checkpoint.digest, len(data)
        return await asyncio.to_thread(float_accuracy, bundle, self.parameters, self._held_out)


def _figures(detail: RoundDetail, accuracy: float | None) -> RoundFigures:
    phases = tuple((one.phase, one.elapsed_ms / _MS_PER_S) for one in detail.phases)
    counts = {one.name: one.sum for one in detail.counts}
    examples = counts.get(_EXAMPLES, 0)
    return RoundFigures(
        number=detail.summary.round_number,
        phase=detail.summary.phase,
        seconds=sum(seconds for _, seconds in phases),
        phases=phases,
        contributors=detail.summary.contributors if accuracy is not None else 0,
        received_accuracy=counts.get(_CORRECT, 0) / examples if examples and accuracy is not None else None,
        accuracy=accuracy,
        reason=detail.summary.reason if accuracy is None else "",
    )
