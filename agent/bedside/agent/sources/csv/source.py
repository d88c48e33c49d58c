"""A CSV file as a source: records, or one waveform; played, or followed while another program appends to it."""

from __future__ import annotations

from typing import Final

from bedside.agent.config_bounds import MAX_WAIT_S
from bedside.agent.sources.csv.replay import CsvReplay
from bedside.agent.sources.csv.rows import CsvOptions
from bedside.agent.sources.csv.tail import CsvTail
from bedside.agent.sources.kind import SourceContext, SourceKind
from bedside.agent.sources.options import codes_of
from bedside.core.errors import ConfigError
from bedside.core.limits import MAX_RATE_HZ
from bedside.core.samples import Source

_MAX_SKIPPED_LINES: Final = 1_000


def _build(options: CsvOptions, context: SourceContext) -> Source:
    options.check()
    options.dialect.check(options.name)
    wave, tail = options.rate_hz != 0, options.mode == "tail"
    columns = [options.time_column, *options.columns, *codes_of(options.fields)]
    numbered = all(name.isascii() and name.isdecimal() and 1 <= int(name[:5]) <= 4096 for name in columns if name)
    rules = (
        (0 <= options.rate_hz <= MAX_RATE_HZ, f"rate_hz must be above 0, and {MAX_RATE_HZ:g} at most"),
        (bool(options.columns) == wave, "a waveform has both rate_hz and columns"),
        (bool(options.fields) != wave, "it has fields (records), or rate_hz and columns (a waveform)"),
        (bool(options.time_column) or (wave and not tail), "without a time_column only a waveform can be replayed"),
        (not (tail and options.time_format == "relative_s"), "a relative time has no place in a file that is followed"),
        (not (tail and options.played), "speed, history_s, loop, start_ns and labels are for mode replay"),
        (not (options.labels and not wave), "labels go with a waveform"),
        (options.header or numbered, "without a header, columns have numbers from 1"),
        (0 <= options.skip_lines <= _MAX_SKIPPED_LINES, f"skip_lines must be 0 to {_MAX_SKIPPED_LINES}"),
        (0.01 <= options.every_s <= MAX_WAIT_S, f"every_s must be 0.01 to {MAX_WAIT_S}"),
    )
    for holds, sentence in rules:
        if not holds:
            raise ConfigError("csv-options", f"source {options.name}: {sentence}", remedy="correct it in agent.toml")
    return CsvTail(options, context) if tail else CsvReplay(options, context)


KIND: Final = SourceKind(CsvOptions, _build)
