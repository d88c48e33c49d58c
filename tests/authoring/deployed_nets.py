"""Nets with every kind of layer in every place where it is computed otherwise, and parameters that tell them apart."""

import numpy as np
from integer_reference import fake_quantised

from bedside.authoring.golden import synthetic_windows
from bedside.authoring.net import Net
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
from bedside.core.bundle.quantise import quantise_parameters, real_tensors

SHAPE, OUTPUTS = (16, 2), 3

NETS = {
    "pools between convolutions": (
        Conv1d(8, 3),
        Relu(),
        MaxPool(),
        Conv1d(6, 5),
        Relu(),
        GlobalAveragePool(),
        Dense(3),
    ),
    "pool before its rectifier": (Conv1d(8, 1), MaxPool(), Relu(), Conv1d(4, 3), Flatten(), Dense(5), Relu(), Dense(3)),
    "no rectifier between": (Conv1d(8, 3), Conv1d(8, 3), Flatten(), Dense(6), Dense(3)),
    "average before a rectifier": (Conv1d(8, 3), GlobalAveragePool(), Relu(), Dense(6), Relu(), Dense(3)),
    "pool and rectifier first": (MaxPool(), Relu(), Conv1d(8, 3), Relu(), GlobalAveragePool(), Dense(3)),
    "average first": (GlobalAveragePool(), Dense(3)),
    "one dense layer": (Flatten(), Dense(3)),
    "strides": (Conv1d(8, 5, stride=2), Relu(), Conv1d(6, 3, stride=4), Relu(), Flatten(), Dense(3)),
    "strides wider than their filters": (
        Conv1d(8, 1, 2),
        Relu(),
        Conv1d(8, 3, 4),
        Conv1d(4, 1, 2),
        Flatten(),
        Dense(3),
    ),
    "strides before an average": (Conv1d(8, 7, stride=2), Relu(), GlobalAveragePool(), Dense(3)),
    "depthwise first and strided": (
        DepthwiseConv1d(3),
        DepthwiseConv1d(5, stride=2),
        Conv1d(8, 1),
        Relu(),
        DepthwiseConv1d(3, stride=2),
        Relu(),
        Flatten(),
        Dense(3),
    ),
    "depthwise before an average": (Conv1d(8, 3), Relu(), DepthwiseConv1d(5, 2), GlobalAveragePool(), Dense(3)),
    "depthwise-separable": (
        Standardise(),
        Conv1d(8, 3, stride=2),
        BatchNorm(),
        Relu(),
        DepthwiseConv1d(3),
        BatchNorm(),
        Relu(),
        Conv1d(12, 1),
        BatchNorm(),
        Relu(),
        DepthwiseConv1d(3, stride=2),
        BatchNorm(),
        Relu(),
        Conv1d(12, 1),
        BatchNorm(),
        Relu(),
        GlobalAveragePool(),
        Dense(3),
    ),
    "batch norms": (
        Conv1d(8, 3),
        BatchNorm(),
        MaxPool(),
        Relu(),
        Flatten(),
        Dense(6),
        BatchNorm(),
        Relu(),
        Dense(3),
    ),
    "group norms": (Conv1d(8, 3), GroupNorm(4), Relu(), Conv1d(6, 3), Relu(), GroupNorm(1), Flatten(), Dense(3)),
    "group norms first and behind a pool": (GroupNorm(2), Conv1d(8, 3), MaxPool(), GroupNorm(8), Flatten(), Dense(3)),
    "standardised": (Standardise(), Conv1d(8, 3), Relu(), GlobalAveragePool(), Dense(3)),
    "standardised and pooled": (Standardise(), MaxPool(), Flatten(), Dense(3)),
    "a residual": (Conv1d(8, 3), Relu(), Conv1d(8, 3), Relu(), Conv1d(8, 3), Add(4), Relu(), Flatten(), Dense(3)),
    "a residual of flat values": (Flatten(), Dense(8), Relu(), Dense(8), Relu(), Add(3), Dense(3)),
    "a residual round a pool of one channel less": (
        Conv1d(4, 3),
        Relu(),
        Conv1d(6, 3),
        MaxPool(),
        Add(3),
        Flatten(),
        Dense(3),
    ),
    "residuals of one value": (Conv1d(8, 3), Relu(), Conv1d(8, 3), Add(2), Add(3), Relu(), Flatten(), Dense(3)),
    "a residual of the standardised window": (Standardise(), Conv1d(2, 3), Relu(), Add(3), Flatten(), Dense(3)),
    "a residual network": (
        Conv1d(8, 7, stride=2),
        BatchNorm(),
        Relu(),
        Conv1d(8, 3),
        BatchNorm(),
        Relu(),
        Conv1d(8, 3),
        BatchNorm(),
        Add(6),
        Relu(),
        Conv1d(12, 3, stride=2),
        BatchNorm(),
        Relu(),
        Conv1d(12, 3),
        BatchNorm(),
        Add(6),
        Relu(),
        GlobalAveragePool(),
        Dense(3),
    ),
    "a residual network with group norms": (
        Conv1d(8, 3),
        GroupNorm(2),
        Relu(),
        Conv1d(8, 3, stride=2),
        GroupNorm(2),
        Relu(),
        Conv1d(8, 3),
        GroupNorm(2),
        Add(6),
        Relu(),
        GlobalAveragePool(),
        Dense(3),
    ),
}


class Deployed:
    """One net with parameters as training may leave them, and windows."""

    def __init__(self, layers, seed=5, qmax=63):
        self.net = Net(walk(layers, SHAPE, OUTPUTS), weight_qmax=qmax)
        self.x, _ = synthetic_windows(SHAPE, OUTPUTS, 60, seed)
        self.parameters = self.drawn(seed)

    def drawn(self, seed):
        """Other parameters of the same net."""
        generator = np.random.default_rng(seed)
        drawn = {}
        for spec in self.net.parameters:
            at = spec.name.rstrip("0123456789")
            noise = generator.normal(0, 1, spec.shape)
            spread = np.sqrt(2 / max(np.prod(spec.shape[:-1]), 1))
            drawn[spec.name] = {
                "w": noise * spread,
                "b": noise * 0.1,
                "gamma": 1 + noise * 0.7,  # some of them are negative
                "beta": noise * 0.2,
                "mean": noise * 0.1,
                "variance": np.exp(noise),
                "square": 0.5 + noise**2,
                "amax": noise,
            }[at].astype(np.float32)
        _, drawn["amax"] = fake_quantised(self.net.steps, drawn, self.x, 0)
        return drawn

    def quantised(self, parameters=None):
        return quantise_parameters(self.parameters if parameters is None else parameters, self.net.quantisation)

    def tensors(self, parameters=None):
        quantised = self.quantised(parameters)
        return quantised | real_tensors(quantised, self.net.quantisation)
