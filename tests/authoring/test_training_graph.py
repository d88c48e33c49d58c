import numpy as np
import pytest
from plain_reference import Seen, softmax
from trained_net import BATCHED, NETS, POOLED, RESIDUAL, SEPARABLE, TrainedNet

from bedside.core.bundle.layers import Conv1d, Dense, Flatten, Relu
from bedside.core.bundle.parameters import AMAX

LOSSES = {
    "classes": {},
    "weighted classes": {"class_weights": (0.5, 3.0, 1.0)},
    "labels": {"task": "multilabel"},
    "weighted labels": {"task": "multilabel", "class_weights": (0.5, 3.0, 1.0)},
    "values": {"task": "regression"},
}


@pytest.mark.parametrize("layers", NETS.values(), ids=NETS)
def test_gradients_are_those_of_finite_differences(layers):
    check_gradients(TrainedNet(layers))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_gradients_of_each_loss_are_those_of_finite_differences(loss):
    check_gradients(TrainedNet(POOLED, **loss))


@pytest.mark.parametrize(("layers", "first"), [(RESIDUAL, 7), (BATCHED, 4), (BATCHED, 8), (SEPARABLE, 9)])
def test_a_suffix_has_the_gradients_of_its_layers_and_of_no_others(layers, first):
    net = TrainedNet(layers, first=first)
    check_gradients(net)
    owned = {f"w{step.order}" for step in net.steps[first:] if step.kernel}
    assert {name for name in net.trained() if name.startswith("w")} == owned


def check_gradients(net):
    generator = np.random.default_rng(1)
    for name, gradient in net.gradients().items():
        for _ in range(6):
            at = tuple(generator.integers(0, axis) for axis in gradient.shape)
            assert gradient[at] == pytest.approx(slope(net, name, at), abs=2e-4), (name, at)


def slope(net, name, at, epsilon=1e-5):
    losses = []
    for sign in (1, -1):
        moved = {key: array.astype(np.float64) for key, array in net.parameters.items()}
        moved[name][at] += sign * epsilon
        losses.append(Seen(net.net, moved, net.x, net.y, first=net.first).loss)
    return (losses[0] - losses[1]) / (2 * epsilon)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_loss_is_that_of_its_formula(loss):
    net = TrainedNet(POOLED, **loss)
    assert net.run()(net.x, net.y) == pytest.approx(Seen(net.net, net.parameters, net.x, net.y).loss, abs=1e-5)


def test_the_loss_of_a_certain_label_is_finite():
    net = TrainedNet((Flatten(), Dense(3)), task="multilabel")
    sure = net.parameters | {"b0": np.array([200.0, -200.0, 0.0], np.float32)}
    run = net.run(parameters=sure, lr=0.1)
    assert 10 < run(net.x, net.y) < 200
    assert all(np.isfinite(array).all() for array in run.parameters().values())


def test_momentum_and_the_proximal_term_are_those_of_their_formulas():
    net = TrainedNet((Flatten(), Dense(3)))
    lr, momentum, mu = 0.1, 0.8, 0.5
    run = net.run(lr=lr, momentum=momentum, mu=mu)
    start, bias_start = (net.parameters[name].astype(np.float64) for name in ("w0", "b0"))
    value, bias, velocity, bias_velocity = start, bias_start, 0.0, 0.0
    flat = net.x.reshape(len(net.x), -1).astype(np.float64)
    for _ in range(4):
        run(net.x, net.y)
        state = net.parameters | {"w0": value, "b0": bias}
        error = (softmax(Seen(net.net, state, net.x, net.y).outputs) - np.eye(3)[net.y]) / len(net.y)
        velocity = momentum * velocity + flat.T @ error + mu * (value - start)
        bias_velocity = momentum * bias_velocity + error.sum(axis=0) + mu * (bias - bias_start)
        value, bias = value - lr * velocity, bias - lr * bias_velocity
    assert np.abs(run.parameters()["w0"] - value).max() < 1e-6
    assert np.abs(run.parameters()["b0"] - bias).max() < 1e-6


def test_a_clipped_gradient_has_the_direction_of_the_whole_and_the_length_that_is_allowed():
    net = TrainedNet(RESIDUAL)
    free, clipped = net.gradients(), net.run(clip=0.01)
    clipped(net.x, net.y)
    after = clipped.parameters()
    whole = np.concatenate([free[name].ravel() for name in free])
    short = np.concatenate([(net.parameters[name] - after[name]).ravel() for name in free])
    assert np.linalg.norm(whole) > 0.1
    assert np.linalg.norm(short) == pytest.approx(0.01, rel=1e-3)
    assert np.abs(short - whole * 0.01 / np.linalg.norm(whole)).max() < 1e-6


@pytest.mark.parametrize("layers", NETS.values(), ids=NETS)
@pytest.mark.parametrize("first", [0, -1])
def test_quantisation_aware_training_rounds_as_the_paper_says(layers, first):
    net = TrainedNet(layers, level="Q1", first=first % len(layers))
    run = net.run()
    loss = run(net.x, net.y)
    seen = Seen(net.net, net.parameters, net.x, net.y, qmax=net.net.weight_qmax, first=net.first)
    plain = Seen(net.net, net.parameters, net.x, net.y, first=net.first).loss
    assert loss == pytest.approx(seen.loss, abs=1e-5)
    assert abs(seen.loss - plain) > 1e-5, "rounding must be seen, or this test cannot fail"
    assert np.abs(run.parameters()[AMAX] - seen.ranges).max() < 1e-5
    last = f"w{net.steps[-1].order}"
    error = (softmax(seen.outputs) - np.eye(3)[net.y]) / len(net.y)
    assert np.abs(net.gradients()[last] - seen.used.T @ error).max() < 1e-5


def test_a_net_without_rounding_still_observes_its_ranges():
    net = TrainedNet(POOLED)
    run = net.run(lr=0.0)
    run(net.x, net.y)
    assert np.abs(run.parameters()[AMAX] - Seen(net.net, net.parameters, net.x, net.y).ranges).max() < 1e-5


def test_a_value_outside_the_range_passes_no_gradient_down():
    net = TrainedNet((Conv1d(3, 1), Relu(), Flatten(), Dense(3)), level="Q1")
    narrow = net.parameters | {AMAX: np.array([net.parameters[AMAX][0], 1e-6], np.float32)}
    ranges = Seen(net.net, narrow, net.x, net.y).ranges
    assert ranges[1] < net.parameters[AMAX][1] / 2, "most values must lie outside"
    clipped, free = net.gradients(narrow)["w0"], net.gradients()["w0"]
    assert 0 < np.abs(clipped).max() < np.abs(free).max()


@pytest.mark.parametrize("level", ["Q0", "Q1", "Q2"])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_suffix_leaves_everything_before_it_as_it_was(level, optimiser):
    first = 4
    net = TrainedNet(BATCHED, level=level, optimiser=optimiser, first=first)
    run = net.run(lr=0.05, momentum=0.9, mu=0.1)
    losses = [run(net.x, net.y) for _ in range(20)]
    in_front_of_a_batch_norm = {"b1", "b2"}
    after, moved = run.parameters(), {spec.name for spec in net.changed} - in_front_of_a_batch_norm
    assert losses[-1] < losses[0]
    for name, array in net.parameters.items():
        assert (array.tobytes() == after[name].tobytes()) == (name not in moved), name
    frozen = [step.order for step in net.steps[:first] if step.kernel]
    kept = net.parameters[AMAX] == after[AMAX]
    assert kept[frozen].all()
    assert not kept[len(frozen) :].any()


def test_a_batch_norm_keeps_running_statistics_and_its_neighbour_a_bias_that_nothing_moves():
    net = TrainedNet((Conv1d(4, 3), *BATCHED[2:]))
    run = net.run(lr=0.1)
    run(net.x, net.y)
    after, kernel = run.parameters(), net.parameters["w0"].astype(np.float64)
    padded = np.pad(net.x.astype(np.float64), ((0, 0), (1, 1), (0, 0)))
    given = sum(padded[:, tap : tap + 16] @ kernel[tap] for tap in range(3)) + net.parameters["b0"]
    rows = given.reshape(-1, 4)
    for name, seen in (("mean0", rows.mean(axis=0)), ("variance0", rows.var(axis=0, ddof=1))):
        assert np.abs(after[name] - (0.9 * net.parameters[name] + 0.1 * seen)).max() < 1e-5, name
    assert after["b0"].tobytes() == net.parameters["b0"].tobytes()
    assert np.abs(after["w0"] - net.parameters["w0"]).max() > 1e-4


def test_one_example_is_a_batch_even_for_a_batch_norm():
    net = TrainedNet((*(Flatten(), Dense(4), BATCHED[2], Relu(), Dense(3)),))
    run = net.run(lr=0.1)
    run(net.x[:1], net.y[:1])
    assert all(np.isfinite(array).all() for array in run.parameters().values())
