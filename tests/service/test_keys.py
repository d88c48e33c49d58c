import errno
import os
import pwd
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from bedside.core.errors import ConfigError, StoreError
from bedside.service.files import private_opener, read_regular, write_durable
from bedside.service.keys import create_secret, create_signing_key, load_secret, load_signing_key


class CountingEntropy:
    def __init__(self):
        self.calls = 0

    def token_bytes(self, count):
        self.calls += 1
        return bytes((self.calls + at) % 256 for at in range(count))


def test_a_signing_key_is_the_same_after_it_was_loaded_again(tmp_path):
    made = create_signing_key(tmp_path / "sign.key", CountingEntropy())
    loaded = load_signing_key(tmp_path / "sign.key")
    assert loaded.verify_key.verify(made.sign(b"x")) == b"x"
    assert stat.S_IMODE((tmp_path / "sign.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o700, 0o644, 0o660])
def test_a_key_that_others_may_use_is_refused_with_the_command_that_repairs_it(tmp_path, mode):
    path = tmp_path / "sign.key"
    create_signing_key(path, CountingEntropy())
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        load_signing_key(path)
    assert caught.value.code == "key-mode"
    assert caught.value.remedy == f"chmod 600 {path}"


def test_a_pipe_by_the_name_of_a_file_is_refused_and_nobody_waits_for_its_other_end(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    with pytest.raises(ConfigError) as caught:
        load_signing_key(pipe)
    assert caught.value.code == "key-mode"
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(pipe, 100)
    for mode in ("ab", "r+b"):
        with pytest.raises(OSError), open(pipe, mode, opener=private_opener):  # noqa: PT011  # whatever it says
            pass


def test_a_file_above_its_bound_is_not_read(tmp_path):
    (tmp_path / "file").write_bytes(bytes(11))
    assert read_regular(tmp_path / "file", 11) == bytes(11)
    with pytest.raises(OSError, match="it has 11 bytes"):
        read_regular(tmp_path / "file", 10)


def test_a_read_only_key_is_fine(tmp_path):
    create_secret(tmp_path / "s", 16, CountingEntropy())
    (tmp_path / "s").chmod(0o400)
    assert len(load_secret(tmp_path / "s", 16)) == 16


def test_a_key_of_another_user_is_refused(tmp_path, monkeypatch):
    create_secret(tmp_path / "s", 16, CountingEntropy())
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "s").stat().st_uid + 1)
    with pytest.raises(ConfigError) as caught:
        load_secret(tmp_path / "s", 16)
    assert caught.value.code == "key-owner"


@pytest.mark.parametrize(
    ("owner", "we", "remedy"),
    [
        (997, 0, "run the same as that user: runuser -u bedside-agent -- bedside ..."),
        (997, 1000, "run the same as that user: sudo -u bedside-agent -- bedside ..."),
        (0, 997, "chown 997 {path}"),
        (4242, 0, "chown 0 {path}"),
    ],
)
def test_a_service_is_not_told_to_give_its_key_away(tmp_path, monkeypatch, owner, we, remedy):
    def account(uid):
        return SimpleNamespace(pw_name={997: "bedside-agent", 0: "root"}[uid])

    create_secret(tmp_path / "s", 16, CountingEntropy())
    found = (tmp_path / "s").stat()
    status = SimpleNamespace(st_mode=found.st_mode, st_size=found.st_size, st_uid=owner)
    monkeypatch.setattr(os, "fstat", lambda _descriptor: status)
    monkeypatch.setattr(os, "geteuid", lambda: we)
    monkeypatch.setattr(pwd, "getpwuid", account)
    with pytest.raises(ConfigError) as caught:
        load_secret(tmp_path / "s", 16)
    assert caught.value.remedy == remedy.format(path=tmp_path / "s")


@pytest.mark.parametrize("length", [31, 33, 0])
def test_a_key_of_the_wrong_length_is_refused(tmp_path, length):
    write_durable(tmp_path / "s", bytes(length))
    with pytest.raises(ConfigError) as caught:
        load_secret(tmp_path / "s", 32)
    assert caught.value.code == "key-size"


def test_a_missing_key_says_so(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_signing_key(tmp_path / "none")
    assert caught.value.code == "key-missing"


def test_a_directory_is_no_key(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_secret(tmp_path, 32)
    assert caught.value.code in {"key-mode", "key-missing"}


def test_a_key_is_never_replaced(tmp_path):
    first = create_secret(tmp_path / "s", 32, CountingEntropy())
    with pytest.raises(ConfigError) as caught:
        create_secret(tmp_path / "s", 32, CountingEntropy())
    assert caught.value.code == "key-exists"
    assert load_secret(tmp_path / "s", 32) == first


def test_a_durable_write_syncs_the_file_before_the_rename_and_the_directory_after(tmp_path, monkeypatch):
    steps = []
    real_fsync = os.fsync

    def fsync(descriptor):
        steps.append("dir" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        steps.append((tmp_path / "f").read_bytes())
        real_fsync(descriptor)

    (tmp_path / "f").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fsync)
    write_durable(tmp_path / "f", b"new")
    assert steps == ["file", b"old", "dir", b"new"]


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    write_durable(tmp_path / "f", b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError) as caught:
        write_durable(tmp_path / "f", b"new")
    assert caught.value.code == "file-write"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


def test_a_left_over_temporary_file_does_not_stop_the_next_write(tmp_path):
    (tmp_path / ".f.new").write_bytes(b"torn")
    write_durable(tmp_path / "f", b"new", 0o644)
    assert (tmp_path / "f").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o644


@pytest.mark.parametrize("call", ["unlink", "replace"])
def test_a_disk_that_takes_no_writes_is_an_error_of_the_store(tmp_path, monkeypatch, call):
    write_durable(tmp_path / "s", b"old")

    def refuse(*_args, **_options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, call, refuse)
    with pytest.raises(StoreError) as caught:
        write_durable(tmp_path / "s", b"new")
    assert caught.value.code == "file-write"
    assert (tmp_path / "s").read_bytes() == b"old"
