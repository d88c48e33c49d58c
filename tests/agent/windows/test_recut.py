"""What is explained is the very window that was decided: the same bits, wherever it lies in whatever run."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Prediction
from bedside.agent.buffer.store import BufferStore
from bedside.agent.windows.recut import FAR_BACK_S, Recut, recut
from bedside.agent.windows.retention import Retention, RetentionRules
from bedside.core.bundle.manifest import WindowSpec
from bedside.core.bundle.preprocessing import Beat, Filter, Resample
from bedside.core.ids import StreamId
from bedside.core.samples import Block
from bedside.core.signal.butterworth import butterworth, notch
from bedside.ondevice.windows.cutter import Window, WindowCutter
from bedside.ondevice.windows.targets import Question
from bedside.service.platform import SystemClock, SystemEntropy

KEY = bytes(32)
ECG = StreamId("ecg")
S = 1_000_000_000
T0 = 1_700_000_000_300_000_000
RATE_HZ = 360.0
HOUR = 3_600 * S
PLAIN = WindowSpec("ecg", 2, RATE_HZ, 90, 70, (0.1, -0.2), (2.0, 0.5))
BAND = Filter((*butterworth(2, 125.0, low_hz=0.5, high_hz=40.0), notch(50.0, 125.0, 20.0)), 1.0)
DOWN, UP = Resample(10, 8.0), Resample(4, 5.0)
SPECS = {
    "hop within": PLAIN,
    "hop beyond": replace(PLAIN, hop=1_000),
    "pick": replace(PLAIN, channels=1, offset=(0.1,), scale=(2.0,), pick=(1,)),
    "resample down": replace(PLAIN, rate_hz=125.0, resample=DOWN),
    "resample up": replace(PLAIN, rate_hz=500.0, resample=UP),
    "resample to the same": replace(PLAIN, resample=DOWN),
    "filter": replace(PLAIN, filter=Filter(butterworth(2, RATE_HZ, low_hz=0.5, high_hz=40.0), 3.0)),
    "mean": replace(PLAIN, detrend="mean"),
    "linear": replace(PLAIN, detrend="linear", normalise="zscore"),
    "beats": replace(
        PLAIN, channels=4, length=200, hop=200, offset=(0.0,) * 4, scale=(1.0,) * 4, beat=Beat(0, 80, 120, rr=True)
    ),
    "template": WindowSpec(
        *("ecg", 5, RATE_HZ, 200, 200, (0.0,) * 5, (1.0,) * 5),
        beat=Beat(0, 80, 120, rr=False, rr_change=True, template=12),
        detrend="mean",
    ),
    "filter of the resampled": replace(PLAIN, rate_hz=125.0, resample=DOWN, filter=BAND),
    "all": WindowSpec(
        *("ecg", 3, 125.0, 128, 128, (0.0, 0.8, 1.0), (1.0, 2.0, 2.0)),
        pick=(0,),
        resample=DOWN,
        filter=BAND,
        beat=Beat(0, 56, 72, rr=True),
        detrend="linear",
        normalise="zscore",
    ),
}
WITH_MEMORY = ("filter", "beats", "template", "filter of the resampled", "all")


def heart(seconds: float, seed: int = 5, dtype: type = np.int16) -> np.ndarray:
    """Two leads: beats of varying shape every 0.6 to 1 s, with a pause now and then, on a wander with noise."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * RATE_HZ)
    gaps = rng.integers(216, 360, samples // 200) + 900 * (rng.random(samples // 200) < 0.02)
    at = np.cumsum(gaps)
    values = 200 * np.sin(np.arange(samples) / 300)[:, None] + rng.normal(0, 8, (samples, 2))
    shape = np.interp(np.arange(30), [0, 6, 10, 14, 18, 29], [0, -90, 900, -250, 40, 0])
    for spike in at[at < samples - 30]:
        values[spike : spike + 30] += shape[:, None] * rng.uniform(0.6, 1.4) * [1.0, -0.7]
    return values.astype(dtype)


class Bed:
    """A stream that is cut as it comes, and kept."""

    def __init__(self, path: Path, spec: WindowSpec) -> None:
        self.path, self.spec = path / "b.db", spec
        self.store = BufferStore(self.path, KEY, SystemClock(), SystemEntropy(), gap_s=9_999.0)
        self.decided: list[Window] = []
        self._cutter = WindowCutter(spec)
        self._index = 0

    def send(self, values: np.ndarray, *, blocks: int = 97, waver: float = 0.0, drift: float = 0.0) -> None:
        """Blocks whose stamps waver by a share of a sample, on a clock that runs `drift` too slowly."""
        rng = np.random.default_rng(len(values))
        for at in range(0, len(values), blocks):
            beside = (self._index + at) * (1 + drift) + waver * rng.uniform(-1, 1)
            block = Block(ECG, T0 + round(beside * S / RATE_HZ), RATE_HZ, values[at : at + blocks], scale=0.005)
            self.decided += self._cutter.push(block, self.store.append(block), 0.0)
        self._index += len(values)
        self.store.flush()

    def skip(self, samples: int) -> None:
        self._index += samples

    def recut(self, window: Window, **options: float) -> Recut | None:
        of = Prediction(ECG, window.session, window.start_ns, window.end_ns, "N", 1.0, b"", 0.0)
        with closing(BufferReader(self.path, KEY)) as reader:
            return recut(reader, self.spec, of, **options)

    def some(self, count: int) -> list[Window]:
        """Decided windows: the first and last ones, and as many at random."""
        chosen = np.random.default_rng(1).choice(len(self.decided), min(count, len(self.decided)), replace=False)
        return [self.decided[0], *(self.decided[at] for at in chosen), self.decided[-1]]


@pytest.fixture
def bed(tmp_path, request):
    made = Bed(tmp_path, SPECS[request.param])
    yield made
    made.store.close()


def assert_the_same(found: Recut | None, window: Window) -> None:
    assert found is not None
    assert found.window is not None
    assert found.exact
    assert abs(found.window.start_ns - window.start_ns) <= 3
    assert found.window.values.tobytes() == window.values.tobytes()


@pytest.mark.parametrize("name", SPECS)
@settings(deadline=None, database=None, max_examples=4)
@given(
    st.lists(st.tuples(st.floats(8, 45), st.sampled_from([0, 1, 9, 700])), min_size=1, max_size=3),
    st.integers(20, 800),
    st.sampled_from([0.0, 0.1, 0.24]),
    st.sampled_from([0.0, 0.0, 4.3e-5]),
    st.sets(st.integers(0, 30_000), max_size=1),
)
@example([(30.0, 0), (30.0, 0)], 800, 0.0, 4.3e-5, {1_582})
def test_a_window_is_cut_again_bit_for_bit(tmp_path_factory, name, runs, blocks, waver, drift, missing) -> None:
    bed = Bed(tmp_path_factory.mktemp("w"), SPECS[name])
    for number, (seconds, skip) in enumerate(runs):
        values = heart(seconds, number, np.float32 if missing else np.int16)
        if missing:
            values[[at for at in missing if at < len(values)]] = np.nan
        bed.send(values, blocks=blocks, waver=waver, drift=drift)
        bed.skip(skip)
    for window in bed.some(4) if bed.decided else ():
        assert_the_same(bed.recut(window), window)
    bed.store.close()


@pytest.mark.parametrize(
    ("bed", "waver"),
    [("hop within", 0.2), ("resample down", 0.0), ("resample down", 0.2), ("filter", 0.0), ("all", 0.2)],
    indirect=["bed"],
)
def test_what_is_far_from_the_beginning_of_its_run_is_found_in_a_bounded_stretch(bed, waver, monkeypatch) -> None:
    for minute in range(5):
        bed.send(heart(60, minute), waver=waver)
    opened: list[object] = []
    original = BufferReader.numbered_parts

    def counted(self, *args):
        for found in original(self, *args):
            opened.append(found)
            yield found

    monkeypatch.setattr(BufferReader, "numbered_parts", counted)
    for window in bed.some(3):
        opened.clear()
        assert_the_same(bed.recut(window), window)
        assert len(opened) < 2 * 90  # of 300 seconds; read twice where stamps waver


@pytest.mark.parametrize("bed", ["all"], indirect=True)
def test_what_remembers_is_near_where_its_lead_has_expired_and_says_so(bed) -> None:
    for minute in range(4):
        bed.send(heart(60, minute))
    bed.store.sessions.close(ECG, T0 + 240 * S)
    retention = Retention(bed.path, KEY, RetentionRules(HOUR, 99 * HOUR, 99 * HOUR), SystemEntropy())
    while retention.run(bed.store, T0 + 130 * S + HOUR, [Question(bed.spec)]):
        pass
    with closing(BufferReader(bed.path, KEY)) as reader:
        expired_ns = reader.sessions()[0].expired_ns
    assert T0 + 60 * S < expired_ns < T0 + 130 * S
    for window in bed.decided:
        found = bed.recut(window)
        if window.start_ns >= expired_ns:
            assert_the_same(found, window)
        elif window.start_ns < expired_ns - 70 * S:
            assert found is None
        else:
            assert found is None or found.window is None or not found.exact


@pytest.mark.parametrize("bed", SPECS, indirect=True)
def test_without_its_signal_there_is_none_and_without_its_lead_none_that_is_wrong(bed) -> None:
    bed.send(heart(70), waver=0.2)
    window = bed.decided[-3]
    bed.store.run("evict", lambda tx: tx.execute("DELETE FROM blobs WHERE end_ns < ?", (window.start_ns - 2 * S,)))
    found = bed.recut(window)
    if bed.spec.filter is None and bed.spec.beat is None and bed.spec.rate_hz == RATE_HZ and bed.spec.hop < 1_000:
        assert_the_same(found, window)
    assert found is not None
    bed.store.run("evict", lambda tx: tx.execute("DELETE FROM blobs WHERE start_ns < ?", (window.end_ns,)))
    assert bed.recut(window) is None


@pytest.mark.parametrize("bed", WITH_MEMORY, indirect=True)
def test_a_further_look_back_finds_the_same(bed) -> None:
    bed.send(heart(100))
    for window in bed.some(2):
        assert_the_same(bed.recut(window, look_back_s=FAR_BACK_S), window)
