"""Short-lived children: spawned for one job, limited, and gone with their parent.

The parent starts `python -m <module>` with one JSON job on standard input and reads JSON lines: any number of
`{"progress": ...}`, then one `{"result": ...}` or `{"error": {kind, code, sentence, remedy}}`. The child calls
`confine` before it imports anything large: lower priority, no core file, an address-space limit, and SIGKILL when the
parent dies. A child that can stop half-way is asked to by SIGTERM, and ends with the error `child-stopped`.

Source: setrlimit(2), prctl(2) PR_SET_PDEATHSIG, sched(7), proc(5) oom_score_adj.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, TypeVar

import msgspec

from bedside.core.errors import BedsideError, MalformedError, UnavailableError
from bedside.core.unreadable import UNREADABLE
from bedside.service.relayed_error import RelayedError

_PR_SET_PDEATHSIG: Final = 1
_LINE_LIMIT_BYTES: Final = 1 << 20
_STDERR_TAIL_CHARS: Final = 300
_PASSED_VARIABLES: Final = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "CREDENTIALS_DIRECTORY",
)


Outcome = TypeVar("Outcome")

STOPPED: Final = "child-stopped"
"""Code of the error with which a child ends that was asked to stop."""
_STOP_GRACE_S: Final = 30.0
"""Seconds in which a child that was asked to stop writes down where it is."""
_CANCEL_GRACE_S: Final = 10.0
"""The same when the parent ends, too."""
_FIRST_VICTIM: Final = 800
"""Of a child in the background: where memory runs out, the kernel ends it, and not the agent."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may use.

    Attributes:
        address_space_bytes: RLIMIT_AS. onnxruntime maps several times what it touches.
        timeout_s: wall time after which the child is killed.
        nice: added to the priority value.
        background: it interrupts nobody who wakes up, and is the first to go when memory runs out. Not SCHED_IDLE: on a
            busy device it would not come to its end.
    """

    address_space_bytes: int
    timeout_s: float
    nice: int = 10
    background: bool = False


class Stop:
    """A wish that a child stops.

    Attributes:
        asked: it should write down where it is, and end.
        at_once: it should end without writing anything.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()

    def ask(self, *, at_once: bool = False) -> None:
        """Ask; a second time changes nothing, but for the hurry."""
        if at_once:
            self.at_once.set()
        self.asked.set()


class Line(msgspec.Struct, frozen=True):
    """One line of a child's standard output; exactly one field is set. Raw takes no part in a union: empty is none."""

    progress: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()
    error: RelayedError | None = None


async def run_child(
    module: str,
    job: bytes,
    limits: Limits,
    on_progress: Callable[[bytes], None] | None = None,
    stop: Stop | None = None,
) -> bytes:
    """Run `python -P -m module` on `job` and return the JSON of its result.

    Args:
        module: calls `confine` first, then `read_job`.
        job: one JSON document.
        limits: passed on the command line.
        on_progress: called with the JSON of each progress line.
        stop: of a child that can stop half-way: it is asked to by this, and when this call is cancelled.

    Raises:
        BedsideError: what the child raised, with its class, code, sentence and remedy.
        UnavailableError: `child-timeout`, `child-stopped`, or `child-died` when it ended without a result.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", module, *child_arguments(limits)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_LIMIT_BYTES,
        env={name: os.environ[name] for name in _PASSED_VARIABLES if name in os.environ} | {"OMP_NUM_THREADS": "1"},
    )
    asking = asyncio.create_task(_ask(process, stop)) if stop is not None else None
    try:
        async with asyncio.timeout(limits.timeout_s):
            return await _converse(process, job, on_progress or (lambda _: None))
    except UnavailableError as error:
        if error.code != "child-died" or stop is None or not stop.asked.is_set():
            raise
        raise UnavailableError(STOPPED, f"{module} was asked to stop, and had nothing to write down") from error
    except asyncio.CancelledError:
        if stop is not None:
            with suppress(ProcessLookupError, TimeoutError):
                process.terminate()
                await asyncio.wait_for(process.wait(), _CANCEL_GRACE_S)
        raise
    except TimeoutError as error:
        raise UnavailableError(
            "child-timeout",
            f"its child process did not finish within {limits.timeout_s:g} s",
            remedy="allow it more time, or look at the load of this machine",
        ) from error
    finally:
        if asking is not None:
            asking.cancel()
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _ask(process: asyncio.subprocess.Process, stop: Stop) -> None:
    """Ask the child to stop when that is wanted, and end it when it does not."""
    await stop.asked.wait()
    with suppress(ProcessLookupError, TimeoutError):
        if not stop.at_once.is_set():
            process.terminate()
        await asyncio.wait_for(stop.at_once.wait(), _STOP_GRACE_S)
    with suppress(ProcessLookupError):
        process.kill()


async def _converse(process: asyncio.subprocess.Process, job: bytes, on_progress: Callable[[bytes], None]) -> bytes:
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    if stdin is None or stdout is None or stderr is None:
        raise UnavailableError("child-died", "the child has no pipes")
    complaints = asyncio.create_task(stderr.read())
    try:
        with suppress(BrokenPipeError, ConnectionResetError):
            stdin.write(job)
            await stdin.drain()
            stdin.close()
        while text := await stdout.readline():
            line = read_line(text)
            if line.error is not None:
                raise line.error.revive()
            if bytes(line.result):
                return bytes(line.result)
            if bytes(line.progress):
                on_progress(bytes(line.progress))
        tail = (await complaints).decode(errors="replace").strip()[-_STDERR_TAIL_CHARS:]
        raise _died(await process.wait(), tail)
    except ValueError as error:  # a line over the limit
        raise _died(None, "its output is not the protocol's") from error
    finally:
        complaints.cancel()


def read_line(text: bytes) -> Line:
    """Read one line of a child's output.

    Raises:
        UnavailableError: `child-died`: it is not the protocol's.
    """
    return read_outcome(text, Line)


def read_outcome(data: bytes, kind: type[Outcome]) -> Outcome:
    """Read what a child reports: it has handled foreign bytes, so that its word is not believed either.

    Raises:
        UnavailableError: `child-died`: it is not a `kind`.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise _died(None, "its output is not the protocol's") from error


def _died(status: int | None, tail: str) -> UnavailableError:
    return UnavailableError(
        "child-died",
        f"the child ended without a result (status {status}): {tail}",
        remedy="if memory ran out, lower the batch size or raise the limit",
    )


def child_arguments(limits: Limits) -> tuple[str, ...]:
    """What `confine` expects on the command line of a child of this process."""
    return (str(limits.address_space_bytes), str(limits.nice), str(int(limits.background)), str(os.getpid()))


def confine(arguments: list[str]) -> None:
    """In the child: apply the limits that `run_child` passed on the command line.

    Raises:
        SystemExit: the parent died before the child could tie itself to it.
    """
    address_space_bytes, nice, background, parent = (int(argument) for argument in arguments)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the parent is gone")
    os.nice(nice)
    if background:
        with suppress(OSError):  # a sandbox may forbid it
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(_FIRST_VICTIM), "ascii")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (address_space_bytes, address_space_bytes))


def forbid_writing() -> None:
    """In a child that only looks: no file gets a byte from it, whatever the foreign bytes in it try. Pipes do."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def heed_stop() -> Callable[[], bool]:
    """In the child: from now on SIGTERM ends nothing; returns whether it has come."""
    came = False

    def note(_signal: int, _frame: object) -> None:
        nonlocal came
        came = True

    signal.signal(signal.SIGTERM, note)
    return lambda: came


def decode_job(data: bytes, kind: type[Outcome]) -> Outcome:
    """In the child: read the job.

    Raises:
        MalformedError: `bad-job`.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise MalformedError("bad-job", f"the child's job cannot be read: {error}") from error


def read_job() -> bytes:
    """In the child: the job, whole."""
    return sys.stdin.buffer.read()


def report_progress(progress: object) -> None:
    """In the child: tell the parent how far it is."""
    _write({"progress": progress})


def report_result(result: object) -> None:
    """In the child: the last line."""
    _write({"result": result})


def report_error(error: BedsideError) -> NoReturn:
    """In the child: the last line, and the exit."""
    _write({"error": RelayedError.of(error)})
    raise SystemExit(error.exit_status)


def _write(line: Mapping[str, object]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()
