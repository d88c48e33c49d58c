"""What windows are examples of, by task: from labels, from labelled values, from fields of records."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bedside.agent.buffer.labels import Labels
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.buffer.rows import Label
from bedside.agent.buffer.store import BufferStore
from bedside.agent.windows.retention import Retention, RetentionRules
from bedside.agent.windows.room import Room
from bedside.agent.windows.training import Wanted, collect, gather
from bedside.core.bundle.manifest import Targets, WindowSpec
from bedside.core.bundle.preprocessing import Beat
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Block, Record
from bedside.ondevice.windows.cutter import Window
from bedside.ondevice.windows.targets import Answers, Question
from bedside.service.platform import SystemClock, SystemEntropy

KEY = bytes(range(32))
S = 1_000_000_000
T0 = 1_700_000_000 * S // (60 * S) * 60 * S
HOUR = 3_600 * S
SPEC = WindowSpec("flow", 1, 10.0, 10, 10, (0.0,), (1.0,))
RECORDS = WindowSpec("ehr", 2, 1.0, 1, 1, (0.0, 0.0), (1.0, 1.0), fields=("hr", "spo2"))
GASES = Targets(("kPa", "kPa"), (10.0, 5.0), (0.5, 2.0))


def window(start_s: float = 0.0, record: Record | None = None) -> Window:
    start_ns = T0 + round(start_s * S)
    end_ns = start_ns + (1 if record else S)
    return Window("flow", SessionId("s"), start_ns, end_ns, np.zeros((10, 1), np.float32), 0.0, record)


def said(name: str, start_s: float, end_s: float, value: float | None = None) -> Label:
    begin, end = (T0 + round(at * S) for at in (start_s, end_s))
    return Label(StreamId("flow"), SessionId("s"), begin, end, name, "cli", value=value)


def answer(question: Question, labels: list[Label], at: Window | None = None):
    found = Answers(question, labels, 0.9).answer(at or window())
    return found if found is None or isinstance(found, int) else found.tolist()


SEVERAL = Question(SPEC, ("af", "vt"), "multilabel")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([said("af", 0, 1)], [1, 0]),
        ([said("af", -5, 9), said("vt", 0.05, 1)], [1, 1]),
        ([said("none", 0, 1)], [0, 0]),
        ([said("af", 0, 0.5), said("af", 0.5, 1)], [1, 0]),
        ([said("none", 0, 1), said("vt", 0.95, 2)], [0, 0]),
        ([said("none", 0, 1), said("vt", 0.5, 2)], None),
        ([said("af", 0, 0.5)], None),
        ([said("af", 0, 1, value=3.0)], None),
        ([], None),
    ],
    ids=["one", "both", "looked-at", "in-pieces", "barely", "half", "not-looked-at", "a-value-is-no-label", "nothing"],
)
def test_labels_hold_where_they_cover_a_window_that_was_looked_at(labels, expected) -> None:
    assert answer(SEVERAL, labels) == expected


MEASURED = Question(SPEC, ("po2", "pco2"), "regression", GASES)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([said("po2", 0, 1, 12.0), said("pco2", 0, 1, 5.5)], [1.0, 1.0]),
        ([said("po2", -1, 0.25, 8.0), said("po2", 0.25, 9, 12.0), said("pco2", 0, 1, 5.0)], [0.5, 0.0]),
        ([said("po2", 0, 1, 12.0)], None),
        ([said("po2", 0, 1, 12.0), said("pco2", 0, 0.8, 5.5)], None),
        ([said("po2", 0, 1), said("pco2", 0, 1)], None),
    ],
    ids=["scaled", "mean-over-the-overlap", "one-is-missing", "not-covered", "names-are-no-values"],
)
def test_values_are_means_over_the_overlap_as_the_loss_has_them(labels, expected) -> None:
    assert answer(MEASURED, labels) == expected


def test_a_labelled_value_names_no_class() -> None:
    question = Question(SPEC, ("rest", "move"))
    assert answer(question, [said("move", 0, 1), said("po2", 0, 1, 12.0)]) == 1


def test_beats_have_the_values_and_labels_that_are_next_to_their_peak() -> None:
    spec = WindowSpec("flow", 1, 10.0, 10, 10, (0.0,), (1.0,), beat=Beat(0, 4, 6, rr=False))
    beside = [said("af", 0.45, 0.5), said("vt", 0.0, 0.1)]
    assert answer(Question(spec, ("af", "vt"), "multilabel"), beside) == [1, 0]
    values = [said("po2", 0.4, 0.41, 12.0), said("pco2", 0.4, 0.41, 4.5), said("po2", 0.9, 1.0, 99.0)]
    assert answer(Question(spec, ("po2", "pco2"), "regression", GASES), values) == [1.0, -1.0]


def record(units: dict[str, str] | None = None, **values: float) -> Window:
    return window(0, Record(StreamId("ehr"), T0, {"hr": 60.0, "spo2": 97.0} | values, units or {}))


@pytest.mark.parametrize(
    ("question", "at", "expected"),
    [
        (Question(RECORDS, ("po2",), "regression", Targets(("kPa",), (10.0,), (0.5,))), record(po2=12), [1.0]),
        (Question(RECORDS, ("po2",), "regression", Targets(("kPa",), (10.0,), (0.5,))),
         record({"po2": "mm[Hg]"}, po2=90), None),
        (Question(RECORDS, ("po2",), "regression", Targets(("kPa",), (10.0,), (0.5,))), record(po2=np.nan), None),
        (Question(RECORDS, ("spo2",), "regression", Targets(("%",), (0.0,), (1.0,))), record(), None),
        (Question(RECORDS, ("sepsis", "aki"), "multilabel"), record(sepsis=1, aki=0), [1, 0]),
        (Question(RECORDS, ("sepsis", "aki"), "multilabel"), record(sepsis=1), None),
        (Question(RECORDS, ("lived", "died")), record(died=1), 1),
        (Question(RECORDS, ("lived", "died")), record(died=0), 0),
        (Question(RECORDS, ("a", "b", "c")), record(a=0, b=1, c=0), 1),
        (Question(RECORDS, ("a", "b", "c")), record(a=1, b=1, c=0), None),
        (Question(RECORDS, ("a", "b", "c")), record(a=0), None),
    ],
    ids=["value", "other-unit", "missing", "an-input-is-no-answer", "labels", "a-label-is-missing", "yes", "no",
         "one-hot", "two-hot", "nobody-knows"],
)  # fmt: skip
def test_a_record_answers_by_fields_named_like_the_outputs(question, at, expected) -> None:
    assert answer(question, [], at) == expected


def test_what_somebody_said_comes_before_what_the_record_says() -> None:
    assert answer(Question(RECORDS, ("lived", "died")), [said("lived", 0, 1)], record(died=1)) == 0
    question = Question(RECORDS, ("po2",), "regression", Targets(("kPa",), (10.0,), (0.5,)))
    assert answer(question, [said("po2", 0, 1, 14.0)], record(po2=12)) == [2.0]


@pytest.fixture
def store(tmp_path: Path):
    with closing(BufferStore(tmp_path / "b.db", KEY, SystemClock(), SystemEntropy())) as opened:
        yield opened


def test_labelled_values_become_a_training_set(store, tmp_path) -> None:
    ramp = np.arange(100, dtype=np.float32).reshape(100, 1)
    session = store.append(Block(StreamId("flow"), T0, 10.0, ramp, "L/min", "", 1.0))
    Labels(store).add(
        [
            Label(StreamId("flow"), session, T0 + at * S, T0 + (at + 1) * S, name, "cli", value=value)
            for at in range(4)
            for name, value in (("po2", 10.0 + at), ("pco2", 5.0))
        ]
    )
    store.flush()
    got = collect(tmp_path / "b.db", KEY, MEASURED, max_windows=99)
    assert got.y.dtype == np.float32
    assert got.y.tolist() == [[0.0, 0.0], [0.5, 0.0], [1.0, 0.0], [1.5, 0.0]]
    assert got.x[:, 0, 0].tolist() == [0.0, 10.0, 20.0, 30.0]
    Labels(store).add([Label(StreamId("flow"), session, T0 + 2 * S, T0 + 3 * S, "po2", "cli", value=1e20)])
    store.flush()
    with closing(Room((10, 1))) as room:
        left = gather(tmp_path / "b.db", KEY, Wanted(MEASURED, 99), room)
    assert (left.y.tolist(), left.far) == ([[0.0, 0.0], [0.5, 0.0], [1.5, 0.0]], 1), "a slip of the pen, and counted"
    none = collect(tmp_path / "b.db", KEY, Question(SPEC, ("x", "y"), "multilabel"), max_windows=99)
    assert none.y.shape == (0, 2)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_records_outlive_their_raw_form_with_what_they_answer(store, tmp_path, task) -> None:
    for second in range(200):
        values = {"hr": 60.0 + second % 3, "spo2": 97.0, "died": second % 2, "lab": 1.0}
        session = store.add_record(Record(StreamId("ehr"), T0 + second * S, values, {"died": "1"}))
    store.flush()
    labels = ("died",) if task == "regression" else ("lived", "died")
    targets = Targets(("1",), (0.0,), (2.0,)) if task == "regression" else None
    question = Question(RECORDS, labels, task, targets)
    before = collect(tmp_path / "b.db", KEY, question, max_windows=999)
    assert before.y.ravel()[:4].tolist() == ([0, 2, 0, 2] if task == "regression" else [0, 1, 0, 1])
    retention = Retention(tmp_path / "b.db", KEY, RetentionRules(HOUR, 99 * HOUR, 99 * HOUR), SystemEntropy())
    while retention.run(store, T0 + 130 * S + HOUR, [question]):
        pass
    with closing(BufferReader(tmp_path / "b.db", KEY)) as reader:
        assert next(one.time_ns for one in reader.records(StreamId("ehr"), session)) == T0 + 120 * S
    after = collect(tmp_path / "b.db", KEY, question, max_windows=999)
    assert (after.x.tobytes(), after.y.tobytes()) == (before.x.tobytes(), before.y.tobytes())
    both = Targets(("1", "1"), (0.0, 0.0), (2.0, 2.0)) if targets else None
    elsewhere = Question(RECORDS, ("x", "died"), task, both)
    assert len(collect(tmp_path / "b.db", KEY, elsewhere, max_windows=999).y) <= 80, "stored ones answer others only"
