"""Secrets are named by where they lie, and are read only where nobody else can read them."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest

from bedside.core.errors import ConfigError
from bedside.service.secret import MAX_SECRET_BYTES, read_secret

SECRET = "correct horse"


def put(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(("data", "text"), [(b"a b\n", "a b"), (b"a b", "a b"), (b"a\r\n", "a"), (b"a\n\n", "a\n")])
def test_one_newline_behind_a_secret_is_not_part_of_it(tmp_path: Path, data: bytes, text: str) -> None:
    put(tmp_path / "password", data)
    assert read_secret(tmp_path, "password", {}, option="password") == text
    assert read_secret(Path("/nowhere"), str(tmp_path / "password"), {}, option="password") == text


def test_a_credential_comes_from_the_directory_of_systemd(tmp_path: Path) -> None:
    put(tmp_path / "mqtt", SECRET.encode(), 0o440)
    assert (
        read_secret(Path("/nowhere"), "credential:mqtt", {"CREDENTIALS_DIRECTORY": str(tmp_path)}, option="password")
        == SECRET
    )


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o700])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    put(tmp_path / "password", SECRET.encode(), mode)
    with pytest.raises(ConfigError, match="chmod 600") as caught:
        read_secret(tmp_path, "password", {}, option="password")
    assert caught.value.code == "secret-mode"


def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "password", 0o600)
    with pytest.raises(ConfigError) as caught:
        read_secret(tmp_path, "password", {}, option="password")
    assert caught.value.code == "secret-mode"


@pytest.mark.parametrize("name", ["../password", "/etc/passwd", "", ".", "..", "a/b", "absent", "a" * 101, "a\nb"])
def test_a_credential_that_is_not_there_or_lies_elsewhere_is_missing(tmp_path: Path, name: str) -> None:
    put(tmp_path / "password", SECRET.encode())
    (tmp_path / "credentials").mkdir()
    with pytest.raises(ConfigError) as caught:
        read_secret(
            tmp_path, f"credential:{name}", {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}, option="password"
        )
    assert caught.value.code == "secret-missing"
    with pytest.raises(ConfigError, match=r"LoadCredentialEncrypted|letters") as caught:
        read_secret(tmp_path, f"credential:{name}", {}, option="password")
    assert caught.value.code == "secret-missing"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the file that password names") as caught:
        read_secret(tmp_path, "absent", {}, option="password")
    assert caught.value.code == "secret-missing"
    assert "enrol" not in caught.value.remedy


@pytest.mark.parametrize(
    "written", ["hunter2-INLINE", "credential:hunter2-INLINE!", "hunter2-INLINE/\0", "hunter2-INLINE" * 40]
)
def test_a_secret_that_stands_in_the_option_itself_is_never_shown(tmp_path: Path, written: str) -> None:
    with pytest.raises(ConfigError, match="password") as caught:
        read_secret(tmp_path, written, {}, option="password")
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.code == "secret-missing"


@pytest.mark.parametrize("data", [b"", b"\n", b"\xff\xfe", b"a\x00b", b"x" * (MAX_SECRET_BYTES + 1)])
def test_what_is_no_secret_is_refused_without_showing_it(tmp_path: Path, data: bytes) -> None:
    put(tmp_path / "password", data)
    with pytest.raises(ConfigError) as caught:
        read_secret(tmp_path, "password", {}, option="password")
    assert caught.value.code == "secret-form"
    assert "xx" not in str(caught.value)
