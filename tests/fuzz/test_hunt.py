"""The hunt itself: what a bad parser does is noticed, and the input that shows it becomes small."""

from __future__ import annotations

import hunt
import pytest
from hunt import complaint, fenced, restart_watch
from mutation import shrink
from parsers import Parser

from bedside.core.errors import MalformedError


def parser(parse) -> Parser:
    return Parser(name="bad", reads=(), parse=parse, seeds=(b"seed",))


def refuse(_: bytes) -> None:
    raise MalformedError("bad", "it is bad")


def endless(_: bytes) -> None:
    while True:
        try:
            sum(range(1_000))
        except Exception:  # noqa: BLE001  # as a careless parser would
            continue


def test_a_promised_error_is_no_complaint() -> None:
    assert complaint(parser(refuse), b"x", weigh=True) == ""
    assert complaint(parser(len), b"x", weigh=True) == ""


def test_another_error_is_one() -> None:
    assert complaint(parser(lambda data: data[9]), b"x") == "raises IndexError: index out of range"


def test_memory_beyond_the_input_is_one() -> None:
    told = complaint(parser(lambda _: bytearray(5 << 20)), b"x", weigh=True)
    assert told.startswith("takes 5,2")
    assert complaint(parser(lambda data: data * 30), b"x" * 100_000, weigh=True) == ""


def test_memory_beyond_the_fence_fails_where_it_is_not_weighed() -> None:
    with fenced():
        assert complaint(parser(lambda _: bytearray(1 << 30)), b"x").startswith("raises MemoryError")


def test_an_input_that_is_never_done_is_one(monkeypatch) -> None:
    monkeypatch.setattr(hunt, "HANG_S", 0.05)
    with fenced():
        restart_watch()
        assert complaint(parser(endless), b"x") == "is not done after 0.05 s"


@pytest.mark.parametrize("data", [b"a" * 999 + b"!" + b"b" * 700, b"!", bytes(range(256)) * 4])
def test_what_fails_becomes_small(data: bytes) -> None:
    assert shrink(data, lambda one: b"!" in one) == b"!"
