"""A whole MIT-BIH record through a real agent: the buffer is the file, and every beat is decided once."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from bedside.authoring.build import build_bundle
from bedside.authoring.recipe import load_recipe
from wfdb_records import data_folder, read_record

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from ecg.device import make_device, read_device, run_device
from ecg.recordings import recording_of
from ecg_replay import judge

FASTER_THAN_REAL = 200.0


@pytest.mark.system
def test_a_record_is_stored_sample_by_sample_and_every_beat_is_decided_once(tmp_path, tiny_author) -> None:
    folder = data_folder()
    if folder is None:
        pytest.skip("the MIT-BIH records are not here: set BEDSIDE_DATA")
    record = read_record(folder, "101")
    recording = recording_of(record)
    built = build_bundle(load_recipe("ecg"), tiny_author)
    played = {"bed-4-ecg": recording}
    make_device(tmp_path / "device", played, built.tar, bytes(tiny_author.verify_key), FASTER_THAN_REAL)
    run_device(tmp_path / "device", played, deadline_s=120.0)
    replayed = read_device(tmp_path / "device", "bed-4-ecg")
    np.testing.assert_array_equal(replayed.values, record.values)
    outcome = judge(record, recording, replayed, built.manifest.window)
    assert outcome.samples_off == 0
    assert outcome.undecided == 0
    assert outcome.beats == len(replayed.predictions)
    assert outcome.detector.found > 0.995 * len(record.beats)
    assert {one.model for one in replayed.predictions} == {built.digest}


def test_a_lost_beat_and_one_decided_twice_are_seen() -> None:
    """The judge of the test above is not blind."""
    folder = data_folder()
    if folder is None:
        pytest.skip("the MIT-BIH records are not here: set BEDSIDE_DATA")
    from ecg.device import START_NS, Replayed
    from ecg.training import SESSION, cut_record

    from bedside.agent.buffer.rows import Prediction
    from bedside.core.ids import StreamId

    record = read_record(folder, "101")
    recording = recording_of(record)
    spec = load_recipe("ecg").window_spec()
    sound = [
        Prediction(StreamId("ecg"), SESSION, window.start_ns, window.end_ns, "N", 1.0, b"", 0.0)
        for window in cut_record(recording, spec, START_NS)
    ]
    damaged = record.values.copy()
    damaged[1_000, 1] += 1
    assert judge(record, recording, Replayed(record.values, 1, sound), spec).undecided == 0
    found = judge(record, recording, Replayed(damaged, 1, [*sound[1:], sound[5]]), spec)
    assert (found.samples_off, found.undecided) == (1, 2)
