"""The one JSON object that a benchmark prints last, and tables for people."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

Figure = dict[str, object]


def plain_arguments(text: str | None) -> argparse.ArgumentParser:
    """What all benchmarks have in common."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the JSON line only")
    return parser


def arguments(text: str | None) -> argparse.ArgumentParser:
    """What all benchmarks on real data have in common."""
    parser = plain_arguments(text)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and seeds: whether it runs, not how good")
    parser.add_argument("--runs", type=int, help="seeds of every configuration")
    parser.add_argument("--data", type=Path, help="folder of the real sets [default: $BEDSIDE_DATA, ../shared/data]")
    return parser


def figure(name: str, value: float | None, unit: str, **facts: object) -> Figure:
    """One figure; a value that could not be measured is None, with the reason in `note`."""
    return {"name": name, "value": None if value is None else round(value, 4), "unit": unit, **facts}


def emit(benchmark: str, runs: int, figures: Sequence[Figure], detail: object) -> None:
    """Print the object."""
    machine = {"cpu": _processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    result = {"benchmark": benchmark, "runs": runs, "machine": machine, "detail": detail, "figures": list(figures)}
    print(json.dumps(result))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns in Markdown, so that they can go into the documentation as they are."""
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
