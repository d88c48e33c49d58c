import asyncio
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bedside.agent.training.job import Job, Outcome
from bedside.agent.training.trainer import CHILD
from bedside.authoring.build import build_bundle
from bedside.authoring.golden import synthetic_windows
from bedside.authoring.recipe import load_recipe
from bedside.core.bundle.tensors import decode_tensors, encode_tensors
from bedside.core.bundle.verify import verify_archive
from bedside.core.errors import ConfigError, MalformedError, RefusedError, TrustError
from bedside.ondevice.confinement import read_outcome
from bedside.ondevice.training.examples import Windows
from bedside.ondevice.training.step import Rates, open_step
from bedside.ondevice.training.train import Progress, Schedule, train
from quiet_machine import quiet_trainer

TINY = Path(__file__).parents[2] / "recipes" / "tiny.toml"
SCHEDULE = Schedule(
    learning_rate=0.05, momentum=0.9, proximal_mu=0.0, batch=8, epochs=4, min_examples=16, min_steps=4, seed=1
)


@pytest.fixture(scope="session")
def windows(bundle):
    window = bundle.manifest.window
    return Windows(*synthetic_windows((window.length, window.channels), len(bundle.manifest.labels), 96, seed=11))


@pytest.fixture
def job(tmp_path, built, author, windows):
    (tmp_path / "bundle.tar").write_bytes(built.tar)
    (tmp_path / "examples.safetensors").write_bytes(encode_tensors({"x": windows.x, "y": windows.y}))
    return {
        "bundle": str(tmp_path / "bundle.tar"),
        "signer_pks": (bytes(author.verify_key).hex(),),
        "schedule": SCHEDULE,
        "examples": str(tmp_path / "examples.safetensors"),
        "result": str(tmp_path / "delta.safetensors"),
    }


def run_training(job: Job, on_progress=lambda _: None) -> Outcome:
    """In a child, as the agent does."""
    trainer = quiet_trainer(Path(job.bundle).parent)
    running = trainer.run(
        "job",
        CHILD,
        lambda budget: msgspec.json.encode(msgspec.structs.replace(job, budget=budget)),
        on_progress=lambda line: on_progress(read_outcome(line, Progress)),
    )
    return read_outcome(asyncio.run(running), Outcome)


def test_a_net_learns_in_the_child_and_its_delta_is_what_it_learnt(job, bundle, windows):
    progress = []
    outcome = run_training(Job(**job), progress.append)
    assert [one.epoch for one in progress] == [1, 2, 3, 4]
    assert outcome.counts.examples == len(windows.y)
    assert outcome.counts.steps == 4 * 12
    assert outcome.counts.loss_after < outcome.counts.loss_before / 2
    assert outcome.counts.correct_after > 0.9 * len(windows.y) > outcome.counts.correct_before
    delta = decode_tensors(Path(outcome.result).read_bytes())
    here = train(bundle, bundle.parameters, windows, SCHEDULE)
    assert {name: array.tobytes() for name, array in delta.items()} == {
        name: array.tobytes() for name, array in here.delta.items()
    }


def test_the_same_seed_gives_the_same_delta_and_another_seed_another(bundle, windows):
    first, again = (train(bundle, bundle.parameters, windows, SCHEDULE).delta["w0"] for _ in range(2))
    other = Schedule(**{name: getattr(SCHEDULE, name) for name in SCHEDULE.__struct_fields__} | {"seed": 2})
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != train(bundle, bundle.parameters, windows, other).delta["w0"].tobytes()


@pytest.fixture(scope="session")
def regression(author, tmp_path_factory):
    recipe = tmp_path_factory.mktemp("regression") / "recipe.toml"
    text = TINY.read_text().replace('labels = ["rest", "walk", "shake"]', 'labels = ["bp"]\ntask = "regression"')
    targets = '\n[targets]\nunit = ["mm[Hg]"]\noffset = [0.0]\nscale = [1.0]\n'
    recipe.write_text(text.replace("units = 3", "units = 1") + targets)
    return verify_archive(build_bundle(load_recipe(str(recipe)), author).tar, [bytes(author.verify_key)])


@pytest.mark.parametrize("value", [1e20, 3e38])
def test_a_training_that_diverges_says_so_at_the_step_and_blames_no_checkpoint(regression, value):
    rng, steps = np.random.default_rng(1), []
    x, y = (rng.normal(size=shape).astype(np.float32) for shape in ((64, 32, 2), (64, 1)))
    y[5] = value
    with pytest.raises(RefusedError) as caught:
        train(
            regression, regression.parameters, Windows(x, y), SCHEDULE, between=lambda now: steps.append(now.position)
        )
    assert (caught.value.code, "labels" in caught.value.remedy) == ("diverged", True)
    assert max(len(position.losses) for position in steps) < SCHEDULE.epochs, "not at its end"


def test_a_training_that_is_not_judged_learns_the_same_and_counts_nothing_right(bundle, windows):
    plain = train(bundle, bundle.parameters, windows, SCHEDULE)
    quick = train(bundle, bundle.parameters, windows, SCHEDULE, judged=False)
    assert {name: array.tobytes() for name, array in quick.delta.items()} == {
        name: array.tobytes() for name, array in plain.delta.items()
    }
    assert (quick.counts.correct_before, quick.counts.correct_after) == (0, 0) != (0, plain.counts.correct_after)


def test_a_checkpoint_is_what_training_starts_from(job, tmp_path, bundle, windows):
    trained = train(bundle, bundle.parameters, windows, SCHEDULE)
    (tmp_path / "checkpoint").write_bytes(encode_tensors(trained.state))
    outcome = run_training(Job(**job, parameters=str(tmp_path / "checkpoint")))
    assert outcome.counts.correct_before == trained.counts.correct_after


def test_the_proximal_term_keeps_a_device_near_its_start(bundle, windows):
    def distance(mu):
        changed = {name: getattr(SCHEDULE, name) for name in SCHEDULE.__struct_fields__} | {"proximal_mu": mu}
        delta = train(bundle, bundle.parameters, windows, Schedule(**changed)).delta
        return sum(float((delta[name] ** 2).sum()) for name in delta if name != "amax")

    assert distance(1.0) < distance(0.0) / 2


def test_too_few_examples_are_refused_in_the_child_with_their_number(job, windows, tmp_path):
    few = {"x": windows.x[:9], "y": windows.y[:9]}
    (tmp_path / "examples.safetensors").write_bytes(encode_tensors(few))
    with pytest.raises(RefusedError, match="9 examples") as caught:
        run_training(Job(**job))
    assert caught.value.code == "too-few-examples"
    assert not (tmp_path / "delta.safetensors").exists()


def test_a_class_that_the_model_does_not_know_is_refused(bundle, windows):
    with pytest.raises(MalformedError, match="class is unknown"):
        train(bundle, bundle.parameters, Windows(windows.x, windows.y + 1), SCHEDULE)


def test_a_value_that_is_not_finite_is_refused(bundle, windows):
    poisoned = windows.x.copy()
    poisoned[0, 0, 0] = np.inf
    with pytest.raises(MalformedError, match="not finite"):
        train(bundle, bundle.parameters, Windows(poisoned, windows.y), SCHEDULE)


def test_a_bundle_by_a_stranger_is_not_trained(job):
    with pytest.raises(TrustError) as caught:
        run_training(Job(**job | {"signer_pks": ("00" * 32,)}))
    assert caught.value.code == "unknown-signer"


def test_a_job_without_examples_says_so(job):
    with pytest.raises(ConfigError, match="neither a state directory nor a file"):
        run_training(Job(**job | {"examples": ""}))


def opened(bundle):
    return open_step(bundle, bundle.manifest.graphs[0], bundle.parameters, Rates(0.05, 0.9, 0.1))


def test_a_step_goes_on_from_its_state_as_if_it_had_never_stopped(bundle, windows):
    whole, first, rest = opened(bundle), opened(bundle), opened(bundle)
    x, y = windows.x[:8], windows.y[:8]
    for _ in range(3):
        whole(x, y), first(x, y)
    rest.restore(first.state())
    assert [whole(x, y) for _ in range(3)] == [rest(x, y) for _ in range(3)]
    ours, theirs = whole.state(), rest.state()
    assert {name: array.tobytes() for name, array in ours.items()} == {n: a.tobytes() for n, a in theirs.items()}
    assert set(ours) > set(whole.parameters()), "momentum is part of it"


def test_a_state_of_another_model_is_refused_and_nothing_changes(bundle, windows):
    step = opened(bundle)
    before = step.state()
    for wrong in ({}, before | {"w0": before["w0"][:1]}, before | {"w0": before["w0"].astype(np.float64)}):
        with pytest.raises(MalformedError) as caught:
            step.restore(wrong)
        assert caught.value.code == "bad-training-state"
    assert step.state()["w0"].tobytes() == before["w0"].tobytes()
