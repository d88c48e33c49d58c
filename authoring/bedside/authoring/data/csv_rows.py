"""Rows of a CSV file as examples of a model of records: each row is what a device would see as one record."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bedside.authoring.data.dataset import Dataset, Gathering, class_names
from bedside.authoring.data.spec import MAX_COLUMNS, MAX_FILE_BYTES, DataSpec, unusable
from bedside.core.bundle.manifest import Targets
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Record
from bedside.ondevice.windows.cutter import WindowCutter
from bedside.ondevice.windows.labelling import MIN_COVER
from bedside.ondevice.windows.targets import Answers, Question

_MISSING: Final = frozenset({"", "?", "na", "nan", "null", "none"})
_MAX_CELL_CHARS: Final = 1_024


def read_csv(path: Path, spec: DataSpec, question: Question) -> Dataset:
    """Read a CSV file with a heading.

    An empty cell (or `?`, `NA`, `NaN`) of a field is a value that the record lacks, and counts as a device counts it.

    Raises:
        ConfigError: `bad-data`, with the line.
    """
    window = question.window
    if not window.fields:
        raise unusable(
            f"{path.name} has rows, and the model takes windows of a stream",
            "give window.fields in the recipe for a model of records, or bring windows as npz or wfdb",
        )
    wanted = (*window.fields, *(() if question.task == "classification" else question.labels))
    columns = {name: spec.columns.get(name, name) for name in wanted}
    if question.task == "classification" and not spec.label:
        raise unusable("the label column is not named", 'say label = "..."')
    _check_units(spec, question)
    extra = [name for name in (spec.client, spec.label, spec.held_out.column) if name]
    named = class_names(question, spec.classes, spec.leave_out)
    cutter, answers = WindowCutter(window), Answers(question, (), MIN_COVER)
    gathering = Gathering(question, spec.held_out)
    for line, row in _rows(path, {*columns.values(), *extra}):
        where = f"{path.name}, line {line}"
        values = {
            name: value
            for name, column in columns.items()
            if (value := _number(row[column], where, column)) is not None
        }
        record = Record(StreamId(window.stream), line, values)
        for cut in cutter.push_record(record, SessionId("data"), 0.0):
            answer = named(row[spec.label].strip(), where) if question.task == "classification" else answers.answer(cut)
            if answer is not None:
                held = bool(spec.held_out.column) and row[spec.held_out.column].strip() == spec.held_out.value
                gathering.add(row[spec.client].strip(), cut.values, answer, held=held)
    return gathering.done()


def _check_units(spec: DataSpec, question: Question) -> None:
    if not isinstance(question.targets, Targets):
        return
    for name, unit in zip(question.labels, question.targets.unit, strict=True):
        if (said := spec.units.get(name, unit)) != unit:
            raise unusable(f"{name} is in {said}, and the recipe's targets are in {unit}", "convert the column")


def _rows(path: Path, wanted: set[str]) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise unusable(f"{path.name} is larger than {MAX_FILE_BYTES >> 20} MiB", "split it")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            heading = [name.strip() for name in next(reader, [])]
            if len(heading) > MAX_COLUMNS or len(set(heading)) != len(heading):
                raise unusable(f"{path.name}: the heading repeats a name, or has too many", "name each column once")
            if missing := sorted(wanted - set(heading)):
                raise unusable(
                    f"{path.name} has no column {missing[0]}", f"it has {', '.join(heading[:40])}; see [columns]"
                )
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(heading) or max(map(len, cells)) > _MAX_CELL_CHARS:
                    raise unusable(
                        f"{path.name}, line {reader.line_num}: {len(cells)} cells under {len(heading)} headings",
                        "correct that line",
                    )
                yield reader.line_num, dict(zip(heading, cells, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise unusable(f"{path.name} cannot be read: {error}", "save it as CSV in UTF-8 with commas") from error


def _number(cell: str, where: str, column: str) -> float | None:
    """The value of a cell; None when it is empty.

    Raises:
        ConfigError: `bad-data`.
    """
    text = cell.strip()
    if text.lower() in _MISSING:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise unusable(f"{where}: {column} is no number", "write numbers with a point, and leave missing ones empty")
    return value
