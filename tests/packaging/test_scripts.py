"""What root runs when a package comes or goes: on trees that somebody has changed by hand."""

import os
import re
import shutil
import subprocess

import pytest
from build_debs import script_of
from parts import PARTS

AGENT = next(part for part in PARTS if part.name == "agent")
STUBS = ("deb-systemd-helper", "deb-systemd-invoke", "getent", "systemctl", "userdel", "groupdel")


@pytest.fixture
def machine(tmp_path):
    """A tree in place of /, and programs that say that all is well."""
    for folder in ("var/lib/bedside/agent", "etc/bedside", "etc/default", "bin", "srv/other", "opt/bedside"):
        (tmp_path / folder).mkdir(parents=True)
    for name in STUBS:
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\necho {name} >>{tmp_path}/called\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "var/lib/bedside/agent/signal").write_text("a patient's")
    (tmp_path / "etc/bedside/policy.toml").touch()
    (tmp_path / "srv/other/precious").touch()
    return tmp_path


def run(machine, name, action, *, prepare=""):
    """Run a script with `machine` in place of /; what it printed, and its status."""
    text = re.sub(r"(?<![\w.])/(var/lib|etc|opt|run)/", rf"{machine}/\1/", script_of(name, AGENT))
    (machine / name).write_text(text)
    line = f"{prepare} sh {machine / name} {action}"
    path = f"{machine / 'bin'}:{os.environ['PATH']}"
    mounts = ["unshare", "--mount", "--map-root-user"] if prepare else []
    done = subprocess.run([*mounts, "sh", "-c", line], capture_output=True, text=True, env={"PATH": path})
    return done.returncode, done.stderr


def may_mount():
    command = ["unshare", "--mount", "--map-root-user", "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


mounting = pytest.mark.skipif(not may_mount(), reason="this user has no name space of mounts")


def test_a_package_whose_programs_somebody_has_deleted_can_be_removed(machine):
    assert run(machine, "prerm", "remove")[0] == 0


def test_purge_leaves_nothing(machine):
    assert run(machine, "postrm", "purge") == (0, "")
    assert "userdel" in (machine / "called").read_text()
    assert not (machine / "var/lib/bedside").exists()
    assert not (machine / "etc/bedside").exists()


def test_purge_leaves_what_is_shared_to_a_package_whose_disk_is_not_mounted(machine):
    (machine / "var/lib/bedside/coordinator").mkdir()
    (machine / "etc/default/bedside-coordinator").touch()
    assert run(machine, "postrm", "purge") == (0, "")
    assert not (machine / "var/lib/bedside/agent").exists()
    assert (machine / "etc/bedside/policy.toml").exists()


@mounting
def test_purge_empties_a_folder_that_is_a_disk_of_its_own_and_comes_to_its_end(machine):
    state = machine / "var/lib/bedside/agent"
    kept = machine / "disk"
    kept.mkdir()
    shutil.copy(state / "signal", kept)
    assert run(machine, "postrm", "purge", prepare=f"mount --bind {kept} {state} &&")[0] == 0
    assert list(kept.iterdir()) == []
    assert "userdel" in (machine / "called").read_text()
    assert not (machine / "etc/bedside").exists()


@mounting
def test_purge_deletes_nothing_on_another_disk_that_is_mounted_in_a_folder(machine):
    inside = machine / "var/lib/bedside/agent/export"
    inside.mkdir()
    disk = machine / "disk"
    disk.mkdir()
    prepare = f"mount -t tmpfs tmpfs {inside} && touch {inside}/precious &&"
    status, said = run(machine, "postrm", f"purge; ls {inside} >{disk}/seen", prepare=prepare)
    assert status == 0
    assert "different device" in said
    assert (disk / "seen").read_text() == "precious\n"
    assert "userdel" not in (machine / "called").read_text()  # whose number would be somebody else's
