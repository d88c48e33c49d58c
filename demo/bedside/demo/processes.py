"""The demo's processes: each in a group of its own, each with a log file, all of them ended by their id.

Invariant: whatever happens between `ProcessTable.__enter__` and `__exit__` (an exception, Ctrl-C, SIGTERM), no process
of the demo, and no child of one, is left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final

import psutil

from bedside.core.clock import Clock
from bedside.core.errors import UnavailableError
from bedside.demo.interruption import uninterrupted

STOP_TIMEOUT_S: Final = 5.0
"""Seconds between asking all processes to end and killing those that remain."""

QUIET_ENVIRONMENT: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "GRPC_VERBOSITY": "NONE",
    "PYTHONUNBUFFERED": "1",
}


@dataclass
class Started:
    """One running process.

    Attributes:
        name: unique in the table; also the name of its log file.
        command: what was started.
        process: the process, leader of its group.
        log: where its output goes.
    """

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def rss_bytes(self) -> int:
        """Resident memory of the process itself, without children; 0 when it has ended."""
        try:
            return int(psutil.Process(self.process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def runs_child(self, module: str) -> bool:
        """Whether a descendant runs this Python module."""
        for process in family(self.process.pid)[:-1]:
            try:
                if module in process.cmdline():
                    return True
            except psutil.Error:
                continue
        return False

    def last_line(self) -> str:
        """The last line of its log; empty when there is none."""
        lines = self.log.read_text("utf-8", errors="replace").split("\n") if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


class ProcessTable:
    """Starts processes and ends them all.

    Args:
        logs: folder of the log files; one per name, appended to when a process is started again.
        clock: for the deadline at the end.
        environ: environment of every process.
    """

    def __init__(self, logs: Path, clock: Clock, environ: Mapping[str, str] = os.environ) -> None:
        self._logs = logs
        self._clock = clock
        self._environ = {**environ, **QUIET_ENVIRONMENT}
        self._running: dict[str, Started] = {}

    def __enter__(self) -> ProcessTable:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with uninterrupted():
            self.stop_all()

    def __getitem__(self, name: str) -> Started:
        return self._running[name]

    def start(self, name: str, command: Sequence[str], *, cwd: Path | None = None) -> Started:
        """Start `command` in a group of its own, with its output appended to the log of this name.

        Raises:
            ValueError: a process of this name is running.
        """
        old = self._running.get(name)
        if old is not None and old.is_running:
            raise ValueError(f"{name} is running already")
        log = self._logs / f"{name}.log"
        with log.open("ab") as out:
            process = self._spawn(command, out, cwd)
        started = Started(name, tuple(command), process, log)
        self._running[name] = started
        return started

    def _spawn(self, command: Sequence[str], out: IO[bytes], cwd: Path | None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=self._environ,
            start_new_session=True,
        )

    def restart(self, name: str) -> Started:
        """Start the process of this name again, with the same command."""
        return self.start(name, self._running[name].command)

    def kill(self, name: str) -> None:
        """End a process and its children at once, as a power cut would (SIGKILL)."""
        _end(family(self._running[name].process.pid), signal.SIGKILL)
        self._running[name].process.wait(STOP_TIMEOUT_S)

    def require_running(self) -> None:
        """Check that nothing has ended by itself.

        Raises:
            UnavailableError: `demo-process-ended`, with the last line of its log.
        """
        for started in self._running.values():
            if not started.is_running:
                raise UnavailableError(
                    "demo-process-ended",
                    f"{started.name} ended with status {started.process.returncode}: {started.last_line()}",
                    remedy=f"read {started.log}",
                )

    def stop_all(self) -> None:
        """Ask every process to end, and kill the ones that have not, with their children."""
        waiting = [one for started in self._running.values() for one in family(started.process.pid)]
        _end(waiting, signal.SIGTERM)
        deadline_s = self._clock.monotonic_s() + STOP_TIMEOUT_S
        for started in self._running.values():
            try:
                started.process.wait(max(0.0, deadline_s - self._clock.monotonic_s()))
            except subprocess.TimeoutExpired:
                continue
        rest = [one for one in waiting if one.is_running()]
        rest += [one for started in self._running.values() for one in family(started.process.pid)]
        _end(rest, signal.SIGKILL)
        psutil.wait_procs(rest, timeout=STOP_TIMEOUT_S)
        for started in self._running.values():
            started.process.wait(STOP_TIMEOUT_S)


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants, children first; nothing when it has ended."""
    try:
        leader = psutil.Process(pid)
        return [*reversed(leader.children(recursive=True)), leader]
    except psutil.NoSuchProcess:
        return []


def bedside_command(*arguments: str | Path) -> list[str]:
    """Return the command line that runs `bedside` with this very interpreter."""
    script = Path(sys.executable).with_name("bedside")
    opening = [str(script)] if script.is_file() else ["-c", "from bedside.service.cli import main; main()"]
    return [sys.executable, *opening, *map(str, arguments)]


def _end(processes: Sequence[psutil.Process], how: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(how)
        except psutil.NoSuchProcess:
            continue
