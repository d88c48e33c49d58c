"""`bedside doctor` as a command: what it looks at, what it prints, how it ends."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from bedside.core.errors import ConfigError
from bedside.proto.v1.identity_pb2 import Role
from bedside.service import account
from bedside.service.cli import run
from bedside.service.doctor import command, parts
from bedside.service.doctor.check import Check, Part, Place, bad, doubtful, examine, good
from bedside.service.identity import create_identity
from bedside.service.platform import SystemClock, SystemEntropy
from bedside.trustee.paths import SitePaths
from bedside.trustee.site.founding import found_site

COMPONENT_PARTS = {"agent", "coordinator", "trustee"}


@pytest.fixture
def looks(monkeypatch, tmp_path):
    """A part with one check that finds what a test says, and a machine that is well."""
    (tmp_path / "probe.toml").touch()

    def set_up(*found):
        check = Check("probe", "a probe", "mend the probe", lambda _place: iter(found))
        made = Part("probe", tmp_path, "probe.toml", "", (), (check,))
        monkeypatch.setattr(command, "installed_parts", lambda: [made])
        monkeypatch.setattr(command, "MACHINE", ())

    return set_up


@pytest.mark.parametrize(
    ("found", "status", "word"),
    [
        ([good("fine")], 0, "ok"),
        ([good("fine"), doubtful("odd")], 1, "warn"),
        ([doubtful("odd"), bad("no")], 2, "fail"),
    ],
)
def test_it_ends_as_monitoring_expects_it(looks, tmp_path, capsys, found, status, word):
    looks(*found)
    assert run(["doctor", str(tmp_path), "--json"], {}) == status
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == word
    assert [one["check"] for one in told["findings"]] == ["probe"] * len(found)
    assert [one["remedy"] for one in told["findings"]] == ["mend the probe" * (one.level > 0) for one in found]
    assert {one["part"] for one in told["findings"]} == {"probe"}


def test_people_see_a_line_for_each_and_what_to_do_below_it(looks, tmp_path, capsys):
    looks(good("fine"), bad("it broke\x1b[0m", "mend it"))
    assert run(["doctor"], {}) == 2  # what lies where packages put it
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "machine",
        f"probe  {tmp_path}",
        "  ok    probe  fine",
        "  fail  probe  it broke\\x1b[0m",
        "               → mend it",
        "1 well, 0 to look at, 1 not working",
    ]


def test_a_check_that_fails_by_itself_does_not_hide_the_others(tmp_path):
    def broken(_place):
        yield good("so far")
        raise KeyError("nobody thought of this")

    def refused(_place):
        raise ConfigError("bad-x", "x is bad", remedy="mend x")

    checks = [
        Check("a", "", "", broken),
        Check("b", "", "", refused),
        Check("c", "", "", lambda _place: [good("well")]),
    ]
    found = examine(checks, Place(tmp_path, SystemClock()))
    assert [(one.check, int(one.level)) for one in found] == [("a", 2), ("b", 2), ("c", 0)]
    assert "nobody thought of this" in found[0].found
    assert (found[1].found, found[1].remedy) == ("x is bad [bad-x]", "mend x")


def test_every_part_brings_its_checks_and_one_that_is_not_installed_brings_none(monkeypatch):
    assert {part.name for part in parts.installed_parts()} == COMPONENT_PARTS
    missing = type("Point", (), {"name": "x", "module": "bedside.agent.nothing", "attr": "PART"})
    monkeypatch.setattr(parts, "entry_points", lambda group: [missing])
    assert parts.installed_parts() == []


def test_names_of_checks_are_unique_within_a_part():
    for part in parts.installed_parts():
        names = [check.name for check in (*part.early, *part.checks)]
        assert len(set(names)) == len(names)


def test_a_directory_of_nobody_is_refused_with_what_there_is(tmp_path, capsys):
    assert run(["doctor", str(tmp_path)], {}) == ConfigError.exit_status
    told = capsys.readouterr().err
    assert "[no-component]" in told
    assert all(name in told for name in COMPONENT_PARTS)


def test_a_device_whose_configuration_is_gone_is_not_well(looks, tmp_path, capsys):
    """The package's link to /etc is still there, and the service cannot start."""
    looks(bad("there is no probe.toml"))
    (tmp_path / "probe.toml").unlink()
    (tmp_path / "probe.toml").symlink_to(tmp_path / "etc" / "probe.toml")
    assert run(["doctor", "--json"], {}) == 2
    assert json.loads(capsys.readouterr().out)["findings"][0]["part"] == "probe"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Another package on this machine: its doctor says this, and notes how it was called."""
    monkeypatch.setattr(parts, "PACKAGED", tmp_path / "opt")
    monkeypatch.setattr(parts, "STATES", tmp_path / "lib")

    def install(name, text, status=2):
        script = tmp_path / "opt" / name / "bin" / "bedside"
        script.parent.mkdir(parents=True)
        (tmp_path / "told").write_text(text)
        script.write_text(
            f'#!/bin/sh\necho "${parts.ALONE} $@" >> {tmp_path}/calls\ncat {tmp_path}/told\nexit {status}\n'
        )
        script.chmod(0o755)

    return install


def test_what_other_packages_have_set_up_is_looked_at_by_their_own_doctor(
    looks, package, tmp_path, capsys, monkeypatch
):
    row = {"part": "trustee", "directory": "/x", "check": "swap", "level": "fail", "found": "some", "remedy": "none"}
    package("trustee", json.dumps({"state": "fail", "findings": [row | {"part": "machine"}, row]}))
    looks(good("fine"))
    assert run(["doctor", "--json"], {}) == 2
    told = json.loads(capsys.readouterr().out)["findings"]
    assert told == [
        row
        | {"part": "probe", "directory": str(tmp_path), "check": "probe", "level": "ok", "found": "fine", "remedy": ""},
        row,
    ]
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    assert run(["doctor", str(folder)], {}) == 2
    assert "  fail  swap  some" in capsys.readouterr().out
    assert (tmp_path / "calls").read_text() == f"1 doctor --json {tmp_path}/lib/trustee\n1 doctor --json {folder}\n"
    monkeypatch.setenv(parts.ALONE, "1")
    assert run(["doctor", str(folder)], {}) == ConfigError.exit_status  # who was asked asks nobody


@pytest.mark.parametrize("text", ["", "error: no", '{"findings": [{"part": 1}]}', '{"findings": []}'])
def test_a_package_without_an_answer_has_nothing_set_up(looks, package, capsys, text):
    package("trustee", text, status=78)
    looks(good("fine"))
    assert run(["doctor", "--json"], {}) == 0
    assert len(json.loads(capsys.readouterr().out)["findings"]) == 1


def test_a_device_and_a_site_are_looked_at_side_by_side(tmp_path, capsys):
    create_identity(tmp_path / "device" / "state" / "identity", Role.ROLE_DEVICE, SystemEntropy())
    (tmp_path / "device" / "agent.toml").write_text("[link]\nenabled = false\n")
    found_site(SitePaths(tmp_path / "site"), "alder", SystemEntropy())
    assert run(["doctor", str(tmp_path / "device"), str(tmp_path / "site"), "--json"], {}) == 2
    told = json.loads(capsys.readouterr().out)["findings"]
    assert {one["part"] for one in told} == {"machine", "agent", "trustee"}
    by_name = {(one["part"], one["check"]): one for one in told}
    assert by_name["agent", "onnxruntime"]["level"] == "ok"
    assert by_name["agent", "agent"]["level"] == "fail"
    assert by_name["trustee", "keys"]["remedy"] == "bedside site join"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look as somebody else")
def test_root_looks_as_the_user_whose_the_directory_is(monkeypatch, capsys):
    folder = Path(tempfile.mkdtemp(prefix="bedside-doctor-"))
    try:
        (folder / "probe.toml").touch()
        os.chown(folder, 65534, 65534)

        def who(place):
            yield good(f"{os.getresuid()} {os.getresgid()} {place.environ is os.environ}")
            with pytest.raises(PermissionError):
                os.setuid(0)

        made = Part("probe", folder, "probe.toml", "", (), (Check("who", "", "", who),))
        monkeypatch.setattr(command, "installed_parts", lambda: [made])
        monkeypatch.setattr(command, "MACHINE", ())
        monkeypatch.setattr(account, "check_python", lambda _account: None)  # ours may be root's alone
        assert run(["doctor", str(folder), "--json"], {}) == 0
        (found,) = json.loads(capsys.readouterr().out)["findings"]
        assert found["found"] == "(65534, 65534, 65534) (65534, 65534, 65534) True"
        assert os.geteuid() == 0
        monkeypatch.undo()
        monkeypatch.setattr(command, "installed_parts", lambda: [made])
        monkeypatch.setattr(account.sys, "executable", str(folder / "python"))
        assert run(["doctor", str(folder), "--json"], {}) == ConfigError.exit_status
        assert "[python-private]" in capsys.readouterr().err
    finally:
        shutil.rmtree(folder)
