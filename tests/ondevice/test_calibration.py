import numpy as np
import pytest

from bedside.ondevice.calibration import calibration_error, fit_temperature
from bedside.ondevice.heads import COLDEST, HOTTEST, Head

RANDOM = np.random.default_rng(5)


def classes(sharper: float, count: int = 4_000):
    """Logits that are so much sharper than the probabilities from which the classes are drawn."""
    honest = RANDOM.normal(0, 1.5, (count, 3))
    odds = np.exp(honest)
    y = (odds.cumsum(axis=1) / odds.sum(axis=1, keepdims=True) < RANDOM.random((count, 1))).sum(axis=1)
    return (honest * sharper).astype(np.float32), y.astype(np.int64)


def labels(sharper: float, count: int = 4_000):
    honest = RANDOM.normal(0, 1.5, (count, 2))
    y = (RANDOM.random((count, 2)) < 1 / (1 + np.exp(-honest))).astype(np.float32)
    return (honest * sharper).astype(np.float32), y


@pytest.mark.parametrize(("task", "drawn"), [("classification", classes), ("multilabel", labels)])
@pytest.mark.parametrize("sharper", [0.4, 1.0, 3.0])
def test_the_temperature_is_how_much_sharper_the_logits_are_than_the_truth(task, drawn, sharper) -> None:
    logits, y = drawn(sharper)
    temperature = fit_temperature(task, logits, y)
    assert temperature == pytest.approx(sharper, rel=0.1)
    said = [Head(task, ("a", "b", "c"), temperature=one).answers(logits) for one in (1.0, temperature)]
    before, after = (calibration_error(task, one, y) for one in said)
    assert after < 0.03
    assert sharper == 1.0 or before > 2 * after


def test_windows_without_an_error_do_not_ask_for_certainty() -> None:
    logits, y = np.eye(3, dtype=np.float32)[np.arange(60) % 3] * 4, np.arange(60) % 3
    temperature = fit_temperature("classification", logits, y)
    assert 0.5 < temperature < 1.5
    certain = Head("classification", ("a", "b", "c"), temperature=temperature).answers(logits).max()
    assert certain == pytest.approx(1 - 2 / 3 / 62, abs=1e-3)


def test_a_temperature_stays_within_its_bounds() -> None:
    wrong = np.eye(3, dtype=np.float32)[(np.arange(300) + 1) % 3] * 9
    assert fit_temperature("classification", wrong, np.arange(300) % 3) == pytest.approx(HOTTEST)
    faint = np.eye(3, dtype=np.float32)[np.arange(300) % 3] * 0.01
    assert fit_temperature("classification", faint, np.arange(300) % 3) == pytest.approx(COLDEST)


def test_a_regression_and_no_window_have_no_temperature() -> None:
    values = np.ones((9, 1), np.float32)
    assert fit_temperature("regression", values, values) == 1.0
    assert calibration_error("regression", values, values) is None
    assert fit_temperature("classification", values[:0], np.zeros(0, np.int64)) == 1.0


def test_the_error_of_calibration_is_confidence_less_what_is_right() -> None:
    certain = np.array([[1.0, 0.0]] * 10, np.float32)
    assert calibration_error("classification", certain, np.array([0] * 7 + [1] * 3)) == pytest.approx(0.3)
