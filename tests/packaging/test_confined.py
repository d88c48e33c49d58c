"""What a unit's system call filter forbids is forbidden, and an agent with its children works under it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from confined import why_not

from bedside.firmware_bridge.recording import Recording, write_recording
from resident_device import make_directory
from service_manager import listening

CONFINED = (sys.executable, str(Path(__file__).with_name("confined.py")), "bedside-agent.service", sys.executable)
SOURCE = '[[sources]]\nkind = "replay"\nname = "wrist"\n[sources.options]\nstream = "wrist"\ndata = "signal.npz"\n'
FORBIDDEN = """\
import mmap, os, socket
def refused(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except PermissionError:
        return True
print(refused(os.chown, '.', 1, 1), refused(mmap.mmap, -1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC),
      refused(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW), refused(os.nice, 1), refused(os.sched_setscheduler, 0,
      os.SCHED_BATCH, os.sched_param(0)))
"""

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


def test_a_command_under_the_filter_does_what_a_service_does_and_nothing_else() -> None:
    told = subprocess.run([*CONFINED, "-c", FORBIDDEN], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["True", "True", "True", "None", "None"]


def test_an_agent_takes_samples_and_reloads_under_the_filter_of_its_unit(tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "d", SOURCE)
    write_recording(directory / "signal.npz", Recording(np.zeros((3_000, 2), np.float32), 50.0, unit="mV"))
    with listening(tmp_path) as manager:
        command = [*CONFINED, "-m", "bedside.agent.resident", str(directory), "test"]
        agent = subprocess.Popen(command, env=manager.environment)
        try:
            manager.until("READY=1")
            agent.send_signal(signal.SIGHUP)
            assert "nothing has changed" in manager.until("READY=1"), "the child that judges the file has run"
            manager.until("WATCHDOG=1")
        finally:
            agent.terminate()
            assert agent.wait(20) == 0
