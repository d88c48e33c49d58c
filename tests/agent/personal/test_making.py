"""A head that is tuned here, a temperature and statistics of its own: made by children, judged, kept, used."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from bedside.agent.personal import child
from bedside.agent.personal.desk import AGAIN_S
from bedside.agent.personal.job import PersonalJob
from bedside.agent.personal.settings import ModelRules, PersonalConfig
from bedside.agent.serving.validation import validation_windows
from bedside.core.errors import BedsideError, RefusedError

HEAD = {"w2", "b2", "amax"}
OWN = {"mean0", "square0", "mean1", "variance1"}


def refusal(work) -> str:
    with pytest.raises(BedsideError) as caught:
        work()
    return caught.value.code


def test_a_tuned_head_that_is_better_serves_with_a_temperature_and_its_report(home) -> None:
    asyncio.run(home.desk.look())
    tuned = home.files.tuned(home.active.bundle, home.active.name)
    report = tuned.facts.report
    assert set(home.files.read("local", home.active.bundle).tensors) == OWN
    assert set(tuned.tensors) == HEAD
    assert report.used
    assert report.tuned.score > report.of_all.score + 0.1
    assert report.windows >= 50
    assert report.trained_windows > 200
    assert (report.suffix, report.sessions in (2, 3)) == ("head", True)
    assert report.serves.ece < report.tuned.ece
    assert report.serves.loss < report.tuned.loss
    assert report.serves.score == report.tuned.score
    assert home.reopened == ["tiny", "tiny"], "once with statistics of its own, and once with its head"

    served = home.models.load(home.active).model
    assert served.head.temperature == pytest.approx(tuned.facts.temperature)
    assert served.head.temperature != 1.0
    start = home.models.parameters(home.active, home.bundle)
    assert all(np.array_equal(start[name], home.bundle.parameters[name]) for name in HEAD), "a round starts without it"
    assert not np.array_equal(start["mean0"], home.bundle.parameters["mean0"])
    x = np.random.default_rng(0).normal(0, 1, (4, 32, 2)).astype(np.float32)
    shared = home.models.opened(home.active, home.bundle, start).model
    assert not np.array_equal(served.logits(x), shared.logits(x))

    # another checkpoint serves as it came, until it has been tuned for itself
    other = home.checkpoint(1.1)
    assert home.models.load(other).model.head.temperature == 1.0
    assert not home.desk._is_due("tiny", home.active)
    home.models.activate("tiny", other)
    assert home.desk._is_due("tiny", other)

    asyncio.run(home.desk.reset("tiny"))
    assert list(home.files.all()) == []
    assert home.reopened == ["tiny"] * 3
    assert home.faults == [None]


def test_a_tuned_head_that_is_worse_is_not_used_and_only_the_temperature_is(home) -> None:
    rules = home.desk._setting.config.of("tiny")
    job = PersonalJob(str(home.state), str(home.identity), home.active, "personal-x", rules, (), "onnx", 50)
    found = validation_windows(home.state, home.identity, home.bundle.manifest, (), 50, 2_000)
    asyncio.run(home.desk.count(home.active, "tiny"))
    good = home.make().tensors
    one_class = {"w2": np.zeros((8, 3), np.float32), "b2": np.array([0, 9, 0], np.float32)}

    def judged(tensors):
        return child._judge(job, home.models, home.bundle, child._Tuned(tensors, 99, frozenset()), found)

    knows, ruined = judged(good).report, judged(one_class).report
    assert knows.tuned.score > 0.6 > ruined.tuned.score
    assert (knows.used, knows.serves.score) == (True, knows.tuned.score)

    before = home.models._with_own
    home.models._with_own = lambda *given: before(*given) | good  # now the global model knows it
    judgement = judged(one_class)
    assert not judgement.report.used
    assert judgement.report.of_all.score == knows.tuned.score
    assert judgement.report.serves.score == knows.tuned.score
    assert judgement.temperature != 1.0
    assert judgement.report.sentence.endswith(": worse")

    diverged = judged(good | {"b2": np.full(3, np.nan, np.float32)}).report
    assert (diverged.used, diverged.tuned) == (False, None)
    assert "diverged" in diverged.sentence


def test_too_few_labelled_windows_tune_nothing_and_fit_what_can_be_fitted(home) -> None:
    home.configure(fine_tune=True, temperature=True, min_windows=90_000)
    kept = home.make()
    assert kept.tensors == {}
    assert "fewer labelled windows" in kept.facts.report.sentence
    assert kept.facts.report.serves.loss < kept.facts.report.of_all.loss
    home.desk._setting = home.desk._setting.__class__(**{**home.desk._setting.__dict__, "min_judged": 90_000})
    kept = home.make()
    assert (kept.facts.temperature, kept.facts.report.serves) == (1.0, None)
    assert "90000 in 5 are needed" in kept.facts.report.sentence


def test_what_is_not_wanted_or_not_possible_is_refused_with_its_reason(home) -> None:
    home.configure(fine_tune=True, suffix="middle")
    assert refusal(home.make) == "no-such-graph"
    home.configure()
    assert refusal(home.make) == "personal-off"
    home.configure(temperature=True, models=[ModelRules(name="tiny", temperature=False)])
    assert not home.desk._setting.config.of("tiny").wanted
    assert refusal(lambda: asyncio.run(home.desk.make("other"))) == "no-such-model"


def test_what_was_made_of_a_session_that_was_erased_meanwhile_is_not_kept(home) -> None:
    home.configure(temperature=True)
    done = home.trainer.done

    def erase_first(task: str) -> None:
        home.files.forget(home.sessions[0])
        done(task)

    home.trainer.done = erase_first
    assert refusal(home.make) == "personal-stale"
    assert list((home.state / "personal").iterdir()) == []
    assert home.reopened == []
    assert home.desk._is_due("tiny", home.active)


def test_statistics_wait_for_windows_and_are_tried_again_later(home) -> None:
    home.desk._streams = lambda _: ("nothing-arrives-here",)
    assert not asyncio.run(home.desk.count(home.active, "tiny"))
    assert home.files.read("local", home.active.bundle) is None
    home.desk._streams = lambda _: ()
    assert not asyncio.run(home.desk.count(home.active, "tiny")), "it has just been tried"
    home.desk._tried_s["statistics-", home.active.bundle] -= AGAIN_S
    assert asyncio.run(home.desk.count(home.active, "tiny"))
    assert home.files.read("local", home.active.bundle) is not None


def test_a_model_may_differ_from_the_others() -> None:
    config = PersonalConfig(fine_tune=True, epochs=7, models=[ModelRules(name="tiny", epochs=2, suffix="all")])
    assert (config.of("tiny").epochs, config.of("tiny").suffix, config.of("tiny").fine_tune) == (2, "all", True)
    assert (config.of("other").epochs, config.of("other").suffix) == (7, "head")


def test_a_tuning_that_diverges_is_no_reason_to_give_up_the_rest(home, monkeypatch) -> None:
    def diverges(*_: object) -> None:
        raise RefusedError("diverged", "the training diverged")

    monkeypatch.setattr("bedside.agent.training.on_buffer.train_on_buffer", diverges)
    rules = PersonalConfig(fine_tune=True, temperature=True).of("tiny")
    job = PersonalJob(str(home.state), str(home.identity), home.active, "personal-x", rules, (), "onnx", 50)
    tuned = child._tune(job, home.models, home.bundle, None)
    assert (tuned.tensors, tuned.why_not) == ({}, "the training diverged")
