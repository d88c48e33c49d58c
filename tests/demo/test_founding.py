import socket
import tomllib
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.config import load_agent_config
from bedside.agent.sources.recordings.replay import ReplayOptions
from bedside.agent.sources.registry import typed_source
from bedside.agent.sources.serial_port import SerialOptions
from bedside.core.errors import ConfigError
from bedside.core.policy.site_policy import SitePolicy
from bedside.demo.cast import SIGNER, Cast, assemble
from bedside.demo.command_line import CommandLine
from bedside.demo.founding import Founder, free_ports
from bedside.demo.paths import DemoPaths
from bedside.demo.policies import MIN_TRUSTED, RAISED_MINIMUM, policy_text, write_policy
from bedside.demo.processes import ProcessTable
from bedside.firmware_bridge.recording import Recording
from bedside.service.config import load_config
from bedside.service.platform import SystemClock

SIGNER_PK = "ab" * 32
CAST = assemble(range(1, 11), held_out=(9, 10), on_board=4)


def founder(tmp_path: Path, cast: Cast = CAST) -> tuple[Founder, DemoPaths]:
    paths = DemoPaths(tmp_path / "out")
    paths.prepare()
    recordings = {device.name: Recording(np.zeros((500, 6), np.float32), 50.0) for device in cast.devices}
    memory = tmp_path / "memory"
    memory.mkdir()
    clock = SystemClock()
    commands = CommandLine(paths.logs / "commands.log")
    return Founder(cast, recordings, paths, memory, commands, ProcessTable(paths.logs, clock), clock), paths


@pytest.mark.parametrize("device", CAST.devices, ids=lambda device: device.name)
def test_every_device_gets_a_configuration_that_its_agent_accepts(tmp_path: Path, device: object) -> None:
    made, _ = founder(tmp_path)
    member = next(one for one in CAST.devices if one is device)
    (tmp_path / "agent.toml").write_text(made._agent_toml(member))

    config = load_agent_config(tmp_path)

    assert config.training.enabled == member.trains
    (source,) = config.sources
    options = typed_source(source)
    assert isinstance(options, SerialOptions if member.on_board else ReplayOptions)
    assert options.loop
    assert (source.kind == "serial") == member.on_board


def test_a_replayed_device_has_its_whole_recording_as_history(tmp_path: Path) -> None:
    made, _ = founder(tmp_path)

    options = tomllib.loads(made._agent_toml(CAST.devices[0]))["sources"][0]["options"]

    assert options["history_s"] == 10.0


def test_the_policy_is_one_that_trustee_and_device_accept(tmp_path: Path) -> None:
    write_policy(tmp_path / "policy.toml", policy_text("hospital-b", SIGNER_PK, RAISED_MINIMUM))

    policy = load_config(tmp_path / "policy.toml", SitePolicy)

    assert policy.bundle_signers == {SIGNER: SIGNER_PK}
    assert (policy.min_trusted, policy.min_contributors) == (MIN_TRUSTED, RAISED_MINIMUM)
    assert len(CAST.devices) < RAISED_MINIMUM


def test_ports_are_free_and_different() -> None:
    ports = free_ports(2)

    assert len(set(ports)) == 2
    for port in ports:
        with socket.socket() as one:
            one.bind(("127.0.0.1", port))


def test_a_folder_with_other_files_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")

    with pytest.raises(ConfigError) as refused:
        DemoPaths(tmp_path).prepare()

    assert refused.value.code == "demo-folder"
    assert (tmp_path / "thesis.txt").exists()


def test_an_earlier_run_is_emptied(tmp_path: Path) -> None:
    paths = DemoPaths(tmp_path / "out")
    paths.prepare()
    paths.result.write_text("{}")

    paths.prepare()

    assert not paths.result.exists()
    assert paths.logs.is_dir()
