"""What comes is judged, what is judged well serves, and whatever happens one of two models does."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from bedside.agent.rounds import slots as slots_module
from bedside.agent.rounds.models import ModelStore
from bedside.agent.rounds.slots import ActiveModel, Candidate, SlotNote
from bedside.core.errors import BedsideError, ProtocolError, StoreError


async def passed(*_: object) -> str:
    return "passed"


async def refused(*_: object) -> str:
    return "refused"


async def test_a_model_that_is_judged_well_serves_and_the_one_before_it_is_at_hand(shelf) -> None:
    new = shelf.scaled(1.01)
    async with shelf.running() as device:
        device.judge(passed)
        await device.take(new)
        assert (device.serves, device.slot.previous.name) == (new.name, shelf.own.name)
        assert device.slot.verdicts[-1].old == 0.5
        await device.desk.roll_back("tiny")
        assert device.serves == shelf.own.name
    async with shelf.running() as device:
        assert device.serves == shelf.own.name
        assert device.outcomes == ["passed", "rolled-back"]


async def test_a_refused_model_does_not_serve_and_is_not_judged_twice(shelf) -> None:
    new, judged = shelf.scaled(0.5), []

    async def judge(*pair: object) -> str:
        judged.append(pair)
        return "refused"

    async with shelf.running() as device:
        device.judge(judge)
        await device.take(new)
        await device.take(new)
        assert (device.serves, len(judged)) == (shelf.own.name, 1)
        (told,) = device.pipeline.models()
        assert "refused" in told.prospect.concern
        device.agent._observer.look()
        state = device.agent._health.snapshot()["inference"]
        assert (state.level.name, "refused before it served" in state.sentence) == ("DEGRADED", True)
        await device.desk.reject("tiny")  # seen
        device.agent._observer.look()
        assert "refused" not in device.agent._health.snapshot()["inference"].sentence


async def test_what_was_rolled_back_stays_away_until_it_is_accepted_or_a_newer_one_comes(shelf) -> None:
    first, second = shelf.scaled(1.01), shelf.scaled(1.02)
    async with shelf.running() as device:
        device.judge(passed)
        await device.take(first)
        await device.desk.roll_back("tiny")
        await device.take(first)
        assert device.serves == shelf.own.name
        with pytest.raises(ProtocolError, match="no previous model"):
            await device.desk.roll_back("tiny")
        await device.desk.accept("tiny")
        assert (device.serves, device.slot.withdrawn) == (first.name, ())
        await device.desk.roll_back("tiny")
        await device.take(second)
        assert device.serves == second.name
        await device.take(first)
        assert device.serves == second.name


async def test_a_rollback_while_a_rounds_result_is_judged_has_it_judged_against_what_serves_then(shelf) -> None:
    bad, new = shelf.scaled(1.01), shelf.scaled(1.02)
    begun, go_on, against = asyncio.Event(), asyncio.Event(), []

    async def judge(old, _new) -> str:
        against.append(old.name)
        begun.set()
        await go_on.wait()
        return "passed"

    async with shelf.running() as device:
        device.judge(passed)
        await device.take(bad)
        device.judge(judge)
        taking = asyncio.create_task(device.take(new))
        await begun.wait()
        await device.desk.roll_back("tiny")  # is not held up by the judgement
        assert device.serves == shelf.own.name
        go_on.set()
        await taking
        assert against == [bad.name, shelf.own.name]
        assert (device.serves, device.slot.previous.name) == (new.name, shelf.own.name)


async def test_a_candidate_that_is_rejected_while_it_is_judged_does_not_serve(shelf) -> None:
    new, begun, go_on = shelf.scaled(1.01), asyncio.Event(), asyncio.Event()

    async def judge(*_: object) -> str:
        begun.set()
        await go_on.wait()
        return "passed"

    async with shelf.running() as device:
        device.judge(judge)
        taking = asyncio.create_task(device.take(new))
        await begun.wait()
        await device.desk.reject("tiny")
        go_on.set()
        await taking
        assert (device.serves, device.outcomes) == (shelf.own.name, ["rejected"])


async def test_a_candidate_that_rots_between_gate_and_swap_is_dropped_and_wanted_again(shelf) -> None:
    new = shelf.scaled(1.01)

    async def rot(*_: object) -> str:
        data = bytearray(shelf.path(new).read_bytes())
        data[-5] ^= 1
        shelf.path(new).write_bytes(data)
        return "passed"

    async with shelf.running() as device:
        device.judge(rot)
        with pytest.raises(StoreError, match="not what was stored"):
            await device.take(new)
        assert (device.serves, device.slot.candidate, shelf.path(new).exists()) == (shelf.own.name, None, False)
        assert device.slot.lost
        assert device.agent._models.lost(shelf.manifest)
        device.judge(passed)
        await device.take(shelf.scaled(1.01))  # fetched again
        assert (device.serves, device.slot.lost) == (new.name, False)


async def test_after_a_start_without_the_current_checkpoint_the_previous_model_serves(shelf) -> None:
    first, second = shelf.scaled(1.01), shelf.scaled(1.02)
    async with shelf.running() as device:
        device.judge(passed)
        await device.take(first)
        await device.take(second)
    shelf.path(second).write_bytes(b"rotten")
    async with shelf.running() as device:
        assert (device.serves, device.slot.lost) == (first.name, True)
    shelf.path(first).unlink()
    async with shelf.running() as device:
        assert device.serves == shelf.own.name


@pytest.mark.parametrize("data", [b"rotten", None])
async def test_after_a_start_without_the_current_bundle_the_previous_one_serves(shelf, data) -> None:
    gone = ActiveModel("ab" * 32, "", shelf.keys)
    store = ModelStore(shelf.device.path / "state")
    store.change("tiny", lambda slot: msgspec.structs.replace(slot, model=gone, previous=shelf.own))
    if data is not None:
        store.bundle_path(gone.bundle).write_bytes(data)
    async with shelf.running() as device:
        assert (device.serves, device.slot.lost) == (shelf.own.name, True)


class KilledError(BaseException):
    """What kill -9 leaves of a process: nothing runs after it."""


STEPS = ("promote", "roll_back")


@pytest.mark.parametrize("point", range(8))
@pytest.mark.parametrize("step", STEPS)
async def test_a_kill_at_any_point_leaves_one_of_two_models_serving(shelf, monkeypatch, step, point) -> None:
    new = shelf.scaled(1.01)
    passed_points = []

    def reach() -> None:
        passed_points.append(1)
        if len(passed_points) == point + 1:
            raise KilledError

    async with shelf.running() as device:
        device.judge(passed)
        if step == "roll_back":
            await device.take(new)
        write, load, serve = slots_module.write_durable, device.agent._models.load, device.pipeline.serve

        def around(work):
            def done(*arguments):
                reach()
                result = work(*arguments)
                reach()
                return result

            return done

        monkeypatch.setattr(slots_module, "write_durable", around(write))
        monkeypatch.setattr(device.agent._models, "load", around(load))
        monkeypatch.setattr(device.pipeline, "serve", around(serve))
        killed = False
        try:
            await (device.take(new) if step == "promote" else device.desk.roll_back("tiny"))
        except KilledError:
            killed = True
        monkeypatch.undo()
    assert killed == (point < {"promote": 8, "roll_back": 6}[step])
    async with shelf.running() as device:
        device.judge(passed)
        await device.desk.settled()
        assert device.serves == device.slot.model.name
        assert device.serves in {new.name, shelf.own.name}
        if not killed:
            assert device.serves == (new.name if step == "promote" else shelf.own.name)
        await device.decide(1)
        assert device.pipeline.engine.slots["tiny"].predictions == 1


def full(*_: object) -> None:
    raise StoreError("file-write", "no space left on device")


async def test_on_a_full_disk_nothing_is_promoted_and_a_rollback_holds_at_once(shelf, monkeypatch) -> None:
    first, second = shelf.scaled(1.01), shelf.scaled(1.02)
    async with shelf.running() as device:
        device.judge(passed)
        await device.take(first)
        with monkeypatch.context() as patch:
            patch.setattr(slots_module, "write_durable", full)
            with pytest.raises(StoreError):
                await device.take(second)
            assert device.serves == first.name
            with pytest.raises(StoreError):
                await device.desk.roll_back("tiny")
            assert device.serves == shelf.own.name
            assert device.slot.model == shelf.own
            await device.take(first)  # it is known to have been rolled back
            assert device.serves == shelf.own.name
        on_disk = SlotNote(device.agent._models._note._path)
        assert on_disk.read()["tiny"].model == first
        await device.take(second)  # the next note that is written holds the rollback too
        assert on_disk.read()["tiny"].previous == shelf.own
        assert first in on_disk.read()["tiny"].withdrawn


async def test_on_a_disk_that_fills_during_the_judgement_the_old_model_serves_until_there_is_room(
    shelf, monkeypatch
) -> None:
    new = shelf.scaled(1.01)
    async with shelf.running() as device:
        with monkeypatch.context() as patch:

            async def fill(*_: object) -> str:
                patch.setattr(slots_module, "write_durable", full)
                return "passed"

            device.judge(fill)
            with pytest.raises(StoreError):
                await device.take(new)
            assert (device.serves, device.slot.candidate) == (shelf.own.name, Candidate(new))
        device.judge(passed)
        await device.take(new)  # announced again
        assert (device.serves, device.slot.candidate) == (new.name, None)


async def test_a_candidate_that_crashes_the_child_does_not_serve(shelf, monkeypatch) -> None:
    monkeypatch.setattr("bedside.agent.serving.gate.CHILD", "bedside.no_such_module")
    async with shelf.running() as device:
        await device.take(shelf.scaled(1.01))
        assert (device.serves, device.outcomes) == (shelf.own.name, ["refused"])
        assert "came to no end" in device.slot.verdicts[-1].sentence


@pytest.mark.parametrize(("rules", "stage"), [("", "held"), ("shadow_windows = 10", "shadow")])
async def test_what_could_not_be_compared_does_not_serve_at_once(shelf, rules, stage) -> None:
    async def uncompared(*_: object) -> str:
        return "uncompared"

    shelf.configure(rules)
    async with shelf.running() as device:
        device.judge(uncompared)
        await device.take(shelf.scaled(1.01))
        assert (device.serves, device.slot.candidate.stage) == (shelf.own.name, stage)


class Fails:
    """A runtime that fails, in one way or another."""

    name = "onnx"

    def __init__(self, answer: float | None) -> None:
        self._answer = answer

    def predict(self, x):
        if self._answer is None:
            raise RuntimeError("out of memory")
        return x[:, :1, 0].repeat(3, axis=1) * 0 + self._answer


@pytest.mark.parametrize("answer", [None, float("nan"), float("inf")])
async def test_a_model_that_fails_at_work_gives_way_to_the_one_before_it(shelf, answer) -> None:
    new = shelf.scaled(1.01)
    async with shelf.running() as device:
        device.judge(passed)
        await device.take(new)
        worker = device.pipeline.engine.slots["tiny"]
        object.__setattr__(worker.model, "runtime", Fails(answer))
        await device.decide(4)
        assert device.serves == new.name  # a few are no proof
        await device.decide(1)
        await device.desk.settled()
        assert (device.serves, device.outcomes[-1]) == (shelf.own.name, "failed")
        (told,) = device.pipeline.models()
        assert "failed" in told.prospect.concern
        await device.decide(1)
        assert worker.error is None
        await device.take(new)
        assert device.serves == shelf.own.name


async def test_the_last_model_that_fails_goes_on_as_there_is_no_other(shelf) -> None:
    async with shelf.running() as device:
        object.__setattr__(device.pipeline.engine.slots["tiny"].model, "runtime", Fails(None))
        await device.decide(9)
        await device.desk.settled()
        assert (device.serves, device.outcomes) == (shelf.own.name, [])


async def test_a_candidate_that_a_crash_interrupted_is_judged_at_the_next_start(shelf) -> None:
    new = shelf.scaled(1.01)

    async def never(*_: object) -> str:
        await asyncio.Event().wait()
        return "passed"

    async with shelf.running() as device:
        device.judge(never)
        taking = asyncio.create_task(device.take(new))
        await device.until(lambda: device.slot.candidate is not None)
        taking.cancel()
    async with shelf.running() as device:
        assert (device.serves, device.slot.candidate) == (shelf.own.name, Candidate(new))
        await device.desk.settled()  # by the child
        assert device.serves == new.name


async def test_orders_about_what_is_not_there_are_refused(shelf) -> None:
    async with shelf.running() as device:
        for order, name, code in (
            (device.desk.roll_back, "tiny", "no-previous-model"),
            (device.desk.accept, "tiny", "nothing-withdrawn"),
            (device.desk.promote, "tiny", "no-candidate"),
            (device.desk.reject, "tiny", "no-candidate"),
            (device.desk.roll_back, "other", "no-such-model"),
        ):
            with pytest.raises(BedsideError) as caught:
                await order(name)
            assert caught.value.code == code


async def test_only_models_that_the_site_has_named_come_to_serve(shelf) -> None:
    new = shelf.scaled(1.01)
    shelf.configure('models = ["other"]')
    async with shelf.running() as device:
        assert "tiny" not in device.pipeline.engine.slots, "it came before the site had said so"
        wanted = device.agent._serving.wanted
        assert tuple(await device.agent._serving.take(new)) == ()
        assert device.pipeline.engine.slots == {}
        assert device.agent._serving.wanted == wanted
    shelf.configure('models = ["tiny"]')
    async with shelf.running() as device:
        device.judge(passed)
        await device.take(new)
        assert device.serves == new.name
