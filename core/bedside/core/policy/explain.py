"""What a policy protects a site from, and what it does not: plain sentences that follow from its values.

Nothing here comforts. Where a rule is off, the risk that it leaves is said; where no rule helps, that is said too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bedside.core.policy.case import noise_covers
from bedside.core.policy.site_policy import SitePolicy


@dataclass(frozen=True, slots=True)
class Explanation:
    """A policy in words.

    Attributes:
        takes_part: what the site does.
        protected: what it is protected from, as long as its own trustee is honest.
        not_protected: what it is not protected from.
    """

    takes_part: tuple[str, ...]
    protected: tuple[str, ...]
    not_protected: tuple[str, ...]


def explain(policy: SitePolicy) -> Explanation:
    """Say what `policy` means for its site."""
    return Explanation(tuple(_takes_part(policy)), tuple(_protected(policy)), tuple(_not_protected(policy)))


def _takes_part(policy: SitePolicy) -> Iterator[str]:
    if not policy.bundle_signers:
        yield "The site takes part in nothing: bundle_signers names nobody, so no model is accepted."
        return
    signers = ", ".join(sorted(policy.bundle_signers))
    tasks = f"the tasks {', '.join(policy.tasks)}" if policy.tasks else "any task"
    when = f"between {policy.hours}, local time" if policy.hours else "at any hour"
    yield f"The site takes part in {tasks}, {when}, with models signed by {signers}."
    yield f"Sums may be made to {_listed(policy.purposes)}, in at most {policy.max_rounds_per_day} rounds a day."
    for purpose, most in sorted(policy.quotas.items()):
        if purpose in policy.purposes:
            yield f"Of these, at most {most} a day are made to {purpose}."
    if "evaluate" in policy.purposes:
        times = policy.max_evaluations_per_checkpoint
        yield f"One state of a model is evaluated at most {times} times, and only states that belong to the task."
    if "statistic" in policy.purposes:
        allowed = ", ".join(policy.statistics)
        if allowed:
            yield f"Statistics may be summed by these templates only, and only with noise: {allowed}."
        else:
            yield "No statistic is summed: the list of statistics is empty."


def _protected(policy: SitePolicy) -> Iterator[str]:
    yield (
        "Nobody sees what one of your devices sent. All that is opened is the sum of a set, as long as your trustee is"
        " honest."
    )
    others = ", ".join(policy.trusted_sites) or "no other site"
    yield (
        f"A sum with one of your devices in it holds at least {policy.min_trusted} devices of sites that you trust:"
        f" your own, and {others}. Devices that a coordinator or another site invents do not count."
    )
    if policy.max_share_one_site < 1:
        yield f"No site fills more than {policy.max_share_one_site:.0%} of a set, yours included."
    if policy.min_trustees > 1:
        yield (
            f"A round is opened by trustees of at least {policy.min_trustees} sites, under different authorities."
            " As long as one of them is honest, the others and the coordinator learn the sum only."
        )
    yield (
        "Where the same is computed again (a statistic, an evaluation, or training from the same state), a set that"
        f" differs from an earlier one by 1 to {policy.min_trusted - 1} trusted devices is refused, unless noise covers"
        " it: the two sums would tell what those devices sent."
    )
    yield (
        "Models that share moments of their inputs (standardise or batchnorm with scope = shared) sum the same again in"
        " every round, and are held to that in all of them."
    )
    if policy.guard_membership:
        yield "The same holds for training from moving states, against each task's last eight sets (guard_membership)."
    yield (
        "Training starts from the state that the model was signed with, or from the signed result before it. A"
        " state that a"
        " coordinator slips in is refused."
    )
    yield (
        f"One device contributes at most a length of {policy.max_clip:g}, learned in at least {policy.min_local_steps}"
        f" steps from at least {policy.min_examples} windows of {policy.min_sessions} recordings or more."
    )
    if noise_covers(policy):
        yield "Your trustee adds noise of its own to every sum; what one device sent is blurred by it in every sum."


def _not_protected(policy: SitePolicy) -> Iterator[str]:
    yield from _of_sets(policy)
    yield from _of_sums(policy)
    yield (
        "Whoever signs models can build one that writes windows into its update, even within a sum, and nobody can"
        " see it in the result. Name signers only whose work you would run on your own machines."
        + ("" if noise_covers(policy) else " Enough noise would prevent it; this policy adds none.")
    )
    if not noise_covers(policy):
        yield (
            "Several training steps are no bound on privacy: an update stays close to a gradient over its windows, and"
            " only many windows and many devices blur it."
        )
    if policy.min_local_steps < 2:
        yield "Single training steps are allowed where noise covers them; without it they would be refused."
    yield (
        "Who takes part, when, and how large an upload is are seen by the coordinator, and by the other trustees of the"
        " round."
    )
    if policy.heartbeat == "standard":
        yield (
            "With heartbeat = standard your devices tell when each sensor was last seen. That shows which beds are in"
            " use; minimal does not tell."
        )
    yield (
        "A lying device or trustee can bend the model, within what as many honest devices could. The norm of the sum is"
        " checked; blame is not possible."
    )
    yield (
        "Your trustee must not be restored from a snapshot of a running machine, and shares no operator with the"
        " coordinator: if it is not honest, nothing here holds."
    )


def _of_sets(policy: SitePolicy) -> Iterator[str]:
    if not policy.trusted_sites:
        yield (
            f"You trust no other site: rounds without {policy.min_trusted} devices of your own are refused. A site"
            " with one gateway gets no protection from sums at all; it must name other sites in trusted_sites, or add"
            " noise."
        )
    else:
        yield (
            f"If {_listed(policy.trusted_sites)} work together with the coordinator, they can fill a set with devices"
            " of their own around one of yours, and then the sum tells what yours sent. Name sites that would not."
        )
    if policy.min_trustees == 1:
        yield (
            "A single trustee is enough (min_trustees = 1). If it is yours and honest, the sum alone is opened;"
            " if it is"
            " rolled back or taken over, nobody else stands in the way."
        )
    else:
        yield "Every trustee of a round can stop it by keeping silent. That costs the round, not your data."
    if not policy.guard_membership and not noise_covers(policy):
        yield (
            "guard_membership is off: when one device joins or leaves between two rounds of training, the two sums"
            " together tell something about it, most of all when a coordinator hardly moves the model between them."
            " Over many rounds with changing devices that adds up."
        )
    elif not noise_covers(policy):
        yield (
            "Sets are compared in pairs. Three or more sums with cleverly chosen sets can still tell of a few devices"
            " in which they differ together; only noise prevents that."
        )


def _of_sums(policy: SitePolicy) -> Iterator[str]:
    if noise_covers(policy):
        yield (
            "Noise covers one device's contribution to one round, not one patient: who has been in many rounds, or on"
            " many devices, is covered less."
        )
        return
    yield (
        "No noise is added. A sum over few devices tells about them what a sum tells: with a strange patient"
        " among them,"
        " that patient shows. Nothing here makes data anonymous."
    )
    if "evaluate" in policy.purposes:
        yield "Evaluations are opened exactly: a change of one right answer between two of them can be seen."
    if "statistic" in policy.purposes:
        yield "Statistics need noise, and this policy adds none: every statistic is refused until it does."


def _listed(names: tuple[str, ...]) -> str:
    if len(names) < 2:
        return names[0] if names else "nothing"
    return f"{', '.join(names[:-1])} and {names[-1]}"
