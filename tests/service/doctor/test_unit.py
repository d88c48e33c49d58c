"""The service manager as `systemctl` tells of it: a script in its place."""

import os

import pytest

from bedside.core.errors import UnavailableError
from bedside.service import systemd
from bedside.service.doctor.check import Place, examine
from bedside.service.doctor.unit import SERVICE, how_to_start
from bedside.service.health import Level
from bedside.service.platform import SystemClock
from bedside.service.systemd import Unit, find_unit, keep_proxies, start_unit

WELL = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "NRestarts": "0"}

AGAIN_AND_AGAIN = {"ActiveState": "activating", "SubState": "auto-restart", "Result": "exit-code", "NRestarts": "3"}
SKIPPED = {"ActiveState": "inactive", "ConditionResult": "no", "ConditionTimestampMonotonic": "7"}


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """Says what `systemctl show` prints; the words of every call are in `calls`."""
    (tmp_path / systemd.BOOTED).mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "systemctl"
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    def set_up(status=0, **properties):
        told = {"ExecStart": f"{{ path=/usr/bin/bedside ; argv[]=bedside agent run {tmp_path} ; }}", **properties}
        lines = "".join(f"{name}={value}\n" for name, value in told.items())
        (tmp_path / "told").write_text(lines)
        script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncat {tmp_path}/told\nexit {status}\n')
        script.chmod(0o755)

    set_up.place = Place(tmp_path, SystemClock(), unit="bedside-agent", root=tmp_path)
    set_up.calls = tmp_path / "calls"
    return set_up


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, Level.OK, "starts with the machine"),
        ({"ActiveState": "failed", "Result": "watchdog"}, Level.FAILED, "watchdog"),
        ({"ActiveState": "inactive"}, Level.FAILED, "does not run"),
        ({"UnitFileState": "disabled"}, Level.DEGRADED, "is not started with the machine"),
        ({"NRestarts": "7"}, Level.DEGRADED, "restarted 7 times"),
        (AGAIN_AND_AGAIN, Level.FAILED, "does not stay up (exit-code): it was restarted 3 times"),
        (SKIPPED, Level.FAILED, "it is not set up yet"),
    ],
)
def test_a_unit_is_as_the_manager_says(manager, changes, level, words):
    manager(**(WELL | changes))
    (found,) = examine([SERVICE], manager.place)
    assert found.level is level
    assert words in found.found
    assert bool(found.remedy) == bool(level)


def test_remedies_name_the_unit_that_is_there_and_not_another_way_to_start_it(manager):
    manager(**WELL | {"ActiveState": "failed"})
    (found,) = examine([SERVICE], manager.place)
    assert found.remedy == "systemctl status bedside-agent; journalctl -u bedside-agent -n 50"
    assert how_to_start(manager.place, "bedside agent run x").startswith("systemctl start bedside-agent;")
    manager(LoadState="not-found")
    assert how_to_start(manager.place, "bedside agent run x") == "bedside agent run x"


def test_without_systemd_without_a_unit_or_with_one_of_another_directory_there_is_nothing_to_say(manager, tmp_path):
    manager(LoadState="not-found")
    assert examine([SERVICE], manager.place) == []
    manager(**WELL | {"ExecStart": "bedside agent run /elsewhere"})
    assert examine([SERVICE], manager.place) == []
    assert find_unit("bedside-agent", tmp_path / "nowhere") is None
    manager(status=1)
    assert find_unit("bedside-agent", tmp_path) is None


def test_the_proxy_of_the_service_is_that_of_its_process_and_else_that_of_its_unit(manager, tmp_path):
    manager(**WELL, MainPID="7", Environment="https_proxy=http://p:1 LANG=C", SupplementaryGroups="dialout bluetooth")
    unit = find_unit("bedside-agent", tmp_path)
    assert unit.environment(tmp_path / "proc") == {"https_proxy": "http://p:1"}
    (tmp_path / "defaults").write_text('#https_proxy=http://no:0\nhttps_proxy="http://f:3"\nBEDSIDE_LOG=json\n')
    files = Unit("x", dict(unit.properties) | {"EnvironmentFiles": f"{tmp_path}/defaults (ignore_errors=yes)"})
    assert files.environment(tmp_path / "proc") == {"https_proxy": "http://f:3"}
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/environ").write_bytes(b"https_proxy=http://q:2\0no_proxy=a,b\0TOKEN=x\0")
    assert unit.environment(tmp_path / "proc") == {"https_proxy": "http://q:2", "no_proxy": "a,b"}
    assert unit.groups == ("dialout", "bluetooth")


def test_proxies_are_kept_in_a_drop_in_that_systemd_reads_as_they_are(tmp_path):
    file = keep_proxies("bedside-agent", {"https_proxy": 'http://p:1/%41"', "no_proxy": "a,b"}, tmp_path)
    assert file == tmp_path / "etc/systemd/system/bedside-agent.service.d/proxy.conf"
    wanted = ["[Service]", 'Environment="https_proxy=http://p:1/%%41\\""', 'Environment="no_proxy=a,b"']
    assert file.read_text().splitlines() == wanted


def test_starting_a_unit_also_enables_it_and_says_why_it_could_not(manager):
    manager()
    start_unit("bedside-agent")
    assert manager.calls.read_text().splitlines()[-1] == "--no-pager enable --now bedside-agent.service"
    manager(status=1)
    with pytest.raises(UnavailableError) as caught:
        start_unit("bedside-agent")
    assert caught.value.code == "unit-start"
    assert "journalctl" in caught.value.remedy


def test_a_start_is_waited_for_longer_than_an_answer(manager, monkeypatch):
    manager(**WELL)
    waits = []
    run = systemd.subprocess.run
    monkeypatch.setattr(
        systemd.subprocess, "run", lambda *words, timeout, **how: waits.append(timeout) or run(*words, **how)
    )
    find_unit("bedside-agent", manager.place.root)
    start_unit("bedside-agent")
    assert waits[0] < systemd.START_S == waits[-1]
