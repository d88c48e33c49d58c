"""docs/quarantine.md: it names every reason and every code that can be shown, and what it tells to do works."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from bedside.core.vocabulary.reading import Reason
from resident_device import buffer_of, make_directory, quarantine_of, records_of, resident

ROOT = Path(__file__).parents[2]
AGENT = ROOT / "agent" / "bedside" / "agent"
PAGE = (ROOT / "docs" / "quarantine.md").read_text()
ELSEWHERE = {
    "bad-time": "a reason of its own",
    "bad-edf": "ends the source of a recording",
    "bad-iio-type": "ends the source of a chip",
    "bad-iio-scan": "ends the source of a chip",
    "bad-iio-number": "ends the source of a chip",
    "outcome-form": "a sink's",
    "hl7-ack": "a sink's",
    "csv-tail": "a sink's",
}
"""Codes of parsers that are never a `what` of `bad-message`."""
SQL = """
[[sources]]
kind = "sql"
name = "laboratory"
[sources.options]
url = "sqlite:///{database}"
query = "SELECT id, bed, taken AS time, pulse FROM results WHERE id > :since ORDER BY id"
watermark = "id"
watermark_type = "integer"
stream_column = "bed"
every_s = 0.1
fields = {{ heart_rate = {{ code = "pulse", sent_unit = "/min" }} }}
places = {{ {places} }}
"""


def rows(heading: str) -> list[tuple[str, ...]]:
    section = re.split(r"^## ", PAGE.split(f"\n## {heading}\n")[1], flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


def code_of(folder: str) -> str:
    return "".join(path.read_text() for path in sorted((AGENT / folder).rglob("*.py")))


def test_every_reason_has_a_row_in_the_order_of_the_code() -> None:
    assert [row[0].strip("`") for row in rows("Reasons")] == [reason.value for reason in Reason]
    assert all(len(row) == 3 and all(row) for row in rows("Reasons"))


def test_every_code_of_a_parser_is_told_and_no_other() -> None:
    raised = set(re.findall(r'MalformedError\(\s*"([a-z0-9-]+)"', code_of("formats")))
    assert {"hl7-header", "mllp-noise", "bad-row", "bad-apdu"} <= raised
    table = rows("Codes of bad-message")
    told = {code for row in table for code in re.findall(r"`([a-z0-9]+-[a-z-]+)(?:\^json)?`", row[0] + row[2])}
    assert raised - told - set(ELSEWHERE) == set()
    assert set(ELSEWHERE) - raised == set()
    assert told - raised == {"mllp-cut", "no-values"}, "codes that no parser raises, of a source's own"


def test_words_that_sources_show_of_themselves_are_told() -> None:
    """Literals beside `BAD_MESSAGE` and `NOT_WANTED`, and what becomes of a row."""
    code = code_of("sources") + code_of("formats")
    shown = set(re.findall(r'Reason\.(?:BAD_MESSAGE|NOT_WANTED), f?"([a-zA-Z0-9^-]+)', code))
    assert {"packet", "line", "message^retained", "no-values^json", "MSH-11^"} <= shown
    missing = [one for one in shown if one not in PAGE]
    assert missing == []
    assert '"row"' in code_of("sources/csv")
    assert "| `row` |" in PAGE


async def test_a_database_is_read_again_when_its_position_is_removed(tmp_path: Path) -> None:
    database = tmp_path / "lis.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE results (id INTEGER, bed TEXT, taken TEXT, pulse REAL)")
        results = [(1, "ICU-3", "2026-01-01T08:00:00", 70.0), (2, "ICU-4", "2026-01-01T08:00:00", 80.0)]
        connection.executemany("INSERT INTO results VALUES (?, ?, ?, ?)", results)
    told = {"database": database, "places": '"ICU-3" = "bed-3"'}
    device = make_directory(tmp_path / "device", SQL.format(**told))
    position = device / "state" / "positions" / "laboratory.json"
    async with resident(device) as agent:
        await agent.until(position.exists)
    with buffer_of(device) as reader:
        assert quarantine_of(reader) == {"laboratory": {"unknown-place": 1}}

    told["places"] += ', "ICU-4" = "bed-4"'

    (device / "agent.toml").write_text(SQL.format(**told) + "[link]\nenabled = false\n")
    async with resident(device) as agent:
        await agent.until(lambda: agent.health["laboratory"].gauge.connected)
    with buffer_of(device) as reader:
        assert [len(records_of(reader, bed)) for bed in ("bed-3", "bed-4")] == [1, 0], "it does not go back by itself"

    position.unlink()
    async with resident(device) as agent:
        await agent.until(position.exists)
    with buffer_of(device) as reader:
        assert [len(records_of(reader, bed)) for bed in ("bed-3", "bed-4")] == [1, 1]
