import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from bedside.service.output import (
    Table,
    emit,
    emit_line,
    human_age,
    human_bytes,
    human_duration,
    plain_table,
    progress,
)
from bedside.service.text import bounded


class Terminal(io.StringIO):
    def isatty(self):
        return True


@dataclass
class Device:
    name: str
    digest: bytes
    home: Path


def test_json_is_one_document_with_hexadecimal_bytes():
    out = io.StringIO()
    emit({"devices": [Device("a", b"\x01\xff", Path("/x"))]}, True, table=Table(["name"], [["a"]]), stream=out)
    assert json.loads(out.getvalue()) == {"devices": [{"name": "a", "digest": "01ff", "home": "/x"}]}


def test_a_table_is_aligned_text_where_there_is_no_terminal():
    out = io.StringIO()
    table = Table(["name", "bytes"], [["a", "10"], ["longer", "5"]], right=frozenset({"bytes"}))
    emit({}, False, table=table, stream=out)
    assert out.getvalue() == "NAME    BYTES\na          10\nlonger      5\n"


def test_a_terminal_gets_the_same_cells_and_no_markup_is_obeyed():
    out = Terminal()
    emit({}, False, table=Table(["name"], [["[red]a[/red]"]]), stream=out)
    assert "[red]a[/red]" in out.getvalue()


def test_a_table_looks_the_same_on_a_terminal():
    out = Terminal()
    table = Table(["name", "bytes"], [["a", "10"], ["longer", "5"]], right=frozenset({"bytes"}))
    emit({}, False, table=table, stream=out)
    text = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert [line.rstrip() for line in text.splitlines()] == plain_table(table).splitlines()


def test_a_terminal_cuts_no_key_however_narrow_it_is(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    out = Terminal()
    emit({}, False, table=Table(["what", "value"], [["signer", "ab" * 32]]), stream=out)
    assert "ab" * 32 in "".join(out.getvalue().split())


def test_an_empty_table_is_a_sentence():
    assert plain_table(Table(["name"], [], empty="no device has enrolled yet")) == "no device has enrolled yet"


def test_without_a_table_each_field_is_a_line():
    out = io.StringIO()
    emit({"round": 3, "state": "open"}, False, stream=out)
    assert out.getvalue() == "round  3\nstate  open\n"


def test_following_prints_json_lines():
    out = io.StringIO()
    emit_line({"a": 1}, True, "a is 1", stream=out)
    emit_line({"a": 2}, False, "a is 2\x1b[2J", stream=out)
    assert out.getvalue() == '{"a":1}\na is 2\\x1b[2J\n'


def test_progress_is_plain_lines_where_there_is_no_terminal():
    out = io.StringIO()
    with progress("upload", 4, stream=out) as bar:
        for _ in range(4):
            bar.advance()
    assert out.getvalue().splitlines()[-1] == "upload: 100 %"
    assert len(out.getvalue().splitlines()) == 4


def test_progress_on_a_terminal_draws_a_bar():
    out = Terminal()
    with progress("upload", 1, stream=out) as bar:
        bar.advance()
    assert "upload" in out.getvalue()


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")])
def test_bytes_are_readable(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "12.3 ms"), (2.5, "2.5 s"), (59.99, "1 min"), (60, "1 min"), (3725, "1 h 2 min"), (90_000, "1 d 1 h")],
)
def test_durations_are_readable(seconds, text):
    assert human_duration(seconds) == text


def test_ages_are_readable():
    assert human_age(None, 0) == "never"
    assert human_age(0, 125 * 10**9) == "2 min 5 s ago"
    assert human_age(10**9, 0) == "in 1 s"


def test_bounded_text_has_no_controls_and_no_more_than_its_limit():
    assert bounded("plain") == "plain"
    assert bounded("ärztlich") == "ärztlich"
    assert bounded("a\n\x1b\u202eb") == "a\\n\\x1b\\u202eb"
    assert len(bounded("x" * 10_000)) == 400
    assert len(bounded("\n" * 400)) == 400
