"""Founding a federation: what a root holder, an operator, three hospitals and a model's author type."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from federation import (
    CLASSES,
    HEARTBEAT_S,
    RATE_HZ,
    SITES,
    STREAM,
    WINDOW,
    Agent,
    Federation,
    Site,
    bedside,
    bedside_json,
    free_ports,
)

from bedside.core.errors import ConfigError
from bedside.demo.processes import ProcessTable
from bedside.demo.runtime import memory_folder
from bedside.firmware_bridge.recording import Label, Recording, write_recording
from bedside.service.platform import SystemClock
from watched_rounds import wait_until

SESSIONS = 4
SESSION_S = 60

RECIPE = f"""\
name = "motion"
version = "1"
labels = {json.dumps(CLASSES)}
layers = [
  {{ kind = "flatten" }},
  {{ kind = "dense", units = 1024 }},
  {{ kind = "relu" }},
  {{ kind = "dense", units = 256 }},
  {{ kind = "relu" }},
  {{ kind = "dense", units = {len(CLASSES)} }},
]
[window]
stream = "{STREAM}"
channels = 2
rate_hz = {RATE_HZ}
length = {WINDOW}
hop = {WINDOW}
offset = [0.0, 0.0]
scale = [1.0, 1.0]
[training]
learning_rate = 0.02
momentum = 0.9
batch = 16
epochs = 2
[[costs]]
graph = "q1-all-sgd"
batch = 16
step_ms = 1.0
rss_mb = 100.0
"""

POLICY = """\
trusted_sites = {sites}
min_trusted = 3
min_trustees = 2
min_contributors = 3
audit_one_in = 1
[bundle_signers]
author = "{author_pk}"
"""

AGENT = """\
model = "{bundle}"
[[sources]]
kind = "replay"
name = "wrist"
[sources.options]
stream = "{stream}"
data = "recording.npz"
history_s = {history_s}
loop = true
[training.gates]
load_per_core = 1000.0  # what else this machine does is no reason to wait
[serving]
gate = false  # no window is held out of training, so that counts are known
[link]
service_address = "127.0.0.1:{port}"
heartbeat_s = 1.0
poll_wait_ms = 5000
"""


@contextmanager
def founded(folder: Path) -> Iterator[Federation]:
    """A federation that runs, with all devices online; everything is ended afterwards."""
    try:
        with (
            memory_folder() as runtime,
            ProcessTable(folder / "logs", SystemClock()) as table,
        ):
            federation = Federation(folder, runtime, table)
            _found_hub(federation)
            _found_sites(federation)
            federation.author_pk = build_model(federation.bundle, federation.author_key)
            _found_devices(federation)
            wait_until(lambda: federation.online() == len(federation.agents), "every device is online", interval_s=0.3)
            yield federation
    except ConfigError as error:
        if error.code != "no-memory-folder":
            raise
        pytest.skip(f"{error.sentence}: round keys need one")


def _found_hub(federation: Federation) -> None:
    folder, hub = federation.folder, federation.hub
    federation.service_port, federation.enrolment_port = free_ports(2)
    federation.root_pk = bedside_json("federation", "init", folder / "root", "--name", "test")["root_pk"]
    bedside(
        *("coordinator", "init", hub),
        *("--service-address", f"127.0.0.1:{federation.service_port}"),
        *("--enrolment-address", f"127.0.0.1:{federation.enrolment_port}"),
    )
    drop_in = hub / "conf.d" / "test.toml"
    drop_in.parent.mkdir()
    drop_in.write_text(f"heartbeat_s = {HEARTBEAT_S}\n")


def _found_sites(federation: Federation) -> None:
    folder = federation.folder
    for name in SITES:
        site = Site(name, folder / name, federation.runtime / name)
        bedside("site", "init", site.directory, "--site", name)
        federation.sites[name] = site
    publics = [word for site in federation.sites.values() for word in ("--site", site.directory / "site.public.json")]
    document = folder / "federation.bin"
    coordinator = federation.hub / "coordinator.public.json"
    bedside("federation", "sign", "--root", folder / "root", "--coordinator", coordinator, *publics, "--out", document)
    bedside("coordinator", "install", federation.hub, document)
    federation.start_coordinator()
    address = f"127.0.0.1:{federation.enrolment_port}"
    with ThreadPoolExecutor(2) as pool:
        joined = [
            pool.submit(
                bedside,
                *("site", "join", site.directory, document),
                *("--root-pk", federation.root_pk, "--enrolment-address", address),
            )
            for site in federation.sites.values()
        ]
        for future in joined:
            future.result()


def write_policy(path: Path, author_pk: str, **changes: object) -> None:
    """The policy of every site here."""
    text = POLICY.format(sites=json.dumps(list(SITES)), author_pk=author_pk)
    rules = "".join(f"{name} = {json.dumps(value)}\n" for name, value in changes.items())
    path.write_text(rules + "".join(line for line in text.splitlines(True) if line.split(" ")[0] not in changes))


def motion(seed: int) -> Recording:
    """Sessions of three movements that differ in pace and strength, in blocks of ten seconds."""
    generator = np.random.default_rng(seed)
    samples = int(SESSIONS * SESSION_S * RATE_HZ)
    block = int(10 * RATE_HZ)
    kinds = [(at + seed) % len(CLASSES) for at in range(samples // block)]
    time_s = np.arange(samples) / RATE_HZ
    pace_hz = np.repeat([(0.2, 2.0, 5.0)[kind] for kind in kinds], block)
    strength = np.repeat([(0.1, 1.0, 2.0)[kind] for kind in kinds], block)
    wave = strength * np.sin(2 * np.pi * pace_hz * time_s)
    values = np.stack([wave, np.roll(wave, 5)], axis=1) + generator.normal(0, 0.1, (samples, 2))
    labels = tuple(Label(at * block, (at + 1) * block, CLASSES[kind]) for at, kind in enumerate(kinds))
    starts = tuple(int(at * SESSION_S * RATE_HZ) for at in range(SESSIONS))
    return Recording(values.astype(np.float32), RATE_HZ, labels, starts)


def build_model(folder: Path, key: Path, recipe: str = RECIPE) -> str:
    """Build a bundle into `folder`, signed by the author whose key is in `key`; the author's public key."""
    if not key.exists():
        bedside("model", "key", key)
    file = folder.with_suffix(".toml")
    file.write_text(recipe)
    return str(bedside_json("model", "build", file, folder, "--signing-key", key)["signer_pk"])


def _found_devices(federation: Federation) -> None:
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(_admit, federation, site, count) for site, count in SITES.items()]:
            future.result()


def _admit(federation: Federation, name: str, count: int) -> None:
    """Start a site's trustee, and enrol and start its devices."""
    site = federation.sites[name]
    write_policy(site.directory / "policy.toml", federation.author_pk)
    federation.start_trustee(site)
    token = bedside_json("site", "token", site.directory, "--uses", str(count))["token"]
    for number in range(1, count + 1):
        agent = Agent(f"{name}-{number}", name, federation.folder / "devices" / f"{name}-{number}")
        federation.agents[agent.label] = agent
        bedside("agent", "init", agent.directory)
        write_recording(agent.directory / "recording.npz", motion(len(name) + number))
        write_policy(agent.directory / "policy.toml", federation.author_pk)
        configure_agent(federation, agent, port=federation.service_port)
        bedside("agent", "enrol", agent.directory, token, "--label", agent.label)
        federation.start_agent(agent)


def configure_agent(federation: Federation, agent: Agent, *, port: int) -> None:
    """Write `agent.toml`; `port` is where the device finds the coordinator."""
    text = AGENT.format(stream=STREAM, history_s=SESSIONS * SESSION_S, port=port, bundle=federation.bundle)
    (agent.directory / "agent.toml").write_text(text)
