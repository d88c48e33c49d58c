"""What a model says, in the words of its task."""

from __future__ import annotations

import numpy as np
import pytest

from bedside.agent.buffer.outputs import decode_outputs, encode_outputs
from bedside.agent.buffer.rows import Output, Prediction
from bedside.agent.inference.answer import Answer
from bedside.agent.inference.model import BAD_ANSWER, Model
from bedside.core.bundle.manifest import Targets
from bedside.core.errors import MalformedError
from bedside.ondevice.heads import Head

CLASSES = Head("classification", ("rest", "walk"))
RHYTHMS = Head("multilabel", ("af", "vt"))
GASES = Head("regression", ("po2", "ratio"), Targets(("kPa", ""), (0.0, 0.0), (1.0, 1.0)))


def answer(head: Head, *values: float) -> Answer:
    return Answer(head, np.array(values, np.float32))


def stored(made: Answer) -> Prediction:
    return Prediction("s", "x", 0, 1, made.label, made.confidence, b"", 0.0, outputs=made.outputs)


@pytest.mark.parametrize(
    ("made", "label", "confidence", "words", "sureness"),
    [
        (answer(CLASSES, 0.25, 0.75), "walk", 0.75, "walk", "0.75"),
        (answer(RHYTHMS, 0.75, 0.5), "af", 0.75, "af, vt", "0.75"),
        (answer(RHYTHMS, 0.25, 0.125), "", 0.75, "none", "0.75"),
        (answer(GASES, 11.254321, 0.5), "po2", 1.0, "po2 11.25 kPa, ratio 0.5", ""),
    ],
)
def test_label_confidence_and_words_by_task(made, label, confidence, words, sureness) -> None:
    assert (made.label, made.confidence) == (label, confidence)
    assert (stored(made).words, stored(made).sureness) == (words, sureness)


class Huge:
    """A runtime whose logits are finite, and whose values float32 cannot hold."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.full((len(x), 1), 1e35, np.float32)


def test_a_value_that_is_not_finite_is_no_answer() -> None:
    head = Head("regression", ("po2",), Targets(("kPa",), (0.0,), (1e-9,)))
    with pytest.raises(MalformedError, match="not finite") as caught:
        Model(bytes(32), head, (4, 1), Huge()).answers(np.zeros((1, 4, 1), np.float32))
    assert caught.value.code == BAD_ANSWER


def test_only_tasks_without_classes_keep_their_outputs() -> None:
    assert answer(CLASSES, 0.25, 0.75).outputs == ()
    assert answer(CLASSES, 0.25, 0.75).classes == {"rest": 0.25, "walk": 0.75}
    assert answer(RHYTHMS, 0.25, 0.5).outputs == (Output("af", 0.25), Output("vt", 0.5))
    assert answer(GASES, 11, 0.5).outputs == (Output("po2", 11.0, "kPa"), Output("ratio", 0.5, "1"))


def test_a_probability_is_no_value_and_a_value_no_probability() -> None:
    assert answer(RHYTHMS, 0.25, 0.5).probability("vt") == 0.5
    assert answer(RHYTHMS, 0.25, 0.5).value("vt") is None
    assert answer(GASES, 11, 0.5).value("po2") == 11.0
    assert answer(GASES, 11, 0.5).probability("po2") is None
    assert answer(GASES, 11, 0.5).value("no-such") is None


@pytest.mark.parametrize("made", [answer(CLASSES, 0.25, 0.75), answer(RHYTHMS, 0.25, 0.125), answer(GASES, 200, 0.5)])
def test_an_answer_is_as_far_from_what_was_stored_as_its_outputs_are(made) -> None:
    kept = stored(made)
    assert made.beside(kept) == 0
    other = Answer(made.head, made.values * np.float32(0.9))
    assert other.beside(kept) == pytest.approx(0.1, abs=0.08)


def test_outputs_come_back_from_their_bytes() -> None:
    for made in (answer(CLASSES, 1, 0), answer(RHYTHMS, 0.1, 0.2), answer(GASES, 11.3, -2)):
        assert decode_outputs(encode_outputs(made.outputs)) == made.outputs


@pytest.mark.parametrize(
    "data",
    [
        b"\x90",
        b"\xc1",
        encode_outputs([Output("", 1.0)]),
        encode_outputs([Output("a" * 65, 1.0)]),
        encode_outputs([Output("a", float("nan"))]),
        encode_outputs([Output("a", 1.0)] * 257),
        b"\x00" * (1 << 20),
    ],
)
def test_bytes_that_are_no_outputs_are_refused(data) -> None:
    with pytest.raises(MalformedError):
        decode_outputs(data)
