"""docs/hospital-it.md: what it says of ports, options, commands, files and messages is so."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from bedside.agent.config import TEMPLATE, AgentConfig
from bedside.agent.health import heartbeat
from bedside.agent.kinds import options_of
from bedside.agent.sources.registry import find_kind
from bedside.coordinator.config import CoordinatorConfig
from bedside.service.cli import cli

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "hospital-it.md").read_text()
COMMANDS = sorted(set(re.findall(r"\bbedside ((?:agent|site|trustee|policy|audit)(?: [a-z]+(?![\w./-]))*)", PAGE)))
STANDARD = {
    "os_version": "operating system",
    "model_running": "digests of model and configuration",
    "model_wanted": "digests of model and configuration",
    "config_digest": "digests of model and configuration",
    "restarts": "restarts",
    "last_exit_reason": "restarts",
    "buffer_bytes": "sizes of buffer",
    "buffer_oldest_age_s": "sizes of buffer",
    "disk_free_bytes": "free disk",
    "rss_bytes": "memory",
    "temperature_mc": "temperature",
    "throttled": "throttling",
    "undervoltage": "low voltage",
    "battery_percent": "battery",
    "clock_offset_ms": "clock offset",
    "last_prediction_age_ms": "age of the last prediction",
    "last_task": "last task and round",
    "last_round": "last task and round",
    "last_refusal": "last task and round",
    "key_age_s": "age of the key",
    "streams": "by stream its id",
}
"""Where the page tells of each field that `standard` adds."""


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_is_there(words: str) -> None:
    command: click.Command | None = cli
    for word in words.split():
        context = click.Context(command)  # type: ignore[arg-type]
        if not isinstance(command, click.Group):
            break  # an argument
        command = command.get_command(context, word)
        assert command is not None, word


def test_the_page_has_commands() -> None:
    assert {"agent check", "agent sinks preview", "policy explain", "audit round", "agent forget"} <= set(COMMANDS)


def test_every_option_of_the_configuration_is_there_and_has_the_default_that_the_page_gives() -> None:
    template = tomllib.loads(TEMPLATE)
    for section, key in re.findall(r"`(link|buffer)\.(?!key)(\w+)", PAGE):
        inner = AgentConfig.__struct_fields__
        assert section in inner
        assert hasattr(getattr(AgentConfig(), section), key), key
    buffer = template["buffer"]
    for key, text in (("raw_hours", "72 hours"), ("windows_days", "30 days"), ("summaries_days", "400 days")):
        assert re.search(rf"\| {text} \| `buffer\.{key}`", PAGE)
        assert float(text.split()[0]) == buffer[key]
    assert f"{buffer['cap_mib']} MiB" in PAGE
    assert template["heartbeat"] == "standard"
    assert AgentConfig().sinks == []


def test_the_ports_are_those_of_a_coordinator_by_default() -> None:
    config = CoordinatorConfig()
    ports = {address.rpartition(":")[2] for address in (config.service_address, config.enrolment_address)}
    assert ports == set(re.findall(r"TCP (\d+)", PAGE))


def test_what_listens_is_told_by_its_options() -> None:
    known = options_of(find_kind("mllp").options)
    for option in ("listen", "allow"):
        assert option in known
        assert f"`{option}`" in PAGE
    sources = (ROOT / "agent" / "bedside").rglob("*.py")
    listening = [path for path in sources if re.search(r"\.listen\(|start_server\(|create_server\(", path.read_text())]
    assert [path.parts[-2:] for path in listening] == [("mllp", "listener.py")]


def test_every_field_of_a_heartbeat_is_told() -> None:
    source = inspect.getsource(heartbeat._add_standard)
    fields = set(re.findall(r"beat\.(\w+)", source))
    assert fields == set(STANDARD)
    for field, words in STANDARD.items():
        assert words in PAGE, field
    by_stream = set(re.findall(r"^ +(\w+)=", source[source.index("StreamHealth(") :], re.MULTILINE))
    assert by_stream == {"stream", "last_seen_age_ms", "error_ppm", "dropped_blocks"}
    assert "its dropped blocks, and its error rate" in PAGE


def test_every_link_leads_to_a_page_and_every_key_is_a_file_that_is_made() -> None:
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    code = "".join(
        path.read_text() for part in ("service", "trustee", "coordinator") for path in (ROOT / part).rglob("*.py")
    )
    for name in set(re.findall(r"`(\w+\.(?:key|secret))`", PAGE)):
        assert f'"{name}"' in code, name


def test_the_command_for_processes_finds_one_of_a_virtual_environment(tmp_path: Path) -> None:
    (command,) = re.findall(r"`(ps [^`]+)` shows whose", PAGE)
    program = tmp_path / "bin" / "bedside"
    program.parent.mkdir()
    program.write_text("print('up', flush=True); input()")
    running = subprocess.Popen([sys.executable, program, "agent", "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == b"up\n"
        shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout
        assert re.search(rf"^\S+ +{running.pid} .*bedside agent run$", shown, re.MULTILINE)
    finally:
        running.communicate(b"\n", timeout=30)
