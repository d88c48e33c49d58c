"""`data.toml`: where an author's examples are, whose they are, what they are labelled with, and which are held out."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from bedside.core.errors import ConfigError
from bedside.service.config import load_config

MAX_EXAMPLE_BYTES: Final = 2 << 30
"""Bytes of the windows of one data set: they are held in memory."""
MAX_FILE_BYTES: Final = 1 << 30
"""Bytes of one CSV file."""
MAX_COLUMNS: Final = 4_096
MAX_CLIENTS: Final = 10_000


class HeldOut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What no model is trained on. Each rule that is given holds out more.

    Attributes:
        clients: all that these have.
        column: of a CSV, or array of an npz: those where it says `value`.
        value: see `column`.
        share: of what each remaining client has, drawn by `seed`.
        seed: of the share.
    """

    clients: tuple[str, ...] = ()
    column: str = ""
    value: str = "test"
    share: float = 0.0
    seed: int = 1


class DataSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One data set. Values are physical, as the model's stream has them; the recipe's window scales them.

    Attributes:
        kind: csv: a row per example, for models of records; npz: arrays of windows that are cut already; wfdb: records
            of signals with annotations, cut as a device cuts them.
        file: of a csv or npz.
        folder: of wfdb records.
        records: of wfdb: names of the records in the folder.
        client: column or array that says whose an example is; of wfdb, each record is a client unless `clients` says
            otherwise.
        clients: of wfdb: client by record.
        label: of a classification: column or array with the class, by name or, of an npz, by number.
        classes: the model's label for what the data call it; of wfdb by the annotation's symbol. What has no label is
            an error in a csv or npz, and no example in wfdb.
        leave_out: words of the label column whose rows are no examples.
        columns: column of a field or output of the model, where it has another name.
        units: UCUM, of columns with targets; they must be those of the recipe.
        windows: of an npz: the array of windows.
        targets: of an npz: the array (n, outputs) of what a regression or several labels are.
        channels_first: of an npz: windows are (n, channels, samples) instead of (n, samples, channels).
        channels: of wfdb: names of the signals that make the stream, in their order; empty for all.
        annotator: of wfdb: ending of its annotations.
        held_out: what no model is trained on.
    """

    kind: Literal["csv", "npz", "wfdb"]
    file: Path | None = None
    folder: Path | None = None
    records: tuple[str, ...] = ()
    client: str = ""
    clients: dict[str, str] = msgspec.field(default_factory=dict)
    label: str = ""
    classes: dict[str, str] = msgspec.field(default_factory=dict)
    leave_out: tuple[str, ...] = ()
    columns: dict[str, str] = msgspec.field(default_factory=dict)
    units: dict[str, str] = msgspec.field(default_factory=dict)
    windows: str = "x"
    targets: str = "y"
    channels_first: bool = False
    channels: tuple[str, ...] = ()
    annotator: str = "atr"
    held_out: HeldOut = HeldOut()


def load_data_spec(path: Path) -> DataSpec:
    """Read `data.toml`.

    Raises:
        ConfigError: `bad-data`, and those of any configuration.
    """
    spec = load_config(path, DataSpec)
    if spec.kind == "wfdb" and (spec.folder is None or not spec.records):
        raise unusable(f"{path} names no folder or no records", 'say folder = "..." and records = ["100", ...]')
    if spec.kind != "wfdb" and (spec.file is None or not spec.client):
        raise unusable(
            f"{path} names no file or no client", 'say file = "..." and client = "..." (whose an example is)'
        )
    if not 0 <= spec.held_out.share < 1:
        raise unusable(f"{path}: held_out.share is {spec.held_out.share:g}", "choose a share from 0 to below 1")
    return spec


def unusable(sentence: str, remedy: str) -> ConfigError:
    """The error of data that a model cannot learn from."""
    return ConfigError("bad-data", sentence, remedy=remedy)
