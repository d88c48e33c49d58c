"""How a device would work for a plan: the rules about examples, steps, and the model's size and cost."""

from __future__ import annotations

import math

from bedside.core.bundle.training import ALL
from bedside.core.learning.plan_graph import LEVELS, OPTIMISERS, plan_graph
from bedside.core.policy.case import Case, noise_covers
from bedside.proto.v1 import plan_pb2


def training_out_of_range(case: Case) -> str:
    """Every number of the local work is within the site's ranges, and the bundle can be trained so."""
    asked, policy = case.plan.plan.training, case.policy
    least = [
        ("examples per device", asked.min_examples, policy.min_examples),
        ("sessions per device", asked.min_sessions, policy.min_sessions),
    ]
    if case.trains:
        least += [
            ("examples per batch", asked.batch_size, policy.min_batch),
            ("local steps", asked.min_local_steps, policy.min_local_steps),
        ]
    for what, plans, sites in least:
        if plans < sites:
            return f"the plan asks for {plans} {what}; site {case.own_site} asks for at least {sites}"
    if asked.max_examples < asked.min_examples:
        return f"the plan takes {asked.max_examples} examples at most, fewer than its minimum of {asked.min_examples}"
    return _fine_threshold(asked) or (_hyper_parameters(case) if case.trains else "")


def single_step_gradient(case: Case) -> str:
    """One step from a known checkpoint is a plain gradient, which tells most about single windows.

    So are several that do not build on each other: over one batch, back to the start each time, or too small to move.
    """
    if not case.trains or noise_covers(case.policy):
        return ""
    asked, policy, allows = case.plan.plan.training, case.policy, f"without noise site {case.own_site} allows"
    rate, mu, clip = asked.learning_rate_e9 / 1e9, asked.proximal_mu_e6 / 1e6, asked.gradient_clip_e6 / 1e6
    checks = (
        (asked.min_local_steps >= 2, f"the plan asks for {asked.min_local_steps} local steps; {allows} 2 at least"),
        (
            asked.batch_size * 2 <= asked.min_examples,
            f"the plan's batch of {asked.batch_size} is over half of its {asked.min_examples} examples; {allows} half",
        ),
        (
            asked.learning_rate_e9 >= round(policy.min_learning_rate * 1e9),
            f"the plan's learning rate is {rate:g}; {allows} {policy.min_learning_rate:g} at least",
        ),
        (
            asked.learning_rate_e9 * asked.proximal_mu_e6 <= round(policy.max_proximal_pull * 1e15),
            f"the plan's proximal term takes {rate * mu:g} of each move back; {allows} {policy.max_proximal_pull:g}",
        ),
        (
            asked.gradient_clip_e6 == 0 or asked.gradient_clip_e6 >= round(policy.min_gradient_clip * 1e6),
            f"the plan bounds gradients to a norm of {clip:g}; {allows} 0, or {policy.min_gradient_clip:g} at least",
        ),
    )
    return next((sentence for holds, sentence in checks if not holds), "")


def model_too_large(case: Case) -> str:
    """The model has no more parameters than the site's devices shall carry."""
    parameters = sum(math.prod(tensor.shape) for tensor in case.manifest.parameters)
    if parameters <= case.policy.max_parameters:
        return ""
    return f"the model has {parameters} parameters; site {case.own_site} allows {case.policy.max_parameters}"


def model_too_slow(case: Case) -> str:
    """A step costs no more, for the plan's batch, than the site's devices shall spend."""
    graph = plan_graph(case.plan.plan.training, case.manifest) if case.trains else case.manifest.graphs[0]
    if graph is None:
        return ""  # refused by another rule
    batch = case.plan.plan.training.batch_size if case.trains else case.manifest.training.batch
    cost = case.manifest.cost(graph, batch)
    if cost is None:
        return f"the bundle does not say what a step of {graph.key} costs"
    if cost.step_ms <= case.policy.max_step_ms:
        return ""
    return (
        f"a step of the plan takes {cost.step_ms:.0f} ms on its author's machine;"
        f" site {case.own_site} allows {case.policy.max_step_ms:g} ms"
    )


def _fine_threshold(asked: plan_pb2.Training) -> str:
    """A device that declines tells that it has less than a threshold; fine ones, moved at will, would tell how much."""
    for what, plans in (("examples", asked.min_examples), ("sessions", asked.min_sessions)):
        if plans.bit_count() != 1:
            return f"the plan's least number of {what} is {plans}; only powers of two are allowed"
    return ""


def _hyper_parameters(case: Case) -> str:
    asked, policy, site = case.plan.plan.training, case.policy, case.own_site
    rate = asked.learning_rate_e9 / 1e9
    checks = (
        (asked.level in LEVELS, "the plan's quantisation level is not known here; Q0, Q1 and Q2 are allowed"),
        (asked.optimiser in OPTIMISERS, "the plan's optimiser is not known here; SGD and Adam are allowed"),
        (
            plan_graph(asked, case.manifest) is not None,
            f"the bundle has no training graph for the plan's level, optimiser and suffix {asked.suffix or ALL!r:.64}",
        ),
        (
            asked.max_local_steps == 0 or asked.max_local_steps >= asked.min_local_steps,
            f"the plan ends training after {asked.max_local_steps} steps and asks for {asked.min_local_steps} at least",
        ),
        (
            1 <= asked.epochs <= policy.max_epochs,
            f"the plan asks for {asked.epochs} epochs; site {site} allows 1 to {policy.max_epochs}",
        ),
        (  # else the number of steps is a second threshold of examples, and a fine one
            asked.epochs * (asked.min_examples // asked.batch_size) >= asked.min_local_steps,
            f"the plan's least, {asked.min_examples} examples, is too few for its {asked.min_local_steps} steps",
        ),
        (
            0 < rate <= policy.max_learning_rate,
            f"the plan's learning rate is {rate:g}; site {site} allows {policy.max_learning_rate:g}, and not 0",
        ),
        (asked.momentum_e6 < 1_000_000, f"the plan's momentum is {asked.momentum_e6 / 1e6:g}; it must be below 1"),
        (
            asked.weighting in (plan_pb2.WEIGHTING_UNIFORM, plan_pb2.WEIGHTING_EXAMPLES),
            "the plan's weighting is not known here; uniform and by examples are allowed",
        ),
    )
    return next((sentence for holds, sentence in checks if not holds), "")
