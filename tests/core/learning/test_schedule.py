import pytest

from bedside.core.learning.schedule import half_cosine


def test_a_rate_falls_along_half_a_cosine_from_the_first_round_to_the_last():
    rates = [half_cosine(0.1, 0.02, number, 5) for number in range(1, 6)]
    assert rates == pytest.approx([0.1, 0.06 + 0.04 * 2**-0.5, 0.06, 0.06 - 0.04 * 2**-0.5, 0.02])


def test_a_run_of_one_round_has_its_first_rate():
    assert half_cosine(0.1, 0.02, 1, 1) == 0.1
