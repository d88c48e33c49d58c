"""No parser is forgotten: the registry, the table in README.md and the code agree."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from parsers import PARSERS

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
ROOTS = ("core", "service", "firmware_bridge", "ondevice", "agent", "trustee", "authoring", "coordinator", "demo")
TAKES_BYTES = re.compile(
    r"MalformedError\(|json\.(?:decode|loads)\(|msgpack\.decode\(|_HEADER\.decode\(|tomllib\.loads|np\.load\(|csv\.(?:reader|DictReader)\("
    r"|unpack_from\(|load_(?:pem|der)_|\.(?:FromString|ParseFromString)\("
)
"""What a module does that makes something of foreign bytes itself, or says that they are none."""


def rows(heading: str) -> dict[str, list[str]]:
    """The first cell of each row of the table under `heading`, and the others."""
    section = (HERE / "README.md").read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:3] == "| `"
    ]
    return {first.strip("`"): rest for first, *rest in cells}


def module_of(dotted: str) -> str:
    """The module of a dotted name that exists."""
    parts = dotted.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            found = getattr(found, name)
        return ".".join(parts[:end])
    raise AssertionError(f"there is no {dotted}")


def expected_row(name: str) -> list[str]:
    parser = PARSERS[name]
    return [
        ", ".join(f"`{one.removeprefix('bedside.')}`" for one in parser.reads),
        ", ".join(kind.__name__.removesuffix("Error") for kind in parser.allowed),
    ]


def test_the_table_is_the_registry() -> None:
    wanted = {name: expected_row(name) for name in PARSERS}
    assert rows("Parsers") == wanted, "\n".join(f"| `{name}` | {' | '.join(row)} |" for name, row in wanted.items())


def test_every_module_that_makes_something_of_bytes_is_fuzzed_or_says_why_not() -> None:
    fuzzed = {module_of(dotted) for parser in PARSERS.values() for dotted in parser.reads}
    elsewhere = rows("Tried elsewhere")
    takes = set()
    for root in ROOTS:
        for file in (REPOSITORY / root).rglob("*.py"):
            if TAKES_BYTES.search(file.read_text()):
                takes.add(".".join(file.relative_to(REPOSITORY / root).with_suffix("").parts))
    assert takes - fuzzed == {f"bedside.{name}" for name in elsewhere}
    assert all(len(reason) == 1 and reason[0] for reason in elsewhere.values())
