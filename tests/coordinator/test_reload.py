"""SIGHUP of a real coordinator: what is taken up, what waits for a restart, and what is refused."""

from __future__ import annotations

import signal
import subprocess
import sys

from bedside.coordinator.config import CoordinatorConfig
from bedside.coordinator.reload import reload_config
from bedside.core.errors import ConfigError
from bedside.service.cli import run
from service_manager import listening

LOCAL = 'service_address = "127.0.0.1:0"\nenrolment_address = "127.0.0.1:0"\n'


def test_sighup_takes_up_a_good_file_refuses_a_bad_one_and_never_ends_a_coordinator(federation, tmp_path) -> None:
    file = federation.home.config_path
    file.write_text(LOCAL)
    code = "from bedside.service.cli import main; main()"
    command = [sys.executable, "-c", code, "coordinator", "serve", str(federation.home.directory)]
    with listening(tmp_path) as manager:
        coordinator = subprocess.Popen(command, env=manager.environment, stdout=subprocess.DEVNULL)
        try:
            manager.until("READY=1", "serving on")
            file.write_text(LOCAL + "heartbeat_s = 7.0\n")
            coordinator.send_signal(signal.SIGHUP)
            manager.until("RELOADING=1", "MONOTONIC_USEC=")
            assert "reloaded: heartbeat_s" in manager.until("READY=1")
            file.write_text("heartbeat_z = 7.0\n")
            coordinator.send_signal(signal.SIGHUP)
            assert "is refused, the one before it holds" in manager.until("READY=1")
            file.write_text(LOCAL.replace("127.0.0.1:0", "0.0.0.0:0"))
            coordinator.send_signal(signal.SIGHUP)
            assert "a restart is needed for service_address, enrolment_address" in manager.until("READY=1")
            manager.until("WATCHDOG=1")
        finally:
            coordinator.terminate()
            assert coordinator.wait(20) == 0


async def test_what_is_taken_up_is_what_rounds_and_the_fleet_go_by_and_a_refusal_changes_nothing(federation) -> None:
    async with federation.coordinator() as desk:
        assert desk.alive is not None
        parts = desk.alive.parts
        bound = parts.config.service_address
        changed = CoordinatorConfig(service_address="10.0.0.1:1", heartbeat_s=7.0, opening_s=3.0)
        reload_config(parts, lambda: changed)
        assert (parts.config.heartbeat_s, parts.roll.heartbeat_s, parts.config.opening_s) == (7.0, 7.0, 3.0)
        assert parts.config.service_address == bound
        kept = parts.config

        def refuse() -> CoordinatorConfig:
            raise ConfigError("config-range", "no")

        assert "is refused" in reload_config(parts, refuse)
        assert parts.config is kept


def test_a_file_is_judged_before_a_reload_and_nothing_is_changed(federation, capsys) -> None:
    home = federation.home
    home.config_path.write_text(LOCAL)
    before = sorted(path.name for path in home.directory.rglob("*"))
    assert run(["coordinator", "check", str(home.directory)]) == 0
    assert "127.0.0.1:0" in capsys.readouterr().out
    for mistake, named in (("heartbeat_z = 7.0\n", "heartbeat_z"), ('service_address = "nowhere"\n', "nowhere")):
        home.config_path.write_text(mistake)
        assert run(["coordinator", "check", str(home.directory)]) == ConfigError.exit_status
        assert named in capsys.readouterr().err
    assert sorted(path.name for path in home.directory.rglob("*")) == before


def test_sighup_ends_no_coordinator_that_only_begins(monkeypatch, federation) -> None:
    seen, before = [], signal.getsignal(signal.SIGHUP)
    monkeypatch.setattr("bedside.coordinator.server.serve", lambda *_: seen.append(signal.getsignal(signal.SIGHUP)))
    try:
        run(["coordinator", "serve", str(federation.home.directory)], {})
    finally:
        signal.signal(signal.SIGHUP, before)
    assert seen == [signal.SIG_IGN]
