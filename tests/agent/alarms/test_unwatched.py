"""Rules that nothing can raise are named, each with what is missing."""

from __future__ import annotations

import pytest

from bedside.agent.alarms.unwatched import Decider, some, unwatched
from bedside.agent.config import AlarmRule

DECIDERS = {
    "har": Decider(("walk", "fall"), ("wrist",)),
    "ecg": Decider(("beat",), ("chest", "bed")),
    "gas": Decider((), ("bed",), ("po2",)),
}
FED = {"wrist", "chest", "bed"}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"label": "fall"}, []),
        ({"label": "fall", "model": "har", "stream": "wrist"}, []),
        ({"label": "beat", "stream": "bed"}, []),
        ({"field": "spo2", "stream": "bed"}, []),
        ({"output": "po2", "model": "gas", "stream": "bed"}, []),
        ({"output": "fall"}, ["no model knows the output of alarm a"]),
        ({"label": "po2"}, ["no model knows the label of alarm a"]),
        ({"output": "po2", "stream": "wrist"}, ["no model that knows the output of alarm a reads its stream wrist"]),
        ({"label": "fell"}, ["no model knows the label of alarm a"]),
        ({"label": "fall", "model": "ecg"}, ["model ecg does not know the label of alarm a"]),
        ({"label": "fall", "model": "hra"}, ["no model hra of alarm a serves (models here: ecg, gas, har)"]),
        ({"label": "fall", "stream": "bed"}, ["no model that knows the label of alarm a reads its stream bed"]),
        (
            {"label": "fall", "stream": "ankle"},
            ["no source feeds stream ankle of alarm a (streams here: bed, chest, wrist)"],
        ),
        (
            {"field": "spo2", "stream": "lab"},
            ["no source feeds stream lab of alarm a (streams here: bed, chest, wrist)"],
        ),
    ],
)
def test_what_a_rule_lacks_is_said(rule, words) -> None:
    assert unwatched([AlarmRule(name="a", above=0.5, **rule)], DECIDERS, FED, {"a"}) == words


def test_a_field_must_come_once() -> None:
    rules = [AlarmRule(name=name, field=name, above=1.0) for name in ("spo2", "pulse")]
    assert unwatched(rules, {}, (), {"pulse"}) == ["no record with the field spo2 of alarm spo2 has come"]


def test_while_no_model_serves_its_labels_are_not_missed() -> None:
    assert unwatched([AlarmRule(name="a", label="fell", model="hra", above=0.5)], {}, FED, ()) == []


def test_a_list_in_a_sentence_is_bounded() -> None:
    assert some([]) == "none"
    assert some([f"s{at}" for at in range(9)]) == "s0, s1, s2, s3, s4, s5 and 3 more"


def test_without_any_model_to_come_alarms_of_labels_are_missed() -> None:
    rules = [AlarmRule(name="a", label="fell", above=0.5), AlarmRule(name="b", field="spo2", below=88.0)]
    (sentence,) = unwatched(rules, {}, FED, {"b"}, modelless=True)
    assert sentence == "no model is configured that could decide the label of alarm a"
