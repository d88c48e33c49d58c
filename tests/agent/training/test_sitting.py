"""What happens between two batches: saving, stopping, and the time that a training may take."""

import numpy as np
import pytest

from bedside.agent.training.budget import Budget
from bedside.agent.training.saved import SavedTraining, discard_trainings, state_path
from bedside.agent.training.sitting import Sitting
from bedside.agent.windows.training import Horizon
from bedside.core.errors import BedsideError, RefusedError, StoreError
from bedside.ondevice.training.position import Between, Position
from bedside.service.platform import SystemEntropy

KEY, FIT = b"k" * 32, b"f" * 32
STATE = {
    "w": np.arange(600_000, dtype=np.float32),
    "q": np.arange(-5, 5, dtype=np.int8).reshape(2, 5),
    "steps": np.array(7, np.float32),
    "none": np.zeros((0, 3), np.int64),
}


class StepClock:
    """Time goes on when the test says so."""

    def __init__(self) -> None:
        self.at_s = 100.0

    def now_ns(self) -> int:
        return round(self.at_s * 1e9)

    def monotonic_s(self) -> float:
        return self.at_s


class Course:
    """Steps of one training that take a second each."""

    def __init__(self, directory, **budget) -> None:
        self.clock = StepClock()
        self.file = SavedTraining(state_path(directory, "t"), KEY)
        self.budget = Budget(**{"save_every_s": 10.0} | budget)
        self.asked = False
        self.done = 0
        self.sit()

    def sit(self, fit: bytes = FIT):
        """Another process; what it goes on from."""
        self.sitting = Sitting(
            self.file, self.budget, self.clock, SystemEntropy(), lambda: self.asked, fit=fit, horizon=Horizon(5, 9)
        )
        return self.sitting.resume()

    def step(self, count: int = 1, of: int = 100, takes_s: float = 1.0) -> None:
        for _ in range(count):
            self.done += 1
            self.clock.at_s += takes_s
            self.sitting.between(Between(Position(step=self.done), of - self.done, lambda: STATE))


@pytest.fixture
def course(tmp_path):
    return lambda **budget: Course(tmp_path, **budget)


def code_of(call) -> str:
    with pytest.raises(BedsideError) as caught:
        call()
    return caught.value.code


def test_the_state_is_saved_every_so_often_and_comes_back_as_it_was(course) -> None:
    one = course()
    one.step(10)
    assert one.file.facts() is None
    one.step(1)
    assert one.file.facts().position == Position(step=11)
    one.step(9)
    assert one.file.facts().position.step == 11
    one.step(1)
    saved = one.sit()
    assert saved.position == Position(step=21)
    assert {name: (a.dtype, a.shape, a.tobytes()) for name, a in saved.state.items()} == {
        name: (a.dtype, a.shape, a.tobytes()) for name, a in STATE.items()
    }


def test_a_slow_disk_is_saved_to_more_rarely(course, monkeypatch) -> None:
    one = course()
    write = SavedTraining.write

    def slowly(self, *arguments, **options) -> None:
        write(self, *arguments, **options)
        one.clock.at_s += 3.0

    monkeypatch.setattr(SavedTraining, "write", slowly)
    one.step(11)
    one.step(59)
    assert one.file.facts().position.step == 11
    one.step(1)
    assert one.file.facts().position.step == 71


def test_who_is_asked_to_stop_saves_first(course) -> None:
    one = course()
    one.step(3)
    one.asked = True
    assert code_of(one.step) == "child-stopped"
    assert one.sit().position.step == 4


def test_time_is_counted_over_all_sittings_and_pauses_are_not(course) -> None:
    one = course(timeout_s=30.0)
    one.step(11, of=30)
    one.clock.at_s += 1_000_000
    one.asked = False
    one.sit()
    one.done = 11
    one.step(19, of=30)
    assert code_of(lambda: one.step(1, of=60)) == "child-timeout"


def test_the_quickest_of_the_first_steps_tells_whether_it_can_end_in_time(course) -> None:
    one = course(timeout_s=60.0, closes_in_s=95.0)
    one.step(4, takes_s=3.0)
    with pytest.raises(RefusedError, match=r"95 steps of 510.0 ms take 48 s here, and 47 s are left until") as caught:
        one.step(1, takes_s=0.51)
    assert caught.value.code == "unaffordable-time"
    slow = course(timeout_s=1_000.0, closes_in_s=40.0)
    slow.step(4)
    with pytest.raises(RefusedError, match="the round's close"):
        slow.step(1)
    with pytest.raises(RefusedError, match="95 s here, and 91 s are left until the round's close"):
        course(timeout_s=1_000.0, closes_in_s=96.0).step(5)
    quick = course(timeout_s=1_000.0, closes_in_s=101.0)
    quick.step(50)


def test_a_disk_that_takes_no_state_ends_nothing_and_is_told(course, monkeypatch) -> None:
    one, write = course(), SavedTraining.write

    def full(*_: object, **__: object) -> None:
        raise StoreError("file-write", "no space left on device")

    monkeypatch.setattr(SavedTraining, "write", full)
    one.step(11)
    assert one.sitting.unsaved == "no space left on device"
    monkeypatch.setattr(SavedTraining, "write", write)
    one.step(10)
    assert one.sitting.unsaved == ""
    assert one.file.facts().position.step == 21


def test_a_state_of_other_inputs_is_removed_and_not_gone_on_with(course) -> None:
    one = course()
    one.step(11)
    assert one.sit(fit=b"g" * 32) is None
    assert not one.file.path.exists()


@pytest.mark.parametrize("at", [0, 10, 200, 1_100_000, -1])
def test_a_state_that_rotted_is_removed_and_not_gone_on_with(course, at) -> None:
    one = course()
    one.step(11)
    data = bytearray(one.file.path.read_bytes())
    data[at] ^= 1
    one.file.path.write_bytes(data)
    assert one.sit() is None
    assert not one.file.path.exists()


def test_nothing_of_a_state_is_in_the_clear_and_another_key_opens_nothing(course) -> None:
    one = course()
    one.step(11)
    data = one.file.path.read_bytes()
    assert STATE["w"][:8].tobytes() not in data
    assert b"steps" not in data
    assert SavedTraining(one.file.path, b"o" * 32).facts() is None


def test_unfinished_trainings_are_removed_by_prefix_with_what_a_cut_off_write_left(tmp_path) -> None:
    for name in ("round-a", "round-b", "own-c"):
        state_path(tmp_path, name).write_bytes(b"x")
    (tmp_path / "training" / ".round-d.state.new").write_bytes(b"x")
    assert discard_trainings(tmp_path, "round-", frozenset({"round-b"})) == ["round-a", "round-d"]
    assert sorted(path.name for path in (tmp_path / "training").iterdir()) == ["own-c.state", "round-b.state"]
    assert discard_trainings(tmp_path) == ["own-c", "round-b"]
    assert discard_trainings(tmp_path / "nowhere") == []
