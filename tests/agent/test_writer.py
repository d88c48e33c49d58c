"""One writer at a time: the lock is one process's alone, and gone with it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bedside.agent.writer import LOCK_NAME, become_writer, is_served
from bedside.core.errors import StoreError, UnavailableError
from bedside.service.platform import SystemClock

HOLDER = """
import sys
from pathlib import Path
from bedside.agent.writer import become_writer
from bedside.service.platform import SystemClock
with become_writer(Path(sys.argv[1]), Path("none"), SystemClock()) as writes:
    print(writes, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path):
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_whoever_waits_too_long_for_another_writer_is_told_how_to_find_it(tmp_path: Path, other) -> None:
    with (
        pytest.raises(UnavailableError, match="another program writes") as refused,
        become_writer(tmp_path, tmp_path / "s", SystemClock(), wait_s=0.1),
    ):
        pass
    assert refused.value.code == "store-in-use"
    assert LOCK_NAME in refused.value.remedy


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path, other) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait(10)
    with become_writer(tmp_path, tmp_path / "s", SystemClock()) as writes:
        assert writes


def test_a_writer_gets_the_lock_when_the_other_one_ends(tmp_path: Path, other) -> None:
    other.stdin.close()
    with become_writer(tmp_path, tmp_path / "s", SystemClock()) as writes:
        assert writes


def test_where_an_agent_serves_nobody_else_writes(tmp_path: Path, other) -> None:
    served = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(served))
        assert not is_served(served)
        server.listen()
        with become_writer(tmp_path, served, SystemClock()) as writes:
            assert not writes


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=LOCK_NAME), become_writer(tmp_path / "file" / "s", tmp_path, SystemClock()):
        pass


def test_the_lock_is_private(tmp_path: Path) -> None:
    with become_writer(tmp_path, tmp_path / "s", SystemClock()):
        assert (tmp_path / LOCK_NAME).stat().st_mode & 0o777 == 0o600
