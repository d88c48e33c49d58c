"""Which models serve, as a note on the disk."""

from __future__ import annotations

import msgspec
import pytest

from bedside.agent.rounds.models import ModelStore
from bedside.agent.rounds.slots import MAX_SLOTS, UNNAMED, ActiveModel, Candidate, Origin, Slot, SlotNote
from bedside.core.errors import RefusedError, StoreError

OLD = ActiveModel("aa" * 32, "bb" * 32, ("cc" * 32,))


@pytest.fixture
def note(tmp_path) -> SlotNote:
    return SlotNote(tmp_path / "active.json")


def model(number: int, checkpoint: str = "") -> ActiveModel:
    return ActiveModel(f"{number:064x}", checkpoint, ("cc" * 32,))


def test_a_name_is_a_slot_and_the_same_name_replaces_it(note) -> None:
    note.put("har", model(1), Origin("har.tar", "ff"))
    note.put("ecg", model(2), None)
    note.put("har", model(3), None)
    assert note.read() == {"har": Slot(model(3), Origin("har.tar", "ff")), "ecg": Slot(model(2))}
    note.drop("har")
    assert list(note.read()) == ["ecg"]


def test_a_note_of_one_model_is_read_and_gives_way_to_the_models_name(note, tmp_path) -> None:
    (tmp_path / "active.json").write_bytes(msgspec.json.encode(OLD))
    assert note.read() == {UNNAMED: Slot(OLD)}
    note.put("har", OLD, None)
    assert note.read() == {"har": Slot(OLD)}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"slots": 3}', b'{"bundle": "aa"}', b"\xff"])
def test_a_damaged_note_is_named_and_replaced_by_the_next_model(note, tmp_path, data) -> None:
    (tmp_path / "active.json").write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        note.read()
    note.put("har", OLD, None)
    assert note.read() == {"har": Slot(OLD)}


def test_one_name_too_many_is_refused_and_a_known_one_is_not(note) -> None:
    for number in range(MAX_SLOTS):
        note.put(f"m{number}", model(number), None)
    with pytest.raises(RefusedError, match="no room for another"):
        note.put("another", OLD, None)
    note.put("m3", OLD, None)
    assert note.read()["m3"].model == OLD


def test_what_does_not_change_is_not_written(note, tmp_path) -> None:
    note.put("har", OLD, None)
    before = (tmp_path / "active.json").stat().st_mtime_ns, (tmp_path / "active.json").stat().st_ino
    note.put("har", OLD, None)
    note.drop("other")
    assert before == ((tmp_path / "active.json").stat().st_mtime_ns, (tmp_path / "active.json").stat().st_ino)


def test_checkpoints_of_every_slot_outlive_those_that_nobody_needs(tmp_path) -> None:
    store = ModelStore(tmp_path)
    names = [f"{number:02x}" * 32 for number in range(12)]
    for name in names[:4]:  # the oldest files, and all of them serve
        store.checkpoint_path(name).write_bytes(b"x")
        store.activate(f"slot-{name[:2]}", model(1, name))
    for name in names[4:]:  # one slot moves on and on
        store.checkpoint_path(name).write_bytes(b"x")
        store.activate("moving", model(1, name))
    left = {path.stem for path in (tmp_path / "models" / "checkpoints").iterdir()}
    assert set(names[:4]) <= left
    assert names[-1] in left
    assert len(left) == 5 + 2


def test_a_note_of_slots_from_before_there_were_candidates_is_read(note, tmp_path) -> None:
    old = {"slots": {"har": {"model": msgspec.to_builtins(OLD), "origin": {"path": "har.tar", "file": "ff"}}}}
    (tmp_path / "active.json").write_bytes(msgspec.json.encode(old))
    assert note.read() == {"har": Slot(OLD, Origin("har.tar", "ff"))}


def test_a_slot_that_nothing_happened_to_is_written_as_it_was_before_there_were_candidates(note, tmp_path) -> None:
    note.put("har", OLD, Origin("har.tar", "ff"))
    written = msgspec.json.decode((tmp_path / "active.json").read_bytes())
    assert set(written["slots"]["har"]) == {"model", "origin"}


def test_files_that_a_slot_names_are_never_swept(tmp_path) -> None:
    store = ModelStore(tmp_path)
    names = [f"{number:02x}" * 32 for number in range(12)]
    current, previous, candidate, waiting, older, newest, *others = (model(1, name) for name in names)
    store.activate("har", current)
    slot = Slot(current, Origin(), previous, Candidate(candidate, "shadow"), Candidate(waiting), (older, newest))
    store.change("har", lambda _: slot)
    for name in names[:6]:
        store.checkpoint_path(name).write_bytes(b"x")
    for other in others:
        store.checkpoint_path(other.checkpoint).write_bytes(b"x")
        store.activate("moving", other)
    left = {path.stem for path in (tmp_path / "models" / "checkpoints").iterdir()}
    assert {one.checkpoint for one in (current, previous, candidate, waiting, newest)} <= left
    assert older.checkpoint not in left
