"""A round that sends a share of the coordinates: everybody the same ones, chosen by nobody."""

from __future__ import annotations

import numpy as np
import pytest

from bedside.core.codec.subsample import Chooser
from bedside.core.errors import BedsideError
from bedside.core.securesum.messages import openings_digest
from bedside.core.securesum.plans import rotation_seed
from bedside.core.securesum.ring import packed_bytes
from bedside.core.securesum.trustee import judge_set
from bedside.core.signing.envelope import sign_message
from bedside.proto.v1 import round_pb2
from bedside.proto.v1.trustee_pb2 import HeaderEntry

QUARTER = 1 << 30


def test_an_upload_with_more_coordinates_than_the_plan_asks_for_is_refused(world):
    plan = world.plan(subsample_e32=QUARTER)
    openings, secrets = world.open_round(plan)
    entries = [world.contribute(plan, openings, one, world.random_words(plan, 7))[0] for one in world.devices]

    def judge(entries):
        headers = world.header_set(entries)
        return judge_set(plan, 0, openings, headers, world.trust(), openings[0], secrets["alder"])

    assert len(judge(entries).members) == 8
    whole = round_pb2.Header.FromString(entries[0].header.payload)
    assert whole.upload_bytes == packed_bytes(33, 16)
    whole.upload_bytes = packed_bytes(129, 16)
    liar = world.devices[0]
    forged = HeaderEntry(header=sign_message("header", whole, liar.key), credential=entries[0].credential)
    with pytest.raises(BedsideError) as caught:
        judge([forged, *entries[1:]])
    assert caught.value.code == "bad-header"


def test_neither_the_plan_nor_one_trustee_alone_decides_the_coordinates(world):
    plan = world.plan(subsample_e32=QUARTER)
    first, _ = world.open_round(plan)
    second, _ = world.open_round(plan)
    mixed = [second[0], *first[1:]]  # one trustee with another round key

    def places(openings, of=plan):
        seed = rotation_seed(of.digest, openings_digest(openings))
        return Chooser(of.layout.segments[0], seed, 0).up_to(128)

    assert places(first).size == 32
    np.testing.assert_array_equal(places(first), places(list(first)))
    for other in (second, mixed):
        assert not np.array_equal(places(first), places(other))
