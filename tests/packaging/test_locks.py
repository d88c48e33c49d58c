"""The locks name what pyproject.toml asks for, one wheel each, and no place that they came from."""

import locks
import pytest
from packaging.requirements import Requirement
from parts import LOCKS, PARTS, project
from targets import TARGETS, chosen_targets

PAIRS = [pytest.param(part, target, id=f"{part.name}-{target.name}") for part in PARTS for target in TARGETS]
PART = {part.name: part for part in PARTS}


@pytest.mark.parametrize(("part", "target"), PAIRS)
def test_a_lock_was_made_from_what_pyproject_asks_for(part, target):
    assert locks.wanted_by(part.lock(target.name)) == part.requirements(), "run `make locks`"


@pytest.mark.parametrize(("part", "target"), PAIRS)
def test_a_lock_satisfies_every_requirement_that_holds_there(part, target):
    versions = {entry.name: entry.version for entry in locks.read_lock(part.lock(target.name))}
    for text in part.requirements():
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate(target.markers()):
            assert wanted.specifier.contains(versions[wanted.name.lower()]), text


@pytest.mark.parametrize(("part", "target"), PAIRS)
def test_every_line_of_a_lock_is_a_hashed_wheel(part, target):
    lines = [line for line in part.lock(target.name).read_text().splitlines() if not line.startswith("#")]
    assert len(locks.read_lock(part.lock(target.name))) == len(lines) > 10


def test_the_tools_are_locked_from_what_pyproject_asks_for():
    assert locks.wanted_by(locks.TOOLS) == locks.tool_wants(), "run `make locks`"
    for line in locks.TOOLS.read_text().splitlines():
        assert line.startswith(("#", "    --hash=sha256:")) or line.endswith("\\") or not line


def test_locks_name_no_index():
    named = [path.name for path in LOCKS.iterdir() if "://" in path.read_text() or "--index" in path.read_text()]
    assert named == []


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_trustee_runs_on_the_same_wheels_as_an_agent_and_on_no_others(target):
    agent = set(locks.read_lock(PART["agent"].lock(target.name)))
    trustee = set(locks.read_lock(PART["trustee"].lock(target.name)))
    assert trustee < agent
    assert {entry.name for entry in trustee} & {
        "onnxruntime",
        "bleak",
        "dbus-fast",
        "sqlite-utils",
        "pyserial",
    } == set()


def test_what_a_part_needs_is_named_as_pyproject_names_it():
    base = {Requirement(text).name for text in project()["dependencies"]}
    for part in PARTS:
        assert part.only <= base


def test_the_best_wheel_is_the_newest_platform_that_the_release_has():
    (target,) = chosen_targets("bookworm-arm64")
    names = [
        "x-1.0-cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64.whl",
        "x-1.0-cp311-cp311-manylinux_2_28_aarch64.whl",
        "x-1.0-cp311-cp311-manylinux_2_41_aarch64.whl",
        "x-1.0-cp313-cp313-manylinux_2_28_aarch64.whl",
        "x-1.0-py3-none-any.whl",
    ]
    assert locks.best_wheel(names, target) == names[1]
    with pytest.raises(SystemExit, match="none of these runs on bookworm-arm64"):
        locks.best_wheel(names[2:4], target)


def test_an_unknown_target_is_named():
    with pytest.raises(SystemExit, match="no such target: jessie-mips; there are bookworm-amd64"):
        chosen_targets("bookworm-arm64 jessie-mips")


def test_uv_asks_the_index_that_pip_asks():
    assert locks.index_settings({"PIP_INDEX_URL": "https://mirror.hospital.example/simple"})["UV_DEFAULT_INDEX"] == (
        "https://mirror.hospital.example/simple"
    )
    set_already = {"PIP_INDEX_URL": "https://a.example", "UV_DEFAULT_INDEX": "https://b.example"}
    assert locks.index_settings(set_already)["UV_DEFAULT_INDEX"] == "https://b.example"
