import asyncio
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from resigned import with_tensors

from bedside.core.bundle.manifest import GOLDEN, PARAMETERS
from bedside.core.errors import TrustError, UnavailableError
from bedside.ondevice.confinement import Limits, run_child
from bedside.ondevice.golden import DEFAULT_LIMITS, Replay, replay_golden

CHILD = """
import sys
from bedside.ondevice.confinement import confine, read_job, report_progress, report_result
confine(sys.argv[1:])
{body}
"""


def replay(tmp_path, tar, author, limits=DEFAULT_LIMITS):
    path = tmp_path / "bundle.tar"
    path.write_bytes(tar)
    return asyncio.run(replay_golden(Replay(str(path), (bytes(author.verify_key).hex(),)), limits))


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Run a child whose work is `body`."""

    def run(body, limits):
        (tmp_path / "probe_child.py").write_text(CHILD.format(body=body))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return asyncio.run(run_child("probe_child", b"{}", limits))

    return run


def test_a_sound_bundle_replays_in_the_child(tmp_path, built, author):
    compared = replay(tmp_path, built.tar, author)
    assert compared.digest == built.digest.hex()
    assert compared.differences["classes"] == 0


@pytest.mark.parametrize("tensor", ["logits", "logits_float", "q1-all-sgd/loss", "q1-all-sgd/w0", "q1-all-sgd/amax"])
def test_a_golden_tensor_that_this_machine_does_not_compute_is_refused(tmp_path, built, author, tensor):
    def change(tensors):
        tensors[tensor] += 0.5

    with pytest.raises(TrustError) as caught:
        replay(tmp_path, with_tensors(built, author, GOLDEN, change), author)
    assert caught.value.code == "golden-mismatch"
    assert caught.value.remedy


def test_a_single_other_class_is_refused(tmp_path, built, author):
    def change(tensors):
        tensors["classes"][0] = (tensors["classes"][0] + 1) % 3

    with pytest.raises(TrustError, match="classes"):
        replay(tmp_path, with_tensors(built, author, GOLDEN, change), author)


def test_parameters_that_the_golden_vectors_were_not_made_from_are_refused(tmp_path, built, author):
    def change(tensors):
        tensors["w1"] *= np.float32(1.5)

    with pytest.raises(TrustError, match="away from its golden vector"):
        replay(tmp_path, with_tensors(built, author, PARAMETERS, change), author)


def test_a_child_that_takes_too_long_is_killed(child):
    with pytest.raises(UnavailableError) as caught:
        child("import signal; signal.pause()", Limits(1 << 30, timeout_s=0.5))
    assert caught.value.code == "child-timeout"


def test_a_child_cannot_take_more_memory_than_it_may(child):
    body = "data = bytearray(300 << 20); report_result(len(data))"
    assert child(body, Limits(1 << 30, timeout_s=20)) == str(300 << 20).encode()
    with pytest.raises(UnavailableError, match="MemoryError") as caught:
        child(body, Limits(200 << 20, timeout_s=20))
    assert caught.value.code == "child-died"


def test_a_child_runs_behind_everything_else_and_leaves_no_core(child):
    body = "import os, resource; report_result([os.nice(0), resource.getrlimit(resource.RLIMIT_CORE)[1]])"
    nice, core = msgspec.json.decode(child(body, Limits(1 << 30, timeout_s=20, nice=7)))
    assert nice == min(19, os.nice(0) + 7)
    assert core == 0


def test_a_child_that_only_looks_can_write_no_file(child, tmp_path):
    body = f"""
from bedside.ondevice.confinement import forbid_writing
forbid_writing()
try:
    with open({str(tmp_path / "large")!r}, "wb") as file:
        file.write(bytes(10 << 20))
    report_result("written")
except OSError as error:
    report_result(error.strerror)
"""
    assert msgspec.json.decode(child(body, Limits(1 << 30, timeout_s=20))) == "File too large"
    assert (tmp_path / "large").stat().st_size == 0


def test_what_a_child_prints_besides_the_protocol_is_an_error(child):
    with pytest.raises(UnavailableError) as caught:
        child("print('hello')", Limits(1 << 30, timeout_s=20))
    assert caught.value.code == "child-died"


def test_a_child_dies_with_its_parent(tmp_path):
    (tmp_path / "probe_child.py").write_text(
        CHILD.format(body="import os, signal; report_progress(os.getpid()); signal.pause()")
    )
    parent = (
        "import asyncio\n"
        "from bedside.ondevice.confinement import Limits, run_child\n"
        "show = lambda line: print(line.decode(), flush=True)\n"
        "asyncio.run(run_child('probe_child', b'{}', Limits(1 << 30, 60.0), show))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, env=environment) as process:
        pid = int(process.stdout.readline())
        process.kill()
    assert gone(pid)


def gone(pid, deadline_s=10.0):
    """Whether a process ended, or is only waiting to be reaped."""
    import time

    end_s = time.monotonic() + deadline_s
    while time.monotonic() < end_s:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
    return False
