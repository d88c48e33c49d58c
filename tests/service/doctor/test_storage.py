"""The disk of a component: each way in which it does not do."""

import os
import sqlite3
from pathlib import Path

import pytest

from bedside.service.doctor import storage
from bedside.service.doctor.check import Place, examine
from bedside.service.doctor.storage import DISK, OWNER, WRITING, is_strange
from bedside.service.health import Level
from bedside.service.mounts import is_in_memory
from bedside.service.platform import SystemClock

GIB = 1 << 30


@pytest.fixture
def place(tmp_path):
    """A directory below a root whose table of mounts a test writes."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "device").mkdir(mode=0o700)
    return Place(tmp_path / "device", SystemClock(), root=tmp_path)


def look(place, mounts, monkeypatch, free_bytes=10 * GIB, flag=0):
    (place.root / "proc/self/mounts").write_text(mounts)
    space = type("Space", (), {"f_bavail": free_bytes, "f_frsize": 1, "f_blocks": 20 * GIB, "f_flag": flag})
    monkeypatch.setattr(storage.os, "statvfs", lambda _path: space)
    (found,) = examine([DISK], place)
    return found.level, found.found


@pytest.mark.parametrize(
    ("mounts", "level", "words"),
    [
        ("/dev/root / ext4 rw 0 0\n", Level.OK, "free on ext4"),
        ("tmpfs / tmpfs rw 0 0\n", Level.FAILED, "in memory"),
        ("tmpfs /up tmpfs rw 0 0\nover / overlay rw,lowerdir=/low,upperdir=/up/x 0 0\n", Level.FAILED, "in memory"),
        ("over / overlay rw,lowerdir=/low,upperdir=/up/x 0 0\n", Level.OK, "free on overlay"),
        ("/dev/root / ext4 ro,noatime 0 0\n", Level.FAILED, "read-only"),
        ("nas:/x / nfs4 rw 0 0\n", Level.FAILED, "network file system"),
        ("/dev/sda1 / vfat rw 0 0\n", Level.FAILED, "no owners"),
    ],
)
def test_a_file_system_must_keep_what_it_is_given(place, monkeypatch, mounts, level, words):
    found, told = look(place, mounts, monkeypatch)
    assert found is level
    assert words in told


@pytest.mark.parametrize(("free_mib", "level"), [(10, Level.FAILED), (500, Level.DEGRADED), (5_000, Level.OK)])
def test_a_disk_that_is_nearly_full_is_told_before_it_is(place, monkeypatch, free_mib, level):
    assert look(place, "/dev/root / ext4 rw 0 0\n", monkeypatch, free_mib << 20)[0] is level


def test_a_disk_that_the_kernel_has_made_read_only_is_met(place, monkeypatch):
    level, _ = look(place, "/dev/root / ext4 rw 0 0\n", monkeypatch, flag=os.ST_RDONLY)
    assert level is Level.FAILED


def test_of_mounts_the_innermost_decides(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/root / ext4 rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\n")
    assert is_in_memory(tmp_path / "not-there-yet", mounts)
    assert not is_in_memory(tmp_path.parent, mounts)


def test_a_database_is_really_written_and_nothing_is_left(place):
    (found,) = examine([WRITING], place)
    assert found.level is Level.OK
    assert list(place.directory.iterdir()) == []


def test_a_disk_that_takes_no_database_is_met(place, monkeypatch):
    def failing(*_arguments, **_options):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(storage.sqlite3, "connect", failing)
    (found,) = examine([WRITING], place)
    assert found.level is Level.FAILED
    assert "disk I/O error" in found.found


def test_a_directory_that_is_not_ours_to_write_is_told(place, monkeypatch):
    monkeypatch.setattr(storage.os, "access", lambda _path, _mode: False)
    (found,) = examine([WRITING], place)
    assert found.level is Level.FAILED
    assert "run this as the owner" in found.remedy


def test_what_is_not_there_yet_is_looked_at_where_it_will_be(place):
    (found,) = examine([WRITING], Place(place.directory / "later" / "still", SystemClock(), root=place.root))
    assert found.level is Level.OK


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_that_root_has_left_is_named(place):
    file = place.directory / "state" / "buffer.db"
    file.parent.mkdir()
    file.touch()
    assert [one.level for one in examine([OWNER], place)] == [Level.OK]
    os.chown(file, 12345, 12345)
    (found,) = examine([OWNER], place)
    assert found.level is Level.FAILED
    assert str(file) in found.found
    assert "chown" in found.remedy


def test_a_directory_that_others_may_look_into_is_told(place):
    place.directory.chmod(0o755)
    found = examine([OWNER], place)
    assert (found[0].level, "chmod 700" in found[0].remedy) == (Level.DEGRADED, True)


@pytest.mark.parametrize(
    ("path", "mode", "owner", "strange"),
    [
        ("state/buffer.db", 0o100644, 0, True),
        ("state/buffer.db", 0o100600, 64101, False),
        ("conf.d/database.toml", 0o100644, 0, False),
        ("conf.d/database.toml", 0o100600, 0, True),
        ("policy.toml", 0o120777, 0, False),
    ],
)
def test_a_drop_in_of_an_administrator_that_the_service_may_read_is_not_left_behind(path, mode, owner, strange):
    status = os.stat_result((mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))
    assert is_strange(Path(path), status, 64101) is strange
