import importlib.util

import numpy as np
import pytest
from plain_reference import loss_and_ranges

from bedside.authoring.golden import synthetic_windows
from bedside.authoring.initialise import initial_parameters
from bedside.authoring.net import Net as Model
from bedside.authoring.training_graph import build_training_graph
from bedside.core.bundle.layers import Conv1d, Dense, Flatten, GlobalAveragePool, MaxPool, Relu, walk
from bedside.core.bundle.parameters import AMAX
from bedside.core.bundle.training import TrainingGraph, optimiser_tensors
from bedside.ondevice.training.step import Rates, TrainingStep

QMAX = 63
SMALL = (
    (Conv1d(4, 3), Relu(), MaxPool(), Conv1d(3, 5), Relu(), GlobalAveragePool(), Dense(3)),
    (Conv1d(3, 1), MaxPool(), Relu(), Flatten(), Dense(5), Relu(), Dense(3)),
    (Flatten(), Dense(3)),
)
WATCH = (
    *(Conv1d(24, 5), Relu(), MaxPool(), Conv1d(32, 5), Relu(), MaxPool()),
    *(Conv1d(48, 3), Relu(), GlobalAveragePool(), Dense(7)),
)


class Net:
    """A training graph with parameters and a batch."""

    def __init__(self, layers, shape, classes, *, level="Q0", batch=6, seed=5):
        self.steps = walk(layers, shape, classes)
        model, kind = Model(self.steps, weight_qmax=QMAX), TrainingGraph(level, "all", "sgd")
        self.optimiser = optimiser_tensors(kind, model.parameters)
        self.x, self.y = synthetic_windows(shape, classes, batch, seed)
        self.parameters = initial_parameters(model, seed, self.x, self.y)
        self.graph = build_training_graph(model, kind)

    def run(self, *, lr=1.0, momentum=0.0, mu=0.0, parameters=None):
        return TrainingStep(self.graph, parameters or self.parameters, self.optimiser, Rates(lr, momentum, mu))

    def gradients(self):
        """What one step of plain SGD with rate one takes away."""
        run = self.run()
        run(self.x, self.y)
        after = run.parameters()
        return {name: self.parameters[name] - after[name] for name in after if name != AMAX}


@pytest.mark.parametrize("layers", SMALL)
def test_gradients_are_those_of_finite_differences(layers):
    net = Net(layers, (16, 2), 3)
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
        losses.append(loss_and_ranges(net.steps, moved, net.x, net.y)[0])
    return (losses[0] - losses[1]) / (2 * epsilon)


def test_momentum_and_the_proximal_term_are_those_of_their_formulas():
    net = Net((Flatten(), Dense(3)), (16, 2), 3)
    lr, momentum, mu = 0.1, 0.8, 0.5
    run = net.run(lr=lr, momentum=momentum, mu=mu)
    start = net.parameters["w0"].astype(np.float64)
    value, bias, velocity, bias_velocity = start, net.parameters["b0"].astype(np.float64), 0.0, 0.0
    flat = net.x.reshape(len(net.x), -1).astype(np.float64)
    for _ in range(4):
        run(net.x, net.y)
        state = net.parameters | {"w0": value, "b0": bias}
        probability = loss_and_ranges(net.steps, state, net.x, net.y)[3]
        error = (probability - np.eye(3)[net.y]) / len(net.y)
        velocity = momentum * velocity + flat.T @ error + mu * (value - start)
        bias_velocity = momentum * bias_velocity + error.sum(axis=0) + mu * bias
        value, bias = value - lr * velocity, bias - lr * bias_velocity
    assert np.abs(run.parameters()["w0"] - value).max() < 1e-6
    assert np.abs(run.parameters()["b0"] - bias).max() < 1e-6


@pytest.mark.parametrize("layers", SMALL)
def test_quantisation_aware_training_rounds_as_the_paper_says(layers):
    net = Net(layers, (16, 2), 3, level="Q1")
    run = net.run()
    loss = run(net.x, net.y)
    wanted, ranges, used, probability = loss_and_ranges(net.steps, net.parameters, net.x, net.y, qmax=QMAX)
    plain = loss_and_ranges(net.steps, net.parameters, net.x, net.y)[0]
    assert loss == pytest.approx(wanted, abs=1e-5)
    assert abs(wanted - plain) > 1e-5, "rounding must be seen, or this test cannot fail"
    assert np.abs(run.parameters()[AMAX] - ranges).max() < 1e-5
    last = f"w{net.steps[-1].order}"
    error = (probability - np.eye(3)[net.y]) / len(net.y)
    assert np.abs(net.gradients()[last] - used.T @ error).max() < 1e-5


def test_a_net_without_rounding_still_observes_its_ranges():
    net = Net(SMALL[0], (16, 2), 3, level="Q0")
    run = net.run(lr=0.0)
    run(net.x, net.y)
    ranges = loss_and_ranges(net.steps, net.parameters, net.x, net.y)[1]
    assert np.abs(run.parameters()[AMAX] - ranges).max() < 1e-5


def test_a_value_outside_the_range_passes_no_gradient_down():
    net = Net((Conv1d(3, 1), Relu(), Flatten(), Dense(3)), (16, 2), 3, level="Q1")
    narrow = net.parameters | {AMAX: np.array([net.parameters[AMAX][0], 1e-6], np.float32)}
    run = net.run(parameters=narrow)
    run(net.x, net.y)
    ranges = loss_and_ranges(net.steps, narrow, net.x, net.y)[1]
    assert ranges[1] < net.parameters[AMAX][1] / 2, "most values must lie outside"
    clipped = np.abs(run.parameters()["w0"] - narrow["w0"]).max()
    free = np.abs(net.gradients()["w0"]).max()
    assert 0 < clipped < free


@pytest.mark.parametrize("shape", [(128, 9), (128, 6)])
def test_fifty_steps_are_those_of_torch(shape):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed: its part is played by finite differences here")
    from torch_reference import train_with_torch

    # Few values a step: where a rectifier input is within one rounding of zero, torch and we may each tip over.
    net = Net(WATCH, shape, 7, batch=4)
    run = net.run(lr=0.02, momentum=0.9, mu=0.1)
    losses = [run(net.x, net.y) for _ in range(50)]
    theirs, parameters = train_with_torch(
        net.steps, net.parameters, net.x, net.y, lr=0.02, momentum=0.9, mu=0.1, count=50
    )
    assert losses[-1] < losses[0] / 2
    assert np.abs(np.array(losses) - theirs).max() < 1e-5
    ours = run.parameters()
    for name, array in parameters.items():
        assert np.abs(ours[name] - array).max() < 1e-5, name
