import importlib.util

import numpy as np
import pytest
from trained_net import BATCHED, RESIDUAL, SEPARABLE, STRIDED, TrainedNet

from bedside.core.bundle.layers import Conv1d, Dense, Flatten, GlobalAveragePool, MaxPool, Relu
from bedside.core.bundle.parameters import AMAX

WATCH = (
    *(Conv1d(24, 5), Relu(), MaxPool(), Conv1d(32, 5), Relu(), MaxPool()),
    *(Conv1d(48, 3), Relu(), GlobalAveragePool(), Dense(7)),
)
MLP = (Flatten(), Dense(24), Relu(), Dense(3))
SGD = {"optimiser": "sgd", "lr": 0.02, "momentum": 0.9, "mu": 0.1, "clip": 0.0}
ADAM = {"optimiser": "adam", "lr": 0.002, "momentum": 0.9, "mu": 0.1, "clip": 0.0}
CASES = {
    # Few values a step: where a rectifier input is within one rounding of zero, torch and we may each tip over.
    "HAR": (WATCH, SGD, {"shape": (128, 9), "outputs": 7, "batch": 4}),
    "watch": (WATCH, SGD, {"shape": (128, 6), "outputs": 7, "batch": 4}),
    "Adam": (MLP, ADAM, {}),
    "Adam through convolutions": (SEPARABLE, ADAM, {}),
    "clipped": (STRIDED, SGD | {"clip": 0.05}, {}),
    "clipped Adam": (MLP, ADAM | {"clip": 0.05}, {}),
    "class weights": (STRIDED, SGD, {"class_weights": (0.5, 3.0, 1.0)}),
    "labels": (MLP, SGD, {"task": "multilabel"}),
    "weighted labels": (STRIDED, SGD, {"task": "multilabel", "class_weights": (0.5, 3.0, 1.0)}),
    "values": (STRIDED, SGD, {"task": "regression"}),
    "values by Adam": (MLP, ADAM, {"task": "regression"}),
    "depthwise": (SEPARABLE, SGD, {}),
    "residual and group norms": (RESIDUAL, SGD, {}),
    "residual and group norms by Adam": (RESIDUAL, ADAM, {}),
    "batch norms": (BATCHED, SGD | {"mu": 0.0}, {}),
}


@pytest.mark.parametrize(("layers", "way", "options"), CASES.values(), ids=CASES)
def test_fifty_steps_are_those_of_torch(layers, way, options):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed: its part is played by finite differences here")
    from torch_reference import TorchNet

    net = TrainedNet(layers, optimiser=way["optimiser"], **options)
    run = net.run(**{name: value for name, value in way.items() if name != "optimiser"})
    losses = [run(net.x, net.y) for _ in range(50)]
    peer = TorchNet(net.net, net.parameters, net.trained(), net.x, net.y)
    theirs, parameters = peer.train(count=50, **way)
    assert losses[-1] < losses[0] * 0.95
    assert np.abs(np.array(losses) - theirs).max() < 1e-5
    ours = run.parameters()
    for name, array in parameters.items():
        if name != AMAX:
            assert np.abs(ours[name] - array).max() < 1e-5, name
