"""Topic filters, as MQTT 5.0 section 4.7 has them."""

from __future__ import annotations

import pytest

from bedside.agent.mqtt.topics import TopicFilter, check_filters, fill, fill_all, numbers_in
from bedside.core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "topic", "found"),
    [
        ("a/b", "a/b", ()),
        ("a/b", "a/b/c", None),
        ("a/b", "a", None),
        ("a/b", "A/b", None),
        ("+/b", "a/b", ("a",)),
        ("+", "a/b", None),
        ("a/+", "a/", ("",)),
        ("a/+", "a", None),
        ("+/+/x", "a/b/x", ("a", "b")),
        ("a/#", "a", ("",)),
        ("a/#", "a/b/c", ("b/c",)),
        ("+/#", "a/b/c", ("a", "b/c")),
        ("#", "$SYS/broker", None),
        ("+/broker", "$SYS/broker", None),
        ("#", "a/" * 600, None),
    ],
)
def test_a_filter_takes_a_topic_and_says_what_wildcards_stand_for(
    text: str, topic: str, found: tuple[str, ...] | None
) -> None:
    assert TopicFilter(text).match(topic) == found


@pytest.mark.parametrize(
    "text", ["", "a/#/b", "a#", "a/b+", "##", "$SYS/#", "$share/g/a", "a\x00b", "a" * 1_025, "a/" * 40]
)
def test_what_is_no_filter_or_not_for_us_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        TopicFilter(text)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "+/b", True),
        ("a/#", "a", True),
        ("#", "x/y/z", True),
        ("a/+/c", "a/b/#", True),
        ("a/b", "a/c", False),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("a/+/x", "a/+/y", False),
        ("a/#", "b/#", False),
    ],
)
def test_two_filters_that_share_a_topic_are_not_taken_together(one: str, other: str, overlap: bool) -> None:
    filters = [TopicFilter(one), TopicFilter(other)]
    for pair in (filters, filters[::-1]):
        assert pair[0].overlaps(pair[1]) is overlap
        if overlap:
            with pytest.raises(ConfigError, match="take the same topics"):
                check_filters(pair)
        else:
            check_filters(pair)


def test_templates_are_filled() -> None:
    assert numbers_in("{1}-{12}-{0}-{x}") == {1, 12}
    assert fill("x-{2}-{1}", ("a", "b")) == "x-b-a"
    assert fill_all("x-{2}", "a") == "x-a"
