"""A net with a training graph, parameters and a batch, for the tests of what such a graph computes."""

import numpy as np

from bedside.authoring.golden import synthetic_batch
from bedside.authoring.initialise import initial_parameters
from bedside.authoring.net import Net
from bedside.authoring.training_graph import build_training_graph
from bedside.core.bundle.layers import (
    Add,
    BatchNorm,
    Conv1d,
    Dense,
    DepthwiseConv1d,
    Flatten,
    GlobalAveragePool,
    GroupNorm,
    MaxPool,
    Relu,
    Standardise,
    walk,
)
from bedside.core.bundle.training import TrainingGraph, optimiser_tensors, suffix_tensors
from bedside.ondevice.training.step import Rates, TrainingStep

QMAX = 63
SHAPE = (16, 2)
POOLED = (Conv1d(4, 3), Relu(), MaxPool(), Conv1d(3, 5), Relu(), GlobalAveragePool(), Dense(3))
STRIDED = (Conv1d(4, 5, 2), Relu(), Conv1d(3, 3, 4), Relu(), Flatten(), Dense(3))
SEPARABLE = (
    *(Conv1d(4, 3), Relu(), DepthwiseConv1d(3), Relu(), Conv1d(4, 1), Relu()),
    *(DepthwiseConv1d(5, 2), Relu(), GlobalAveragePool(), Dense(3)),
)
RESIDUAL = (
    *(Conv1d(4, 3), GroupNorm(2), Relu(), Conv1d(4, 3), GroupNorm(2), Add(3), Relu()),
    *(Conv1d(6, 3, 2), GroupNorm(1), Relu(), Conv1d(6, 3), Add(4), Relu(), GlobalAveragePool(), Dense(3)),
)
BATCHED = (
    *(Standardise(), Conv1d(4, 3), BatchNorm(), Relu(), DepthwiseConv1d(3, 2), BatchNorm(), Relu()),
    *(Flatten(), Dense(5), BatchNorm(), Relu(), Dense(3)),
)
NETS = {
    "linear": (Flatten(), Dense(3)),
    "one tap, two dense": (Conv1d(3, 1), MaxPool(), Relu(), Flatten(), Dense(5), Relu(), Dense(3)),
    "pooled": POOLED,
    "strided": STRIDED,
    "a stride beyond the taps": (Conv1d(3, 1, 4), Relu(), DepthwiseConv1d(1, 2), Relu(), Flatten(), Dense(3)),
    "separable": SEPARABLE,
    "residual": RESIDUAL,
    "a group for each channel": (Conv1d(4, 3), GroupNorm(4), Relu(), GlobalAveragePool(), Dense(3)),
    "batched": BATCHED,
}


class TrainedNet:
    """One net in one way of training."""

    def __init__(
        self, layers, *, shape=SHAPE, outputs=3, level="Q0", optimiser="sgd", first=0, batch=6, seed=5, **loss
    ):
        self.net = Net(walk(layers, shape, outputs), weight_qmax=QMAX, **loss)
        self.steps, self.first = self.net.steps, first
        kind = TrainingGraph(level, "all" if first == 0 else "head", optimiser)
        self.changed = suffix_tensors(self.steps, first)
        self.optimiser = optimiser_tensors(kind, self.changed)
        self.x, self.y = synthetic_batch(self.net, batch, seed)
        self.parameters = self.unlike(initial_parameters(self.net, seed, self.x, self.y), seed)
        self.graph = build_training_graph(self.net, kind, first)

    @staticmethod
    def unlike(parameters, seed):
        """Norms that begin with ones and zeros would hide a factor or a term that is left out."""
        generator = np.random.default_rng(seed)
        spread = {"gamma": 0.3, "beta": 0.3, "mean": 0.2, "square": 0.3, "variance": 0.3, "b": 0.1}
        spread["w"] = 0.0 if any(array.any() for name, array in parameters.items() if name[0] == "w") else 0.3
        moved = {}
        for name, array in parameters.items():
            wide = spread.get(name.rstrip("0123456789"), 0.0)
            moved[name] = (array + wide * generator.uniform(0, 1, array.shape)).astype(np.float32)
        return moved

    def run(self, *, parameters=None, noise_seed=0, lr=1.0, momentum=0.0, mu=0.0, clip=0.0):
        rates = Rates(lr, momentum, mu, clip)
        return TrainingStep(self.graph, parameters or self.parameters, self.optimiser, rates, noise_seed)

    def trained(self):
        """Names of what a gradient changes."""
        return [spec.name for spec in self.changed if spec.trained]

    def gradients(self, parameters=None):
        """What one step of plain SGD with rate one takes away."""
        run = self.run(parameters=parameters)
        run(self.x, self.y)
        before, after = parameters or self.parameters, run.parameters()
        return {name: before[name] - after[name] for name in self.trained()}
