"""A data set of any kind, for the model that is to learn from it."""

from __future__ import annotations

from pathlib import Path

from bedside.authoring.data.csv_rows import read_csv
from bedside.authoring.data.dataset import Dataset
from bedside.authoring.data.npz_arrays import read_npz
from bedside.authoring.data.spec import load_data_spec
from bedside.authoring.data.wfdb_records import read_wfdb
from bedside.ondevice.windows.targets import Question


def read_data(path: Path, question: Question) -> Dataset:
    """Read what `data.toml` at `path` names.

    Raises:
        ConfigError: `bad-data`, and those of any configuration.
        MalformedError: `bad-npz`.
        UnavailableError: `wfdb-missing`.
    """
    spec = load_data_spec(path)
    if spec.kind == "wfdb":
        return read_wfdb(spec.folder or path.parent, spec, question)
    file = spec.file or path
    return read_csv(file, spec, question) if spec.kind == "csv" else read_npz(file, spec, question)
