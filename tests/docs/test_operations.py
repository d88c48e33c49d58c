"""The walk-through of docs/operations.md ends with a trained model when it is typed as it stands."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from walkthrough import File, Shell, section_of, shell, steps_of

from bedside.core.bundle.tensors import decode_tensors
from bedside.demo.runtime import find_memory_base
from ports import free_ports

pytestmark = pytest.mark.system

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
SHARED_MEMORY = Path("/dev/shm")
RUNTIME_IN_TEXT = "/dev/shm/bedside-try"
DEADLINE_S = 90.0
ROUND_SHOW = "bedside round show --task activity"


@pytest.fixture
def runtime() -> Iterator[Path]:
    """Where the trustees' keys go instead."""
    if not SHARED_MEMORY.is_dir() or find_memory_base({}, Path("/proc/mounts")) != SHARED_MEMORY:
        pytest.skip("the walk-through needs a writable /dev/shm in memory, and this machine has none")
    folder = Path(tempfile.mkdtemp(prefix="bedside-test-", dir=SHARED_MEMORY))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def is_up(output: str) -> bool:
    return "running" in output


def trustees_are_online(output: str) -> bool:
    return len(re.findall(r"^ward-\w .* online +\d+$", output, re.MULTILINE)) == 3


def devices_are_online(output: str) -> bool:
    return len(re.findall(r"^ward-\w +1 +1 +\d+ +online +\d+$", output, re.MULTILINE)) == 3


def look_again(typed: Shell, command: str, holds: Callable[[str], bool]) -> None:
    """The text says to look until it is so."""
    end_s = time.monotonic() + DEADLINE_S
    while True:
        status, output = typed.run(command)
        if status == 0 and holds(output):
            return
        assert time.monotonic() < end_s, f"$ {command}\n{output}"


def test_the_walk_through_ends_with_a_trained_model(tmp_path: Path, runtime: Path) -> None:
    service, enrolment = free_ports(2)
    busy = "agent init gateway-$ward && sed -i 's/^load_per_core = .*/load_per_core = 1000.0/' gateway-$ward/agent.toml"
    replaced = {
        "7443": str(service),
        "7444": str(enrolment),
        RUNTIME_IN_TEXT: str(runtime),
        "agent init gateway-$ward": busy,  # what else this machine does is no reason to wait
    }
    waited = iter([trustees_are_online, devices_are_online])
    shown = ""
    with shell(tmp_path, replaced) as typed:
        for step in steps_of(section_of(PAGE.read_text(), "A federation on one machine")):
            if isinstance(step, File):
                (tmp_path / step.name).write_text(step.body)
            elif step.command == "bedside coordinator status":
                look_again(typed, step.command, is_up)
            elif step.command == "bedside fleet status":
                look_again(typed, step.command, next(waited))
            else:
                typed.must(step.command)
            if not isinstance(step, File) and step.command == ROUND_SHOW:
                shown = typed.must(f"{ROUND_SHOW} --json")
    detail = json.loads(shown)
    assert (detail["phase"], detail["round_number"], detail["contributors"]) == ("opened", 3, 3)
    assert detail["counts"]["correct"] > 0.6 * detail["counts"]["examples"], "it learned"
    assert "w0" in decode_tensors((tmp_path / "activity.safetensors").read_bytes())
    assert not runtime.exists(), "the text's last command leaves nothing behind"


def test_files_and_commands_are_found_in_their_order() -> None:
    steps = list(steps_of(section_of(PAGE.read_text(), "A federation on one machine")))
    assert [step.name for step in steps if isinstance(step, File)] == ["recipe.toml", "record.py", "source.toml"]
    assert len(steps) > 25
