"""A device whose disk is full goes on deciding, lets its oldest signal go first, and recovers when space returns."""

import os
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.reader import BufferReader
from bedside.core.ids import StreamId

WRIST = StreamId("wrist")
SPARE_BYTES = 64 << 10
"""What the filler leaves, before the agent takes it."""


@pytest.fixture
def small(device):
    """A device whose state lies on a file system of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    state = device.path / "state"
    aside = device.path / "aside"
    state.rename(aside)
    state.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "bedside-test", str(state)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        aside.rename(state) if not state.rmdir() else None
        pytest.skip("this machine does not allow a mount")
    shutil.copytree(aside, state, dirs_exist_ok=True)
    config = (device.path / "agent.toml").read_text()
    config = config.replace("speed = 10.0", "speed = 40.0").replace("[[", "[buffer]\ncap_mib = 1\n[[", 1)
    (device.path / "agent.toml").write_text(config)
    yield device
    device.clean_up()
    subprocess.run(["umount", "--lazy", str(state)], check=True)


class Watch:
    """What is stored, as another process sees it."""

    def __init__(self, path: Path) -> None:
        self.database, self.keys = path / "state" / "buffer.db", load_key_ring(path / "state" / "identity")

    def look(self) -> tuple[int, int, int, int]:
        """First and last stored time, samples that are there, samples that were evicted."""
        with closing(BufferReader(self.database, self.keys)) as reader:
            evicted = reader.counters().get("evicted-samples", 0)
            parts = [part for s in reader.sessions(WRIST) for part in reader.parts(WRIST, s.session)]
            assert reader.unreadable == 0
        if not parts:
            return 0, 0, 0, evicted
        samples = sum(len(part.values) for part in parts)
        ends = sorted((part.start_ns, part.start_ns + len(part.values) * 20_000_000) for part in parts)
        return ends[0][0], ends[-1][1], samples, evicted


def free_bytes(path: Path) -> int:
    return shutil.disk_usage(path).free


def fill(path: Path, leave: int) -> None:
    with path.open("wb") as file:
        file.write(bytes(max(0, free_bytes(path.parent) - leave)))


@pytest.mark.timeout(600)
def test_a_full_disk_costs_the_oldest_signal_and_no_decision(small) -> None:
    small.start()
    small.await_predictions()
    watch, state = Watch(small.path), small.path / "state"
    began_ns = small.await_value(lambda: watch.look()[2], lambda samples: samples > 10_000) and watch.look()[0]
    fill(state / "filler", SPARE_BYTES)

    def evicted() -> int:
        with closing(BufferReader(watch.database, watch.keys)) as reader:
            return reader.counters().get("evicted-samples", 0)

    small.await_value(evicted, lambda samples: samples > 500)
    first_ns, last_ns, samples, gone = watch.look()
    assert first_ns > began_ns  # the oldest went,
    assert abs((last_ns - first_ns) // 20_000_000 - samples) <= 1  # nothing from between,
    assert small.await_predictions(above=small.await_predictions() + 200) > 200  # and every window was decided
    health = small.look("status")
    assert str(health["inference"]).startswith("ok")
    assert "the disk is full" in str(health["buffer"])

    (state / "filler").unlink()
    _, _, samples, gone = watch.look()
    small.await_value(lambda: watch.look()[2], lambda now: now > samples + 4_000)
    later = watch.look()
    assert later[3] - gone < 4_000  # what is new is kept again
    small.await_value(lambda: int(str(small.look("status")["buffer"]).startswith("ok")), bool)
    assert small.stop() == 0
    first_ns, last_ns, samples, gone = watch.look()
    told = {prediction["id"] for prediction in small.predictions()}
    assert told == set(range(min(told), max(told) + 1))
    total = (last_ns - began_ns) // 20_000_000
    assert abs(samples + gone - total) <= 1, (samples, gone, total)
