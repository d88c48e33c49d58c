"""Arrays of windows that somebody has cut: of physical values, each shaped as a device shapes a window."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.authoring.data.dataset import Dataset, Gathering, Named, class_names
from bedside.authoring.data.spec import MAX_VALUE, DataSpec, unusable
from bedside.core.bundle.manifest import Targets
from bedside.firmware_bridge.recording import read_arrays
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.windows.shaping import Shaper
from bedside.ondevice.windows.targets import Question

_SIGNAL_ROWS: Final = 1 << 20
Arrays = dict[str, npt.NDArray[Any]]


def read_npz(path: Path, spec: DataSpec, question: Question) -> Dataset:
    """Read an `.npz` file without pickles.

    Raises:
        ConfigError: `bad-data`, `recording-missing`.
        MalformedError: `bad-npz`.
    """
    window = question.window
    if window.beat is not None or window.filter is not None or window.resample is not None:
        raise unusable(
            "the model cuts its windows from a stream, and these are cut already",
            "bring the stream as wfdb, or leave [window.resample], [window.beat] and [filter] out of the recipe",
        )
    arrays = read_arrays(path)
    x = _array(arrays, spec.windows, path)
    if spec.channels_first and x.ndim == 3:
        x = x.transpose(0, 2, 1)
    if x.ndim == 2 and window.length == 1:
        x = x[:, np.newaxis, :]
    if window.pick and x.ndim == 3 and x.shape[2] > max(window.pick):
        x = x[:, :, list(window.pick)]
    if x.shape[1:] != (window.length, window.channels) or x.dtype.kind not in "iuf":
        raise unusable(
            f"{spec.windows} is {x.dtype}{x.shape}, and the model takes (n, {window.length}, {window.channels})",
            "check the shape, channels_first, and window.length and channels of the recipe",
        )
    clients = _words(arrays, spec.client, path, len(x))
    held = [False] * len(x)
    if spec.held_out.column:
        held = [word == spec.held_out.value for word in _words(arrays, spec.held_out.column, path, len(x))]
    answers = _answers(arrays, spec, question, path, len(x))
    shaper, gathering = Shaper(window), Gathering(question, spec.held_out)
    for at, answer in enumerate(answers):
        if answer is None:
            continue
        values = x[at].astype(np.float64)
        lacking = ~np.isfinite(values)
        if (lacking.any() and not window.fields) or np.abs(values[~lacking]).max(initial=0.0) > MAX_VALUE:
            raise unusable(f"window {at} of {spec.windows} has values that are not finite", "leave such windows out")
        shaped = shaper.given(np.where(lacking, 0.0, values))
        shaped[lacking] = 0.0
        gathering.add(clients[at], shaped, answer, held=held[at])
    seen = [not one and client not in spec.held_out.clients for one, client in zip(held, clients, strict=True)]
    rows = x[seen].reshape(-1, window.channels)
    return gathering.done(None if window.fields else rows[:: max(1, len(rows) // _SIGNAL_ROWS)].astype(np.float64))


def _answers(arrays: Arrays, spec: DataSpec, question: Question, path: Path, count: int) -> list[int | Float32 | None]:
    if question.task == "classification":
        return _classes(arrays, spec, question, path, count)
    y = _array(arrays, spec.targets, path)
    y = y[:, np.newaxis] if y.ndim == 1 else y
    if y.shape != (count, len(question.labels)) or y.dtype.kind not in "iufb":
        raise unusable(f"{spec.targets} is {y.dtype}{y.shape}", f"it must be ({count}, {len(question.labels)})")
    values = y.astype(np.float64)
    values[np.abs(values) > MAX_VALUE] = np.nan
    if isinstance(question.targets, Targets):
        values = (values - question.targets.offset) * question.targets.scale
    elif not np.isin(values[np.isfinite(values)], (0, 1)).all():
        raise unusable(f"{spec.targets} has labels that are neither 0 nor 1", "write 1 where a label holds, else 0")
    return [row.astype(np.float32) if np.isfinite(row).all() else None for row in values]


def _classes(arrays: Arrays, spec: DataSpec, question: Question, path: Path, count: int) -> list[int | Float32 | None]:
    name = spec.label or spec.targets
    named: Named = class_names(question, spec.classes, spec.leave_out)
    array = _array(arrays, name, path)
    if array.dtype.kind in "iu" and not spec.classes and array.shape == (count,):
        outside = np.flatnonzero((array < 0) | (array >= len(question.labels)))
        if len(outside):
            raise unusable(f"{name}[{outside[0]}] is no class of the model", "number classes from 0, or map [classes]")
        return [int(value) for value in array]
    return [named(word, f"{name}[{at}]") for at, word in enumerate(_words(arrays, name, path, count))]


def _array(arrays: Arrays, name: str, path: Path) -> npt.NDArray[Any]:
    if name not in arrays:
        raise unusable(f"{path.name} has no array {name}", f"it has {', '.join(sorted(arrays)[:40])}")
    return arrays[name]


def _words(arrays: Arrays, name: str, path: Path, count: int) -> list[str]:
    """An array of names or whole numbers, as words."""
    array = _array(arrays, name, path)
    if array.shape != (count,) or array.dtype.kind not in "iuUb":
        raise unusable(f"{name} is {array.dtype}{array.shape}", f"it must have a name or number for each of {count}")
    try:
        return [str(value) for value in array.tolist()]
    except SystemError as error:  # what numpy's text holds need not be characters
        raise unusable(f"{name} is not text", "write names") from error
