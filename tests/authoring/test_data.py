import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from data_sets import write_pulse, write_ward

from bedside.authoring.data import csv_rows, dataset
from bedside.authoring.data.read import read_data
from bedside.authoring.recipe import load_recipe
from bedside.core.errors import ConfigError, MalformedError

DATA = Path(os.environ.get("BEDSIDE_DATA", Path(__file__).parents[3] / "shared" / "data"))


def question(folder, name, **changes):
    recipe = load_recipe(str(folder / f"{name}.toml"))
    return msgspec.structs.replace(recipe, **changes).question()


@pytest.fixture
def ward(tmp_path):
    write_ward(tmp_path, rows=10)
    return tmp_path


@pytest.fixture
def pulse(tmp_path):
    write_pulse(tmp_path, windows=20)
    return tmp_path


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_row_is_what_a_device_makes_of_the_record(ward):
    change(ward / "ward.toml", "offset = [0.0,", "offset = [3.0,")
    change(ward / "ward.toml", "scale = [1.0,", "scale = [2.0,")
    lines = (ward / "ward.csv").read_text().splitlines()
    cells = lines[1].split(",")
    (ward / "ward.csv").write_text("\n".join([lines[0], ",".join([*cells[:3], "", *cells[4:]]), *lines[2:]]) + "\n")
    change(ward / "data.toml", "share = 0.25", "share = 0.0")
    found = read_data(ward / "data.toml", question(ward, "ward")).training["site-0"]
    assert found.x.shape == (10, 1, 22)
    assert found.x[0, 0, 0] == pytest.approx((float(cells[2]) - 3) * 2, abs=1e-5)
    assert found.x[0, 0, 1] == 0, "a missing value"
    assert found.y[0] == ["home", "icu"].index(cells[1])


@pytest.mark.parametrize(
    ("rule", "held"),
    [
        ('clients = ["site-1"]', {"site-1": 10}),
        ("share = 0.3", {f"site-{at}": 3 for at in range(4)}),
        ('column = "outcome"\nvalue = "icu"', None),
    ],
)
def test_what_is_held_out_is_not_trained_on(ward, rule, held):
    change(ward / "data.toml", "share = 0.25", rule)
    found = read_data(ward / "data.toml", question(ward, "ward"))
    counts = {client: len(part) for client, part in found.held_out.items()}
    assert held in (None, counts)
    if held is None:
        assert {int(y) for part in found.held_out.values() for y in part.y} == {1}
        assert {int(y) for part in found.training.values() for y in part.y} == {0}
    rows = {tuple(row) for parts in (found.training, found.held_out) for part in parts.values() for row in part.x[:, 0]}
    assert len(rows) == 40
    assert sum(counts.values()) + sum(map(len, found.training.values())) == 40
    again = read_data(ward / "data.toml", question(ward, "ward"))
    assert all(np.array_equal(part.x, again.held_out[client].x) for client, part in found.held_out.items())


FAULTS = {
    "a word": (("site-0,home", "site-0,hone"), "ward.csv, line"),
    "a cell too many": (("site-0,home", "site-0,home,1"), "25 cells under 24 headings"),
    "no column": (("f7", "g7"), "no column f7"),
    "a name twice": (("f7", "f8"), "repeats a name"),
}


@pytest.mark.parametrize(("edit", "said"), FAULTS.values(), ids=FAULTS)
def test_a_fault_of_a_csv_is_told_with_its_line(ward, edit, said):
    change(ward / "ward.csv", *edit)
    with pytest.raises(ConfigError) as caught:
        read_data(ward / "data.toml", question(ward, "ward"))
    assert caught.value.code == "bad-data"
    assert said in caught.value.diagnostics()


def test_a_cell_that_is_no_number_is_told_with_line_and_column(ward):
    lines = (ward / "ward.csv").read_text().splitlines()
    lines[4] = ",".join([*lines[4].split(",")[:5], "high", *lines[4].split(",")[6:]])
    (ward / "ward.csv").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=r"ward\.csv, line 5: f3 is no number"):
        read_data(ward / "data.toml", question(ward, "ward"))


@pytest.mark.parametrize(
    ("module", "limit", "value", "said"),
    [
        (dataset, "MAX_EXAMPLE_BYTES", 40 * 22 * 4 - 1, "the examples take more"),
        (dataset, "MAX_CLIENTS", 1, "more than 1 clients"),
        (csv_rows, "MAX_FILE_BYTES", 100, "is larger than"),
        (csv_rows, "MAX_COLUMNS", 20, "has too many"),
    ],
)
def test_too_much_is_refused_before_it_is_held(ward, monkeypatch, module, limit, value, said):
    monkeypatch.setattr(module, limit, value)
    with pytest.raises(ConfigError, match=said):
        read_data(ward / "data.toml", question(ward, "ward"))


def test_an_example_is_somebody_s(ward):
    change(ward / "ward.csv", "site-0,home", ",home")
    with pytest.raises(ConfigError, match="nobody's"):
        read_data(ward / "data.toml", question(ward, "ward"))


def test_words_are_mapped_or_left_out(ward):
    change(ward / "ward.csv", "site-0,home", "site-0,ward 3")
    change(ward / "ward.csv", "site-0,icu", "site-0,unknown")
    change(ward / "data.toml", "[held_out]", 'leave_out = ["unknown"]\nclasses = { "ward 3" = "home" }\n[held_out]')
    found = read_data(ward / "data.toml", question(ward, "ward"))
    assert len(found.training["site-0"]) + len(found.held_out["site-0"]) == 9


def test_targets_are_scaled_and_keep_their_unit(ward):
    changes = {"task": "regression", "labels": ("f21",)}
    recipe = load_recipe(str(ward / "ward.toml"))
    some = {"fields": recipe.window.fields[:21], "offset": (0.0,) * 21, "scale": (1.0,) * 21}
    window = msgspec.structs.replace(recipe.window, channels=21, **some)
    targets = load_pulse_targets()
    asked = question(ward, "ward", window=window, targets=targets, **changes)
    change(ward / "data.toml", "share = 0.25", "share = 0.0")
    found = read_data(ward / "data.toml", asked).training["site-0"]
    first = float((ward / "ward.csv").read_text().splitlines()[1].split(",")[23])
    assert found.y[0, 0] == pytest.approx((first - 110) * 0.03, abs=1e-5)
    change(ward / "data.toml", "[held_out]", 'units = { f21 = "kPa" }\n[held_out]')
    with pytest.raises(ConfigError, match=r"kPa.*mm\[Hg\]"):
        read_data(ward / "data.toml", asked)


def load_pulse_targets():
    from bedside.core.bundle.manifest import Targets

    return Targets(("mm[Hg]",), (110.0,), (0.03,))


def test_windows_of_an_npz_are_shaped_as_on_a_device(pulse):
    change(pulse / "pulse.toml", "hop = 25", 'hop = 25\ndetrend = "mean"')
    change(pulse / "pulse.toml", "scale = [1.0,", "scale = [4.0,")
    found = read_data(pulse / "data.toml", question(pulse, "pulse"))
    with np.load(pulse / "pulse.npz") as arrays:
        raw, values = arrays["waves"].transpose(0, 2, 1)[4::5], arrays["pressure"][4::5]
    expected = (raw - raw.mean(axis=1, keepdims=True)) * [4.0, 1.0, 1.0]
    assert np.allclose(found.held_out["p4"].x, expected, atol=1e-5)
    assert np.allclose(found.held_out["p4"].y[:, 0], (values - 110) * 0.03, atol=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"waves"', '"wave"', "no array wave"),
        ("channels_first = true", "channels_first = false", "the model takes (n, 50, 3)"),
        ('"pressure"', '"person"', "it must be (20, 1)"),
        ('client = "person"', 'client = "pressure"', "a name or number for each"),
        ('"p4"', '"p9"', "p9 that is held out has no examples"),
        ('client = "person"', "", "names no file or no client"),
    ],
)
def test_a_fault_of_an_npz_is_told(pulse, old, new, said):
    change(pulse / "data.toml", old, new)
    with pytest.raises(ConfigError) as caught:
        read_data(pulse / "data.toml", question(pulse, "pulse"))
    assert said in caught.value.diagnostics()


def test_cut_windows_are_no_stream(pulse):
    change(pulse / "pulse.toml", "[training]", "[filter]\nhigh_hz = 5.0\n[training]")
    with pytest.raises(ConfigError, match="cut already"):
        read_data(pulse / "data.toml", question(pulse, "pulse"))


def test_pickles_are_not_read(pulse):
    np.savez(pulse / "pulse.npz", waves=np.array([{"a": 1}], dtype=object))
    with pytest.raises(MalformedError) as caught:
        read_data(pulse / "data.toml", question(pulse, "pulse"))
    assert caught.value.code == "bad-npz"


def test_weights_give_every_class_the_same_part(ward):
    found = read_data(ward / "data.toml", question(ward, "ward"))
    counts = np.bincount(found.pooled().y)
    assert np.allclose(np.array(found.class_weights(2)) * counts, counts.sum() / 2, rtol=0.01)


def test_wfdb_records_are_cut_and_labelled_as_on_a_device(tmp_path):
    pytest.importorskip("wfdb")
    folder = DATA / "mitdb_wfdb"
    if not folder.is_dir():
        pytest.skip(f"the records are not in {folder}")
    (tmp_path / "data.toml").write_text(
        f'kind = "wfdb"\nfolder = "{folder}"\nrecords = ["208", "119"]\nclasses = {{ N = "N", V = "V", A = "S" }}\n'
        '[held_out]\nclients = ["119"]\n'
    )
    recipe = load_recipe("ecg")
    found = read_data(tmp_path / "data.toml", recipe.question())
    assert list(found.training) == ["208"]
    assert found.training["208"].x.shape[1:] == (128, 3)
    counts = np.bincount(found.training["208"].y, minlength=3)
    assert counts[0] == pytest.approx(1586, abs=30), "as MIT-BIH's directory counts record 208"
    assert counts[2] == pytest.approx(992, abs=30)
    assert len(found.held_out["119"]) == pytest.approx(1543 + 444, abs=30)
