"""One row of delimited text (CSV): its cells, and a number in one of them.

Nothing is guessed: delimiter, decimal mark and encoding are said, and a cell with the other mark is no number. A row is
one line: a quoted cell holds no line end.

Source: RFC 4180.
"""

from __future__ import annotations

import codecs
import csv
from typing import Final

import msgspec

from bedside.agent.formats.tables.lines import MAX_LINE_BYTES
from bedside.core.errors import ConfigError, MalformedError
from bedside.core.vocabulary.number import number_of

MAX_COLUMNS: Final = 4_096
_ASCII: Final = bytes(range(1, 128))


class Dialect(msgspec.Struct, frozen=True):
    """How rows are written.

    Attributes:
        delimiter: one character between cells.
        decimal: `.` or `,`.
        encoding: of the text; its ASCII characters are single bytes.
    """

    delimiter: str = ","
    decimal: str = "."
    encoding: str = "utf-8"

    def check(self, source: str) -> None:
        """Refuse what reads nothing.

        Raises:
            ConfigError: `csv-dialect`.
        """
        try:
            plain = _ASCII.decode(self.encoding) == _ASCII.decode("ascii")
            codecs.lookup(self.encoding)
        except (LookupError, ValueError):
            plain = False
        rules = (
            (plain, "encoding must be one that contains ASCII, for instance utf-8, latin-1, cp1252"),
            (len(self.delimiter) == 1 and self.delimiter.isascii(), "delimiter must be one character"),
            (
                self.delimiter not in '"\r\n\0 .+-' and not self.delimiter.isalnum(),
                "delimiter cannot be part of a cell",
            ),
            (self.decimal in {".", ","}, "decimal must be a point or a comma"),
            (self.decimal != self.delimiter, "delimiter and decimal cannot be the same"),
        )
        for holds, sentence in rules:
            if not holds:
                raise ConfigError("csv-dialect", f"source {source}: {sentence}", remedy="correct it in agent.toml")


def split_row(line: bytes, dialect: Dialect) -> list[str]:
    """The cells of a line, without spaces round them.

    Raises:
        MalformedError: `bad-row`.
    """
    if len(line) > MAX_LINE_BYTES:
        raise MalformedError("bad-row", f"a line exceeds {MAX_LINE_BYTES} bytes")
    try:
        text = line.decode(dialect.encoding)
        rows = list(csv.reader([text], delimiter=dialect.delimiter, strict=True))
    except (UnicodeError, csv.Error) as error:
        raise MalformedError("bad-row", "a line is not a row of this dialect") from error
    cells = rows[0] if rows else []
    if len(cells) > MAX_COLUMNS:
        raise MalformedError("bad-row", f"a row has more than {MAX_COLUMNS} cells")
    return [cell.strip() for cell in cells]


def number_in(cell: str, decimal: str) -> float | None:
    """The number that a cell is; NaN when it is empty, None when it is none with this decimal mark."""
    if decimal == ",":
        if "." in cell:
            return None  # a thousands separator, or another dialect
        cell = cell.replace(",", ".", 1)
    return number_of(cell)
