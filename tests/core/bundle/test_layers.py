"""The layer list: what fits behind what, and what follows from it."""

import pytest

from bedside.core.bundle.layers import (
    Add,
    BatchNorm,
    Conv1d,
    Dense,
    DepthwiseConv1d,
    Flatten,
    GlobalAveragePool,
    GroupNorm,
    Kernel,
    MaxPool,
    Relu,
    Standardise,
    walk,
)
from bedside.core.errors import MalformedError

HEAD = (GlobalAveragePool(), Dense(3))


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ((Conv1d(4, 3, stride=3), *HEAD), "stride of 1 to 16 that divides"),
        ((DepthwiseConv1d(4), *HEAD), "odd number of taps"),
        ((Conv1d(4, 3), Relu(), Standardise(), *HEAD), "only be the first"),
        ((Conv1d(4, 3), Relu(), BatchNorm(), *HEAD), "right behind a convolution"),
        ((Conv1d(4, 3), Conv1d(8, 3), Add(2), BatchNorm(), *HEAD), "right behind a convolution"),
        ((BatchNorm(), *HEAD), "right behind a convolution"),
        ((Conv1d(4, 3), Add(1), *HEAD), "reach back"),
        ((Conv1d(4, 3), Add(3), *HEAD), "reach back"),
        ((Conv1d(4, 3), BatchNorm(), Relu(), Conv1d(4, 3), Add(4), *HEAD), "a batch norm is folded into"),
        ((Conv1d(4, 3), Flatten(), Dense(4), Add(3), Dense(3)), "cannot bring"),
        ((Flatten(), Dense(4), Dense(5), Add(2), Dense(3)), "cannot bring"),
        ((Conv1d(4, 3), GroupNorm(3), *HEAD), "divides its 4 channels"),
        ((Conv1d(4, 3), GroupNorm(0), *HEAD), "divides its 4 channels"),
        ((Flatten(), GroupNorm(2), Dense(3)), "needs a time axis"),
        ((Flatten(), DepthwiseConv1d(3), Dense(3)), "needs a time axis"),
        ((), "1 to 256 layers"),
        ((Conv1d(4, 3), Relu()), "last layer must be dense"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused_and_says_why(layers, why):
    with pytest.raises(MalformedError, match=why) as caught:
        walk(layers, (16, 2), 3)
    assert caught.value.code == "bad-layers"


def test_a_residual_of_another_form_comes_through_a_convolution_of_one_tap():
    steps = walk((Conv1d(4, 3), Relu(), Conv1d(6, 3, 2), Relu(), Conv1d(6, 3, 2), Add(4), Relu(), *HEAD), (16, 2), 3)
    add = steps[5]
    assert (add.skip, add.kernel, add.order, add.signed) == (1, Kernel("conv", 1, 4, 4, 6), 3, False)
    assert [step.order for step in steps] == [0, -1, 1, -1, 2, 3, -1, -1, 4]


def test_a_residual_of_the_same_form_owns_nothing():
    steps = walk((Conv1d(4, 3), Relu(), Conv1d(4, 3), Relu(), Add(3), *HEAD), (16, 2), 3)
    assert (steps[4].kernel, steps[4].order, steps[4].skip) == (None, -1, 1)
    assert not steps[-1].signed  # a sum of two rectified values


def test_a_sum_with_a_signed_value_is_signed():
    steps = walk((Conv1d(4, 3), Relu(), Conv1d(4, 3), Add(2), MaxPool(), *HEAD), (16, 2), 3)
    assert steps[-1].signed
