"""20,000 wrong inputs for every parser: nothing but the errors that it promises, in bounded memory and time."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest
from hunt import complaint, fenced, restart_watch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mutation import mutate, shrink
from parsers import PARSERS, Parser

INPUTS = 20_000
BATCH = 200
WEIGH_ONE_IN = 20
TRIED = settings(
    max_examples=INPUTS // BATCH,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # a batch does not shrink; the input in it that fails does, below
    suppress_health_check=list(HealthCheck),
)


def wrong(parser: Parser, rng: Random) -> bytes:
    """One input: a valid one changed inside or as plain bytes, or noise."""
    chance = rng.random()
    if chance < 0.02:
        return rng.randbytes(rng.choice((0, 1, 8, 64, 1_000)))
    change = parser.form if chance < 0.7 else mutate
    return change(rng.choice(parser.seeds), rng, parser.seeds)


def fails(parser: Parser, weigh: bool, data: bytes) -> bool:
    restart_watch()
    return bool(complaint(parser, data, weigh=weigh))


@pytest.mark.parametrize("name", PARSERS)
def test_every_seed_is_read(name: str) -> None:
    parser = PARSERS[name]
    for seed in parser.seeds:
        parser.parse(seed)


@pytest.mark.parametrize("name", PARSERS)
def test_wrong_bytes_meet_only_the_errors_that_are_promised(name: str) -> None:
    parser = PARSERS[name]

    @TRIED
    @given(st.integers(0, 2**64 - 1))
    def batch(seed: int) -> None:
        rng = Random(seed)
        for number in range(BATCH):
            data = wrong(parser, rng)
            weigh = number % WEIGH_ONE_IN == 0
            restart_watch()
            if found := complaint(parser, data, weigh=weigh):
                least = shrink(data, partial(fails, parser, weigh))
                pytest.fail(f"{name} {complaint(parser, least, weigh=weigh) or found}\n  input: {least.hex()}")

    with fenced():
        batch()
