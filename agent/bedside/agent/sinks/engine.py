"""All sinks of one device: each in a thread and an event loop of its own, so that none disturbs another or the samples.

The agent's loop hears from them only how far they have come, which the group commit makes durable. A sink that hangs
delays neither a sample nor the end of the process. Without a sink there is no thread, no file and no socket.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from bedside.agent.buffer.deliveries import Delivery, take_up_deliveries
from bedside.agent.buffer.keys import Keys
from bedside.agent.buffer.outgoing import OutgoingReader
from bedside.agent.buffer.store import BufferStore
from bedside.agent.config import BUFFER_NAME, AgentConfig, SinkConfig
from bedside.agent.failure import describe
from bedside.agent.health.facts import SinkFacts
from bedside.agent.sinks.kind import Sink, SinkContext, SinkOptions
from bedside.agent.sinks.outgoing import What
from bedside.agent.sinks.queue import ORDER, Queue
from bedside.agent.sinks.registry import build_sink, typed_sink
from bedside.agent.sinks.runner import SEND_TIMEOUT_S, Runner, Sent
from bedside.core.clock import Clock, Entropy
from bedside.core.errors import ProtocolError, UnavailableError
from bedside.service.logs import event
from bedside.service.text import bounded

_LOGGER = logging.getLogger(__name__)

STOP_S: Final = 2.0
"""Seconds that a sink has to end; one that hangs in a call is left behind, and ends with the process."""
RESTART_S: Final = 5.0
SWITCH_S: Final = 0.001
"""Seconds for which a thread keeps the interpreter from another that wants it: with Python's 5 ms, three sinks with a
backlog let one timer in a hundred of the agent's loop come 25 to 40 ms late, and 8 ms with this and their pauses."""
STALL_S: Final = SEND_TIMEOUT_S + 10.0
"""Seconds after which whoever wants something sent at once is told that a sink delivers nothing."""


class SinkEngine:
    """Use from the agent's loop."""

    def __init__(
        self,
        config: AgentConfig,
        directory: Path,
        buffer: BufferStore,
        keys: Keys,
        clock: Clock,
        entropy: Entropy,
        device: str,
    ) -> None:
        """Build every sink, and take up where each was.

        Args:
            config: of the device.
            directory: relative paths start here.
            buffer: holds the queues; it learns which records are wanted.
            keys: of the buffer.
            clock: of the process.
            entropy: for jitter and nonces.
            device: pseudonymous id of the device.

        Raises:
            ConfigError: `sink-config`.
            StoreError: `store-write`.
        """
        self._buffer = buffer
        self._context = SinkContext(clock, entropy, directory.absolute(), device)
        self._open_reader = partial(OutgoingReader, config.state_dir / BUFFER_NAME, keys)
        self._threads: dict[str, _SinkThread] = {}
        self._sinks: dict[str, SinkConfig] = {}
        self._take_up(config.sinks)

    def _take_up(self, sinks: Sequence[SinkConfig]) -> list[_SinkThread]:
        """Make a thread for each sink that has none, where it was."""
        options = {sink.name: typed_sink(sink) for sink in sinks}
        fresh = [sink for sink in sinks if sink.name not in self._threads]
        built = {sink.name: build_sink(sink.kind, options[sink.name], self._context) for sink in fresh}
        wanted = [(one.name, what) for one in options.values() for what in one.send]
        cursors = take_up_deliveries(self._buffer.database, wanted)
        recorded = [one.streams for one in options.values() if "records" in one.send]
        self._buffer.queued.streams = frozenset(stream for streams in recorded for stream in streams)
        for sink in fresh:
            its = options[sink.name]
            behind = {what: cursors[sink.name, what] for what in ORDER if what in its.send}
            self._threads[sink.name] = _SinkThread(
                sink.kind, its, built[sink.name], behind, self._open_reader, self._context, self._buffer
            )
            self._sinks[sink.name] = sink
        return [self._threads[sink.name] for sink in fresh]

    def start(self) -> None:
        """Begin to deliver."""
        self._begin(list(self._threads.values()))

    def _begin(self, threads: Sequence[_SinkThread]) -> None:
        loop = asyncio.get_running_loop()
        if threads:
            sys.setswitchinterval(SWITCH_S)
        for thread in threads:
            thread.start(loop)

    async def change(self, sinks: Sequence[SinkConfig], device: str) -> list[str]:
        """Deliver to these from now on; one that is as it was goes on undisturbed.

        One that has changed goes on where it was, and one that is new begins behind what is stored, as after a restart.

        Args:
            sinks: as they are configured now.
            device: pseudonymous id of the device.

        Returns:
            Names of those that hang and can end with the process alone; they stay as they were.

        Raises:
            ConfigError: `sink-config`.
            StoreError: `store-write`, `store-read`; sinks that were to change stand still until the next change.
        """
        wanted = {sink.name: sink for sink in sinks}
        alive = {name for name, thread in self._threads.items() if thread.is_alive}
        leaving = [name for name, sink in self._sinks.items() if wanted.get(name) != sink or name not in alive]
        for name in leaving:
            self._threads[name].end()
        await asyncio.gather(*(self._threads[name].join(STOP_S) for name in leaving))
        hanging = [name for name in leaving if self._threads[name].is_alive]
        self._buffer.flush()  # how far they have come, which is read again
        for name in set(leaving) - set(hanging):
            del self._threads[name], self._sinks[name]
        self._context = replace(self._context, device=device)
        staying = [sink for sink in sinks if sink.name not in hanging]
        self._begin(self._take_up([*staying, *(self._sinks[name] for name in hanging)]))
        return hanging

    async def stop(self) -> None:
        """End all, each within `STOP_S`; how far they have come is noted when this returns."""
        for thread in self._threads.values():
            thread.end()
        await asyncio.gather(*(thread.join(STOP_S) for thread in self._threads.values()))

    def facts(self) -> Sequence[SinkFacts]:
        """How every sink does."""
        return [thread.facts for thread in self._threads.values()]

    async def send_now(self, name: str, since_ns: int | None) -> Sent:
        """Deliver now what waits for a sink, or again what is stored from a time on.

        Raises:
            ProtocolError: `no-such-sink`.
            UnavailableError: `sink-not-running`, `sink-stalled`.
        """
        thread = self._threads.get(name)
        if thread is None:
            known = ", ".join(self._threads) or "none"
            raise ProtocolError(
                "no-such-sink",
                f"there is no sink {bounded(name, 64)!r} in agent.toml",
                remedy=f"the sinks are {known}" if self._threads else "see docs/sinks.md",
            )
        return await thread.send_now(since_ns)


class _SinkThread:
    """One sink, its thread, and its loop."""

    def __init__(
        self,
        kind: str,
        options: SinkOptions,
        sink: Sink,
        cursors: dict[What, Delivery],
        open_reader: Callable[[], OutgoingReader],
        context: SinkContext,
        buffer: BufferStore,
    ) -> None:
        self._kind = kind
        self._options = options
        self._sink = sink
        self._cursors = cursors
        self._open_reader = open_reader
        self._context = context
        self._buffer = buffer
        self._main: asyncio.AbstractEventLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._runner: Runner | None = None
        self._ended = asyncio.Event()
        self._ending = threading.Event()
        self._failure = ""
        self._failed_s = 0.0
        self._thread = threading.Thread(target=self._live, name=f"sink {options.name}", daemon=True)

    @property
    def facts(self) -> SinkFacts:
        if self._runner is not None:
            return self._runner.facts
        state = "waiting" if self._failure else "idle"
        failing_s = self._context.clock.monotonic_s() - self._failed_s if self._failure else 0.0
        return SinkFacts(
            self._options.name, self._kind, self._options.mode, state, last_error=self._failure, stalled_s=failing_s
        )

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self._ended.is_set()

    def start(self, main: asyncio.AbstractEventLoop) -> None:
        self._main = main
        self._thread.start()

    def end(self) -> None:
        self._ending.set()
        loop, task = self._loop, self._task
        if loop is not None and task is not None:
            with suppress(RuntimeError):  # its loop has ended by itself
                loop.call_soon_threadsafe(task.cancel)

    async def join(self, patience_s: float) -> None:
        if not self._thread.is_alive():
            return
        try:
            async with asyncio.timeout(patience_s):
                await self._ended.wait()
        except TimeoutError:
            event(_LOGGER, "sink-hangs", level=logging.WARNING, sink=self._options.name)

    async def send_now(self, since_ns: int | None) -> Sent:
        loop, runner = self._loop, self._runner
        if loop is None or runner is None:
            raise UnavailableError("sink-not-running", f"sink {self._options.name} is starting", remedy="try again")
        sending = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(runner.send_now(since_ns), loop))
        before = -1
        try:
            while before != runner.facts.sent:
                before = runner.facts.sent
                if (await asyncio.wait({sending}, timeout=STALL_S))[0]:
                    return sending.result()
        finally:
            sending.cancel()
        raise UnavailableError(
            "sink-stalled",
            f"sink {self._options.name} has delivered nothing for {STALL_S:g} s",
            remedy="what waits is tried again: see bedside agent sinks",
        )

    def _live(self) -> None:
        """What the thread does: run, and begin again should the runner itself fail."""
        try:
            while not self._ending.is_set():
                try:
                    asyncio.run(self._work())
                except asyncio.CancelledError:
                    break
                except Exception as error:  # the others and the samples go on
                    self._failed_s = self._failed_s if self._failure else self._context.clock.monotonic_s()
                    self._failure = describe(error)
                    _LOGGER.exception("sink-broken")
                    self._ending.wait(RESTART_S)
        finally:
            self._hand_over(self._ended.set)

    async def _work(self) -> None:
        self._task, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        if self._ending.is_set():
            return
        with closing(self._open_reader()) as reader:
            queue = Queue(self._options, self._cursors, reader, self._context.device)
            self._runner = Runner(
                self._kind,
                self._options,
                self._sink,
                queue,
                self._context.clock,
                self._context.entropy,
                note=self._note,
                erased=self._buffer.erased,
            )
            try:
                await self._runner.run()
            finally:
                self._cursors = dict(queue.cursors)
                self._runner = None

    def _note(self, delivery: Delivery) -> None:
        self._hand_over(partial(self._take_note, delivery))

    def _take_note(self, delivery: Delivery) -> None:
        self._buffer.group.waiting.add_delivery(delivery, self._context.clock.monotonic_s())

    def _hand_over(self, call: Callable[[], None]) -> None:
        assert self._main is not None  # noqa: S101  # `start` has set it
        with suppress(RuntimeError):  # the agent has ended without waiting
            self._main.call_soon_threadsafe(call)
