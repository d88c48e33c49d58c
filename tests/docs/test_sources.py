"""docs/sources.md: every block of it is a configuration that holds, and the source of one's own runs as it stands."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from bedside.agent.config import SourceConfig
from bedside.agent.kinds import options_of
from bedside.agent.sources.kind import SourceContext
from bedside.agent.sources.mllp.beds import Bed, Beds
from bedside.agent.sources.registry import BUILT_IN, find_kind, typed_source
from bedside.core.errors import StoreError
from resident_device import buffer_of, make_directory, records_of, resident
from third_party import install

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sources.md").read_text()
TUTORIAL = PAGE[PAGE.index("## A source of your own") :]
MAX_LINES = 30


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def sources_in(text: str) -> list[SourceConfig]:
    tables = [table for block in blocks(text, "toml") for table in tomllib.loads(block).get("sources", [])]
    return [msgspec.convert(table, SourceConfig) for table in tables]


@pytest.mark.parametrize("source", sources_in(PAGE[: PAGE.index("## A source of your own")]), ids=lambda s: s.name)
def test_every_example_is_read_with_the_rules_of_its_kind(source: SourceConfig) -> None:
    options = typed_source(source)
    assert options.name == source.name
    assert all(options.streams())


@pytest.mark.parametrize("kind", ["mllp", "sql"])
def test_the_section_of_a_kind_names_each_option_that_is_its_own(kind: str) -> None:
    section = re.split(r"^## ", PAGE.split(f"\n## {kind}")[1], flags=re.MULTILINE)[0]
    shared = {"fields", "clock", "every_s", "time_format", "value_column", "page_rows", "timeout_s"}
    missing = {name for name in options_of(find_kind(kind).options) if not re.search(rf"\b{name}\b", section)}
    assert missing - shared == set()


def test_a_bed_whose_sessions_are_anothers_is_written_as_the_page_says() -> None:
    (line,) = re.findall(r'`("ICU\^3" = \{.*?\})`', PAGE)
    beds = msgspec.convert(tomllib.loads(line), dict[str, str | Bed])
    bed = Beds("engine", beds).find("ICU^3")
    assert bed is not None
    assert bed.all_streams == ("bed-3", "bed-3-ecg")


def test_every_kind_has_an_example_and_a_row_of_the_table() -> None:
    shown = {source.kind for source in sources_in(PAGE)}
    assert set(BUILT_IN) - shown == set()
    rows = "".join(line for line in PAGE.splitlines() if line.startswith("| ["))
    assert all(f"`{kind}`" in rows for kind in BUILT_IN)


def test_every_link_leads_to_a_page_and_a_heading() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)", PAGE, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        page, _, heading = target.partition("#")
        assert (ROOT / "docs" / page).exists(), target
        assert page or heading in headings, target


def test_what_the_page_says_of_a_context_is_there() -> None:
    for name in re.findall(r"context\.(\w+)", TUTORIAL):
        assert name in SourceContext.__dataclass_fields__


@pytest.fixture
def tutorial(tmp_path: Path) -> tuple[Path, Path, Path]:
    """What the page tells to write: a folder of packages, the file of a sensor, and a device that reads it."""
    project, (module,) = tomllib.loads(blocks(TUTORIAL, "toml")[0]), blocks(TUTORIAL, "python")
    assert len([line for line in module.splitlines() if line.strip()]) <= MAX_LINES
    points = project["project"]["entry-points"]["bedside.sources"]
    assert set(points) == {"thermal"}
    packages = install(tmp_path / "site-packages", "bedside_thermal", module, points)
    sensor = tmp_path / "temp"
    sensor.write_text("41500\n")
    (source,) = [one for one in sources_in(TUTORIAL) if one.kind in points]
    told = json.dumps({**source.options, "path": "../temp", "every_s": 0.02})  # relative to agent.toml
    options = re.sub(r'"(\w+)": ', r"\1 = ", told)
    config = f'[[sources]]\nkind = "{source.kind}"\nname = "{source.name}"\noptions = {options}\n'
    return packages, sensor, make_directory(tmp_path / "device", config)


async def test_the_source_of_ones_own_fails_and_comes_back(tutorial, monkeypatch) -> None:
    packages, sensor, device = tutorial
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.delitem(sys.modules, "bedside_thermal", raising=False)
    async with resident(device) as agent:
        health = agent.health["board"]
        await agent.until(lambda: health.records >= 3)
        sensor.write_text("hot\n")
        await agent.until(lambda: health.errors)
        assert health.last_error.startswith("thermal-away")
        assert "another file of /sys/class/thermal" in health.last_error, "it says what to do"
        sensor.write_text("42500\n")
        before = health.records
        await agent.until(lambda: health.records > before)
    with buffer_of(device) as reader:
        found = records_of(reader, "board")
    assert [one.values["celsius"] for one in found][:3] == [41.5] * 3
    assert found[-1].values == {"celsius": 42.5}
    assert found[-1].units == {"celsius": "Cel"}


@pytest.mark.system
def test_the_source_of_ones_own_runs_under_a_real_agent_as_it_stands(tutorial) -> None:
    packages, _, device = tutorial
    environment = os.environ | {"PYTHONPATH": str(packages)}

    def bedside(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bedside.service", "agent", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)

    kinds = bedside("sources", "kinds").stdout
    assert re.search(r"^thermal +A thermometer of the kernel\.$", kinds, re.MULTILINE), kinds
    checked = bedside("check", str(device))
    assert checked.returncode == 0, checked.stderr
    with (device / "log.txt").open("w") as log:
        run = [sys.executable, "-m", "bedside.service", "agent", "run", str(device)]
        agent = subprocess.Popen(run, env=environment, stdout=log, stderr=log)
    try:
        deadline_s = time.monotonic() + 30
        stored = 0
        while stored < 3:
            assert agent.poll() is None, (device / "log.txt").read_text()
            assert time.monotonic() < deadline_s, (device / "log.txt").read_text()
            time.sleep(0.1)
            with suppress(StoreError), buffer_of(device) as reader:  # its tables come with its first moments
                stored = len(records_of(reader, "board"))
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(20) == 0
    finally:
        agent.kill()
        agent.wait(10)
