"""One run of the demo, from an empty folder to its result: set up, play, measure, write, clean up."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TextIO

import msgspec

from bedside.core.bundle.verify import Bundle, verify_archive
from bedside.core.clock import Clock
from bedside.core.errors import UnavailableError
from bedside.core.ids import StreamId
from bedside.demo.baselines import BaselineJob, Baselines
from bedside.demo.board import Board
from bedside.demo.cast import STREAM, TASK, Cast, assemble
from bedside.demo.command_line import CommandLine
from bedside.demo.evaluation import cut_windows
from bedside.demo.eyes import DeviceEye
from bedside.demo.founding import Founder
from bedside.demo.measure import measure
from bedside.demo.operators import Operator
from bedside.demo.paths import DemoPaths
from bedside.demo.policies import rule_words
from bedside.demo.processes import ProcessTable
from bedside.demo.recordings import find_watch_file, read_wearers
from bedside.demo.report import render_report
from bedside.demo.result import Result, encode_result
from bedside.demo.runtime import memory_folder
from bedside.demo.stage import Stage, open_stage
from bedside.demo.story import Story
from bedside.demo.waiting import comes_true, wait_until
from bedside.demo.world import World
from bedside.firmware_bridge.recording import Recording, write_recording
from bedside.ondevice.training.examples import Windows

HELD_OUT: Final = (5, 8)
"""Wearers whose devices only infer: accuracies are measured on them."""

ON_BOARD: Final = 4
"""The wearer with the shortest recording, since a board plays its signal without a history."""

_BASELINES: Final = "baselines"
_RECIPE: Final = "watch"
_FULL: Final = 0.9
"""Part of its recording that a device must have buffered before the first round."""

_FILL_TIMEOUT_S: Final = 180.0
_BASELINE_TIMEOUT_S: Final = 120.0
_LOOK_S: Final = 0.2
_LAST_PREDICTIONS: Final = 60
_LAST_PREDICTIONS_S: Final = 15.0
"""How long the held-out devices get to serve the last model before their predictions are counted."""

Stay = Callable[[World, Result], Awaitable[None]]
"""Stays up after a run, until it is interrupted."""


@dataclass(frozen=True)
class Options:
    """What the command line chose.

    Attributes:
        out: folder of everything that the run writes.
        rounds: rounds to open.
        seed: of the shuffles of the baselines.
        keep: stay up at the end.
    """

    out: Path
    rounds: int
    seed: int
    keep: bool


class Run:
    """One run. Whatever happens in it, leaving `go` ends every process and empties the memory folder."""

    def __init__(self, options: Options, clock: Clock, out: TextIO) -> None:
        self._options = options
        self._clock = clock
        self._out = out
        self._paths = DemoPaths(options.out.absolute())
        self._recordings: dict[str, Recording] = {}

    async def go(self, stay: Stay) -> Result:
        """Set up, play, measure and write; with `keep`, stay up until interrupted.

        Raises:
            BedsideError: set-up failed, or the run could not go on.
        """
        began_s = self._clock.monotonic_s()
        cast = self._prepare()
        board = Board(cast, self._options.rounds, rules={site: rule_words() for site in cast.sites})
        async with AsyncExitStack() as stack:
            memory = stack.enter_context(memory_folder())
            processes = stack.enter_context(ProcessTable(self._paths.logs, self._clock))
            stage = stack.enter_context(open_stage(board, self._out, self._clock))
            world = await self._set_up(cast, board, stage, memory, processes, stack)
            held_out = self._windows(world, cast)
            result = await self._play(world, held_out, self._clock.monotonic_s() - began_s)
            self._write(result)
            if self._options.keep:
                stage.close()
                await stay(world, result)
        return result

    def _prepare(self) -> Cast:
        wearers = read_wearers(find_watch_file())
        self._paths.prepare()
        cast = assemble([one.number for one in wearers], HELD_OUT, ON_BOARD)
        by_number = {one.number: one.recording for one in wearers}
        self._recordings = {device.name: by_number[device.wearer] for device in cast.devices}
        for name, recording in self._recordings.items():
            write_recording(self._paths.recording(name), recording)
        return cast

    async def _set_up(
        self,
        cast: Cast,
        board: Board,
        stage: Stage,
        memory: Path,
        processes: ProcessTable,
        stack: AsyncExitStack,
    ) -> World:
        commands = CommandLine(self._paths.logs / "commands.log")
        founder = Founder(cast, self._recordings, self._paths, memory, commands, processes, self._clock)
        stage.say("Building and signing the model bundle.")
        bundle = await self._build_model(commands, founder)
        stage.say("Founding the federation: root key, coordinator, three hospitals with their trustees.")
        await founder.found()
        operator = await stack.enter_async_context(Operator(founder.operator_socket, TASK, self._clock))
        stage.say("Enrolling ten devices with their hospitals' tokens, and starting them.")
        for site in cast.sites:
            await founder.admit(site)
        eyes = {one.name: DeviceEye(one, self._paths.device_state(one.name), self._clock) for one in cast.devices}
        for eye in eyes.values():
            stack.callback(eye.close)
        board.eyes = eyes
        world = World(
            cast=cast,
            paths=self._paths,
            clock=self._clock,
            commands=commands,
            processes=processes,
            operator=operator,
            stage=stage,
            board=board,
            bundle=bundle,
            signer_pk=founder.signer_pk,
            operator_socket=str(founder.operator_socket),
            epochs=bundle.manifest.training.epochs,
            max_examples=max(len(cut_windows([one], bundle.manifest.window, bundle.manifest.labels).y)
                             for one in self._recordings.values()),
            eyes=eyes,
        )  # fmt: skip
        looking = asyncio.create_task(world.keep_looking(with_signal=self._out.isatty()))
        stack.push_async_callback(_cancel, looking)
        stage.say("Waiting until every device has played and buffered its recordings.")
        await self._wait_until_full(world, founder)
        return world

    async def _build_model(self, commands: CommandLine, founder: Founder) -> Bundle:
        key = self._paths.model / "author.key"
        self._paths.model.mkdir(parents=True)
        made = await commands.run_json("model", "key", key)
        await commands.run("model", "build", _RECIPE, self._paths.bundle.parent, "--signing-key", key)
        founder.signer_pk = str(made["signer_pk"])
        return verify_archive(self._paths.bundle.read_bytes(), [bytes.fromhex(founder.signer_pk)])

    async def _wait_until_full(self, world: World, founder: Founder) -> None:
        for device in world.cast.training:
            recording, eye = self._recordings[device.name], world.eyes[device.name]
            wanted_s = _FULL * len(recording.values) / recording.rate_hz
            await founder.wait_for(
                partial(_holds, eye, wanted_s),
                f"the recordings of {device.name}",
                _FILL_TIMEOUT_S,
            )
        wanted = (len(world.cast.devices), len(world.cast.hospitals))
        await world.operator.all_online(*wanted, _FILL_TIMEOUT_S)

    def _windows(self, world: World, cast: Cast) -> Windows:
        spec, labels = world.bundle.manifest.window, world.bundle.manifest.labels
        return cut_windows([self._recordings[device.name] for device in cast.held_out], spec, labels)

    async def _play(self, world: World, held_out: Windows, setup_seconds: float) -> Result:
        self._start_baselines(world)
        story = Story(world, self._options.rounds, held_out)
        await story.play()
        await self._let_held_out_devices_serve(world, story.checkpoint)
        world.say("Waiting for the comparison: each wearer alone, and all data in one place.")
        baselines = await self._baselines(world)
        world.poll()
        return measure(world, story, baselines, held_out, seed=self._options.seed, setup_seconds=setup_seconds)

    def _start_baselines(self, world: World) -> None:
        training = world.bundle.manifest.training
        job = BaselineJob(
            bundle=str(self._paths.bundle),
            signer_pk=world.signer_pk,
            wearers={device.name: str(self._paths.recording(device.name)) for device in world.cast.training},
            held_out=tuple(str(self._paths.recording(device.name)) for device in world.cast.held_out),
            epochs=self._options.rounds * world.epochs,
            batch=training.batch,
            learning_rate=training.learning_rate,
            momentum=training.momentum,
            proximal_mu=training.proximal_mu,
            seed=self._options.seed,
            result=str(self._paths.baselines_result),
        )
        self._paths.baselines_job.write_bytes(msgspec.json.encode(job))
        world.processes.start(
            _BASELINES, [sys.executable, "-P", "-m", "bedside.demo.baselines", str(self._paths.baselines_job)]
        )

    async def _baselines(self, world: World) -> Baselines:
        started = world.processes[_BASELINES]
        await wait_until(
            lambda: not started.is_running, self._clock, "the comparison", _BASELINE_TIMEOUT_S, look_s=_LOOK_S
        )
        if started.process.returncode != 0:
            raise UnavailableError(
                "demo-baselines",
                f"the comparison did not end well: {started.last_line()}",
                remedy=f"read {started.log}",
            )
        return msgspec.json.decode(self._paths.baselines_result.read_bytes(), type=Baselines)

    async def _let_held_out_devices_serve(self, world: World, checkpoint: bytes) -> None:
        """Give the devices that only infer a moment with the last model; they fetch it with their next offer."""

        def enough() -> bool:
            tallies = [world.eyes[device.name].tallies.get(checkpoint) for device in world.cast.held_out]
            return all(tally is not None and tally.known >= _LAST_PREDICTIONS for tally in tallies)

        await comes_true(enough, self._clock, _LAST_PREDICTIONS_S)

    def _write(self, result: Result) -> None:
        self._paths.result.write_bytes(encode_result(result))
        self._paths.report.write_text(render_report(result), "utf-8")


def _holds(eye: DeviceEye, wanted_s: float) -> bool:
    """Whether a device has buffered so many seconds of labelled signal."""
    return eye.labelled_s(StreamId(STREAM)) >= wanted_s


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def kept_commands(world: World) -> list[str]:
    """Four commands that work against a run that stays up."""
    device = world.cast.training[0]
    directory = world.paths.device(device.name)
    bedside = Path(sys.executable).with_name("bedside")
    return [
        f"{bedside} fleet devices --socket {world.operator_socket}",
        f"{bedside} round show --task {TASK} --socket {world.operator_socket}",
        f"{bedside} agent predictions {directory} --follow",
        f"{bedside} agent health {directory}",
    ]
