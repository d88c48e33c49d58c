"""Installed packages on machines with a real systemd: a federation is set up, learns, and bears what goes wrong.

Its tests follow each other. Figures such as the seconds of a restart are printed.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from beat_stream import CLASSES
from first_machine import need_machines
from installed import AGENT, BEHIND_PROXY, COORDINATOR, DEVICES, HOMES, TRUSTEE, Installed, install
from machine import Machine
from packages import NEXT_VERSION, next_version

from bedside.service.tls import (
    Authority,
    PeerIdentity,
    certificate_expiry_ns,
    create_csr,
    issue_certificate,
    spiffe_uri,
)
from watched_rounds import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

DEVICE = "alder-1"
OTHER_DEVICE = "alder-2"
DIRECT_AND_BEHIND_A_PROXY = (OTHER_DEVICE, BEHIND_PROXY)
LONG_TRAINING = ("--epochs", "20")
RESTARTS = 2
RESTART_S = 20.0
"""It takes 1 to 2 s; machines of tests may have to wait for a processor."""
WATCHDOG_S = 10
START_S = 20
CERTIFICATE = f"{HOMES[AGENT]}/state/identity/tls.crt"
CAP_SYS_RESOURCE = 1 << 24
YEAR_NS = 366 * 86_400 * 1_000_000_000
STOP_MAIN_THREAD = """\
import ctypes, os, sys
pid, attach, any_thread = int(sys.argv[1]), 16, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(attach, pid, None, None):
    sys.exit(os.strerror(ctypes.get_errno()))
while os.WIFSTOPPED(os.waitpid(pid, any_thread)[1]):
    pass
"""
"""Stops one thread alone, and waits for the end of its process."""
RELOADS = {
    AGENT: ("agent.toml", ("load_per_core = 1000.0", "load_per_core = 999.0"), "reloaded: training"),
    TRUSTEE: ("policy.toml", ("min_trusted", "# as agreed\nmin_trusted"), "policy: in force"),
    COORDINATOR: ("coordinator.toml", ("opening_s = 120.0", "opening_s = 119.0"), "reloaded: opening_s"),
}
"""By unit: its file, a change to it, and how its status tells of that."""
NOT_OURS = (
    *("/etc/machine-id", "/etc/host", "/etc/systemd/network", "/etc/.pwd.lock", "/var/tmp", "/var/log", "/var/cache"),
    *("/var/lib/apt", "/var/lib/systemd/linger", "/var/lib/dbus/machine-id"),
    *("/var/lib/systemd/credential.secret", "/srv/bedside"),
)
"""Where a Debian that has run differs from one that has not."""


def may_lock() -> bool:
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    (mask,) = re.findall(r"^CapEff:\s*(\w+)$", Path("/proc/self/status").read_text(), re.M)
    return hard == resource.RLIM_INFINITY or bool(int(mask, 16) & CAP_SYS_RESOURCE)


def units(installed: Installed) -> list[tuple[Machine, str]]:
    trustees = [(machine, TRUSTEE) for machine in installed.trustees.values()]
    return [(installed.hub, COORDINATOR), *trustees, *((machine, AGENT) for machine in installed.devices.values())]


def add_drop_in(machine: Machine, unit: str, name: str, setting: str) -> Path:
    """Give a unit one more setting of `[Service]`; the file that says so."""
    file = machine.inside(f"/etc/systemd/system/{unit}.service.d/{name}")
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"[Service]\n{setting}\n")
    machine.run("systemctl", "daemon-reload")
    return file


def test_every_service_is_up_after_set_up_and_systemd_calls_it_safe(installed: Installed) -> None:
    for machine, unit in units(installed):
        shown = machine.show(unit, "ActiveState", "UnitFileState", "NRestarts")
        assert shown == {"ActiveState": "active", "UnitFileState": "enabled", "NRestarts": "0"}, machine.name
        machine.run("systemd-analyze", "security", "--threshold=15", "--no-pager", unit)


@pytest.mark.skipif(not may_lock(), reason="who runs this may not raise limits of locked memory")
def test_a_trustees_round_keys_are_in_locked_memory(installed: Installed) -> None:
    for machine in installed.trustees.values():
        log = machine.run("journalctl", "--unit", TRUSTEE, "--no-pager").stdout
        assert "coordinator-found" in log
        assert "hardening-incomplete" not in log


def test_a_replayed_signal_is_buffered_and_predicted(installed: Installed) -> None:
    for label, machine in installed.devices.items():
        machine.run("bedside", "agent", "health", HOMES[AGENT], "--wait", "120")
        before = installed.count(label, "predictions"), installed.count(label, "blobs")
        wait_until(lambda: installed.count(label, "predictions") > before[0], "more is predicted")  # noqa: B023
        wait_until(lambda: installed.count(label, "blobs") > before[1], "more is buffered")  # noqa: B023
        assert {row["label"] for row in installed.query(label, "SELECT DISTINCT label FROM predictions")} <= {*CLASSES}


def test_a_round_opens_with_every_device_one_of_them_behind_a_proxy(installed: Installed) -> None:
    installed.open_round(installed.start_round())
    asked = (installed.lab.folder / "proxy.log").read_text().split()
    assert {"hub.test:7443", "hub.test:7444"} <= set(asked)


def test_a_trustee_is_ready_without_its_coordinator(installed: Installed) -> None:
    machine = installed.trustees["birch"]
    add_drop_in(machine, TRUSTEE, "start.conf", f"TimeoutStartSec={START_S}")  # the unit's own is 5 min
    machine.unplug()
    machine.run("systemctl", "restart", TRUSTEE)
    assert machine.is_active(TRUSTEE)


def test_an_agent_whose_work_stands_still_is_restarted_by_the_watchdog(installed: Installed) -> None:
    """Its other threads go on, so that it is the work that feeds the watchdog."""
    machine = installed.devices[OTHER_DEVICE]
    drop_in = add_drop_in(machine, AGENT, "watchdog.conf", f"WatchdogSec={WATCHDOG_S}")  # the unit's own period is 30 s
    machine.run("systemctl", "restart", AGENT)
    before, process = installed.rows(OTHER_DEVICE), machine.main_pid(AGENT)
    assert len(machine.run("ls", f"/proc/{process}/task").stdout.split()) > 1
    began_s = time.monotonic()
    stopped = machine.run("python3", "-c", STOP_MAIN_THREAD, str(process), check=False)
    if stopped.returncode != 0:
        pytest.skip(f"no thread can be stopped here: {stopped.stderr}")
    wait_until(lambda: machine.is_restarted(AGENT, process), "it is up again")
    print(f"seconds from standstill to active with a watchdog of {WATCHDOG_S} s: {time.monotonic() - began_s:.1f}")
    assert "Watchdog timeout" in machine.run("journalctl", "--unit", AGENT, "--no-pager").stdout
    installed.keeps(OTHER_DEVICE, before)
    drop_in.unlink()
    machine.run("systemctl", "daemon-reload")


def test_an_agent_starts_with_each_of_its_drop_ins_and_is_still_called_safe(installed: Installed) -> None:
    machine = installed.devices[OTHER_DEVICE]
    bus = "/run/dbus/system_bus_socket"
    machine.run("groupadd", "--system", "bluetooth")  # as BlueZ does

    def reaches(path: str) -> bool:
        enter = ("nsenter", f"--target={machine.main_pid(AGENT)}", "--mount", "--")
        return machine.run(*enter, "test", "-e", path, check=False).returncode == 0

    assert not reaches(bus)
    for name in ("ble.conf", "iio.conf"):
        machine.run("mkdir", "-p", f"/etc/systemd/system/{AGENT}.service.d")
        machine.run("cp", f"/usr/share/{AGENT}/drop-ins/{name}", f"/etc/systemd/system/{AGENT}.service.d/")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", AGENT)
        assert f"/{name}" in machine.show(AGENT, "DropInPaths")["DropInPaths"]
        machine.run("systemd-analyze", "security", "--threshold=15", "--no-pager", AGENT)
    assert reaches(bus)
    status = machine.inside(f"/proc/{machine.main_pid(AGENT)}/status").read_text()
    groups = machine.run("getent", "group", "bluetooth", "dialout").stdout
    numbers = {line.split(":")[2] for line in groups.splitlines()}
    assert numbers <= set(next(line for line in status.splitlines() if line.startswith("Groups:")).split())


def test_a_buffer_is_sealed_with_a_key_that_systemd_decrypts_for_the_agent_alone(installed: Installed) -> None:
    machine = installed.devices[BEHIND_PROXY]
    before = installed.rows(BEHIND_PROXY)
    machine.run("mkdir", "-m", "700", "-p", "/etc/credstore.encrypted")
    encrypt = "head -c 32 /dev/urandom | systemd-creds encrypt --name={0} - /etc/credstore.encrypted/{0}"
    machine.run("sh", "-c", encrypt.format("bedside-buffer-key"))
    machine.run("systemctl", "restart", AGENT)
    count = installed.count(BEHIND_PROXY, "predictions")
    wait_until(lambda: installed.count(BEHIND_PROXY, "predictions") > count, "more is predicted")
    after = installed.rows(BEHIND_PROXY)
    assert all(row in after[table] for table, rows in before.items() for row in rows)
    verify = ("bedside", "agent", "db", "verify", HOMES[AGENT])
    credentials = ("--property=LoadCredentialEncrypted=bedside-buffer-key", f"--uid={AGENT}")
    machine.run("systemd-run", "--quiet", "--wait", "--pipe", *credentials, *verify)
    assert "key-missing" in machine.run(*verify, user=AGENT, check=False).stdout


def test_a_trustee_that_began_without_its_coordinator_has_waited_for_it(installed: Installed) -> None:
    machine = installed.trustees["birch"]
    began_us = int(machine.show(TRUSTEE, "ExecMainStartTimestampMonotonic")["ExecMainStartTimestampMonotonic"])
    wait_until(lambda: time.monotonic() > began_us / 1_000_000 + START_S, "its time to start has passed")
    shown = machine.show(TRUSTEE, "ActiveState", "NRestarts", "ExecMainStartTimestampMonotonic")
    assert shown == {"ActiveState": "active", "NRestarts": "0", "ExecMainStartTimestampMonotonic": str(began_us)}
    machine.plug()
    installed.open_round(installed.start_round())


def test_a_killed_agent_is_soon_back_with_all_that_it_had_acknowledged(installed: Installed) -> None:
    machine, seconds = installed.devices[DEVICE], []
    for _ in range(RESTARTS):
        wait_until(lambda: machine.is_active(AGENT), "it is up")
        before, process = installed.rows(DEVICE), machine.main_pid(AGENT)
        began_s = time.monotonic()
        machine.signal(AGENT, "KILL")
        wait_until(lambda: machine.is_restarted(AGENT, process), "it is up again", interval_s=0.02)  # noqa: B023
        seconds.append(time.monotonic() - began_s)
        installed.keeps(DEVICE, before)
    print(f"seconds from kill -9 of the agent to active: {[round(one, 2) for one in seconds]}")
    assert min(seconds) < RESTART_S


def test_a_trustee_killed_between_vote_and_answer_finishes_the_round(installed: Installed) -> None:
    first, second = installed.trustees.values()

    def state_of(detail: dict[str, list[dict[str, list[dict[str, str]]]]], site: str) -> str:
        return next(one["state"] for one in detail["cohorts"][0]["trustees"] if one["site"] == site)

    wait_until(lambda: installed.online() == len(DEVICES), "every device is online")
    with installed.devices[OTHER_DEVICE].suspended(AGENT):
        number = installed.start_round()
        opened = lambda it: {state_of(it, site) for site in installed.trustees} == {"opened"}  # noqa: E731
        installed.wait_round(number, opened, "both trustees have opened")
        second.signal(TRUSTEE, "STOP")
    try:
        installed.wait_round(number, lambda it: state_of(it, first.name) == "voted", "the first one has voted")
        process, began_s = first.main_pid(TRUSTEE), time.monotonic()
        first.signal(TRUSTEE, "KILL")
        wait_until(lambda: first.is_restarted(TRUSTEE, process), "it is up again")
        print(f"seconds from kill -9 of the trustee to active: {time.monotonic() - began_s:.2f}")
    finally:
        second.signal(TRUSTEE, "CONT")
    installed.open_round(number)


@pytest.mark.parametrize("label", DIRECT_AND_BEHIND_A_PROXY)
def test_through_a_cut_predictions_go_on_and_the_waiting_update_arrives_once(installed: Installed, label: str) -> None:
    machine = installed.devices[label]

    def training() -> str:
        return machine.run("pgrep", "--parent", str(machine.main_pid(AGENT)), check=False).stdout

    number = installed.start_round(*LONG_TRAINING)
    wait_until(training, f"{label} trains", interval_s=0.01)
    machine.unplug()
    try:
        began_s = time.monotonic()
        wait_until(lambda: installed.waiting_updates(label), "the update waits to be sent")
        before = installed.count(label, "predictions"), installed.count(label, "blobs")
        wait_until(lambda: installed.count(label, "predictions") >= before[0] + 3, "predictions go on")
        wait_until(lambda: installed.count(label, "blobs") >= before[1] + 3, "the buffer grows")
        assert installed.waiting_updates(label)
        assert not installed.show(number)["finished_at_s"]
    finally:
        machine.plug()
    cut_s = time.monotonic() - began_s
    installed.open_round(number)
    print(f"{label} was cut off for {cut_s:.1f} s, and the round open {time.monotonic() - began_s - cut_s:.1f} s later")
    wait_until(lambda: not installed.waiting_updates(label), "nothing waits any more")


def test_a_device_whose_certificate_ended_while_it_was_away_comes_back_by_itself(installed: Installed) -> None:
    machine = installed.devices[OTHER_DEVICE]
    machine.run("systemctl", "stop", AGENT)
    file = machine.inside(CERTIFICATE)
    identity = file.parent
    hub = installed.hub.inside(f"{HOMES[COORDINATOR]}/identity")
    authority = Authority((hub / "ca.pem").read_bytes(), (hub / "ca.key").read_bytes())
    devices = installed.ask("fleet", "devices")
    device = next(str(one["id"]) for one in devices if one["label"] == OTHER_DEVICE)
    ended = issue_certificate(  # what the coordinator issued a year and a day ago to the key that the device has
        authority,
        create_csr((identity / "tls.key").read_bytes(), device),
        spiffe_uri("test", PeerIdentity("device", DEVICES[OTHER_DEVICE], device)),
        now_ns=time.time_ns() - YEAR_NS,
        days=365,
    )
    assert certificate_expiry_ns(ended) < time.time_ns()
    file.write_bytes(ended)
    began_s = time.monotonic()
    machine.run("systemctl", "start", AGENT)
    wait_until(lambda: certificate_expiry_ns(file.read_bytes()) > time.time_ns(), "it has a new certificate")
    installed.open_round(installed.start_round())
    print(f"seconds from the start with an ended certificate to the end of its round: {time.monotonic() - began_s:.1f}")


@pytest.mark.parametrize("unit", RELOADS)
def test_a_reload_takes_up_a_good_file_and_fails_at_a_bad_one_which_changes_nothing(
    installed: Installed, unit: str
) -> None:
    machine = next(machine for machine, its in units(installed) if its == unit)
    name, (old, new), told = RELOADS[unit]
    file = machine.inside(f"/etc/bedside/{name}")
    text, process = file.read_text(), machine.main_pid(unit)
    assert old in text

    def says(words: str) -> bool:
        shown = machine.show(unit, "ActiveState", "StatusText")
        return shown["ActiveState"] == "active" and words in shown["StatusText"]

    file.write_text(f"no_such_key = 1\n{text}")
    assert "failed" in machine.run("systemctl", "reload", unit, check=False).stderr
    wait_until(lambda: says("refused"), "its status says that the file is refused")
    assert "no_such_key" in machine.run("journalctl", "--unit", unit, "--no-pager").stdout
    file.write_text(text.replace(old, new))
    machine.run("systemctl", "reload", unit)
    wait_until(lambda: says(told), "its status says what it has taken up")
    assert machine.main_pid(unit) == process


def test_after_a_reboot_a_device_is_who_it_was_and_takes_part(installed: Installed) -> None:
    machine = installed.devices[DEVICE]
    key = f"{HOMES[AGENT]}/state/identity/sign.key"
    before, identity, began_s = installed.rows(DEVICE), machine.inside(key).read_bytes(), time.monotonic()
    machine.reboot()
    assert machine.is_active(AGENT)
    print(f"seconds from reboot to active: {time.monotonic() - began_s:.1f}")
    assert machine.inside(key).read_bytes() == identity
    installed.keeps(DEVICE, before)
    machine.run("bedside", "agent", "health", HOMES[AGENT], "--wait", "120")
    installed.open_round(installed.start_round())


def test_after_a_reboot_of_its_servers_a_federation_goes_on_by_itself(installed: Installed) -> None:
    for machine, unit in ((installed.trustees["alder"], TRUSTEE), (installed.hub, COORDINATOR)):
        machine.reboot()
        assert machine.is_active(unit), machine.name
    installed.open_round(installed.start_round())


def test_an_upgrade_runs_the_new_code_on_the_old_state(installed: Installed) -> None:
    device = installed.devices[DEVICE]
    status = device.json("bedside", "agent", "status", HOMES[AGENT], user=AGENT)
    assert status["version"] != NEXT_VERSION
    configuration = device.inside("/etc/bedside/agent.toml").read_text()
    before, known = installed.rows(DEVICE), {one["id"] for one in installed.ask("fleet", "devices")}

    def upgrade(machine: Machine, unit: str) -> None:
        (package,) = installed.packages.glob(f"{unit}_*.deb")
        shutil.copy(next_version(package, installed.lab.folder / "next" / unit), machine.inside("/var/tmp/next.deb"))
        process, began_s = machine.main_pid(unit), time.monotonic()
        install(machine, "/var/tmp/next.deb")
        wait_until(lambda: machine.is_restarted(unit, process), "the new one is up")
        print(f"seconds of an upgrade, until the new {unit} is active: {time.monotonic() - began_s:.1f}")
        assert NEXT_VERSION in machine.run(f"/opt/bedside/{Path(HOMES[unit]).name}/bin/bedside", "--version").stdout

    of_each = [(device, AGENT), (installed.trustees["alder"], TRUSTEE), (installed.hub, COORDINATOR)]
    with ThreadPoolExecutor(len(of_each)) as pool:
        for done in [pool.submit(upgrade, *one) for one in of_each]:
            done.result()
    installed.keeps(DEVICE, before)
    after = device.json("bedside", "agent", "status", HOMES[AGENT], user=AGENT)
    assert (after["version"], after["device"]) == (NEXT_VERSION, status["device"])
    assert device.inside("/etc/bedside/agent.toml").read_text() == configuration
    assert {one["id"] for one in installed.ask("fleet", "devices")} == known
    installed.open_round(installed.start_round())


def test_a_purge_leaves_nothing(installed: Installed) -> None:
    debian = need_machines()
    added = installed.devices[BEHIND_PROXY].inside("/opt/bedside/agent/lib/added-by-pip.py")
    added.touch()

    def purge(machine: Machine, package: str) -> None:
        machine.run("apt-get", "purge", "--yes", package, "bedside-common", DEBIAN_FRONTEND="noninteractive")
        assert left_over(machine, debian) == []
        assert machine.run("getent", "passwd", package, check=False).returncode != 0
        assert machine.run("getent", "group", package, check=False).returncode != 0
        assert package not in machine.run("systemctl", "list-units", "--all", "--no-legend", "--plain").stdout
        assert machine.run("pgrep", "--full", "bedside", check=False).stdout == ""

    last = [
        (installed.devices[BEHIND_PROXY], AGENT),
        (installed.trustees["birch"], TRUSTEE),
        (installed.hub, COORDINATOR),
    ]
    with ThreadPoolExecutor(len(last)) as pool:
        for done in [pool.submit(purge, *one) for one in last]:
            done.result()


def left_over(machine: Machine, debian: Path) -> list[str]:
    """Files that a machine has and a fresh one has not."""
    root, found = machine.inside("/"), []
    for top in ("etc", "opt", "usr", "var", "srv"):
        for folder, folders, files in os.walk(root / top):
            inside = Path(folder).relative_to(root)
            found += [f"/{inside / name}" for name in (*folders, *files) if not os.path.lexists(debian / inside / name)]
    return [path for path in found if not path.startswith(NOT_OURS) and path != "/etc/credstore.encrypted"]
