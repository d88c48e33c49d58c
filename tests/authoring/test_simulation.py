"""A federation in one process is made of the real parts."""

import msgspec
import numpy as np
import pytest

from bedside.authoring.golden import synthetic_windows
from bedside.authoring.simulation import federation
from bedside.authoring.simulation.federation import Federation
from bedside.authoring.simulation.settings import Settings
from bedside.core.bundle.verify import verify_archive
from bedside.core.errors import ConfigError
from bedside.ondevice.refresh import int8_runtime
from bedside.ondevice.training.examples import Windows
from bedside.ondevice.training.scoring import score
from bedside.ondevice.training.train import train

SHAPE, CLASSES = (32, 2), 3
CLIENTS = {f"site-{at}": Windows(*synthetic_windows(SHAPE, CLASSES, 45 + 15 * at, at)) for at in range(3)}
UNSEEN = Windows(*synthetic_windows(SHAPE, CLASSES, 150, 99))


@pytest.fixture(scope="module")
def bundle(built, author):
    return verify_archive(built.tar, [bytes(author.verify_key)])


def run(bundle, rounds=4, seed=1, **settings):
    federation = Federation(bundle, CLIENTS, Settings(rounds=rounds, **settings), seed)
    reports = [federation.round() for _ in range(rounds)]
    assert all(report.stepped for report in reports)
    return federation.parameters()


def test_a_client_trains_in_a_session_that_others_used_as_in_one_of_its_own(bundle, monkeypatch):
    together = run(bundle)

    def alone(*arguments, session, judged):
        return train(*arguments)

    monkeypatch.setattr(federation, "train", alone)
    assert distance(run(bundle), together) == 0


def distance(one, other):
    return np.sqrt(sum(float(((one[name] - other[name]) ** 2).sum()) for name in one))


def test_eight_bits_lead_to_nearly_the_float_model_and_four_not_so_nearly(bundle):
    plain, eight, four = (run(bundle, bits=bits) for bits in (0, 8, 4))
    moved = distance(plain, bundle.parameters)
    assert 0 < distance(plain, eight) < distance(plain, four) < moved / 2
    assert score(bundle.manifest, int8_runtime(bundle, eight).predict, [(UNSEEN.x, UNSEEN.y)]).merit > 0.9


def test_a_seed_gives_one_run_and_another_seed_another(bundle):
    assert distance(run(bundle), run(bundle)) == 0
    assert distance(run(bundle), run(bundle, seed=2)) > 0


@pytest.mark.parametrize("server", ["fedadam", "fedyogi"])
def test_adaptive_servers_move_by_signs(bundle, server):
    slow = run(bundle, rounds=1, server=server, server_learning_rate=0.01)
    faster = run(bundle, rounds=1, server=server, server_learning_rate=0.02)
    assert np.allclose(faster["w1"] - bundle.parameters["w1"], 2 * (slow["w1"] - bundle.parameters["w1"]), atol=1e-6)
    assert np.array_equal(faster["amax"], slow["amax"]), "what is observed is averaged"


def test_noise_is_added_and_an_update_is_clipped(bundle):
    clipped = run(bundle, rounds=1, clip=1e-3)
    assert 0 < distance({"w": clipped["w0"]}, {"w": bundle.parameters["w0"]}) < 1e-3
    noisy = run(bundle, rounds=1, clip=1e-3, noise_multiplier=1.0)
    assert distance({"w": noisy["w0"]}, {"w": clipped["w0"]}) > 1e-4


def test_equal_steps_are_equal_whatever_a_client_has(bundle):
    seen = {}
    settings = Settings(rounds=1, steps=20, batch=15)
    federation = Federation(bundle, CLIENTS, settings, 1)
    for number, (name, windows) in enumerate(CLIENTS.items()):
        schedule = federation._schedule(len(windows.y), number)
        seen[name] = train(bundle, bundle.parameters, windows, schedule).counts.steps
    assert set(seen.values()) == {20}, "of 3, 4 and 5 steps an epoch"


@pytest.mark.parametrize(
    "wrong", [{"rounds": 0}, {"bits": 1}, {"clip": 0.0}, {"bits": 0, "noise_multiplier": 1.0}, {"graph": "q9-all-sgd"}]
)
def test_settings_that_mean_nothing_are_refused(bundle, wrong):
    settings = msgspec.structs.replace(Settings(rounds=1), **wrong)
    with pytest.raises(ConfigError) as caught:
        Federation(bundle, CLIENTS, settings, 1)
    assert caught.value.code == "bad-settings"
