"""Every stage: what it does to a signal, and that neither blocks nor the way through the store change a bit."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bedside.agent.buffer.store import BufferStore
from bedside.agent.windows.training import collect
from bedside.core.bundle.manifest import WindowSpec
from bedside.core.bundle.preprocessing import Beat, Filter, Resample
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block, Mark, MarkKind, Record
from bedside.core.signal.butterworth import butterworth, gain, notch
from bedside.ondevice.windows.cutter import Window, WindowCutter
from bedside.ondevice.windows.resampler import Resampler
from bedside.ondevice.windows.sections import SectionFilter
from bedside.ondevice.windows.targets import Question
from bedside.service.platform import SystemClock, SystemEntropy

KEY = bytes(32)
S, A = StreamId("ecg"), SessionId("a")
T0 = 1_700_000_000_300_000_000
RATE_HZ = 200.0
PLAIN = WindowSpec("ecg", 2, RATE_HZ, 32, 16, (0.1, -0.2), (2.0, 0.5))
BAND = Filter((*butterworth(2, 125.0, low_hz=1.0, high_hz=40.0), notch(50.0, 125.0, 20.0)), 0.5)
SPECS = {
    "plain": PLAIN,
    "pick": replace(PLAIN, channels=1, offset=(0.1,), scale=(2.0,), pick=(1,)),
    "resample down": replace(PLAIN, rate_hz=125.0, resample=Resample(10, 8.0)),
    "resample up": replace(PLAIN, rate_hz=360.0, resample=Resample(4, 5.0)),
    "filter": replace(PLAIN, filter=BAND),
    "mean": replace(PLAIN, detrend="mean"),
    "linear": replace(PLAIN, detrend="linear"),
    "zscore": replace(PLAIN, normalise="zscore"),
    "beats": replace(
        PLAIN, channels=4, length=80, hop=80, offset=(0.0,) * 4, scale=(1.0,) * 4, beat=Beat(0, 30, 50, rr=True)
    ),
    "template": WindowSpec(
        *("ecg", 7, RATE_HZ, 80, 80, (0.0,) * 7, (1.0,) * 7),
        beat=Beat(0, 30, 50, rr=True, rr_change=True, template=4),
        normalise="zscore",
    ),
    "all": WindowSpec(
        *("ecg", 3, 125.0, 90, 90, (0.0, 0.8, 1.0), (1.0, 1.0, 1.0)),
        pick=(1,),
        resample=Resample(10, 8.0),
        filter=BAND,
        beat=Beat(0, 40, 50, rr=True),
        detrend="linear",
        normalise="zscore",
    ),
}


def signal(samples: int, dtype: type = np.int16) -> np.ndarray:
    """Two channels of spikes every 0.7 to 0.9 s on a wander, with noise."""
    rng = np.random.default_rng(5)
    at = np.cumsum(rng.integers(140, 180, samples // 100))
    values = 200 * np.sin(np.arange(samples) / 300)[:, None] + rng.normal(0, 8, (samples, 2))
    for spike in at[at < samples - 8]:
        values[spike : spike + 7] += np.array([0, 300, 700, 900, -300, -100, 0])[:, None] * [1.0, -0.7]
    return values.astype(dtype)


def block(values: np.ndarray, index: int) -> Block:
    return Block(S, T0 + index * 5_000_000, RATE_HZ, values, scale=0.005)


def bits(windows: list[Window]) -> list[tuple[object, ...]]:
    return [(w.stream, w.session, w.start_ns, w.end_ns, w.values.dtype, w.values.tobytes()) for w in windows]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@settings(deadline=None, database=None, max_examples=25)
@given(st.lists(st.integers(1, 900) | st.integers(1, 4), min_size=1, max_size=80))
def test_blocks_of_any_size_give_the_same_bits(spec, lengths) -> None:
    values = signal(4_000)
    whole, pieces = WindowCutter(spec), WindowCutter(spec)
    expected = whole.push(block(values, 0), A, 0.0)
    assert len(expected) > 10
    got, index = list[Window](), 0
    for length in (*lengths, len(values)):
        if index < len(values):
            got += pieces.push(block(values[index : index + length], index), A, 0.0)
        index += length
    assert bits(got) == bits(expected)
    assert pieces.unsettled_windows == whole.unsettled_windows


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@settings(deadline=None, database=None, max_examples=6)
@given(
    st.lists(st.tuples(st.integers(1, 700), st.sampled_from([0, 0, 0, 1, 9])), min_size=8, max_size=20),
    st.sets(st.integers(1, 19), max_size=2),
    st.sets(st.integers(0, 9_000), max_size=2),
)
def test_training_sees_the_windows_that_inference_saw(tmp_path_factory, spec, pieces, openings, missing) -> None:
    path = tmp_path_factory.mktemp("w") / "b.db"
    store, cutter = BufferStore(path, KEY, SystemClock(), SystemEntropy()), WindowCutter(spec)
    values, index, online = signal(16_000, np.float32), 0, list[Window]()
    values[sorted(missing)] = np.nan
    for number, (length, skip) in enumerate(pieces):
        if number in openings or number == 0:
            at = T0 + index * 5_000_000
            store.mark(Mark(S, at, at, "", "t", MarkKind.SESSION_OPEN))
            store.add_label(S, T0, T0 + 10**12, "walk", "t")
        index += skip
        piece = block(values[index : index + length], index)
        online += cutter.push(piece, store.append(piece), 0.0)
        index += length
    store.close()
    trained = collect(path, KEY, Question(spec, ("walk",)), max_windows=10_000)
    assert trained.start_ns.tolist() == [w.start_ns for w in online]
    assert trained.sessions == [w.session for w in online]
    assert trained.x.tobytes() == b"".join(w.values.tobytes() for w in online)


@pytest.mark.parametrize("name", ["filter", "resample down", "all"])
def test_no_state_crosses_a_gap_a_session_or_a_value_that_is_no_number(name) -> None:
    spec, values = SPECS[name], signal(3_000, np.float32)
    alone = WindowCutter(spec).push(block(values, 9_000), A, 0.0)
    after_gap = WindowCutter(spec)
    after_gap.push(block(values * 3, 0), A, 0.0)
    assert bits(after_gap.push(block(values, 9_000), A, 0.0)) == bits(alone)
    assert after_gap.gaps == 1
    after_session = WindowCutter(spec)
    after_session.push(block(values * 3, 6_000), SessionId("b"), 0.0)
    assert bits(after_session.push(block(values, 9_000), A, 0.0)) == bits(alone)
    after_nan = WindowCutter(spec)
    broken = values * 3
    broken[-1] = np.nan
    after_nan.push(block(broken, 6_000), A, 0.0)
    assert bits(after_nan.push(block(values, 9_000), A, 0.0)) == bits(alone)
    assert after_nan.gaps == 1


def test_windows_that_begin_before_the_filter_has_settled_are_left_out_and_counted() -> None:
    spec = replace(PLAIN, filter=replace(BAND, settle_s=1.0))
    cutter = WindowCutter(spec)
    windows = cutter.push(block(signal(2_000), 0), A, 0.0)
    assert windows[0].start_ns - T0 == 208 * 5_000_000
    assert cutter.unsettled_windows == 13
    cutter.push(block(signal(2_000), 5_000), A, 0.0)
    assert cutter.unsettled_windows == 26
    unfiltered = WindowCutter(PLAIN).push(block(signal(2_000), 0), A, 0.0)
    assert len(windows) + 13 == len(unfiltered)


def test_a_filter_passes_its_band_and_begins_without_a_step() -> None:
    sections = butterworth(3, RATE_HZ, high_hz=20.0)
    level = SectionFilter(sections).push(np.full((50, 1), 7.0))
    np.testing.assert_allclose(level, 7.0, rtol=1e-12)
    time_s = np.arange(2_000) / RATE_HZ
    for hz in (2.0, 20.0, 60.0):
        tone = SectionFilter(sections).push(np.sin(2 * np.pi * hz * time_s)[:, None])
        expected = gain(sections, 2 * math.pi * hz / RATE_HZ)
        assert math.sqrt(2) * tone[1_000:].std() == pytest.approx(expected, abs=2e-3)


def test_not_even_the_last_bit_depends_on_blocks_of_one_sample() -> None:
    values = np.random.default_rng(7).normal(size=(900, 1))
    for make in (lambda: Resampler(Fraction(25, 72), 10, 8.0), lambda: SectionFilter(BAND.sections)):
        singly = make()
        pieces = [singly.push(values[at : at + 1]) for at in range(len(values))]
        assert np.concatenate(pieces).tobytes() == make().push(values).tobytes()


@pytest.mark.parametrize(("from_hz", "to_hz"), [(360, 125), (125, 360), (250, 100), (200, 200), (100, 33)])
def test_a_resampled_tone_is_the_tone_at_the_new_times(from_hz, to_hz) -> None:
    resampler = Resampler(Fraction(to_hz, from_hz), 10, 8.0)
    hz = 0.2 * min(from_hz, to_hz)
    tone = np.sin(2 * np.pi * hz * np.arange(4 * from_hz) / from_hz)[:, None]
    got = resampler.push(tone)[:, 0]
    times_s = (resampler.first + np.arange(len(got))) / to_hz
    assert len(got) > 3 * to_hz
    np.testing.assert_allclose(got, np.sin(2 * np.pi * hz * times_s), atol=2e-4)


def test_what_the_new_rate_cannot_show_is_gone_and_does_not_fold() -> None:
    tone = np.sin(2 * np.pi * 100.0 * np.arange(1_440) / 360)[:, None]
    assert np.abs(Resampler(Fraction(25, 72), 10, 8.0).push(tone)).max() < 1e-3


def test_a_stream_whose_ratio_needs_too_many_coefficients_is_unusable() -> None:
    cutter = WindowCutter(SPECS["resample down"])
    for rate_hz in (199.999, 0.0, -1.0, math.nan, math.inf):
        cutter.push(Block(S, T0, rate_hz, signal(300)), A, 0.0)
    assert cutter.unusable_blocks == 5


def test_the_memory_of_a_large_step_up_is_bounded_and_its_bits_are_the_same(monkeypatch) -> None:
    values = np.random.default_rng(7).normal(size=(200, 1))
    whole = Resampler(Fraction(50), 8, 8.0).push(values)
    monkeypatch.setattr("bedside.ondevice.windows.resampler._MAX_PRODUCTS", 999)
    assert Resampler(Fraction(50), 8, 8.0).push(values).tobytes() == whole.tobytes()
    monkeypatch.undo()
    large = Resampler(Fraction(500), 64, 8.0)
    tracemalloc.start()
    large.push(np.zeros((1_024, 1)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 << 20


def test_beside_a_beat_stands_how_it_differs_from_those_before_it() -> None:
    spec = replace(SPECS["template"], normalise="none")
    windows = WindowCutter(spec).push(block(signal(4_000), 0), A, 0.0)
    assert len(windows) > 12
    values = np.stack([window.values for window in windows])
    starts = [window.start_ns for window in windows]
    for number, one in enumerate(values):
        before = values[max(0, number - 4) : number, :, :2].astype(np.float64)
        expected = one[:, :2] - before.mean(axis=0) if number else np.zeros((80, 2))
        np.testing.assert_allclose(one[:, 2:4], expected, atol=1e-4)
        if number >= 2:
            rr_ns, earlier_ns = starts[number] - starts[number - 1], starts[number - 1] - starts[number - 2]
            np.testing.assert_allclose(one[:, 6], rr_ns / earlier_ns, rtol=1e-5)
    assert {*values[:2, :, 6].ravel()} == {1.0}, "of the first intervals nobody knows an earlier one"


def test_a_detrended_and_normalised_window_has_no_mean_no_slope_and_deviation_one() -> None:
    plain = replace(PLAIN, offset=(0.0, 0.0), scale=(1.0, 1.0), detrend="linear", normalise="zscore")
    for window in WindowCutter(plain).push(block(signal(2_000), 0), A, 0.0):
        values = window.values.astype(np.float64)
        np.testing.assert_allclose(values.mean(axis=0), 0.0, atol=1e-6)
        np.testing.assert_allclose(values.std(axis=0), 1.0, atol=1e-6)
        np.testing.assert_allclose(np.polyfit(np.arange(32), values, 1)[0], 0.0, atol=1e-6)
    flat = np.full((40, 2), 1234, np.int16)
    (window,) = WindowCutter(replace(plain, detrend="none")).push(block(flat, 0), A, 0.0)
    assert not window.values.any()


def test_channels_are_picked_in_their_order_from_a_stream_that_has_more() -> None:
    values = np.arange(160, dtype=np.int16).reshape(32, 5)
    spec = replace(PLAIN, offset=(0.0, 0.0), scale=(1.0, 1.0), pick=(4, 1))
    (window,) = WindowCutter(spec).push(block(values, 0), A, 0.0)
    np.testing.assert_allclose(window.values, values[:, [4, 1]] * 0.005, rtol=1e-6)
    cutter = WindowCutter(spec)
    cutter.push(block(values[:, :4], 0), A, 0.0)
    assert cutter.unusable_blocks == 1


def test_a_model_bound_to_another_stream_takes_that_one_only() -> None:
    cutter = WindowCutter(PLAIN, stream="bed-4-ecg")
    assert cutter.push(block(signal(100), 0), A, 0.0) == []
    (window, *_) = cutter.push(Block(StreamId("bed-4-ecg"), T0, RATE_HZ, signal(100)), A, 0.0)
    assert (window.stream, cutter.unusable_blocks) == ("bed-4-ecg", 1)


def test_a_block_of_an_endless_scale_is_unusable() -> None:
    cutter = WindowCutter(PLAIN)
    assert cutter.push(Block(S, T0, RATE_HZ, signal(300), scale=math.inf), A, 0.0) == []
    assert cutter.unusable_blocks == 1


def test_a_record_is_a_window_and_what_it_lacks_is_zero_and_counted() -> None:
    spec = WindowSpec("vitals", 3, 1.0, 1, 1, (70.0, 95.0, 37.0), (0.1, 0.5, 1.0), fields=("pulse", "spo2", "temp"))
    cutter = WindowCutter(spec)
    record = Record(StreamId("vitals"), T0, {"pulse": 80.0, "temp": math.nan, "extra": 1.0})
    (window,) = cutter.push_record(record, A, 2.5)
    np.testing.assert_allclose(window.values, [[1.0, 0.0, 0.0]])
    assert window.values.dtype == np.float32
    assert (window.start_ns, window.end_ns, window.closed_monotonic_s) == (T0, T0 + 1, 2.5)
    assert cutter.missing_fields == 2
    assert WindowCutter(PLAIN).push_record(record, A, 0.0) == []
    assert cutter.push_record(Record(S, T0, {}), A, 0.0) == []
    assert cutter.push(Block(StreamId("vitals"), T0, 1.0, np.ones((1, 3), np.float32)), A, 0.0) == []
    assert cutter.unusable_blocks == 2


@pytest.mark.parametrize("values", [{"extra": 1.0}, {"pulse": math.nan, "spo2": math.nan}, {}])
def test_a_record_without_any_value_that_the_model_takes_is_no_window(values) -> None:
    spec = WindowSpec("vitals", 2, 1.0, 1, 1, (70.0, 95.0), (0.1, 0.5), fields=("pulse", "spo2"))
    cutter = WindowCutter(spec)
    assert cutter.push_record(Record(StreamId("vitals"), T0, values), A, 0.0) == []
    assert (cutter.missing_fields, cutter.unusable_blocks) == (2, 0)


def test_records_train_as_they_were_inferred(tmp_path) -> None:
    spec = WindowSpec("vitals", 2, 1.0, 1, 1, (70.0, 95.0), (0.1, 0.5), fields=("pulse", "spo2"))
    store, cutter = BufferStore(tmp_path / "b.db", KEY, SystemClock(), SystemEntropy()), WindowCutter(spec)
    stream = StreamId("vitals")
    store.mark(Mark(stream, T0, T0, "", "t", MarkKind.SESSION_OPEN))
    store.add_label(stream, T0, T0 + 5 * 10**9, "well", "t")
    store.add_label(stream, T0 + 5 * 10**9, T0 + 8 * 10**9, "ill", "t")
    online = list[Window]()
    for second in range(10):
        values = {"pulse": 60.0 + second} | ({"spo2": 90.0 + second} if second % 3 else {})
        record = Record(stream, T0 + second * 10**9, values)
        online += cutter.push_record(record, store.add_record(record), 0.0)
    store.close()
    trained = collect(tmp_path / "b.db", KEY, Question(spec, ("ill", "well")), max_windows=99)
    assert trained.y.tolist() == [1] * 5 + [0] * 3
    assert trained.x.tobytes() == b"".join(window.values.tobytes() for window in online[:8])
