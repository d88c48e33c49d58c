"""The agent's packages for arm64 on emulated boards: their own environment examines itself, and replays a bundle.

QEMU's user emulation has the kernel of the machine that it runs on: its memory, disk and clock are what is found.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from built_debs import build
from nacl.signing import SigningKey
from parts import PARTS
from targets import TARGETS, Target

from aarch64_root import Board, NoBoardError, cache_folder, packaged_board
from bedside.authoring.build import build_bundle
from bedside.authoring.recipe import load_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]

AGENT = next(part for part in PARTS if part.name == "agent")
CPU = {"bookworm": "cortex-a72", "trixie": "cortex-a76"}
ARM64 = [target for target in TARGETS if target.arch == "arm64"]
AUTHOR = SigningKey(b"author" * 5 + b"!!")
CHECKS = ["architecture", "python", "libc", "memory", "clock", "entropy", "sqlite", "disk", "database", "onnxruntime"]
OF_THE_KERNEL = {"heat"}
"""Where there is a sensor."""
MAY_WARN = {"clock": "nobody keeps the clock in time", "memory": "", "disk": "", "heat": ""}
"""They are about the machine below the board, and of these the first is usual: a container has no time service."""

REPLAY = """
import asyncio, json, sys
from bedside.ondevice import golden
found = asyncio.run(golden.replay_golden(golden.Replay(sys.argv[1], (sys.argv[2],)), golden.Limits(2 << 30, 600)))
print(json.dumps([golden.__file__, found.digest, found.differences]))
"""


@dataclass(frozen=True)
class Installed:
    """A board with the package of one target."""

    board: Board
    target: Target
    home: Path


@pytest.fixture(scope="module", params=ARM64, ids=lambda target: target.name)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    target: Target = request.param
    folder = tmp_path_factory.mktemp(target.name)
    build(folder / "out", AGENT.name, target.name)
    (package,) = (folder / "out").glob(f"{AGENT.package}_*.deb")
    try:
        cpu = CPU[target.release]
        board = packaged_board(cache_folder(), folder / "root", cpu, target.release, package, AGENT.home)
    except NoBoardError as error:
        pytest.skip(str(error))
    return Installed(board, target, folder / "root" / AGENT.home)


def test_the_environment_is_the_package_s_own_on_the_release_s_python(installed: Installed) -> None:
    ask = "import sys, platform; print(platform.machine(), *sys.version_info[:2], sys.prefix, *sys.path)"
    machine, major, minor, prefix, *path = installed.board.run("-I", "-c", ask).stdout.split()
    assert (machine, int(major), int(minor)) == ("aarch64", *installed.target.python_version)
    assert prefix == str(installed.home)
    assert path[-1] == str(installed.home / f"lib/python{installed.target.python}/site-packages")


def test_a_board_with_the_package_is_well(installed: Installed) -> None:
    # As the first line of the script says it: the host's kernel would look for that interpreter in its own /opt.
    script = installed.home / "bin" / "bedside"
    assert script.read_text().startswith(f"#!/{AGENT.home}/bin/python3 -I\n")
    done = installed.board.run("-I", str(script), "doctor", "--json")
    assert done.returncode in {0, 1}, done.stderr
    findings = json.loads(done.stdout)["findings"]
    assert [one["check"] for one in findings if one["check"] not in OF_THE_KERNEL] == CHECKS
    for one in findings:
        print(f"{one['level']:5} {one['check']:13} {one['found']}")
        assert one["level"] == "ok" or (one["level"] == "warn" and MAY_WARN.get(one["check"], "-") in one["found"]), one


@pytest.mark.parametrize("recipe", ["har", "ecg"])
def test_a_shipped_bundle_replays_in_the_package_s_environment(
    installed: Installed, recipe: str, tmp_path: Path
) -> None:
    built = build_bundle(load_recipe(recipe), AUTHOR)
    bundle = tmp_path / "bundle.tar"
    bundle.write_bytes(built.tar)
    done = installed.board.run("-I", "-c", REPLAY, str(bundle), bytes(AUTHOR.verify_key).hex())
    assert done.returncode == 0, done.stderr[-2_000:]
    module, digest, differences = json.loads(done.stdout)
    assert Path(module).is_relative_to(installed.home)
    assert digest == built.digest.hex()
    named = {entry.tensor for entry in built.manifest.golden.tolerances} - {"logits_litert"}
    assert differences.keys() - {"classes"} == named
    for tensor, difference in differences.items():
        tolerance = built.manifest.tolerance(tensor)
        print(f"{recipe:6} {tensor:14} {difference:9.3g} of {tolerance:9.3g}")
        assert difference <= tolerance
