"""Level Q2: weights that live as int8."""

import numpy as np
import pytest
from trained_net import POOLED, SEPARABLE, TrainedNet

from bedside.core.bundle.training import NOISE
from bedside.ondevice.training.grid import GRID_MAX, Noise, from_grid, grid_scale, to_grid

LEARN = {"lr": 0.05, "momentum": 0.9}


def weights(arrays):
    return {name: array for name, array in arrays.items() if name.startswith("w")}


def test_weights_are_a_quarter_of_their_bytes_and_on_a_grid_that_stays():
    net = TrainedNet(SEPARABLE, level="Q2")
    run = net.run(**LEARN)
    for _ in range(10):
        run(net.x, net.y)
    kept, real = weights(run.state()), weights(run.parameters())
    assert {array.dtype for array in kept.values()} == {np.dtype(np.int8)}
    assert sum(array.nbytes for array in kept.values()) * 4 == sum(net.parameters[name].nbytes for name in kept)
    for name, whole in kept.items():
        assert real[name].tobytes() == from_grid(whole, grid_scale(net.parameters[name])).tobytes()
        assert (whole != to_grid(net.parameters[name], grid_scale(net.parameters[name]), Noise(0))).any()


def test_no_float_weight_goes_in_or_out():
    net = TrainedNet(SEPARABLE, level="Q2")
    session = net.run()._session
    puts = (*session.get_inputs(), *session.get_outputs())
    floats = {put.name.removeprefix("start.").removesuffix(".next") for put in puts if put.type == "tensor(float)"}
    assert floats.isdisjoint(weights(net.parameters))


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_it_learns_as_float_training_does(optimiser):
    after = {}
    rates = LEARN if optimiser == "sgd" else {"lr": 0.01, "momentum": 0.9}
    for level in ("Q0", "Q2"):
        net = TrainedNet(POOLED, level=level, optimiser=optimiser, batch=48)
        run = net.run(**rates)
        losses = [run(net.x, net.y) for _ in range(150)]
        after[level] = np.mean(losses[-10:])
    assert losses[0] > 0.8
    assert after["Q2"] < max(2 * after["Q0"], 0.1)


def test_a_move_far_below_a_step_of_the_grid_is_made_on_average():
    net = TrainedNet(POOLED, level="Q2")
    name = f"w{net.steps[-1].order}"
    scale, gradient = grid_scale(net.parameters[name]), TrainedNet(POOLED, level="Q1").gradients()[name]
    lr = 0.02 * float((scale / np.abs(gradient).max(axis=0)).min())
    run = net.run(lr=lr)
    start, moves = run.state(), []
    before = run.parameters()[name]
    for other_noise in range(400):
        run.restore(start | {NOISE: np.array(1_000 * other_noise)})
        run(net.x, net.y)
        moves.append(before - run.parameters()[name])
    assert np.isclose(np.abs(np.stack(moves)).max(), scale.max(), rtol=1e-3), "single moves are whole steps"
    mean = float((np.mean(moves, axis=0) * np.sign(gradient)).sum())
    assert mean == pytest.approx(lr * np.abs(gradient).sum(), rel=0.25)


def test_one_seed_gives_one_training_and_another_seed_another():
    net = TrainedNet(POOLED, level="Q2")

    def train(seed):
        run = net.run(noise_seed=seed, **LEARN)
        for _ in range(5):
            run(net.x, net.y)
        return b"".join(array.tobytes() for array in run.parameters().values())

    assert train(1) == train(1) != train(2)


def test_the_noise_is_the_same_on_every_machine():
    noise = Noise(7)
    assert noise.draw(5).tolist() == [19083, 61925, 16809, 40966, 27285]
    assert noise.draw(2).tolist() == [63842, 37898]


def test_a_weight_that_nothing_moves_stays_to_the_bit():
    net = TrainedNet(POOLED, level="Q2")
    run = net.run(lr=0.0)
    before = run.state()
    for _ in range(5):
        run(net.x, net.y)
    after = run.state()
    assert all(before[name].tobytes() == after[name].tobytes() for name in weights(before))


def test_weights_stop_at_the_edge_of_their_grid():
    net = TrainedNet(POOLED, level="Q2")
    run = net.run(lr=50.0)
    for _ in range(3):
        run(net.x, net.y)
    assert max(np.abs(array.astype(int)).max() for array in weights(run.state()).values()) == GRID_MAX


def test_a_grid_reaches_twice_as_far_as_its_channel_and_is_never_without_width():
    weight = np.array([[1.0, 0.001, 0.0], [-0.5, 0.002, 0.0]], np.float32)
    assert grid_scale(weight) * GRID_MAX == pytest.approx([2.0, 2 / 16, 2 / 16])
    assert (grid_scale(np.zeros((2, 3), np.float32)) > 0).all()


def test_the_start_is_rounded_to_either_side_so_that_devices_agree_on_average():
    weight, scale = np.full((1, 1), 0.3, np.float32), np.ones(1, np.float32)
    drawn = np.array([to_grid(weight, scale, Noise(seed))[0, 0] for seed in range(2_000)])
    assert set(drawn) == {0, 1}
    assert drawn.mean() == pytest.approx(0.3, abs=0.05)
