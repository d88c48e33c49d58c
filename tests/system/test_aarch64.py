"""The device's part on the processors of its boards, with the wheels that they install, under QEMU's user emulation.

What it shows is that other kernels compute what the author's machine computed; not how fast, and QEMU does not hold a
child to its memory limit.
"""

from __future__ import annotations

import asyncio
import re
import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest
from nacl.signing import SigningKey

from aarch64_root import CPUS, Board, NoBoardError, Workshop, cache_folder
from bedside.authoring.build import Built, build_bundle
from bedside.authoring.recipe import load_recipe, shipped_recipes
from bedside.ondevice import trial
from bedside.ondevice.confinement import Limits, read_outcome, run_child
from bedside.ondevice.golden import Replay, replay_golden

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]

AUTHOR = SigningKey(b"author" * 5 + b"!!")
LIMITS = Limits(address_space_bytes=2 << 30, timeout_s=300)

# What must be the same to the last bit on every device and the coordinator, against vectors pinned in these tests.
EXACT = ("codec", "signing", "securesum/test_masks.py", "securesum/test_ring.py", "securesum/test_round.py")
STATISTICAL = "on_average or uniform"  # many repetitions, and the vectors decide here


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    try:
        return Workshop(cache_folder(), tmp_path_factory.mktemp("aarch64"))
    except NoBoardError as error:
        pytest.skip(str(error))


@pytest.fixture(params=CPUS)
def cpu(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def board(workshop: Workshop, cpu: str) -> Board:
    return workshop.board(cpu)


@pytest.fixture
def inferring(workshop: Workshop, cpu: str) -> Board:
    """A board with LiteRT alone."""
    return workshop.board(cpu, without="onnxruntime")


@pytest.fixture(scope="module", params=shipped_recipes())
def built(request: pytest.FixtureRequest) -> Built:
    return build_bundle(load_recipe(request.param), AUTHOR)


@pytest.fixture
def replay(built: Built, tmp_path: Path) -> Replay:
    path = tmp_path / "bundle.tar"
    path.write_bytes(built.tar)
    return Replay(str(path), (bytes(AUTHOR.verify_key).hex(),))


@pytest.fixture
def children_on(monkeypatch: pytest.MonkeyPatch) -> Callable[[Board], None]:
    """Let this process start its children on a board."""
    return lambda board: monkeypatch.setattr(sys, "executable", str(board.python))


def cpu_s() -> float:
    """CPU time of this process's children that have ended: the machine's other work does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def check(built: Built, differences: Mapping[str, float]) -> None:
    manifest = built.manifest
    for tensor, difference in differences.items():
        print(f"{manifest.name:6} {tensor:14} {difference:9.3g} of {manifest.tolerance(tensor):9.3g}")
        assert difference <= manifest.tolerance(tensor)


def test_a_board_is_one(board: Board, inferring: Board) -> None:
    ask = "import platform, importlib.util; print(platform.machine(), importlib.util.find_spec('onnxruntime') is None)"
    assert board.run("-c", ask).stdout.split() == ["aarch64", "False"]
    assert inferring.run("-c", ask).stdout.split() == ["aarch64", "True"]


def test_a_shipped_bundle_replays(
    board: Board, built: Built, replay: Replay, children_on: Callable[[Board], None]
) -> None:
    children_on(board)
    began_s = cpu_s()
    compared = asyncio.run(replay_golden(replay, LIMITS))
    print(f"\n{board.cpu}, onnxruntime, {cpu_s() - began_s:.1f} CPU s")
    check(built, compared.differences)
    assert compared.digest == built.digest.hex()
    named = {entry.tensor for entry in built.manifest.golden.tolerances} - {"logits_litert"}
    assert compared.differences.keys() - {"classes"} == named


def test_its_litert_form_replays_on_a_board_that_can_only_infer(
    inferring: Board, built: Built, replay: Replay, children_on: Callable[[Board], None]
) -> None:
    children_on(inferring)
    began_s = cpu_s()
    compared = asyncio.run(replay_golden(replay, LIMITS))
    print(f"\n{inferring.cpu}, LiteRT, {cpu_s() - began_s:.1f} CPU s")
    check(built, compared.differences)
    assert compared.differences.keys() - {"classes"} == {"logits_litert"}


@pytest.mark.parametrize("built", ["har", "watch", "ecg"], indirect=True)
def test_both_runtimes_stand_their_trial(
    board: Board, built: Built, replay: Replay, children_on: Callable[[Board], None]
) -> None:
    children_on(board)
    began_s = cpu_s()
    result = asyncio.run(run_child(trial.CHILD, msgspec.json.encode(replay), LIMITS))
    measured = read_outcome(result, tuple[trial.Measured, ...])
    print(f"\n{board.cpu}, {built.manifest.name}, trial, {cpu_s() - began_s:.1f} CPU s")
    assert {entry.runtime for entry in measured} == {"litert", "onnx"}


def test_every_module_of_a_device_imports(board: Board) -> None:
    parts = ("proto", "core", "service", "firmware_bridge", "ondevice", "agent")
    done = board.run(".ci/import_all.py", *(f"bedside.{part}" for part in parts))
    assert done.returncode == 0, done.stderr[-2_000:]
    assert "modules import" in done.stdout


def test_what_must_be_the_same_to_the_last_bit_is(workshop: Workshop, tmp_path: Path) -> None:
    board = workshop.board("cortex-a72")
    began_s = cpu_s()
    options = ("-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'board'}", "-k", f"not ({STATISTICAL})")
    tests = [f"tests/core/{name}" for name in EXACT]
    done = board.run("-m", "pytest", *options, *tests, timeout_s=1_200)
    print(f"\nthe vectors of core, {cpu_s() - began_s:.1f} CPU s\n{done.stdout[-200:]}")
    assert done.returncode == 0, done.stdout[-3_000:]
    assert re.search(r"[1-9]\d* passed", done.stdout)
