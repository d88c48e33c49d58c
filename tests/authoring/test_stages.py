"""What a recipe says of preprocessing, and what the manifest has of it."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from bedside.authoring.build import build_bundle
from bedside.authoring.recipe import FilterDesign, load_recipe
from bedside.authoring.reference import reference_of
from bedside.core.bundle.manifest import decode_manifest
from bedside.core.bundle.preprocessing import Filter
from bedside.core.errors import ConfigError
from bedside.core.signal.butterworth import butterworth, notch
from bedside.firmware_bridge.recording import Recording, write_recording
from bedside.service.cli import run


@pytest.fixture
def recording() -> Recording:
    values = np.random.default_rng(2).normal(0, 1_000, (5_000, 2)).astype(np.int16)
    values[:, 1] = values[:, 1] > 0
    return Recording(values, 50.0, scale=0.001)


def test_a_filter_of_frequencies_becomes_coefficients_and_the_time_to_settle(tiny, author) -> None:
    design = FilterDesign(low_hz=0.5, high_hz=20.0, order=3, notch_hz=16.7)
    built = build_bundle(msgspec.structs.replace(tiny, filter=design), author)
    stage = decode_manifest(built.files["manifest.json"]).window.filter
    assert stage is not None
    assert stage.sections == (*butterworth(3, 50.0, low_hz=0.5, high_hz=20.0), notch(16.7, 50.0, 30.0))
    assert 2.0 < stage.settle_s < 20.0
    assert FilterDesign(high_hz=20.0, settle_s=0.5).design(50.0).settle_s == 0.5


@pytest.mark.parametrize(
    "design",
    [FilterDesign(), FilterDesign(high_hz=25.0), FilterDesign(low_hz=9.0, high_hz=3.0), FilterDesign(notch_hz=26.0)],
)
def test_a_filter_that_cannot_be_is_refused_with_the_table_to_correct(tiny, design) -> None:
    with pytest.raises(ConfigError) as refused:
        msgspec.structs.replace(tiny, filter=design).window_spec()
    assert refused.value.code == "bad-recipe"
    assert "[filter]" in refused.value.remedy


def test_a_window_with_coefficients_takes_no_design_beside(tiny) -> None:
    window = msgspec.structs.replace(tiny.window, filter=Filter(butterworth(1, 50.0, high_hz=9.0), 0.1))
    both = msgspec.structs.replace(tiny, window=window, filter=FilterDesign(high_hz=9.0))
    with pytest.raises(ConfigError, match="of its own"):
        both.window_spec()


def test_a_reference_has_the_deciles_in_physical_units_and_fewer_bins_for_few_values(tiny, recording) -> None:
    first, second = reference_of(tiny, recording).channels
    np.testing.assert_allclose(first.edges, np.quantile(recording.values[:, 0] * 0.001, np.arange(1, 10) / 10))
    np.testing.assert_allclose(first.shares, 0.1, atol=0.01)
    assert (second.edges, second.low, second.high) == ((0.0, 0.001), 0.0, 0.001)
    assert sum(second.shares) == pytest.approx(1.0)
    ranged = msgspec.structs.replace(tiny, physical_range=((-5.0, 5.0), (0.0, 1.0)))
    assert [(one.low, one.high) for one in reference_of(ranged, recording).channels] == [(-5.0, 5.0), (0.0, 1.0)]


def test_a_recording_that_does_not_describe_the_stream_is_refused(tiny, recording) -> None:
    still = Recording(np.zeros((9, 2), np.int16), 50.0)
    narrow = Recording(recording.values[:, :1].copy(), 50.0)
    ranged = msgspec.structs.replace(tiny, physical_range=((-5.0, 5.0),))
    for recipe, shown in ((tiny, still), (tiny, narrow), (ranged, recording)):
        with pytest.raises(ConfigError) as refused:
            reference_of(recipe, shown)
        assert refused.value.code == "bad-reference"


def test_the_command_puts_the_reference_into_the_manifest_and_inspect_tells_the_stages(
    tmp_path, recording, capsys
) -> None:
    write_recording(tmp_path / "ecg.npz", recording)
    run(["model", "key", str(tmp_path / "key")])
    out = str(tmp_path / "ecg")
    words = ["--signing-key", str(tmp_path / "key"), "--reference", str(tmp_path / "ecg.npz"), "--json"]
    assert run(["model", "build", "ecg", out, *words]) == 0
    capsys.readouterr()
    assert run(["model", "inspect", out, "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)["manifest"]
    assert len(manifest["reference"]["channels"]) == 1
    assert manifest["reference"]["channels"][0]["high"] == 10.0
    assert run(["model", "inspect", out]) == 0
    told = capsys.readouterr().out
    for word in ("channels 0", "resample", "filter of 2 sections", "beats", "normalise zscore"):
        assert word in told


def test_the_shipped_ecg_recipe_takes_one_lead_at_any_rate() -> None:
    window = load_recipe("ecg").window_spec()
    assert (window.pick, window.rate_hz, window.channels) == ((0,), 125.0, 3)
    assert window.resample is not None
    assert window.beat is not None
    assert window.filter is not None
