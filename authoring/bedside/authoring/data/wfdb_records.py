"""WFDB records (PhysioNet) as examples: windows are cut and labelled by what cuts and labels them on a device.

Source: PhysioNet, WFDB applications guide, header(5), signal(5), annot(5).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bedside.authoring.data.dataset import Dataset, Gathering
from bedside.authoring.data.spec import DataSpec, unusable
from bedside.core.bundle.preprocessing import signal_channels
from bedside.core.errors import UnavailableError
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block
from bedside.firmware_bridge.recording import MAX_RECORDING_BYTES
from bedside.ondevice.windows.cutter import WindowCutter
from bedside.ondevice.windows.labelling import MIN_COVER
from bedside.ondevice.windows.part import offset_ns
from bedside.ondevice.windows.targets import Answers, Question

_SIGNAL_ROWS: Final = 1 << 16
"""Rows of each record that describe what its signal is like."""


class _Said(NamedTuple):
    """An annotation as a label."""

    start_ns: int
    end_ns: int
    label: str
    value: float | None = None


def read_wfdb(folder: Path, spec: DataSpec, question: Question) -> Dataset:
    """Read and cut the records of a folder.

    Raises:
        ConfigError: `bad-data`.
        UnavailableError: `wfdb-missing`.
    """
    if importlib.util.find_spec("wfdb") is None:
        raise UnavailableError("wfdb-missing", "wfdb is not installed", remedy="pip install 'bedside[wfdb]'")
    window = question.window
    wanted = signal_channels(window)
    picked = list(window.pick or range(wanted))
    gathering = Gathering(question, spec.held_out)
    signals: list[npt.NDArray[np.float64]] = []
    for name in spec.records:
        values, rate_hz, said = _read(folder / name, spec)
        if values.shape[1] <= max(picked) or (not window.pick and values.shape[1] != wanted):
            raise unusable(f"the record {name} has {values.shape[1]} signals", "name channels, or pick in the recipe")
        client = spec.clients.get(name, name)
        if client not in spec.held_out.clients:
            signals.append(values[:: max(1, len(values) // _SIGNAL_ROWS), picked])
        cutter, answers = WindowCutter(window), Answers(question, said, MIN_COVER)
        block = Block(StreamId(window.stream), 0, rate_hz, values.astype(np.float32))
        for cut in cutter.push(block, SessionId(name), 0.0):
            answer = answers.answer(cut)
            if answer is not None:
                gathering.add(client, cut.values, answer)
        if cutter.unusable_blocks:
            raise unusable(f"the record {name} has {rate_hz:g} Hz", f"the model takes {window.rate_hz:g} Hz: resample")
    return gathering.done(np.concatenate(signals) if signals else None)


def _read(record: Path, spec: DataSpec) -> tuple[npt.NDArray[np.float64], float, list[_Said]]:
    """Physical values (samples, signals), their rate, and annotations of the classes that are named."""
    import wfdb

    try:
        header = wfdb.rdheader(str(record))
        names = list(header.sig_name or ())
        if missing := [name for name in spec.channels if name not in names]:
            raise unusable(f"the record {record.name} has no signal {missing[0]}", f"it has {', '.join(names[:40])}")
        chosen = [names.index(name) for name in spec.channels] or list(range(len(names)))
        if (header.sig_len or 0) * max(1, len(chosen)) * 8 > MAX_RECORDING_BYTES:
            raise unusable(f"the record {record.name} is too long", "cut it into several")
        values = np.asarray(wfdb.rdrecord(str(record), channels=chosen).p_signal, np.float64)
        read = wfdb.rdann(str(record), spec.annotator)
        rate_hz = float(header.fs)
    except (OSError, ValueError, IndexError, KeyError, TypeError) as error:  # what the library raises on other files
        raise unusable(f"the record {record} cannot be read: {str(error)[:200]}", "check folder and records") from error
    said = [
        _Said(offset_ns(int(sample), rate_hz), offset_ns(int(sample) + 1, rate_hz), spec.classes[symbol])
        for sample, symbol in zip(read.sample, read.symbol, strict=True)
        if symbol in spec.classes
    ]
    return values, rate_hz, said
