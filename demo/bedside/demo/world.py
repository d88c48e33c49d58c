"""The running world as the story sees it: processes, devices, the coordinator, and whoever watches."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from bedside.core.bundle.verify import Bundle
from bedside.core.clock import Clock
from bedside.core.errors import BedsideError
from bedside.demo.board import Board
from bedside.demo.cast import TASK, Cast
from bedside.demo.command_line import CommandLine
from bedside.demo.eyes import DeviceEye
from bedside.demo.operators import Operator
from bedside.demo.paths import DemoPaths
from bedside.demo.policies import MIN_CONTRIBUTORS
from bedside.demo.processes import ProcessTable
from bedside.demo.stage import Stage

COLLECT_S: Final = 40
"""Seconds that a round waits for uploads at most; it is sealed as soon as every device has answered."""

SERVER_LEARNING_RATE: Final = 1.25
"""Of FedAvg on the server; a little above 1 makes up for the few steps that ten rounds have."""

_POLL_S: Final = 0.5


@dataclass
class World:
    """Everything that runs.

    Attributes:
        started_s: monotonic time of the first round's start.
    """

    cast: Cast
    paths: DemoPaths
    clock: Clock
    commands: CommandLine
    processes: ProcessTable
    operator: Operator
    stage: Stage
    board: Board
    bundle: Bundle
    signer_pk: str
    operator_socket: str
    epochs: int
    max_examples: int
    started_s: float = 0.0
    eyes: dict[str, DeviceEye] = field(default_factory=dict)

    def say(self, sentence: str) -> None:
        """Tell whoever watches."""
        self.stage.say(sentence)

    def elapsed_s(self) -> float:
        """Seconds since the first round was asked for."""
        return self.clock.monotonic_s() - self.started_s

    async def start_rounds(self, count: int) -> int:
        """Ask the coordinator, as its operator, for so many rounds; returns the first one's number."""
        started = await self.commands.run_json(
            "round", "start", "--bundle", self.paths.bundle, "--task", TASK, "--rounds", str(count),
            "--epochs", str(self.epochs), "--max-examples", str(self.max_examples),
            "--server-learning-rate", str(SERVER_LEARNING_RATE),
            "--min-contributors", str(MIN_CONTRIBUTORS), "--collect-seconds", str(COLLECT_S),
            "--socket", self.operator_socket,
        )  # fmt: skip
        self.operator.expect(int(str(started["last_round"])))
        return int(str(started["first_round"]))

    def poll(self) -> None:
        """Look at every device now."""
        for eye in self.eyes.values():
            eye.poll()

    async def keep_looking(self, *, with_signal: bool) -> None:
        """Refresh the board for ever: devices by turns, so that no look takes long."""
        while True:
            for eye in self.eyes.values():
                eye.poll(with_signal=with_signal)
                await asyncio.sleep(_POLL_S / len(self.eyes))
            self.board.detail = self.operator.rounds.get(self.operator.newest)

    async def show_view(self, number: int) -> None:
        """Show what the coordinator holds of a round that opened."""
        detail = self.operator.rounds.get(number)
        if detail is not None and detail.sum_digest:
            with suppress(BedsideError):
                self.board.view = await self.operator.view(detail)
