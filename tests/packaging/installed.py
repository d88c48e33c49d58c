"""A federation of installed packages: a coordinator, two hospitals with a trustee each, and three devices.

One device is in a ward from which nothing but an HTTP proxy can be reached.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from beat_stream import SESSION_S, SESSIONS, STREAM, build_model, electrocardiogram
from first_machine import need_machines
from lab import Lab, lab, why_no_lab
from machine import Disk, Machine
from packages import built_packages

from bedside.firmware_bridge.recording import write_recording
from watched_rounds import WatchedRounds, wait_until

TASK: Final = "beats"
SITES: Final = ("alder", "birch")
DEVICES: Final = {"alder-1": "alder", "alder-2": "alder", "birch-1": "birch"}
BEHIND_PROXY: Final = "birch-1"
BY_CREDENTIAL: Final = "alder-2"
"""Its set-up finds the token where systemd puts it."""
HUB_NAME: Final = "hub.test"
HUB_ADDRESS: Final = "10.77.0.2"
ADDRESSES: Final = {
    "hub": HUB_ADDRESS,
    "alder": "10.77.0.3",
    "birch": "10.77.0.4",
    "alder-1": "10.77.0.11",
    "alder-2": "10.77.0.12",
    "birch-1": "10.78.0.11",
}
PROXY: Final = "10.78.0.1:3128"
DOCUMENT: Final = "/var/tmp/federation.bin"
SHARED: Final = "/srv/bedside"
AGENT: Final = "bedside-agent"
TRUSTEE: Final = "bedside-trustee"
COORDINATOR: Final = "bedside-coordinator"
ROWS: Final = {"blobs": "id, start_ns, samples, tag", "predictions": "id, start_ns, label, tag", "labels": "id, tag"}
HOMES: Final = {part: f"/var/lib/bedside/{part.removeprefix('bedside-')}" for part in (AGENT, TRUSTEE, COORDINATOR)}

POLICY: Final = f"""\
trusted_sites = {json.dumps(SITES)}
min_trusted = 3
min_trustees = 2
min_contributors = 3
[bundle_signers]
author = "{{author_pk}}"
"""
AGENT_TOML: Final = f"""\
model = "{SHARED}/bundle"
[[sources]]
kind = "replay"
name = "{STREAM}"
[sources.options]
stream = "{STREAM}"
data = "{SHARED}/{{label}}.npz"
history_s = {SESSIONS * SESSION_S}
loop = true
[training.gates]
load_per_core = 1000.0
[serving]
gate = false
[link]
heartbeat_s = 1.0
poll_wait_ms = 5000
"""


class Installed(WatchedRounds):
    """Everything that runs, and what an operator asks of it."""

    task = TASK

    def __init__(self, where: Lab, packages: Path) -> None:
        self.lab = where
        self.packages = packages
        self.shared = where.folder / "shared"
        self.shared.mkdir()
        self.hub: Machine
        self.trustees: dict[str, Machine] = {}
        self.devices: dict[str, Machine] = {}

    @property
    def machines(self) -> dict[str, Machine]:
        """All of them, by name."""
        return {"hub": self.hub, **self.trustees, **self.devices}

    # What an administrator of a device does

    def rows(self, label: str) -> dict[str, list[Any]]:
        """What a device has stored and acknowledged, table by table."""
        return {table: self.query(label, f"SELECT {columns} FROM {table}") for table, columns in ROWS.items()}

    def query(self, label: str, statement: str) -> list[Any]:
        """Rows of a device's database."""
        words = ["bedside", "agent", "db", "query", HOMES[AGENT], statement, "--limit", "1000000"]
        return list(self.devices[label].json(*words, user=AGENT))

    def count(self, label: str, table: str) -> int:
        """How many rows a device has in one table."""
        return int(self.query(label, f"SELECT count(*) AS n FROM {table}")[0]["n"])

    def keeps(self, label: str, before: dict[str, list[Any]]) -> None:
        """See that a device still has every row of before, as it was, and that all rows prove themselves."""
        after = self.rows(label)
        for table, rows in before.items():
            assert rows, table
            assert [row for row in rows if row not in after[table]] == [], table
        self.devices[label].run("bedside", "agent", "db", "verify", HOMES[AGENT], user=AGENT)

    def waiting_updates(self, label: str) -> list[Path]:
        """Updates that a device has not been able to send yet."""
        return list(self.devices[label].inside(f"{HOMES[AGENT]}/state/outbox").iterdir())

    # What an operator does

    def ask(self, *arguments: str | Path) -> Any:
        """A command on the coordinator's socket."""
        return self.hub.json("bedside", *arguments)

    def start_round(self, *more: str) -> int:
        """Start one round once every device is online; its number."""
        wait_until(lambda: self.online() == len(DEVICES), "every device is online", interval_s=0.2)
        options = ("--task", TASK, "--bundle", f"{SHARED}/bundle", "--batch-size", "16", "--max-examples", "256")
        return int(self.ask("round", "start", *options, *more)["first_round"])

    def open_round(self, number: int) -> Any:
        """Wait until a round has ended, and see that it opened with every device in it once; the round."""
        detail = self.finish_round(number)
        assert detail["phase"] == "opened", json.dumps(detail, indent=1)
        labels = [device["label"] for cohort in detail["cohorts"] for device in cohort["devices"]]
        assert (detail["contributors"], sorted(labels)) == (len(DEVICES), sorted(DEVICES))
        return detail

    def journal(self) -> str:
        """The end of every machine's journal, for a failed test."""
        parts = []
        for name, machine in self.machines.items():
            if machine.leader:
                told = machine.run("journalctl", "--no-pager", "--lines=40", "--unit=bedside-*", check=False)
                parts.append(f"== {name}\n{told.stdout}")
        return "\n".join(parts)


@contextmanager
def founded() -> Iterator[Installed]:
    """A federation that runs, set up by the commands that the packages bring; all of it ends afterwards."""
    if reason := why_no_lab():
        pytest.skip(reason)
    with ThreadPoolExecutor(1) as pool:
        packages = pool.submit(built_packages)
        root = need_machines()
    with lab() as where, ThreadPoolExecutor(2) as pool:
        federation = Installed(where, packages.result())
        where.add_bridge("wan", "10.77.0.1/24")
        where.add_bridge("ward", f"{PROXY.split(':')[0]}/24")
        _start_proxy(where)
        model = pool.submit(_make_model, federation)
        _install(federation, Disk([root], root / "var"), pool)
        author_pk = model.result()
        _found_hub(federation)
        for future in [pool.submit(_join, federation, site, author_pk) for site in SITES]:
            future.result()
        wait_until(lambda: federation.online() == len(DEVICES), "every device is online", interval_s=0.2)
        yield federation


def _start_proxy(where: Lab) -> None:
    script = Path(__file__).with_name("connect_proxy.py")
    with (where.folder / "proxy.log").open("wb") as log:
        where.start(sys.executable, script, PROXY, f"{HUB_NAME}={HUB_ADDRESS}", log=log)


def _make_model(federation: Installed) -> str:
    for seed, label in enumerate(DEVICES):
        write_recording(federation.shared / f"{label}.npz", electrocardiogram(seed))
    return build_model(federation.shared / "bundle")


# Machines


def _boot(federation: Installed, name: str, disk: Disk) -> Machine:
    machine = Machine(
        federation.lab,
        name,
        disk,
        bridge="ward" if name == BEHIND_PROXY else "wan",
        address=f"{ADDRESSES[name]}/24",
        mounts={"/packages": federation.packages, SHARED: federation.shared},
    )
    known = "" if name == BEHIND_PROXY else f"{HUB_ADDRESS} {HUB_NAME}\n"
    machine.write("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {name}\n{known}")
    machine.boot()
    return machine


def install(machine: Machine, *files: str) -> None:
    """Install package files of the machine, as an administrator does."""
    machine.run("apt-get", "install", "--yes", "--quiet", *files, timeout_s=600.0, DEBIAN_FRONTEND="noninteractive")


def _install(federation: Installed, debian: Disk, pool: ThreadPoolExecutor) -> None:
    """The first machine of each kind installs; the others are made from its disk, and are set up by themselves."""

    def first(name: str, package: str) -> Machine:
        machine = _boot(federation, name, debian)
        names = [file.name for file in federation.packages.glob("*.deb")]
        chosen = [name for name in names if name.split("_")[0] in ("bedside-common", package)]
        install(machine, *(f"/packages/{name}" for name in chosen))
        return machine

    def others(names: Iterable[str], model: Machine) -> dict[str, Machine]:
        disk = model.image(federation.lab.folder / f"image-of-{model.name}")
        return {name: _boot(federation, name, disk) for name in names}

    device = pool.submit(first, "alder-1", AGENT)
    trustee = pool.submit(first, "alder", TRUSTEE)
    hub = pool.submit(first, "hub", COORDINATOR)
    federation.trustees = {"alder": trustee.result(), **others(["birch"], trustee.result())}
    federation.devices = {"alder-1": device.result(), **others(["alder-2", "birch-1"], device.result())}
    federation.hub = hub.result()


# Who belongs together


def _found_hub(federation: Installed) -> None:
    hub, home = federation.hub, HOMES[COORDINATOR]
    hub.run("bedside", "coordinator", "init", home, "--host", HUB_NAME, user=COORDINATOR)
    root_pk = hub.json("bedside", "federation", "init", "/var/tmp/root", "--name", "test")["root_pk"]
    words: list[str] = []
    for site, machine in federation.trustees.items():
        machine.run("bedside", "site", "init", HOMES[TRUSTEE], "--site", site, user=TRUSTEE)
        shutil.copy(machine.inside(f"{HOMES[TRUSTEE]}/site.public.json"), hub.inside(f"/var/tmp/{site}.json"))
        words += ["--site", f"/var/tmp/{site}.json"]
    public = ["--coordinator", f"{home}/coordinator.public.json"]
    hub.run("bedside", "federation", "sign", "--root", "/var/tmp/root", *public, *words, "--out", DOCUMENT)
    hub.run("bedside", "coordinator", "install", home, DOCUMENT, "--root-pk", root_pk, user=COORDINATOR)
    hub.run("systemctl", "start", COORDINATOR)
    for machine in federation.trustees.values():
        shutil.copy(hub.inside(DOCUMENT), machine.inside(DOCUMENT))
        at = ["--root-pk", root_pk, "--enrolment-address", f"{HUB_NAME}:7444"]
        machine.run("bedside", "site", "join", HOMES[TRUSTEE], DOCUMENT, *at, user=TRUSTEE)


def _join(federation: Installed, site: str, author_pk: str) -> None:
    """Start a site's trustee, and set up its devices."""
    machine = federation.trustees[site]
    machine.inside("/etc/bedside/policy.toml").write_text(POLICY.format(author_pk=author_pk))
    machine.run("systemctl", "start", TRUSTEE)
    mine = {label: federation.devices[label] for label, its_site in DEVICES.items() if its_site == site}
    words = ["bedside", "site", "token", HOMES[TRUSTEE], "--uses", str(len(mine))]
    token = machine.json(*words, user=TRUSTEE)["token"]
    for label, device in mine.items():
        device.inside("/etc/bedside/agent.toml").write_text(AGENT_TOML.format(label=label))
        device.inside("/var/tmp/policy.toml").write_text(POLICY.format(author_pk=author_pk))
        proxy = ["--proxy", f"http://{PROXY}"] if label == BEHIND_PROXY else []
        options = ["--label", label, "--policy", "/var/tmp/policy.toml", "--yes", "--json", *proxy]
        setup = ["bedside", "agent", "setup", *options]
        if label == BY_CREDENTIAL:
            device.inside("/run/token").write_text(token)
            manager = [
                "systemd-run",
                "--quiet",
                "--wait",
                "--pipe",
                "--property=LoadCredential=bedside-token:/run/token",
            ]
            done = device.run(*manager, *setup)
        else:
            done = device.run(*setup, "--token", "-", given=token)
        told = json.loads(done.stdout)
        assert told["state"] == "running", told
