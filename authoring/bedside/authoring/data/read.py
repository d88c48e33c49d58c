"""A data set of any kind, for the model that is to learn from it."""

from __future__ import annotations

from pathlib import Path

from bedside.authoring.data.csv_rows import read_csv
from bedside.authoring.data.dataset import Dataset
from bedside.authoring.data.npz_arrays import read_npz
from bedside.authoring.data.spec import load_data_spec, unusable
from bedside.authoring.data.wfdb_records import read_wfdb
from bedside.core.bundle.preprocessing import check_stages
from bedside.ondevice.windows.targets import Question


def read_data(path: Path, question: Question) -> Dataset:
    """Read what `data.toml` at `path` names.

    Raises:
        ConfigError: `bad-data`, and those of any configuration.
        MalformedError: `bad-npz`; `bad-manifest`: the window's stages are none.
        UnavailableError: `wfdb-missing`.
    """
    spec, window = load_data_spec(path), question.window
    check_stages(window)
    if not len(window.offset) == len(window.scale) == window.channels:
        raise unusable("offset and scale of the recipe's window need one value per channel", "correct its [window]")
    if (question.task == "regression") != (question.targets is not None):
        raise unusable(
            "a regression says what its outputs stand for, and nothing else does", "see [targets] of the recipe"
        )
    if spec.kind == "wfdb":
        return read_wfdb(spec.folder or path.parent, spec, question)
    file = spec.file or path
    return read_csv(file, spec, question) if spec.kind == "csv" else read_npz(file, spec, question)
