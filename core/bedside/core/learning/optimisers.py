"""Server optimisers: one step from the mean delta to the next checkpoint, the same bits on every machine.

A trustee or auditor recomputes a checkpoint from stored bytes, so the order of operations is part of the protocol:
every line below is one IEEE 754 float32 operation per element (add, subtract, multiply, divide, square root: all
correctly rounded), never a reduction, never BLAS. Hyper-parameters are scaled integers, as in the signed plan.

Source: McMahan et al., AISTATS 2017 (FedAvg); Reddi et al., Adaptive Federated Optimization, ICLR 2021, algorithm 2
(FedAdam and FedYogi; no bias correction, v starts at tau^2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bedside.core.errors import MalformedError, ProtocolError

FloatArray = npt.NDArray[np.float32]
Tensors = Mapping[str, FloatArray]

FIRST_MOMENT: Final = "m/"
SECOND_MOMENT: Final = "v/"
"""Prefixes of a parameter's name in the state of FedAdam."""
_LARGEST_RATE_E6: Final = 1_000_000_000
"""A learning rate of 1,000: anything above is a slip of units."""


class OptimiserKind(IntEnum):
    """Numbered as on the wire."""

    FEDAVG = 1
    FEDADAM = 2
    FEDYOGI = 3


class Stepped(NamedTuple):
    """New arrays; the ones given to `step` are left alone."""

    parameters: dict[str, FloatArray]
    state: dict[str, FloatArray]


class ServerOptimiser(Protocol):
    """One step of the coordinator."""

    def initial_state(self, parameters: Tensors) -> dict[str, FloatArray]:
        """The state before the first round: float32 arrays by name, ready to be stored as tensors."""

    def step(self, parameters: Tensors, mean_delta: Tensors, state: Tensors) -> Stepped:
        """Move the parameters along the mean delta.

        Args:
            parameters: float32 arrays by name.
            mean_delta: new minus old, averaged over devices; the same names and shapes.
            state: what `initial_state` or the step before returned.

        Raises:
            ProtocolError: `tensor-mismatch`.
        """


@dataclass(frozen=True, slots=True)
class FedAvg:
    """x <- x + lr delta."""

    learning_rate_e6: int = 1_000_000

    def __post_init__(self) -> None:
        _check_range("learning rate", self.learning_rate_e6, 1, _LARGEST_RATE_E6)

    def initial_state(self, parameters: Tensors) -> dict[str, FloatArray]:
        """FedAvg remembers nothing."""
        del parameters
        return {}

    def step(self, parameters: Tensors, mean_delta: Tensors, state: Tensors) -> Stepped:
        """See `ServerOptimiser.step`."""
        _check_alike(parameters, mean_delta, "the mean delta")
        _check_alike({}, state, "the optimiser's state")
        rate = _scaled(self.learning_rate_e6, 1_000_000)
        return Stepped({name: old + mean_delta[name] * rate for name, old in parameters.items()}, {})


@dataclass(frozen=True, slots=True)
class FedAdam:
    """m <- b1 m + (1 - b1) delta;  v <- b2 v + (1 - b2) delta^2;  x <- x + lr m / (sqrt(v) + tau)."""

    learning_rate_e6: int = 10_000
    beta1_e6: int = 900_000
    beta2_e6: int = 990_000
    tau_e9: int = 1_000_000

    def __post_init__(self) -> None:
        _check_range("learning rate", self.learning_rate_e6, 1, _LARGEST_RATE_E6)
        _check_range("beta1", self.beta1_e6, 0, 999_999)
        _check_range("beta2", self.beta2_e6, 0, 999_999)
        _check_range("tau", self.tau_e9, 1, 1_000_000_000)

    def initial_state(self, parameters: Tensors) -> dict[str, FloatArray]:
        """First moments of zero, second moments of tau squared, two arrays for each parameter."""
        tau = _scaled(self.tau_e9, 1_000_000_000)
        state: dict[str, FloatArray] = {}
        for name, old in parameters.items():
            state[FIRST_MOMENT + name] = np.zeros_like(old)
            state[SECOND_MOMENT + name] = np.full_like(old, tau * tau)
        return state

    def step(self, parameters: Tensors, mean_delta: Tensors, state: Tensors) -> Stepped:
        """See `ServerOptimiser.step`."""
        _check_alike(parameters, mean_delta, "the mean delta")
        expected = {prefix + name: old for name, old in parameters.items() for prefix in (FIRST_MOMENT, SECOND_MOMENT)}
        _check_alike(expected, state, "the optimiser's state")
        rate = _scaled(self.learning_rate_e6, 1_000_000)
        beta1, rest1 = _scaled(self.beta1_e6, 1_000_000), _scaled(1_000_000 - self.beta1_e6, 1_000_000)
        beta2, rest2 = _scaled(self.beta2_e6, 1_000_000), _scaled(1_000_000 - self.beta2_e6, 1_000_000)
        tau = _scaled(self.tau_e9, 1_000_000_000)
        stepped = Stepped({}, {})
        for name, old in parameters.items():
            delta = mean_delta[name]
            first = state[FIRST_MOMENT + name] * beta1 + delta * rest1
            second = self._second(state[SECOND_MOMENT + name], delta * delta, beta2, rest2)
            root: FloatArray = np.sqrt(second) + tau
            stepped.parameters[name] = old + np.divide(first * rate, root, dtype=np.float32)
            stepped.state[FIRST_MOMENT + name] = first
            stepped.state[SECOND_MOMENT + name] = second
        return stepped

    def _second(self, old: FloatArray, square: FloatArray, beta2: np.float32, rest2: np.float32) -> FloatArray:
        return old * beta2 + square * rest2


class FedYogi(FedAdam):
    """As FedAdam, but v <- v - (1 - b2) delta^2 sign(v - delta^2): v moves by no more than the newest delta squared."""

    __slots__ = ()

    def _second(self, old: FloatArray, square: FloatArray, beta2: np.float32, rest2: np.float32) -> FloatArray:
        del beta2
        moved: FloatArray = old - square * rest2 * np.sign(old - square)
        return moved


def server_optimiser(
    kind: int, *, learning_rate_e6: int, beta1_e6: int = 0, beta2_e6: int = 0, tau_e9: int = 0
) -> ServerOptimiser:
    """The optimiser that a plan names by the number on the wire.

    Raises:
        MalformedError: `bad-optimiser` for an unknown kind or a hyper-parameter out of range.
    """
    if kind == OptimiserKind.FEDAVG:
        return FedAvg(learning_rate_e6)
    if kind == OptimiserKind.FEDADAM:
        return FedAdam(learning_rate_e6, beta1_e6, beta2_e6, tau_e9)
    if kind == OptimiserKind.FEDYOGI:
        return FedYogi(learning_rate_e6, beta1_e6, beta2_e6, tau_e9)
    raise MalformedError("bad-optimiser", f"server optimiser {kind} is unknown")


def _scaled(value: int, scale: int) -> np.float32:
    """An integer hyper-parameter as the float32 next to its quotient (one float64 division, one rounding)."""
    return np.float32(value / scale)


def _check_range(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise MalformedError("bad-optimiser", f"{what} {value} is not within {low} and {high} (scaled integer)")


def _check_alike(expected: Tensors, given: Tensors, what: str) -> None:
    """Same names, shapes and float32: numpy would broadcast or widen anything else without a word."""
    for name in sorted({*expected, *given}):
        mine, other = expected.get(name), given.get(name)
        if mine is None or other is None or mine.shape != other.shape or other.dtype != np.float32:
            raise ProtocolError("tensor-mismatch", f"{what} does not match the parameters at {name!r}")
        if mine.dtype != np.float32:
            raise ProtocolError("tensor-mismatch", f"parameter {name!r} is {mine.dtype}, not float32")
