"""The state directory: nobody else's from the first moment, and one line when it is damaged."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from bedside.coordinator.config import CoordinatorConfig
from bedside.coordinator.home import Home
from bedside.coordinator.store import open_store
from bedside.core.errors import ConfigError
from bedside.service.cli import run
from bedside.service.config import load_config
from bedside.service.files import restrict_database
from bedside.service.sqlite import open_database

PUBLIC = {"coordinator.toml", "coordinator.public.json"}


@pytest.fixture(autouse=True)
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def open_to_others(directory: Path) -> set[str]:
    found = {path.name for path in directory.rglob("*") if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077}
    return found - PUBLIC


async def test_nothing_of_a_running_coordinator_is_open_to_others(federation, bundle):
    assert stat.S_IMODE(federation.home.directory.stat().st_mode) == 0o700
    async with federation.coordinator() as desk:
        await desk.populate(devices=2)
        await desk.start(bundle)
        for trustee in desk.trustees():
            await trustee.serve(until="open")
        device = desk.devices()[0]
        await device.beat()
        device.make(await device.offer())
        await device.begin()
        await device.send(0, 1000)
        names = {path.name for path in federation.home.directory.rglob("*")}
        assert {"coordinator.db-wal", "coordinator.db-shm", "coordinator.lock"} <= names
        assert list((federation.home.blobs_path / "staging").iterdir())
        assert open_to_others(federation.home.directory) == set()


@pytest.mark.parametrize("opened", [open_store, lambda path: open_database(path, ())])
def test_a_database_is_private_before_its_first_byte_and_one_of_before_becomes_so(tmp_path, monkeypatch, opened):
    path = tmp_path / "some.db"
    seen = []
    real = sqlite3.connect

    def connect(*args, **options):
        seen.append(stat.S_IMODE(path.stat().st_mode))
        return real(*args, **options)

    monkeypatch.setattr(sqlite3, "connect", connect)
    opened(path).close()
    path.chmod(0o644)
    (tmp_path / "some.db-wal").touch(0o644)
    opened(path).close()
    assert set(seen) <= {0o600}
    assert open_to_others(tmp_path) == set()


def test_a_log_left_behind_becomes_private(tmp_path):
    for name in ("some.db", "some.db-wal", "some.db-shm"):
        (tmp_path / name).touch(0o644)
    restrict_database(tmp_path / "some.db")
    assert open_to_others(tmp_path) == set()


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 40, b"{", b"[]", b"\xff", b'{"federation": "test", "root_pk": "no digits"}']
)
def test_damaged_pins_are_named(federation, data):
    (federation.home.directory / "identity" / "pins.json").write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        _ = Home(federation.home.directory).federation
    assert caught.value.code == "not-a-coordinator"


@pytest.mark.parametrize("how", ["empty", "half", "zeros"])
def test_a_damaged_state_directory_ends_serve_in_one_line(federation, capsys, how):
    """Each file on its own: keys and certificates that are not PEM, documents that nobody signed."""
    open_store(federation.home.database_path).close()
    identity = sorted((federation.home.directory / "identity").iterdir())
    for path in [*identity, federation.home.database_path]:
        whole = path.read_bytes()
        if (path.name, how) in {
            ("coordinator.db", "empty"),
            ("sign.key", "zeros"),
        }:
            continue  # an empty database, and any 32 bytes as a key
        path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "zeros": b"\0" * len(whole)}[how])
        status = run(["coordinator", "serve", str(federation.home.directory)])
        told = capsys.readouterr().err
        path.write_bytes(whole)
        assert status not in (0, 1), path.name
        assert len(told.splitlines()) == 1, (path.name, told)
        assert told.startswith("error: "), (path.name, told)


def test_init_leaves_a_configuration_that_is_there_and_says_its_addresses_beside_it(tmp_path: Path) -> None:
    """A package's file lies in /etc, and the directory has a link to it."""
    hub, etc = tmp_path / "hub", tmp_path / "etc.toml"
    hub.mkdir()
    etc.write_text("heartbeat_s = 7.0\n")
    (hub / "coordinator.toml").symlink_to(etc)
    assert run(["coordinator", "init", str(hub), "--host", "fed.example.org", "--service-address", "127.0.0.1:1"]) == 0
    assert (etc.read_text(), (hub / "coordinator.toml").readlink()) == ("heartbeat_s = 7.0\n", etc)
    found = load_config(hub / "coordinator.toml", CoordinatorConfig)
    assert (found.heartbeat_s, found.service_address) == (7.0, "127.0.0.1:1")
    assert found.public_enrolment_address == "fed.example.org:7444"
