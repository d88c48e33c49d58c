import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bedside.core.errors import UnavailableError
from bedside.demo.processes import ProcessTable, Started, bedside_command
from bedside.service.platform import SystemClock

STUBBORN_TREE = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]

HOLDER = """
import sys
from pathlib import Path
from bedside.demo.interruption import interruptible
from bedside.demo.processes import ProcessTable
from bedside.service.platform import SystemClock
with interruptible(), ProcessTable(Path(sys.argv[1]), SystemClock()) as table:
    started = table.start("tree", [sys.executable, "-c", sys.argv[2]])
    while not (words := started.log.read_text()).endswith("\\n"):
        table.require_running()
    print(started.process.pid, words.strip(), flush=True)
    import time
    time.sleep(600)
"""


def wait_until(holds: Callable[[], bool], what: str, deadline_s: float = 20.0) -> None:
    end_s = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < end_s, f"not in {deadline_s} s: {what}"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def child_of(log: Path) -> int:
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"), "the child's id")
    return int(log.read_text())


def test_leaving_ends_a_tree_that_ignores_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bedside.demo.processes.STOP_TIMEOUT_S", 0.5)
    with ProcessTable(tmp_path, SystemClock()) as table:
        started = table.start("tree", [sys.executable, "-c", STUBBORN_TREE])
        child = child_of(started.log)

    assert is_gone(started.process.pid)
    assert is_gone(child)


def test_an_exception_ends_everything(tmp_path: Path) -> None:
    def fail() -> None:
        with ProcessTable(tmp_path, SystemClock()) as table:
            started.extend(table.start(f"sleeper-{index}", SLEEPER) for index in range(3))
            raise ValueError("broken")

    started: list[Started] = []
    with pytest.raises(ValueError, match="broken"):
        fail()

    assert all(is_gone(one.process.pid) for one in started)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_process(tmp_path: Path, how: signal.Signals) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            HOLDER,
            str(tmp_path),
            STUBBORN_TREE.replace("SIGTERM, signal.SIG_IGN", "SIGUSR1, print"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        parent, child = map(int, holder.stdout.readline().split())
        holder.send_signal(how)
        assert holder.wait(20) != 0

    wait_until(lambda: is_gone(parent) and is_gone(child), "the tree is gone")


def test_a_killed_process_starts_again_with_its_log_kept(tmp_path: Path) -> None:
    with ProcessTable(tmp_path, SystemClock()) as table:
        first = table.start("speaker", [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"])
        wait_until(lambda: first.log.read_text() == "up\n", "the first word")
        table.kill("speaker")
        assert is_gone(first.process.pid)

        second = table.restart("speaker")
        wait_until(lambda: second.log.read_text() == "up\nup\n", "the second word")

        assert table["speaker"].process.pid != first.process.pid


def test_a_process_that_ended_by_itself_is_named_with_its_last_words(tmp_path: Path) -> None:
    with ProcessTable(tmp_path, SystemClock()) as table:
        started = table.start("trustee-b", [sys.executable, "-c", "import sys; sys.exit('the port is taken')"])
        started.process.wait(20)

        with pytest.raises(UnavailableError, match="trustee-b ended with status 1: the port is taken"):
            table.require_running()


def test_a_child_is_found_by_its_module(tmp_path: Path) -> None:
    with ProcessTable(tmp_path, SystemClock()) as table:
        parent = (
            "import subprocess, sys; subprocess.run([sys.executable, '-m', 'http.server', '--bind', '127.0.0.1', '0'])"
        )
        started = table.start("parent", [sys.executable, "-c", parent])

        wait_until(lambda: started.runs_child("http.server"), "the child")

        assert not started.runs_child("smtplib")


def test_every_process_leads_its_own_group(tmp_path: Path) -> None:
    with ProcessTable(tmp_path, SystemClock()) as table:
        started = table.start("sleeper", SLEEPER)

        assert os.getpgid(started.process.pid) == started.process.pid != os.getpgid(0)


def test_the_command_line_runs_this_interpreter() -> None:
    done = subprocess.run(bedside_command("--help"), capture_output=True, text=True, timeout=60, check=True)

    assert "demo" in done.stdout
