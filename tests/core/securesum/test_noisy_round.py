"""Whole rounds in memory with noise: what is opened, and who added what."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bedside.core.codec.decoder import check_sum
from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.errors import BedsideError
from bedside.core.privacy import add_noise, noise_tails, segment_sigmas_e6
from bedside.core.securesum.aggregator import Aggregate
from bedside.core.securesum.merkle import set_root
from bedside.core.securesum.messages import open_opening, open_openings
from bedside.core.securesum.plans import layout_message
from bedside.core.securesum.ring import unpack
from bedside.core.securesum.trustee import AnswerNoise, judge_set, leaves_of, mask_sum
from bedside.core.signing.envelope import sign_message
from bedside.proto.v1 import plan_pb2
from bedside.proto.v1.device_pb2 import OpeningEntry

ROUNDS = 300
WORD_BITS = 20
ASKED = {"noise": plan_pb2.Noise(noise_multiplier_e6=400_000), "word_bits": WORD_BITS, "max_contributors": 20}
OWN = {"alder": 400_000, "birch": 400_000, "cedar": 900_000}
"""What each trustee keeps: the plan's multiplier, or the more that its policy asks."""
LAYOUT = Layout(
    (
        Segment("w", SegmentKind.VALUE, (TensorSlot("w", (60,)),), clip_e6=1_000_000, bits=6, rotation_block=64),
        Segment("n", SegmentKind.COUNT, (TensorSlot("h", (16,)),), cap=10),
    )
)


@pytest.fixture
def plan(world):
    return world.plan(layout=layout_message(LAYOUT), **ASKED)


def open_noisy(world, plan):
    """Openings that promise `OWN`."""
    openings, secrets = world.open_round(plan, noise_multiplier_e6=900_000)
    for place, opening in enumerate(openings):
        site = world.sites[opening.opening.site]
        changed = {"noise_multiplier_e6": OWN[site.name]}
        message = world.opening_message(plan, site, secrets[site.name], **changed)
        signed = sign_message("opening", message, site.trustee.key)
        openings[place] = open_opening(signed, site.trustee.credential, plan, 0)
    return openings, secrets


def centred(words, word_bits=WORD_BITS):
    signed = np.asarray(words).astype(np.int64) % (1 << word_bits)
    signed[signed >= 1 << (word_bits - 1)] -= 1 << word_bits
    return signed


def answers(world, plan, openings, secrets, headers):
    """Per trustee: the exact sum of masks, the answer, and the noise in it."""
    for opening in openings:
        secret = secrets[opening.opening.site]
        checked = judge_set(plan, 0, openings, headers, world.trust(), opening, secret)
        exact = mask_sum(plan, checked)
        noisy = mask_sum(plan, checked, AnswerNoise.of(opening, secret, checked.root))
        difference = unpack(exact, plan.vector_words, WORD_BITS).astype(np.int64) - unpack(
            noisy, plan.vector_words, WORD_BITS
        )
        yield opening.opening.site, noisy, centred(difference)


def variance_bounds(freedom):
    """Between these lies a sample variance over the true one, but for exp(-17) at either end: less than one
    false alarm in a million runs for the sixteen ends of this test.

    Laurent and Massart, 2000, Lemma 1; the noise is sub-Gaussian, and as good as Gaussian here.
    """
    nats = 17.0
    return 1 - 2 * math.sqrt(nats / freedom), 1 + 2 * math.sqrt(nats / freedom) + 2 * nats / freedom


def test_over_many_rounds_every_trustee_adds_its_full_noise_and_the_sum_has_the_stated_variance(world, plan):
    devices = world.devices[:4]
    errors, added = [], {name: [] for name in OWN}
    for number in range(ROUNDS):
        openings, secrets = open_noisy(world, plan)
        vectors = [world.random_words(plan, 4 * number + place) for place in range(len(devices))]
        made = [world.contribute(plan, openings, d, v) for d, v in zip(devices, vectors, strict=True)]
        headers = world.header_set(entry for entry, _ in made)
        total = Aggregate(plan.layout, WORD_BITS)
        for _, packed in made:
            total.add_upload(packed)
        for site, packed, noise in answers(world, plan, openings, secrets, headers):
            total.subtract_answer(packed)
            added[site].append(noise)
        opened = total.opened(len(devices), 3)
        check_sum(opened, plan.layout, 4, word_bits=WORD_BITS, noise_tails=noise_tails(plan.layout, OWN.values()))
        error = centred(opened.astype(np.int64) - sum(vector.astype(np.int64) for vector in vectors))
        assert np.array_equal(error, sum(added[site][-1] for site in OWN)), "true sum plus noise, with its own sign"
        errors.append(error)
    sigmas = {name: np.array(segment_sigmas_e6(LAYOUT, multiplier)) / 1e6 for name, multiplier in OWN.items()}
    stated = {name: sigma**2 for name, sigma in sigmas.items()} | {"all": sum(sigma**2 for sigma in sigmas.values())}
    for name, drawn in {**added, "all": errors}.items():
        for place, (segment, words) in enumerate(LAYOUT.placed()):
            sample = np.array(drawn)[:, words].astype(np.float64)
            ratio = (sample**2).mean() / stated[name][place]
            low, high = variance_bounds(sample.size)
            assert low < ratio < high, (name, segment.name, ratio)


def test_the_same_set_has_the_same_answer_and_another_set_other_noise(world, plan):
    openings, secrets = open_noisy(world, plan)
    made = [world.contribute(plan, openings, d, world.random_words(plan, i)) for i, d in enumerate(world.devices)]
    entries = [entry for entry, _ in made]
    first, again, fewer = (
        {
            site: (packed, noise)
            for site, packed, noise in answers(world, plan, openings, secrets, world.header_set(kept))
        }
        for kept in (entries, entries[::-1], entries[1:])
    )
    for site in OWN:
        assert first[site][0] == again[site][0]
        assert not np.array_equal(first[site][1], fewer[site][1])
    assert not np.array_equal(first["alder"][1], first["birch"][1]), "trustees draw independently"


def test_the_opened_sum_carries_the_noise_with_its_own_sign(world, plan):
    openings, secrets = open_noisy(world, plan)
    made = [world.contribute(plan, openings, d, world.random_words(plan, i)) for i, d in enumerate(world.devices)]
    headers = world.header_set(entry for entry, _ in made)
    drawn = np.zeros(plan.vector_words, np.uint32)
    key = AnswerNoise.of(openings[0], secrets["alder"], set_root(leaves_of(headers))).key
    add_noise(drawn, LAYOUT, OWN["alder"], key, WORD_BITS)
    site, _, added = next(answers(world, plan, openings, secrets, headers))
    assert site == "alder"
    assert np.array_equal(added, centred(drawn))


def test_without_noise_the_answer_is_exact(world):
    plan = world.plan()
    openings, secrets = world.open_round(plan)
    made = [world.contribute(plan, openings, d, world.random_words(plan, i)) for i, d in enumerate(world.devices)]
    checked = judge_set(
        plan, 0, openings, world.header_set(e for e, _ in made), world.trust(), openings[0], secrets["alder"]
    )
    noise = AnswerNoise.of(openings[0], secrets["alder"], checked.root)
    assert noise.multiplier_e6 == 0
    assert mask_sum(plan, checked, noise) == mask_sum(plan, checked)


def entries_of(openings):
    return [OpeningEntry(opening=o.signed, credential=o.credential.signed) for o in openings]


def refused(call, *args, **kwargs):
    with pytest.raises(BedsideError) as caught:
        call(*args, **kwargs)
    return caught.value.code


def test_an_opening_below_the_plans_noise_is_refused(world, plan):
    assert refused(world.open_round, plan) == "noise-too-small"
    assert refused(world.open_round, plan, noise_multiplier_e6=399_999) == "noise-too-small"
    world.open_round(plan, noise_multiplier_e6=400_000)


def test_an_opening_with_more_noise_than_any_policy_may_ask_is_refused(world):
    assert refused(world.open_round, world.plan(), noise_multiplier_e6=1_000_000_001) == "bad-opening"


def test_openings_whose_noise_together_does_not_fit_the_ring_are_refused(world, plan):
    openings, _ = open_noisy(world, plan)
    open_openings(entries_of(openings), plan, 0, world.trust())
    openings, _ = world.open_round(plan, noise_multiplier_e6=300_000_000)
    assert refused(open_openings, entries_of(openings), plan, 0, world.trust()) == "ring-overflow"


def asking(world, multiplier, layout=LAYOUT, word_bits=WORD_BITS):
    noise = plan_pb2.Noise(noise_multiplier_e6=round(multiplier * 1e6))
    return world.plan(layout=layout_message(layout), noise=noise, word_bits=word_bits, max_contributors=20)


def test_a_plan_whose_ring_does_not_hold_the_noise_it_asks_for_is_refused(world):
    assert refused(asking, world, 200) == "ring-overflow"
    asking(world, 200, word_bits=24)
    assert refused(asking, world, 1_000.1, word_bits=32) == "bad-plan"
    wide = Layout((*LAYOUT.segments, Segment("m", SegmentKind.COUNT, cap=1_000_000)))
    assert refused(asking, world, 10, wide, word_bits=32) == "noise-too-large"


def test_a_sum_that_only_noise_explains_is_refused_without_it(world, plan):
    words = world.random_words(plan, 1)
    (values, place), (_, counts) = plan.layout.placed()
    words[place] = 4 * values.half_levels + 40
    words[counts] = (1 << WORD_BITS) - 30
    check_sum(words, plan.layout, 4, word_bits=WORD_BITS, noise_tails=noise_tails(plan.layout, [900_000]))
    assert refused(check_sum, words, plan.layout, 4, word_bits=WORD_BITS) == "sum-out-of-bounds"
