"""From float parameters to integers: what must not change, what is folded, and what a diverged round may give."""

import numpy as np
import pytest

from bedside.core.bundle.layers import (
    BatchNorm,
    Conv1d,
    Dense,
    DepthwiseConv1d,
    Flatten,
    GlobalAveragePool,
    GroupNorm,
    Relu,
    Standardise,
    walk,
)
from bedside.core.bundle.manifest import quantisation_of
from bedside.core.bundle.parameters import layer_tensors
from bedside.core.bundle.quantise import quantise_parameters, real_tensors, weight_scale

LAYERS = (
    Standardise(),
    DepthwiseConv1d(3),
    BatchNorm(),
    Conv1d(4, 3),
    BatchNorm(),
    Relu(),
    GroupNorm(2),
    GlobalAveragePool(),
    Dense(5),
    BatchNorm(),
    Dense(3),
)
STEPS = walk(LAYERS, (16, 2), 3)
QUANTISATION = quantisation_of(STEPS, 63)


def drawn(seed=1):
    generator = np.random.default_rng(seed)
    parameters = {s.name: generator.normal(0, 1, s.shape).astype(np.float32) for s in layer_tensors(STEPS)}
    positive = ("amax", "variance", "square")
    return {n: np.abs(a) + np.float32(0.1) if n.startswith(positive) else a for n, a in parameters.items()}


def folded(norm, parameters):
    gamma, beta, mean, variance = (
        parameters[f"{n}{norm}"].astype(float) for n in ("gamma", "beta", "mean", "variance")
    )
    factor = gamma / np.sqrt(variance + 1e-5)
    return factor, lambda bias: (bias - mean) * factor + beta


@pytest.mark.parametrize(("order", "norm"), [(0, 1), (1, 2), (2, 4)])
def test_a_batch_norm_is_folded_and_leaves_the_magnitudes_of_the_integers_as_they_were(order, norm):
    parameters = drawn()
    plain = {**parameters, f"gamma{norm}": np.sqrt(parameters[f"variance{norm}"] + np.float32(1e-5))}
    plain |= {f"beta{norm}": parameters[f"mean{norm}"]}
    with_norm, without = (quantise_parameters(p, QUANTISATION) for p in (parameters, plain))
    factor, shifted = folded(norm, parameters)
    assert (factor < 0).any() or norm != 2, "a negative gamma must be among them"
    assert np.array_equal(np.abs(with_norm[f"w{order}.q"]), np.abs(without[f"w{order}.q"]))
    axis = (slice(None),) + (np.newaxis,) * (with_norm[f"w{order}.q"].ndim - 1) if order < 2 else slice(None)
    wanted = without[f"w{order}.q"] * np.sign(factor)[axis]
    assert np.array_equal(with_norm[f"w{order}.q"], wanted)
    assert with_norm[f"w{order}.scale"] == pytest.approx(without[f"w{order}.scale"] * np.abs(factor), rel=1e-6)
    real = with_norm[f"b{order}.q"] * with_norm[f"b{order}.scale"].astype(float)
    assert real == pytest.approx(shifted(parameters[f"b{order}"]), abs=float(with_norm[f"b{order}.scale"].max()))


def test_a_channel_whose_gamma_is_zero_gives_beta():
    parameters = drawn()
    parameters["gamma2"][1] = 0
    quantised = quantise_parameters(parameters, QUANTISATION)
    assert not quantised["w1.q"][1].any()
    assert quantised["b1.q"][1] * quantised["b1.scale"][1] == pytest.approx(parameters["beta2"][1], rel=1e-5)


def test_a_depthwise_weight_has_a_scale_and_a_row_per_channel_in_the_order_of_onnx():
    parameters = drawn() | {"gamma1": np.ones(2, np.float32), "variance1": np.full(2, 1 - 1e-5, np.float32)}
    parameters["w0"] = np.array([[1, 10], [2, 20], [-3, 30]], np.float32)
    quantised = quantise_parameters(parameters, QUANTISATION)
    assert quantised["w0.q"].tolist() == [[[21, 42, -63]], [[21, 42, 63]]]
    real = real_tensors(quantised, QUANTISATION)["w0.real"]
    assert np.allclose(real[:, 0].T, parameters["w0"], rtol=1e-5)


@pytest.mark.parametrize("bias", [1e4, 3e38])
def test_a_bias_that_does_not_fit_beside_its_weights_makes_them_coarser(bias):
    steps = walk((Flatten(), Dense(3)), (4, 1), 3)
    parameters = {
        "w0": np.full((4, 3), 1e-6, np.float32),
        "b0": np.array([bias, -bias, 1e-8], np.float32),
        "amax": np.array([1e-6], np.float32),
    }
    quantised = quantise_parameters(parameters, quantisation_of(steps, 63))
    whole = quantised["b0.q"].astype(np.int64)
    assert np.abs(whole).max() <= 2**30
    fits = bias < 1e30
    assert fits == (whole * quantised["b0.scale"].astype(float) == pytest.approx(parameters["b0"], rel=1e-5))
    assert quantised["w0.q"][0].tolist() == [0, 0, 63]


def test_what_a_diverged_round_may_give_becomes_finite_numbers_without_a_warning():
    generator = np.random.default_rng(3)
    for draw in range(200):
        parameters = {}
        for name, array in drawn(draw).items():
            with np.errstate(over="ignore"):
                factors = 10.0 ** generator.uniform(-38, 38, array.shape if draw % 2 else ())
                moved = (array * factors * generator.choice([-1, 0, 1, 1])).astype(np.float32)
            parameters[name] = np.nan_to_num(moved)
        quantised = quantise_parameters(parameters, QUANTISATION)
        for array in (quantised | real_tensors(quantised, QUANTISATION)).values():
            assert np.isfinite(array).all()
        for layer in QUANTISATION.layers:
            assert np.abs(quantised[f"{layer.weight}.q"].astype(int)).max() <= 63
            assert quantised[f"{layer.weight}.scale"].min() >= np.float32(1e-8)


def test_a_weight_of_zeros_has_a_scale():
    assert weight_scale(np.zeros((3, 2), np.float32), 63) == pytest.approx(1e-8)
