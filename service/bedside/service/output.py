"""What commands print: one JSON document, or a table that people read. rich is imported only for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final, ParamSpec, Protocol, TextIO, TypeVar

import click

from bedside.service.text import bounded

Params = ParamSpec("Params")
Result = TypeVar("Result")

_NS_PER_S: Final = 1_000_000_000
_PLAIN_STEPS: Final = 10
"""Lines that a progress bar prints where there is no terminal."""


@dataclass(frozen=True)
class Table:
    """Rows of text under headings.

    Attributes:
        columns: headings.
        rows: one cell per column.
        title: a line above the table; may be empty.
        right: headings of the columns that hold numbers.
        empty: the sentence that stands for a table without rows.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    right: frozenset[str] = field(default_factory=frozenset)
    empty: str = "nothing to show"


def json_option(command: Callable[Params, Result]) -> Callable[Params, Result]:
    """Add `--json`, which reaches the command as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document for programs.")(command)


def emit(data: object, as_json: bool, *, table: Table | None = None, stream: TextIO | None = None) -> None:
    """Print `data` as JSON, or `table` (or, without one, a line per field of `data`) for people.

    Args:
        data: whatever msgspec encodes: dicts, lists, Structs, dataclasses. Bytes become hexadecimal.
        as_json: the value of `--json`.
        table: how people see the same data.
        stream: standard output unless given.
    """
    out = sys.stdout if stream is None else stream
    if as_json:
        click.echo(to_json(data, indent=2), file=out)
    elif table is None:
        click.echo(_fields(data), file=out)
    elif out.isatty() and table.rows:
        _emit_rich(table, out)
    else:
        click.echo(plain_table(table), file=out)


def emit_line(data: object, as_json: bool, text: str, *, stream: TextIO | None = None) -> None:
    """Print one item of an endless list at once: a line of JSON, or `text`."""
    out = sys.stdout if stream is None else stream
    click.echo(to_json(data) if as_json else bounded(text), file=out)
    out.flush()


def to_json(data: object, indent: int = 0) -> str:
    """Return `data` as JSON; bytes become hexadecimal and paths strings."""
    import msgspec

    plain = msgspec.to_builtins(data, builtin_types=(bytes,), enc_hook=_encode, str_keys=True)
    encoded = msgspec.json.encode(_hex_bytes(plain))
    return (msgspec.json.format(encoded, indent=indent) if indent else encoded).decode()


def _encode(value: object) -> object:
    if isinstance(value, PurePath):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


def _hex_bytes(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: _hex_bytes(item) for key, item in value.items()}
    return [_hex_bytes(item) for item in value] if isinstance(value, list) else value


def _fields(data: object) -> str:
    import msgspec

    plain = _hex_bytes(msgspec.to_builtins(data, builtin_types=(bytes,), enc_hook=_encode, str_keys=True))
    if not isinstance(plain, dict):
        return bounded(str(plain))
    width = max((len(str(key)) for key in plain), default=0)
    return "\n".join(f"{key!s:<{width}}  {bounded(_plain(value))}" for key, value in plain.items())


def _plain(value: object) -> str:
    """A value as people write it: a list with commas, nothing as a dash."""
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def plain_table(table: Table) -> str:
    """Return the table as aligned text without colour or lines."""
    if not table.rows:
        return "\n".join(filter(None, [table.title, table.empty]))
    cells = [[str(column).upper() for column in table.columns], *([bounded(c) for c in row] for row in table.rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(table.columns))]
    lines = ["  ".join(_pad(table, at, text, widths[at]) for at, text in enumerate(row)).rstrip() for row in cells]
    return "\n".join(([table.title] if table.title else []) + lines)


def _pad(table: Table, at: int, text: str, width: int) -> str:
    return text.rjust(width) if table.columns[at] in table.right else text.ljust(width)


def _emit_rich(table: Table, out: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    view = RichTable(
        title=table.title or None,
        title_justify="left",
        title_style="",
        header_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for column in table.columns:
        view.add_column(column.upper(), justify="right" if column in table.right else "left", overflow="fold")
    for row in table.rows:
        view.add_row(*(Text(bounded(cell)) for cell in row))
    Console(file=out).print(view)


class Progress(Protocol):
    """Where work reports how far it is."""

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        """Count `amount` more of the total as done; `note` says in a few words what was."""


class _PlainProgress:
    def __init__(self, label: str, total: float, out: TextIO) -> None:
        self._label, self._total, self._out = label, total, out
        self._done = 0.0
        self._shown = 0

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        self._done += amount
        step = int(_PLAIN_STEPS * self._done / self._total) if self._total else _PLAIN_STEPS
        if step > self._shown:
            self._shown = step
            told = f", {bounded(note)}" if note else ""
            click.echo(f"{self._label}: {100 * step // _PLAIN_STEPS} %{told}", file=self._out)


@contextmanager
def progress(label: str, total: float, *, stream: TextIO | None = None) -> Iterator[Progress]:
    """Show how far a job is on standard error: a bar on a terminal, a line per tenth elsewhere."""
    out = sys.stderr if stream is None else stream
    if not out.isatty():
        yield _PlainProgress(label, total, out)
        return
    from rich.console import Console
    from rich.progress import Progress as RichProgress

    with RichProgress(console=Console(file=out), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield _RichProgress(
            lambda amount, note: bar.update(
                task, advance=amount, description=f"{label}: {bounded(note)}" if note else label
            )
        )


class _RichProgress:
    def __init__(self, advance: Callable[[float, str], None]) -> None:
        self._advance = advance

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        self._advance(amount, note)


def human_bytes(count: float) -> str:
    """Return a number of bytes with a binary unit, for instance `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def human_duration(seconds: float) -> str:
    """Return a duration in its two largest units, for instance `3 h 20 min`; below a minute, with three digits."""
    if seconds < 0:
        return f"-{human_duration(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for size, unit, small_size, small in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // small_size
            return f"{whole // size} {unit} {rest} {small}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def human_age(then_ns: int | None, now_ns: int) -> str:
    """Return how long ago a time was, both in nanoseconds since the epoch; `never` for None."""
    if then_ns is None:
        return "never"
    seconds = (now_ns - then_ns) / _NS_PER_S
    if seconds < 0:
        return f"in {human_duration(-seconds)}"
    return "just now" if seconds < 1 else f"{human_duration(round(seconds))} ago"
