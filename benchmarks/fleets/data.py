"""Real sets as fleets of devices. Read from `../shared/data` beside the repository; never copied."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

ROOT = Path(__file__).parents[2]
VARIABLE = "BEDSIDE_DATA"
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
_HEART_COLUMNS = 14
_MOSTLY_MISSING = (10, 11, 12)
_CATEGORIES = {2: (1.0, 2.0, 3.0, 4.0), 6: (0.0, 1.0, 2.0)}
_BANDS = ((1, 3), (3, 6), (6, 10), (10, 16), (16, 28), (28, 65))


class Examples(NamedTuple):
    """Features, shape (n, d), and labels, shape (n,)."""

    x: Floats
    y: Labels


@dataclass(frozen=True)
class Group:
    """A hospital or a person: one owner's examples, in their order of time."""

    name: str
    train: Examples


@dataclass(frozen=True)
class DataSet:
    """Groups to train on and held-out examples by name; `pooled` joins them."""

    name: str
    classes: int
    groups: Sequence[Group]
    tests: dict[str, Examples]

    @property
    def features(self) -> int:
        """Features of one example."""
        return int(self.groups[0].train.x.shape[1])

    @property
    def pooled(self) -> Examples:
        """All held-out examples."""
        return join(list(self.tests.values()))


def data_root(named: Path | None) -> Path:
    """Where the real data is: the flag, else the environment, else beside the repository."""
    return named or Path(os.environ.get(VARIABLE, ROOT.parent / "shared" / "data"))


def join(parts: Sequence[Examples]) -> Examples:
    """Examples one after another."""
    return Examples(np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts]))


def load_heart(root: Path) -> DataSet:
    """Four hospitals, 740 patients, 13 features (FLamby's selection and split), whether a vessel is narrowed.

    Features are normalised by each hospital's own training mean and deviation, which stay there.

    Raises:
        FileNotFoundError: the set is not there.
    """
    folder = root / "heart_disease"
    split: dict[str, list[bool]] = {name: [] for name in HOSPITALS}
    with (folder / "flamby_split.csv").open() as file:
        for row in csv.DictReader(file):
            split[row["center"]].append(row["split"] == "train")
    groups, tests = [], {}
    for name in HOSPITALS:
        rows = heart_rows(root, name)
        train = np.array(split[name])
        x, y = rows[:, :-1], (rows[:, -1] > 0).astype(np.int64)
        mean, deviation = x[train].mean(axis=0), x[train].std(axis=0)
        x = ((x - mean) / np.where(deviation > 0, deviation, 1)).astype(np.float32)
        groups.append(Group(name, Examples(x[train], y[train])))
        tests[name] = Examples(x[~train], y[~train])
    return DataSet("heart", 2, groups, tests)


def load_har(root: Path) -> DataSet:
    """Thirty people, six activities, the official split by person: 21 train and 9 are held out.

    Raises:
        FileNotFoundError: the set is not there.
    """
    with np.load(root / "uci_har_subset" / "uci_har_subset.npz", allow_pickle=False) as file:
        x, y = _features(file["X"]), file["y"].astype(np.int64)
        person, held_out = file["subject"], file["is_test"]
    mean, deviation = x[~held_out].mean(axis=0), x[~held_out].std(axis=0)
    x = ((x - mean) / np.where(deviation > 0, deviation, 1)).astype(np.float32)
    groups = [
        Group(f"person-{one}", Examples(x[person == one], y[person == one])) for one in np.unique(person[~held_out])
    ]
    return DataSet("har", 6, groups, {"people": Examples(x[held_out], y[held_out])})


def heart_rows(root: Path, hospital: str) -> npt.NDArray[np.float64]:
    """A hospital's complete rows: 13 features in their own units, and the diagnosis."""
    lines = (root / "heart_disease" / f"processed.{hospital}.data").read_text().split()
    return np.array([row for row in map(_heart_row, lines) if row is not None])


LOADERS = {"heart": load_heart, "har": load_har}


def _heart_row(line: str) -> list[float] | None:
    """Ten usable columns with categories as indicators (the first is the baseline), and the diagnosis last."""
    cells = line.split(",")
    if len(cells) != _HEART_COLUMNS:
        raise ValueError(f"a row of heart_disease has {len(cells)} cells")
    used = [cell for at, cell in enumerate(cells) if at not in _MOSTLY_MISSING]
    if "?" in used:
        return None
    values = [float(cell) for cell in used]
    row = [value for at, value in enumerate(values[:-1]) if at not in _CATEGORIES]
    for at, categories in _CATEGORIES.items():
        row += [float(values[at] == category) for category in categories[1:]]
    return [*row, values[-1]]


def _features(windows: Floats) -> Floats:
    """14 figures of each of 9 channels, shape (n, 126): level, spread, range, change and energy in six bands."""
    change = np.diff(windows, axis=2)
    energy = np.abs(np.fft.rfft(windows, axis=2)) ** 2
    figures = [
        windows.mean(axis=2),
        windows.std(axis=2),
        windows.min(axis=2),
        windows.max(axis=2),
        np.quantile(windows, 0.25, axis=2),
        np.quantile(windows, 0.75, axis=2),
        np.abs(change).mean(axis=2),
        change.std(axis=2),
    ]
    figures += [np.log(energy[:, :, low:high].mean(axis=2) + 1e-6) for low, high in _BANDS]
    return np.concatenate(figures, axis=1).astype(np.float32)
