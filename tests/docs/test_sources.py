"""docs/sources.md: every block of it is a configuration that holds, and the source of one's own runs as it stands."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from bedside.agent.config import SourceConfig
from bedside.agent.sources.kind import SourceContext
from bedside.agent.sources.registry import BUILT_IN, KINDS, typed_source
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


async def test_the_source_of_ones_own_runs_as_it_stands(tmp_path, monkeypatch) -> None:
    project, (module, *others) = tomllib.loads(blocks(TUTORIAL, "toml")[0]), blocks(TUTORIAL, "python")
    assert not others
    assert len([line for line in module.splitlines() if line.strip()]) <= MAX_LINES
    points = project["project"]["entry-points"]["bedside.sources"]
    package = next(iter(points.values())).partition(":")[0]
    monkeypatch.syspath_prepend(str(install(tmp_path / "site-packages", package, module, points)))
    monkeypatch.delitem(sys.modules, package, raising=False)
    assert set(points) <= set(KINDS.names())

    sensor = tmp_path / "temp"
    sensor.write_text("41500\n")
    (source,) = [one for one in sources_in(TUTORIAL) if one.kind in points]
    options = {**source.options, "path": str(sensor), "every_s": 0.02}
    told = "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
    config = f'[[sources]]\nkind = "{source.kind}"\nname = "{source.name}"\n[sources.options]\n{told}'
    device = make_directory(tmp_path / "device", config)
    async with resident(device) as agent:
        await agent.until(lambda: agent.health[source.name].records >= 3)
        sensor.write_text("hot\n")
        await agent.until(lambda: agent.health[source.name].errors)
        assert agent.health[source.name].last_error.startswith("thermal-away")
        sensor.write_text("42500\n")
        before = agent.health[source.name].records
        await agent.until(lambda: agent.health[source.name].records > before)
    with buffer_of(device) as reader:
        found = records_of(reader, str(source.options["stream"]))
        assert [one.values["celsius"] for one in found][:3] == [41.5] * 3
        assert found[-1].values == {"celsius": 42.5}
        assert found[-1].units == {"celsius": "Cel"}
