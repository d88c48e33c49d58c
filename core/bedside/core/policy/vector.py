"""What the vector carries, and how finely: the rules about layout, codec and the statistics' catalogue.

A coordinate that only one device feeds would be in the clear, so a vector carries exactly what every device has: the
model's shared tensors, or the counts of one template. Which coordinates a device feeds is never its own choice:
headers with a profile are refused where headers are opened.
"""

from __future__ import annotations

import math
from typing import Final

from bedside.core.bundle.training import ALL
from bedside.core.codec.layout import SegmentKind
from bedside.core.learning.plan_graph import plan_graph
from bedside.core.policy.case import Case, noise_covers
from bedside.core.policy.templates import TEMPLATES
from bedside.proto.v1 import plan_pb2

_WHOLE_E32: Final = 1 << 32
COUNTS: Final = frozenset({"examples", "correct"})
"""The count words that a training or evaluation plan may ask for."""


def codec_out_of_range(case: Case) -> str:
    """Words, values and the whole contribution are within the site's ranges."""
    plan, policy = case.plan.plan, case.policy
    low, high = policy.word_bits
    if not low <= plan.word_bits <= high:
        return f"the plan's words have {plan.word_bits} bits; site {case.own_site} allows {low} to {high}"
    low, high = policy.value_bits
    values = case.segments(SegmentKind.VALUE)
    for segment in values:
        if not low <= segment.bits <= high:
            return f"the plan's values have {segment.bits} bits; site {case.own_site} allows {low} to {high}"
    share = plan.subsample_e32 / _WHOLE_E32 or 1.0
    if share < policy.min_subsample:
        return (
            f"the plan takes {share:.4g} of the coordinates; site {case.own_site} allows no less than "
            f"{policy.min_subsample:.4g}"
        )
    norm = math.sqrt(sum(segment.clip**2 for segment in values))
    if norm > policy.max_clip:
        return f"the plan takes contributions of norm {norm:g}; site {case.own_site} allows {policy.max_clip:g}"
    return ""


def layout_not_the_models(case: Case) -> str:
    """Values are exactly the model's shared tensors, and only when training: a local tensor is never shared."""
    asked = [(slot.name, slot.shape) for segment in case.segments(SegmentKind.VALUE) for slot in segment.tensors]
    graph = plan_graph(case.plan.plan.training, case.manifest) if case.trains else None
    trained = case.manifest.shared(graph.suffix if graph is not None else ALL) if case.trains else ()
    shared = [(tensor.name, tensor.shape) for tensor in trained]
    if sorted(asked) != sorted(shared):
        stray = next((name for name, shape in asked if (name, shape) not in shared), "")
        what = f"tensor {stray!r:.64}, which the model does not share" if stray else "not all that the model shares"
        if not case.trains:
            what = f"tensors, although it sums for {case.purpose}"
        return f"the plan's vector carries {what}; exactly the shared tensors are allowed, and only in training"
    counts = case.segments(SegmentKind.COUNT)
    if any(segment.tensors for segment in counts):
        return "the plan's counts are more than single words; only single counts are allowed"
    if case.plan.plan.purpose == plan_pb2.PURPOSE_STATISTIC:
        return ""
    stray = next((segment.name for segment in counts if segment.name not in COUNTS), "")
    if stray:
        return f"the plan asks for the count {stray!r:.64}; only {', '.join(sorted(COUNTS))} are allowed"
    most = case.plan.plan.training.max_examples
    low = next((segment for segment in counts if segment.cap < most), None)
    if low is not None:  # whether a device's count fits would tell it
        return f"the plan caps the count {low.name} at {low.cap}, but takes {most} examples; every count must fit"
    return ""


def statistic_not_in_catalogue(case: Case) -> str:
    """A statistic is one of the policy's templates, to the word; nothing else names a template."""
    name = case.plan.plan.statistic_template
    if case.plan.plan.purpose != plan_pb2.PURPOSE_STATISTIC:
        return f"the plan names a statistic, but sums for {case.purpose}" if name else ""
    if name not in case.policy.statistics or name not in TEMPLATES:
        allowed = ", ".join(case.policy.statistics) or "none"
        return f"the plan asks for the statistic {name!r:.64}; site {case.own_site} allows {allowed}"
    counts = tuple(segment.name for segment in case.plan.layout.segments)
    if counts != TEMPLATES[name].counts:
        return f"the plan's vector is not that of the statistic {name}; it carries {', '.join(TEMPLATES[name].counts)}"
    return ""


def statistic_without_noise(case: Case) -> str:
    """A count of one is a patient: statistics are never opened without noise."""
    if case.plan.plan.purpose != plan_pb2.PURPOSE_STATISTIC or noise_covers(case.policy):
        return ""
    return f"the plan sums a statistic without noise; site {case.own_site} allows statistics with noise only"
