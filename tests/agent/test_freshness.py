"""What is news in records that come late, twice and out of order; alarms hear that and nothing else."""

from __future__ import annotations

import math

import pytest

from bedside.agent.freshness import DEAF_S, Freshness
from bedside.core.ids import SessionId, StreamId
from bedside.core.samples import Record

BED = StreamId("bed")
ONE, TWO = SessionId("one"), SessionId("two")


def record(at: int, **values: float) -> Record:
    return Record(BED, at, values, dict.fromkeys(values, "1"))


@pytest.fixture
def fresh() -> Freshness:
    return Freshness()


def test_each_field_is_news_by_itself(fresh) -> None:
    assert fresh.news(record(10, hr=60), ONE, 0) == record(10, hr=60)
    assert fresh.news(record(8, spo2=97), ONE, 0) == record(8, spo2=97)
    assert fresh.news(record(9, hr=61, spo2=96), ONE, 0) == record(9, spo2=96)
    assert fresh.news(record(9, hr=61, spo2=96), ONE, 0) is None


def test_another_value_of_the_same_time_is_news_and_the_same_one_is_not(fresh) -> None:
    nan = math.nan
    heard = [fresh.news(record(10, hr=value), ONE, 0) for value in (60, 60, 61, nan, nan)]
    assert [one is not None for one in heard] == [True, False, True, True, False]


def test_another_session_is_heard_from_its_first_record_on(fresh) -> None:
    fresh.news(record(10, hr=60), ONE, 0)
    assert fresh.news(record(5, hr=60), TWO, 0) is not None


def test_a_sender_whose_clock_was_set_back_is_deaf_for_a_minute_and_not_for_an_hour(fresh) -> None:
    fresh.news(record(10_000, hr=60), ONE, 0)
    assert fresh.news(record(6_400, hr=20), ONE, DEAF_S) is None
    assert fresh.news(record(6_401, hr=20), ONE, DEAF_S + 1) is not None
    assert fresh.news(record(6_402, hr=20), ONE, DEAF_S + 2) is not None


def test_a_sender_that_invents_fields_takes_no_memory_for_it(fresh) -> None:
    for number in range(5_000):
        fresh.news(record(number, **{f"f{number}": 1.0}), ONE, 0)
    assert len(fresh._heard[BED].fields) < 2_000
