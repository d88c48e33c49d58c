"""How earlier runs ended."""

import os

import pytest

from bedside.agent.health.runs import FILE_NAME, RunNote


def run(state_dir, *, clean: bool) -> RunNote:
    note = RunNote(state_dir)
    note.begin()
    if clean:
        note.end()
    return note


def test_the_first_start_is_no_restart(tmp_path) -> None:
    note = run(tmp_path, clean=False)
    assert (note.restarts, note.last_exit) == (0, "first-start")


@pytest.mark.parametrize(("clean", "told"), [(True, "clean"), (False, "killed")])
def test_the_next_run_knows_how_the_last_one_ended(tmp_path, clean, told) -> None:
    run(tmp_path, clean=clean)
    note = run(tmp_path, clean=True)
    assert (note.restarts, note.last_exit) == (1, told)


def test_a_note_that_tells_nothing_does_not_stop_a_start(tmp_path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"\xff{")
    assert run(tmp_path, clean=True).last_exit == "first-start"


def test_a_pipe_in_place_of_the_note_does_not_stop_a_start(tmp_path) -> None:
    os.mkfifo(tmp_path / FILE_NAME)
    assert run(tmp_path, clean=True).last_exit == "first-start"
