"""A walk-through in a page, as somebody types it: console lines into one shell, and files where the text names them."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

QUIET_S = 90.0
"""A command that prints nothing for so long has failed."""
_BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE_NAME = re.compile(r"`(\w+\.\w+)`")


@dataclass(frozen=True)
class Line:
    """One command."""

    command: str


@dataclass(frozen=True)
class File:
    """A file that the reader writes; its name is the last one in the line above it."""

    name: str
    body: str


@dataclass(frozen=True)
class Shown:
    """What the page says that the command above it prints."""

    text: str


def section_of(page: str, heading: str) -> str:
    """The text under a heading of the second level."""
    return page.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def steps_of(section: str) -> Iterator[Line | File | Shown]:
    """What a reader does, in order."""
    for block in _BLOCK.finditer(section):
        if block["kind"] == "console":
            for line in block["body"].splitlines():
                assert line.startswith("$ "), f"not a command: {line}"
                yield Line(line.removeprefix("$ "))
        elif block["kind"] == "text":
            yield Shown(block["body"])
        else:
            yield File(_FILE_NAME.findall(block["before"])[-1], block["body"])


class Shell:
    """One shell in a folder; what is started with & runs on."""

    def __init__(self, folder: Path, replaced: dict[str, str]) -> None:
        self.replaced = replaced
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("BEDSIDE_")}
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**environ, "PATH": path, "OMP_NUM_THREADS": "1", "GRPC_VERBOSITY": "NONE"},
            start_new_session=True,
        )
        self._count = 0
        self.run("set -o pipefail; trap 'failed=1' ERR")  # also for one pass of a loop

    def run(self, command: str) -> tuple[int, str]:
        """Type a command; 0 when every part of it succeeded, else 1; and what it printed."""
        for old, new in self.replaced.items():
            command = command.replace(old, new)
        self._count += 1
        mark = f"end-of-command-{self._count}-"
        assert self._process.stdin is not None
        self._process.stdin.write(f"failed=0\n{command}\necho {mark}$failed\n".encode())
        self._process.stdin.flush()
        text = self._read_to(mark, command)
        output, _, status = text.rpartition(mark)
        return int(status), output

    def must(self, command: str) -> str:
        """Type a command that must succeed."""
        status, output = self.run(command)
        assert status == 0, f"$ {command}\n{output}"
        return output

    def _read_to(self, mark: str, command: str) -> str:
        assert self._process.stdout is not None
        data = b""
        while not (mark.encode() in data and data.endswith(b"\n")):
            ready, _, _ = select.select([self._process.stdout], [], [], QUIET_S)
            more = os.read(self._process.stdout.fileno(), 65_536) if ready else b""
            if not more:
                pytest.fail(f"$ {command}\n{data.decode()}\n... and then nothing for {QUIET_S:.0f} s")
            data += more
        return data.decode()

    def close(self) -> None:
        """End the shell and everything that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


@contextmanager
def shell(folder: Path, replaced: dict[str, str]) -> Iterator[Shell]:
    """A shell that is gone afterwards, with what it started."""
    running = Shell(folder, replaced)
    try:
        yield running
    finally:
        running.close()
