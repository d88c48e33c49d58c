"""One whole round in memory: what is opened, and what the coordinator holds."""

from __future__ import annotations

import numpy as np
import pytest

from bedside.core.errors import BedsideError
from bedside.core.securesum.aggregator import Aggregate
from bedside.core.securesum.ring import unpack
from bedside.core.securesum.trustee import judge_set, mask_sum, open_votes
from bedside.core.signing.envelope import SUITE, sign_message
from bedside.proto.v1 import plan_pb2, round_pb2


def run_round(world, plan, contributors):
    openings, secrets = world.open_round(plan)
    vectors = {i: world.random_words(plan, seed=i) for i in range(len(contributors))}
    made = [world.contribute(plan, openings, device, vectors[i]) for i, device in enumerate(contributors)]
    headers = world.header_set(entry for entry, _ in made)
    total = Aggregate(plan.layout, plan.plan.word_bits)
    for _, packed in made:
        total.add_upload(packed)
    trustees = [world.sites[t.site] for t in plan.cohort(0).trustees]
    sets = []
    for site, opening in zip(trustees, openings, strict=True):
        sets.append(judge_set(plan, 0, openings, headers, world.trust(), opening, secrets[site.name]))
    votes = [
        sign_message(
            "vote",
            round_pb2.Vote(
                suite=SUITE,
                plan_digest=plan.digest,
                cohort=0,
                credential_digest=site.trustee.credential.digest,
                set_root=checked.root,
                set_size=len(checked.members),
                trusted_size=checked.trusted_size,
                chain=round_pb2.Chain(boot_id=b"b" * 16, index=2, previous_digest=b"x" * 32),
            ),
            site.trustee.key,
        )
        for site, checked in zip(trustees, sets, strict=True)
    ]
    for checked in sets:
        open_votes(votes, plan, 0, openings, checked.root)
        total.subtract_answer(mask_sum(plan, checked))
    plain = sum(vector.astype(np.int64) for vector in vectors.values())
    return total, plain, [packed for _, packed in made]


@pytest.mark.parametrize("word_bits", [16, 18, 32])
@pytest.mark.parametrize("trustees", [1, 2, 3])
def test_the_opened_sum_is_the_plain_sum_bit_for_bit(world, word_bits, trustees):
    message = world.plan_message(word_bits=word_bits)
    cohort = plan_pb2.Cohort()
    cohort.CopyFrom(message.cohorts[0])
    del cohort.trustees[trustees:]
    plan = world.plan(word_bits=word_bits, cohorts=[cohort])
    total, plain, uploads = run_round(world, plan, world.devices)
    opened = total.opened(len(uploads), trustees)
    assert (opened.astype(np.int64) == plain % (1 << word_bits)).all()


def test_each_stored_upload_is_uniform_over_the_ring(make_world):
    world = make_world({"alder": 3})
    layout = plan_pb2.Layout()
    layout.CopyFrom(world.plan_message().layout)
    layout.segments[0].tensors[0].shape[0] = 64_000
    plan = world.plan(layout=layout)
    _, _, uploads = run_round(world, plan, world.devices)
    for packed in uploads:
        words = unpack(packed, plan.vector_words, 16)
        counts = np.bincount(words >> 8, minlength=256)
        expected = plan.vector_words / 256
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert chi_square < 400, "255 degrees of freedom: 400 is beyond the millionth part"


def test_the_sum_stays_closed_until_every_trustee_has_answered(world):
    plan = world.plan()
    openings, secrets = world.open_round(plan)
    made = [world.contribute(plan, openings, d, world.random_words(plan, i)) for i, d in enumerate(world.devices)]
    headers = world.header_set(entry for entry, _ in made)
    total = Aggregate(plan.layout, 16)
    for _, packed in made:
        total.add_upload(packed)
    for name in ("alder", "birch"):
        opening = next(o for o in openings if o.opening.site == name)
        checked = judge_set(plan, 0, openings, headers, world.trust(), opening, secrets[name])
        total.subtract_answer(mask_sum(plan, checked))
    with pytest.raises(BedsideError, match="not hold exactly") as caught:
        total.opened(len(made), 3)
    assert caught.value.code == "sum-incomplete"


def test_a_resend_has_another_mask_only_if_the_device_encodes_again(world):
    plan = world.plan()
    openings, _ = world.open_round(plan)
    words = world.random_words(plan, 1)
    first, packed_first = world.contribute(plan, openings, world.devices[0], words)
    second, packed_second = world.contribute(plan, openings, world.devices[0], words)
    assert packed_first != packed_second
    assert first.header.payload != second.header.payload
