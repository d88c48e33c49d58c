"""A trustee under a service manager: what SIGHUP does, and who feeds the watchdog."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bedside.service.cli import run
from bedside.service.identity import Pins
from bedside.trustee.keys import RAM_FILE_SYSTEMS, file_system_of
from service_manager import listening

RAM = Path("/dev/shm")
NOBODY = "127.0.0.1:9"
"""Where no coordinator listens."""

pytestmark = pytest.mark.skipif(
    not RAM.is_dir() or file_system_of(RAM) not in RAM_FILE_SYSTEMS, reason="needs RAM-backed /dev/shm"
)


@pytest.fixture
def site(world, make_bench, tmp_path):
    runtime = Path(tempfile.mkdtemp(dir=RAM, prefix="bedside-test-"))
    bench = make_bench(world, tmp_path, mounts=Path("/proc/self/mounts"), runtime=runtime)
    pins = bench.identity.pins
    bench.identity.save_pins(
        Pins(
            federation=pins.federation,
            root_pk=pins.root_pk,
            authority_pk=pins.authority_pk,
            ca_digest="00" * 32,
            site=pins.site,
            enrolment_address=NOBODY,
        )
    )
    yield bench
    bench.store.close()
    shutil.rmtree(runtime)


def bedside(*arguments):
    return [sys.executable, "-c", "from bedside.service.cli import main; main()", *map(str, arguments)]


def test_sighup_reads_the_policy_keeps_the_old_one_for_a_bad_file_and_never_ends_a_trustee(site, tmp_path) -> None:
    command = bedside("trustee", "run", site.paths.directory, "--runtime-dir", site.runtime)
    good = site.paths.policy.read_text()
    with listening(tmp_path) as manager:
        trustee = subprocess.Popen(command, env=manager.environment)
        try:
            manager.until("READY=1")
            site.paths.policy.write_text("min_trustet = 3\n")
            trustee.send_signal(signal.SIGHUP)
            assert "MONOTONIC_USEC=" in manager.until("RELOADING=1")
            assert "the old rules hold" in manager.until("READY=1")
            told = subprocess.run(
                bedside("trustee", "status", site.paths.directory, "--json"), capture_output=True, check=False
            )
            levels = {part["component"]: part["level"] for part in json.loads(told.stdout)["components"]}
            assert levels["policy"] == "degraded"
            site.paths.policy.write_text(good)
            trustee.send_signal(signal.SIGHUP)
            assert "policy: in force" in manager.until("READY=1")
            assert trustee.poll() is None
        finally:
            trustee.terminate()
            assert trustee.wait(20) == 0


def test_the_watchdog_is_fed_while_there_is_no_coordinator(site, tmp_path) -> None:
    command = bedside("trustee", "run", site.paths.directory, "--runtime-dir", site.runtime)
    with listening(tmp_path) as manager:
        trustee = subprocess.Popen(command, env=manager.environment)
        try:
            manager.until("READY=1")
            for _ in range(5):
                manager.until("WATCHDOG=1")
        finally:
            trustee.terminate()
            trustee.wait(20)


def test_sighup_ends_no_trustee_that_only_begins(monkeypatch, site) -> None:
    seen, before = [], signal.getsignal(signal.SIGHUP)
    monkeypatch.setattr("bedside.trustee.daemon.run_trustee", lambda *_: seen.append(signal.getsignal(signal.SIGHUP)))
    try:
        run(["trustee", "run", str(site.paths.directory)], {})
    finally:
        signal.signal(signal.SIGHUP, before)
    assert seen == [signal.SIG_IGN]
