"""What machines of tests leave behind: nothing, also when the tests are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from first_machine import need_machines

from watched_rounds import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

BOOTS = """\
import sys, time
from pathlib import Path
from lab import lab
from machine import Disk, Machine
root = Path(sys.argv[1])
with lab() as where:
    where.add_bridge("wan", "10.77.0.1/24")
    machine = Machine(where, "alder", Disk([root], root / "var"), bridge="wan", address="10.77.0.2/24", mounts={})
    machine.boot()
    print(where.folder, machine.leader, flush=True)
    time.sleep(300)
"""


def test_when_the_tests_are_killed_machines_folders_and_cgroups_go() -> None:
    command = [sys.executable, "-c", BOOTS, need_machines()]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[:2]))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ, text=True) as process:
        assert process.stdout is not None
        folder, leader = process.stdout.readline().split()
        machine = psutil.Process(int(leader))
        places = [Path(folder), *Path("/sys/fs/cgroup").rglob(Path(folder).name)]
        assert len(places) > 1
        assert all(place.is_dir() for place in places)
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not machine.is_running(), "the machine has ended")
    wait_until(lambda: not any(place.exists() for place in places), "its folder and its cgroups are gone")
    assert folder not in Path("/proc/mounts").read_text()
