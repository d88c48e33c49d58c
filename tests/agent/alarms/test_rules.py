"""Rules that cannot be meant are refused at the start."""

import math

import pytest

from bedside.agent.alarms.rules import MAX_RULES, check_rules
from bedside.agent.config import AlarmRule
from bedside.core.errors import ConfigError

GOOD = {"name": "fall", "label": "fall", "above": 0.9}


def test_good_rules_pass() -> None:
    check_rules(
        [
            AlarmRule(**GOOD),
            AlarmRule(name="spo2", field="spo2", below=88.0, clear=92.0, hold_off_s=10, escalate_s=60, stream="bed-4"),
            AlarmRule(name="quiet", label="rest", below=0.1, clear=0.2),
            AlarmRule(name="hypoxia", output="po2", below=8.0, clear=9.0, model="gases"),
        ]
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"field": "spo2"}, "one of label, output and field"),
        ({"output": "po2"}, "one of label, output and field"),
        ({"label": ""}, "one of label, output and field"),
        ({"below": 0.1}, "either above or below"),
        ({"above": None}, "either above or below"),
        ({"clear": 0.95}, "quiet side"),
        ({"above": None, "below": 0.1, "clear": 0.05}, "quiet side"),
        ({"above": math.nan}, "finite"),
        ({"clear": -math.inf}, "finite"),
        ({"hold_off_s": math.inf}, "finite"),
        ({"hold_off_s": -1.0}, "not be negative"),
        ({"escalate_s": -1.0}, "not be negative"),
        ({"above": 1.5}, "between 0 and 1"),
        ({"above": 0.0}, "between 0 and 1"),
        ({"above": None, "below": 1.0}, "between 0 and 1"),
        ({"name": "no id!"}, "no id!"),
        ({"stream": "no id!"}, "fall"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_by_name(changes, sentence) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        check_rules([AlarmRule(**GOOD | changes)])
    assert caught.value.code == "alarm-rule"


def test_names_are_unique_and_few() -> None:
    with pytest.raises(ConfigError, match="two alarms"):
        check_rules([AlarmRule(**GOOD), AlarmRule(**GOOD)])
    with pytest.raises(ConfigError, match="more than"):
        check_rules([AlarmRule(**GOOD | {"name": f"a{number}"}) for number in range(MAX_RULES + 1)])
