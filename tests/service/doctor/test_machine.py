"""Each check of the machine: how it is well, and how it fails."""

import os
from functools import partial
from pathlib import Path

import pytest

from bedside.service.doctor import machine
from bedside.service.doctor.check import Check, Place, examine
from bedside.service.doctor.machine import MACHINE
from bedside.service.health import Level
from bedside.service.platform import SystemClock
from hand_clock import T0, HandClock

PLACE = Place(Path("/"), SystemClock())
OK, WARN, FAIL = Level.OK, Level.DEGRADED, Level.FAILED


def levels(name, place=PLACE, **reading):
    """What the check of this name finds where the machine is so."""
    found = next(one for one in MACHINE if one.name == name)
    return [one.level for one in examine([Check(name, "", found.remedy, partial(found.look, **reading))], place)]


def test_this_machine_is_one_on_which_all_of_it_can_be_looked_at():
    found = examine(MACHINE, PLACE)
    assert {one.check for one in found} == {one.name for one in MACHINE}
    assert not [one for one in found if one.level is FAIL]
    assert all(one.remedy for one in found if one.level)


@pytest.mark.parametrize(
    ("name", "pointer_bytes", "level"),
    [("aarch64", 8, OK), ("x86_64", 8, OK), ("armv7l", 4, WARN), ("aarch64", 4, WARN), ("riscv64", 8, FAIL)],
)
def test_the_architecture_must_be_one_that_libraries_are_built_for(name, pointer_bytes, level):
    assert levels("architecture", machine=name, pointer_bytes=pointer_bytes) == [level]


@pytest.mark.parametrize(("version", "level"), [((3, 10), FAIL), ((3, 11), OK), ((3, 13), OK), ((3, 14), WARN)])
def test_python_must_be_one_that_was_tested(version, level):
    assert levels("python", version=version) == [level]


@pytest.mark.parametrize(
    ("told", "level"), [(("glibc", "2.36"), OK), (("glibc", "2.27"), FAIL), (("", ""), FAIL), (("musl", "1.2"), FAIL)]
)
def test_the_c_library_must_be_that_of_the_wheels(told, level):
    assert levels("libc", told=told) == [level]


@pytest.mark.parametrize(("free_mib", "level"), [(20, FAIL), (100, WARN), (700, OK)])
def test_memory_must_be_free(tmp_path, free_mib, level):
    (tmp_path / "proc").mkdir()
    told = (
        f"MemTotal:        1048576 kB\nMemFree:  10 kB\nMemAvailable:  {free_mib * 1024} kB\nHugePages_Total:       0\n"
    )
    (tmp_path / "proc/meminfo").write_text(told)
    assert levels("memory", Place(tmp_path, SystemClock(), root=tmp_path)) == [level]


def test_a_clock_that_nobody_has_set_fails_and_one_that_nobody_keeps_is_doubtful():
    now = Place(Path("/"), HandClock())
    unset = Place(Path("/"), HandClock(-T0 / 1e9))
    assert levels("clock", unset, kept=True) == [FAIL]
    assert levels("clock", now, kept=False) == [WARN]
    assert levels("clock", now, kept=True) == [OK]


def test_a_kernel_without_randomness_fails(monkeypatch):
    def blocked(_count, flags):
        assert flags == os.GRND_NONBLOCK
        raise BlockingIOError

    monkeypatch.setattr(machine.os, "getrandom", blocked)
    assert levels("entropy") == [FAIL]


def test_a_sqlite_that_does_not_know_our_statements_fails():
    assert levels("sqlite", version=(3, 34, 1)) == [FAIL]
    assert levels("sqlite", version=(3, 35, 0)) == [OK]
