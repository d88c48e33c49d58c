"""What is personal lies sealed, goes with the sessions that it was learnt from, and survives a new key."""

import numpy as np
import pytest

from bedside.agent.buffer.keys import KeyRing
from bedside.agent.personal.files import MAX_SESSIONS, Personal, PersonalFiles, facts_of, read_personal
from bedside.core.errors import MalformedError
from bedside.service.platform import SystemEntropy

OLD, NEW = b"o" * 32, b"n" * 32
ONE, OTHER = "aa" * 32, "bb" * 32
NORM = np.array([0.123456, -7.5], np.float32)


@pytest.fixture
def files(tmp_path) -> PersonalFiles:
    return PersonalFiles(tmp_path, KeyRing(OLD))


def keep(files, kind="local", bundle=ONE, sessions=("s1", "s2")) -> None:
    made = Personal(facts_of("tiny", bundle, sessions, files.read(kind, bundle)), {"mean1": NORM})
    files.write_pending("task", made, SystemEntropy())
    assert files.adopt("task", kind, bundle, files.erasures)


def names(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "personal").iterdir())


def test_what_was_kept_is_read_again_and_is_not_in_the_clear(files, tmp_path) -> None:
    keep(files)
    found = files.read("local", ONE)
    assert np.array_equal(found.tensors["mean1"], NORM)
    assert found.facts.name == "tiny"
    (path,) = (tmp_path / "personal").iterdir()
    data = path.read_bytes()
    assert all(needle not in data for needle in (b"mean1", NORM.tobytes(), b"tiny", b"s1"))
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert files.read("local", OTHER) is None


def test_a_file_of_another_bundle_under_this_name_is_not_taken(files, tmp_path) -> None:
    keep(files)
    (tmp_path / "personal" / f"{ONE}.local").rename(tmp_path / "personal" / f"{OTHER}.local")
    assert files.read("local", OTHER) is None


def test_a_session_that_is_forgotten_takes_what_was_learnt_from_it_and_leaves_the_rest(files, tmp_path) -> None:
    erased = []
    files.on_erased = erased.append
    keep(files, sessions=["s1", "s2"])
    keep(files, "tuned", OTHER, ["s3"])
    assert files.forget("s9") == 0
    assert files.forget("s2") == 1
    assert names(tmp_path) == [f"{OTHER}.tuned"]
    assert erased == [frozenset({ONE})]


def test_what_was_learnt_before_counts_as_well(files) -> None:
    keep(files, sessions=["s1"])
    keep(files, sessions=["s2"])
    assert files.forget("s1") == 1


def test_what_cannot_be_read_goes_with_whichever_session(files, tmp_path) -> None:
    keep(files)
    (tmp_path / "personal" / f"{ONE}.local").write_bytes(b"rotten")
    assert files.read("local", ONE) is None
    assert files.forget("s9") == 1
    assert names(tmp_path) == []


def test_more_sessions_than_are_noted_count_as_everyone(files) -> None:
    facts = facts_of("tiny", ONE, map(str, range(MAX_SESSIONS + 1)))
    assert facts.everyone
    assert facts.learnt_from("somebody else")
    assert not facts.tags


def test_what_a_child_made_before_an_erasure_is_not_taken_after_it(files, tmp_path) -> None:
    keep(files, bundle=OTHER, sessions=["s3"])
    before = files.erasures
    files.forget("s1")
    files.write_pending("task", Personal(facts_of("tiny", ONE, ["s1"])), SystemEntropy())
    assert not files.adopt("task", "local", ONE, before)
    assert names(tmp_path) == [f"{OTHER}.local"]


def test_every_key_of_the_ring_opens_it_until_it_is_sealed_anew(files, tmp_path) -> None:
    keep(files)
    both = PersonalFiles(tmp_path, KeyRing(NEW, OLD))
    assert both.read("local", ONE) is not None
    assert PersonalFiles(tmp_path, KeyRing(NEW)).read("local", ONE) is None
    both.reseal(SystemEntropy())
    assert PersonalFiles(tmp_path, KeyRing(NEW)).read("local", ONE) is not None
    assert files.read("local", ONE) is None


def test_bundles_that_no_slot_names_any_more_are_not_kept_but_what_a_child_writes_is(files, tmp_path) -> None:
    keep(files)
    keep(files, bundle=OTHER)
    files.write_pending("round-1", Personal(facts_of("tiny", ONE, [])), SystemEntropy())
    files.keep({OTHER})
    assert names(tmp_path) == [f"{OTHER}.local", "round-1.pending"]
    assert files.reset(OTHER) == 1
    assert names(tmp_path) == []


def test_a_tuned_suffix_counts_for_the_checkpoint_that_it_was_tuned_from_alone(files) -> None:
    keep(files, "tuned")
    assert files.tuned(ONE, "") is not None
    assert files.tuned(ONE, "cc" * 32) is None


def test_a_tensor_that_is_no_number_is_refused(files, tmp_path) -> None:
    made = Personal(facts_of("tiny", ONE, []), {"mean1": np.array([np.nan], np.float32)})
    files.write_pending("task", made, SystemEntropy())
    with (tmp_path / "personal" / "task.pending").open("rb") as file, pytest.raises(MalformedError, match="finite"):
        read_personal(file, OLD)
