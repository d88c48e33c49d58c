"""One cutter for inference and training."""

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bedside.agent.buffer.labels import Labels
from bedside.agent.buffer.rows import Label
from bedside.agent.buffer.store import BufferStore
from bedside.agent.windows.training import collect
from bedside.core.bundle.manifest import WindowSpec
from bedside.core.bundle.preprocessing import Beat
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block, Mark, MarkKind
from bedside.ondevice.windows.cutter import Window, WindowCutter
from bedside.ondevice.windows.labelling import Labeller
from bedside.ondevice.windows.targets import Question
from bedside.service.platform import SystemClock, SystemEntropy

KEY = bytes(32)
S = StreamId("wrist")
T0 = 1_700_000_000_300_000_000
SPEC = WindowSpec("wrist", 2, 50.0, 16, 8, (1.0, -2.0), (0.5, 2.0))


def block(values: np.ndarray, index: int) -> Block:
    return Block(S, T0 + index * 20_000_000, 50.0, values, scale=0.25)


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(3).integers(-999, 999, (samples, 2), np.int16)


def open_store(path: Path) -> BufferStore:
    return BufferStore(path, KEY, SystemClock(), SystemEntropy())


def test_values_are_physical_then_normalised() -> None:
    values = noise(16)
    (window,) = WindowCutter(SPEC).push(block(values, 0), SessionId("a"), 7.5)
    expected = (values * 0.25 - np.array([1.0, -2.0])) * np.array([0.5, 2.0])
    assert window.values.dtype == np.float32
    np.testing.assert_allclose(window.values, expected, rtol=1e-6)
    assert (window.start_ns, window.end_ns, window.closed_monotonic_s) == (T0, T0 + 16 * 20_000_000, 7.5)


def test_no_window_crosses_a_gap_a_session_or_a_change_of_rate() -> None:
    cutter, values = WindowCutter(SPEC), noise(12)
    assert cutter.push(block(values, 0), SessionId("a"), 0) == []
    assert cutter.push(block(values, 13), SessionId("a"), 0) == []
    assert cutter.push(block(values, 25), SessionId("b"), 0) == []
    assert cutter.gaps == 2
    assert cutter.push(Block(S, T0, 100.0, values, scale=0.25), SessionId("b"), 0) == []
    assert cutter.unusable_blocks == 1
    assert len(cutter.push(block(values, 37), SessionId("b"), 0)) == 2


@settings(deadline=None, database=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0, 0, 0, 1, 7])), min_size=5, max_size=40),
    st.sets(st.integers(0, 39), max_size=3),
)
def test_training_sees_the_windows_that_inference_saw(tmp_path_factory, pieces, openings) -> None:
    path = tmp_path_factory.mktemp("w") / "b.db"
    store, cutter = open_store(path), WindowCutter(SPEC)
    values, index, online = noise(2_000), 0, list[Window]()
    ends = index
    for number, (length, skip) in enumerate(pieces):
        if number in openings or number == 0:
            store.mark(Mark(S, T0 + index * 20_000_000, T0 + index * 20_000_000, "", "t", MarkKind.SESSION_OPEN))
            store.add_label(S, T0, T0 + 10**12, "walk", "t")
        index += skip
        piece = block(values[index : index + length], index)
        online += cutter.push(piece, store.append(piece), 0.0)
        index += length
        if number % 7 == 0:
            store.flush()
    ends = index
    store.close()
    trained = collect(path, KEY, Question(SPEC, ("walk",)), max_windows=10_000)
    assert ends > 0
    assert trained.start_ns.tolist() == [w.start_ns for w in online]
    assert trained.sessions == [w.session for w in online]
    assert trained.x.tobytes() == b"".join(w.values.tobytes() for w in online)


def fill(path: Path) -> tuple[BufferStore, list[int]]:
    store = open_store(path)
    store.mark(Mark(S, T0, T0, "", "t", MarkKind.SESSION_OPEN))
    numbers = [
        store.add_label(S, T0, T0 + 40 * 20_000_000, "walk", "t"),
        store.add_label(S, T0 + 40 * 20_000_000, T0 + 80 * 20_000_000, "sit", "t"),
    ]
    store.append(block(noise(80), 0))
    store.flush()
    return store, numbers


def test_a_window_takes_the_label_that_covers_it_and_none_at_the_border(tmp_path) -> None:
    store, _ = fill(tmp_path / "b.db")
    got = collect(tmp_path / "b.db", KEY, Question(SPEC, ("sit", "walk")), max_windows=99)
    starts = ((got.start_ns - T0) // 20_000_000).tolist()
    assert list(zip(starts, got.y.tolist(), strict=True)) == [
        (0, 1),
        (8, 1),
        (16, 1),
        (24, 1),
        (40, 0),
        (48, 0),
        (56, 0),
        (64, 0),
    ]
    newest = collect(tmp_path / "b.db", KEY, Question(SPEC, ("sit", "walk")), max_windows=3)
    assert newest.start_ns.tolist() == got.start_ns.tolist()[-3:]
    store.close()


def test_a_model_that_is_bound_to_other_streams_trains_on_those(tmp_path) -> None:
    store, _ = fill(tmp_path / "b.db")
    elsewhere = replace(SPEC, stream="ankle")
    assert len(collect(tmp_path / "b.db", KEY, Question(elsewhere, ("sit", "walk")), max_windows=99).x) == 0
    bound = collect(
        tmp_path / "b.db", KEY, Question(elsewhere, ("sit", "walk")), max_windows=99, streams=("left", "wrist")
    )
    assert (
        bound.x.tobytes()
        == collect(tmp_path / "b.db", KEY, Question(SPEC, ("sit", "walk")), max_windows=99).x.tobytes()
    )
    store.close()


def test_withdrawn_labels_and_sessions_without_consent_train_nothing(tmp_path) -> None:
    store, numbers = fill(tmp_path / "b.db")
    Labels(store).withdraw(numbers[0])
    got = collect(tmp_path / "b.db", KEY, Question(SPEC, ("sit", "walk")), max_windows=99)
    assert set(got.y.tolist()) == {0}
    store.sessions.set_consent(got.sessions[0], training=False)
    assert len(collect(tmp_path / "b.db", KEY, Question(SPEC, ("sit", "walk")), max_windows=99).x) == 0
    assert len(collect(tmp_path / "b.db", KEY, Question(SPEC, ("sit",)), max_windows=99, consent_only=False).x) == 4
    store.close()


def test_a_beat_takes_the_label_at_its_peak_and_none_when_two_are_as_near() -> None:
    spec = replace(SPEC, rate_hz=100.0, length=60, hop=60, beat=Beat(0, 20, 40, rr=False))
    names = [
        ("N", 1_000, 1_001),
        ("V", 1_400, 1_401),
        ("S", 1_500, 1_501),
        ("flutter", 3_000, 9_000),
        ("N", 9_500, 9_501),
    ]
    session = SessionId("a")
    labels = [Label(S, session, T0 + a * 1_000_000, T0 + b * 1_000_000, name, "t") for name, a, b in names]
    labeller = Labeller(spec, labels, 0.9)

    def at(peak_ms: float) -> str | None:
        start_ns = T0 + round((peak_ms - 200) * 1_000_000)
        return labeller.label_of(Window("ecg", session, start_ns, start_ns + 600_000_000, np.empty((60, 2)), 0.0))

    assert [at(ms) for ms in (850, 1_000, 1_150, 1_152, 1_430, 1_470)] == ["N", "N", "N", None, "V", "S"]
    assert at(1_450.5) is None
    assert [at(ms) for ms in (2_800, 2_900, 5_000, 9_100, 9_300, 9_400)] == [None, *["flutter"] * 3, None, "N"]
