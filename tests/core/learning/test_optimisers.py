"""Server optimisers, bit for bit against a scalar float32 reference."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.errors import MalformedError, ProtocolError
from bedside.core.learning.optimisers import FedAdam, FedAvg, FedYogi, FloatArray, ServerOptimiser, server_optimiser

F = np.float32
sane_floats = st.floats(-100, 100, width=32)
vectors = st.lists(st.tuples(sane_floats, sane_floats), min_size=1, max_size=20)


def as_tensors(pairs: list[tuple[float, float]]) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    table = np.array(pairs, F)
    return {"w": table[:, 0].copy()}, {"w": table[:, 1].copy()}


@settings(deadline=None, max_examples=50)
@given(vectors, st.integers(1, 3_000_000))
def test_fedavg_has_the_bits_of_one_multiplication_and_one_addition(
    pairs: list[tuple[float, float]], learning_rate_e6: int
) -> None:
    parameters, delta = as_tensors(pairs)
    stepped = FedAvg(learning_rate_e6).step(parameters, delta, {})
    expected = [F(F(old) + F(F(move) * F(learning_rate_e6 / 1e6))) for old, move in pairs]
    assert stepped.parameters["w"].tobytes() == np.array(expected, F).tobytes()
    assert stepped.state == {}


def test_fedavg_at_rate_one_adds_the_mean_delta() -> None:
    parameters, delta = {"w": np.array([[1, 2]], F)}, {"w": np.array([[0.5, -2]], F)}
    assert FedAvg().step(parameters, delta, {}).parameters["w"].tolist() == [[1.5, 0.0]]
    assert parameters["w"].tolist() == [[1.0, 2.0]]


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from([FedAdam, FedYogi]),
    vectors,
    st.integers(0, 999_999),
    st.integers(0, 999_999),
    st.integers(1, 100_000_000),
)
def test_adaptive_servers_have_the_bits_of_a_scalar_float32_reference(
    kind: type[FedAdam], pairs: list[tuple[float, float]], beta1_e6: int, beta2_e6: int, tau_e9: int
) -> None:
    optimiser = kind(30_000, beta1_e6, beta2_e6, tau_e9)
    parameters, delta = as_tensors(pairs)
    state = optimiser.initial_state(parameters)
    beta1, rest1 = F(beta1_e6 / 1e6), F((1_000_000 - beta1_e6) / 1e6)
    beta2, rest2 = F(beta2_e6 / 1e6), F((1_000_000 - beta2_e6) / 1e6)
    tau, rate = F(tau_e9 / 1e9), F(0.03)
    reference = [(F(old), F(0), F(tau * tau)) for old, _ in pairs]
    for _ in range(3):
        parameters, state = optimiser.step(parameters, delta, state)
        moved = []
        for (old, first, second), (_, raw) in zip(reference, pairs, strict=True):
            move = F(raw)
            first = F(F(first * beta1) + F(move * rest1))
            square = F(move * move)
            adam = F(F(second * beta2) + F(square * rest2))
            yogi = F(second - F(F(square * rest2) * np.sign(F(second - square))))
            second = yogi if kind is FedYogi else adam
            moved.append((F(old + F(F(first * rate) / F(F(np.sqrt(second)) + tau))), first, second))
        reference = moved
    for place, array in enumerate([parameters["w"], state["m/w"], state["v/w"]]):
        assert array.dtype == F
        assert array.tobytes() == np.array([row[place] for row in reference], F).tobytes()


def test_fedadam_finds_the_minimum_of_badly_scaled_bowls() -> None:
    optimiser = FedAdam(100_000, tau_e9=1_000_000)
    curvature = np.array([100.0, 0.01], F)
    parameters = {"w": np.array([3.0, -3.0], F)}
    state = optimiser.initial_state(parameters)
    for _ in range(300):
        parameters, state = optimiser.step(parameters, {"w": -curvature * parameters["w"] * F(0.01)}, state)
    assert np.abs(parameters["w"]).max() < 0.5


def test_a_long_step_does_not_depend_on_where_it_is_cut() -> None:
    rng = np.random.default_rng(0)
    whole, delta = rng.standard_normal(10_007).astype(F), rng.standard_normal(10_007).astype(F)
    optimiser = FedAdam()
    state = optimiser.initial_state({"w": whole})
    at_once = optimiser.step({"w": whole}, {"w": delta}, state).parameters["w"]
    parts = []
    for cut in (slice(0, 3), slice(3, 5_000), slice(5_000, None)):
        part_state = {name: array[cut] for name, array in state.items()}
        parts.append(optimiser.step({"w": whole[cut]}, {"w": delta[cut]}, part_state).parameters["w"])
    assert np.concatenate(parts).tobytes() == at_once.tobytes()


def test_the_bits_of_a_checkpoint_are_pinned() -> None:
    old = (np.arange(4_099, dtype=F) - F(2_000)) / F(777)
    delta = (np.arange(4_099, dtype=np.uint32) * np.uint32(2_654_435_761) >> 16).astype(F) / F(65_536) - F(0.5)
    parameters: dict[str, FloatArray] = {"w": old}
    optimiser = FedAdam()
    state = optimiser.initial_state(parameters)
    for _ in range(5):
        parameters, state = optimiser.step(parameters, {"w": delta}, state)
    joined = b"".join(array.astype("<f4").tobytes() for array in (parameters["w"], state["m/w"], state["v/w"]))
    assert hashlib.blake2b(joined, digest_size=16).hexdigest() == "8da6ddb33c484057db1afcf9a6af4b41"


@pytest.mark.parametrize("optimiser", [FedAvg(), FedAdam()])
def test_arrays_that_numpy_would_broadcast_or_widen_are_refused(optimiser: ServerOptimiser) -> None:
    parameters = {"w": np.zeros((2, 3), F)}
    state = optimiser.initial_state(parameters)
    wrong: list[dict[str, FloatArray]] = [
        {},
        {"w": np.zeros(3, F)},
        {"w": np.zeros((2, 3), np.float64)},  # type: ignore[dict-item]  # that is the point
        {"w": np.zeros((2, 3), F), "stray": np.zeros(1, F)},
    ]
    for delta in wrong:
        with pytest.raises(ProtocolError) as caught:
            optimiser.step(parameters, delta, state)
        assert caught.value.code == "tensor-mismatch"
    with pytest.raises(ProtocolError):
        optimiser.step(parameters, parameters, {**state, "m/stray": np.zeros(1, F)})
    with pytest.raises(ProtocolError):
        optimiser.step({"w": np.zeros(1)}, {"w": np.zeros(1, F)}, state)  # type: ignore[dict-item]  # float64


def test_a_plan_names_its_optimiser_by_number() -> None:
    assert server_optimiser(1, learning_rate_e6=500_000) == FedAvg(500_000)
    named = server_optimiser(2, learning_rate_e6=10, beta1_e6=1, beta2_e6=2, tau_e9=3)
    assert named == FedAdam(10, 1, 2, 3)
    other = server_optimiser(3, learning_rate_e6=10, beta1_e6=1, beta2_e6=2, tau_e9=3)
    assert other == FedYogi(10, 1, 2, 3) != named


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        (0, (1, 0, 0, 1)),
        (4, (1, 0, 0, 1)),
        (3, (1, 1_000_000, 0, 1)),
        (1, (0, 0, 0, 0)),
        (1, (10**10, 0, 0, 0)),
        (2, (1, 1_000_000, 0, 1)),
        (2, (1, 0, 1_000_000, 1)),
        (2, (1, 0, 0, 0)),
        (2, (1, -1, 0, 1)),
    ],
)
def test_hyper_parameters_that_make_no_step_are_malformed(kind: int, numbers: tuple[int, int, int, int]) -> None:
    rate, beta1, beta2, tau = numbers
    with pytest.raises(MalformedError) as caught:
        server_optimiser(kind, learning_rate_e6=rate, beta1_e6=beta1, beta2_e6=beta2, tau_e9=tau)
    assert caught.value.code == "bad-optimiser"
