"""Writes what leaves into CSV files of a directory, for whatever reads such files: append-only, a line per row.

Invariants:
    * `send` returns when its lines are on the disk. A file that is there is only appended to, but for half a row at its
      end, which a kill has left and nobody was told of.
    * A row that comes again after a crash is in the file once: what lies behind the first row that comes is known.
    * What is sent again on demand goes into files of its own.

Source: RFC 4180.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

from bedside.agent.formats.tables.tail import MAX_LINE_BYTES, TAIL_BYTES, sound_bytes
from bedside.agent.sinks.kind import SinkContext, SinkKind, SinkOptions, option
from bedside.agent.sinks.outgoing import Outgoing, SentPrediction, SentRecord
from bedside.agent.sinks.rows import fields_of, quality_words
from bedside.core.errors import ConfigError, MalformedError
from bedside.service.files import sync_directory
from bedside.service.text import bounded, for_spreadsheet

_MODE: Final = 0o640
"""The agent's group may read, so that a file server can be in it."""
_HEAD: Final = ("number", "message_id", "id", "time", "device", "stream", "subject")
COLUMNS: Final = {
    "predictions": (*_HEAD, "label", "confidence", "start", "end", "model", "model_digest"),
    "alarms": (
        *_HEAD,
        *("rule", "priority", "state", "value", "raised", "cleared", "acknowledged", "acknowledged_by", "escalated"),
    ),
    "records": (*_HEAD, "field", "value", "unit", "quality", "line", "lines"),
    "outputs": (
        *_HEAD,
        *("output", "value", "unit", "probability", "start", "end", "model", "model_digest", "line", "lines"),
    ),
}
"""By table. A record has a line per field; a prediction that has outputs has one per output, in a table of its own."""
_ID: Final = 1


class CsvOptions(SinkOptions, frozen=True, kw_only=True):
    """CSV files of a directory."""

    directory: Annotated[str, option("directory of the files, which is made")]
    max_mib: Annotated[float, option("size at which a file is set aside and a new one begun, MiB")] = 64.0
    keep_files: Annotated[int, option("files of a sort that are kept when set aside; the oldest are removed")] = 16


class CsvSink:
    """A `Sink` on a directory."""

    batch_rows = 500

    def __init__(self, options: CsvOptions, directory: Path) -> None:
        self._options = options
        self._directory = directory
        self._files: dict[str, _RowFile] = {}

    async def send(self, batch: Sequence[Outgoing]) -> None:
        """Append, and wait for the disk."""
        tables: dict[str, list[Outgoing]] = {}
        for one in batch:
            tables.setdefault(table_of(one), []).append(one)
        try:
            for table, rows in tables.items():
                name = f"{table}-again" if batch[0].again else table
                if name not in self._files:
                    self._directory.mkdir(parents=True, exist_ok=True)
                    self._files[name] = _RowFile(self._directory, name, table, self._options)
                self._files[name].append(rows)
        except Exception:
            await self.close()  # what is half written is looked at anew
            raise

    async def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def preview(self, batch: Sequence[Outgoing]) -> str:
        """The lines, under their header."""
        shown = ""
        for table in dict.fromkeys(map(table_of, batch)):
            rows = (line for one in batch if table_of(one) == table for line in cells_of(one))
            shown += "".join(_lines([COLUMNS[table], *rows]))
        return shown


class _RowFile:
    """One file that grows, and those that were set aside before it."""

    def __init__(self, directory: Path, name: str, table: str, options: CsvOptions) -> None:
        self._path = directory / f"{name}.csv"
        self._columns = COLUMNS[table]
        parts = (len(self._columns) - 2, len(self._columns) - 1)
        self._parts = parts if table in {"records", "outputs"} else None
        self._options = options
        self._header = next(_lines([self._columns])).encode()
        self._known: set[str] | None = None
        self._descriptor, self._number = self._open()

    def append(self, batch: Sequence[Outgoing]) -> None:
        """Write those that are not there yet, durably."""
        if self._known is None:
            self._known = set() if batch[0].again else self._written_from(batch[0])
        fresh = [one for one in batch if str(one.message_id) not in self._known]
        if not fresh:
            return
        self._known.clear()
        data = "".join(_lines(line for one in fresh for line in cells_of(one))).encode()
        size_bytes = os.fstat(self._descriptor).st_size
        if size_bytes > len(self._header) and size_bytes + len(data) > self._options.max_mib * (1 << 20):
            self._set_aside()
        _write_all(self._descriptor, data)
        os.fsync(self._descriptor)
        self._number = fresh[-1].number

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> tuple[int, int]:
        """Open for appending, behind the last whole row; returns the descriptor and that row's number."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, _MODE)
        try:
            os.fchmod(descriptor, _MODE)
            number = self._mend(descriptor)
        except MalformedError:
            os.close(descriptor)
            self._set_aside_file()  # it is not ours, or of another version: whoever wrote it keeps it
            return self._open()
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, number

    def _mend(self, descriptor: int) -> int:
        size_bytes = os.fstat(descriptor).st_size
        head = os.pread(descriptor, len(self._header), 0)
        if head != self._header:
            if not self._header.startswith(head):
                raise MalformedError("csv-tail", "the file has another header")
            os.ftruncate(descriptor, 0)
            _write_all(descriptor, self._header)
            os.fsync(descriptor)
            sync_directory(self._path.parent)
            return 0
        from_byte = max(0, size_bytes - TAIL_BYTES)
        tail = os.pread(descriptor, size_bytes - from_byte, from_byte)
        skip = tail.find(b"\n", 0, MAX_LINE_BYTES) + 1 if from_byte else 0
        kept, number = sound_bytes(tail[skip:], len(self._columns), self._parts)
        if from_byte + skip + kept < size_bytes:
            os.ftruncate(descriptor, from_byte + skip + kept)
            os.fsync(descriptor)
        return number

    def _written_from(self, first: Outgoing) -> set[str]:
        """The ids of all rows from a row on; empty when it was not written.

        Numbers begin anew with a new buffer, so that ids say what is known, and a number above the last one only that
        there is nothing to look for.
        """
        paths = [*self._aside()[-1:], self._path]
        if first.number > self._number > 0:
            return set()
        known: set[str] = set()
        wanted = str(first.message_id)
        for path in paths:
            with path.open(encoding="utf-8", errors="replace", newline="") as file, suppress(csv.Error):
                for cells in csv.reader(file):
                    if len(cells) == len(self._columns) and (known or cells[_ID] == wanted):
                        known.add(cells[_ID])
        return known

    def _set_aside(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        self._set_aside_file()
        self._descriptor, _ = self._open()

    def _set_aside_file(self) -> None:
        found = self._aside()
        number = int(found[-1].stem.rpartition(".")[2]) + 1 if found else 1
        self._path.rename(self._path.with_name(f"{self._path.stem}.{number:06d}.csv"))
        for old in self._aside()[: -self._options.keep_files]:
            old.unlink(missing_ok=True)
        sync_directory(self._path.parent)

    def _aside(self) -> list[Path]:
        found = [path for path in self._path.parent.glob(f"{self._path.stem}.*.csv") if _is_number(path)]
        return sorted(found, key=lambda path: int(path.stem.rpartition(".")[2]))


def table_of(one: Outgoing) -> str:
    """The table that it goes into."""
    return "outputs" if isinstance(one.body, SentPrediction) and one.body.outputs else one.what


def cells_of(one: Outgoing) -> Iterator[Sequence[object]]:
    """The lines of one row."""
    fields = fields_of(one)
    if isinstance(one.body, SentPrediction) and one.body.outputs:
        yield from _output_cells(one.body, fields)
        return
    if not isinstance(one.body, SentRecord):
        yield [fields[name] for name in COLUMNS[one.what]]
        return
    head = [fields[name] for name in _HEAD]
    quality = " ".join(quality_words(one.body.quality))
    for line, (name, value) in enumerate(one.body.values.items(), 1):
        shown = "" if value != value else value  # a value that is not there is NaN
        yield [*head, name, shown, one.body.units.get(name, ""), quality, line, len(one.body.values)]


def _output_cells(body: SentPrediction, fields: Mapping[str, object]) -> Iterator[Sequence[object]]:
    """A value and its unit, or a probability; the rest of the columns is empty."""
    head = [fields[name] for name in _HEAD]
    tail = [fields[name] for name in ("start", "end", "model", "model_digest")]
    for line, output in enumerate(body.outputs, 1):
        said = ("", "", round(output.value, 6)) if output.is_probability else (output.value, output.unit, "")
        yield [*head, output.name, *said, *tail, line, len(body.outputs)]


def _lines(rows: Iterable[Sequence[object]]) -> Iterator[str]:
    for row in rows:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(
            [for_spreadsheet(bounded(cell)) if isinstance(cell, str) else cell for cell in row]
        )
        yield text.getvalue()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _is_number(path: Path) -> bool:
    text = path.stem.rpartition(".")[2]
    return text.isascii() and text.isdecimal()


def _build(options: CsvOptions, context: SinkContext) -> CsvSink:
    if not 0.001 <= options.max_mib <= 1 << 20 or not 1 <= options.keep_files <= 100_000:
        raise ConfigError(
            "sink-config",
            f"sink {options.name}: files of {options.max_mib} MiB, {options.keep_files} of them, are impossible",
            remedy="max_mib from 0.001 on, keep_files from 1 to 100000",
        )
    return CsvSink(options, context.directory / options.directory)


KIND: Final = SinkKind(CsvOptions, _build)
