"""A site's policy: what its devices and its trustee allow. A file on the hospital's own machine; it wins over any plan.

Every field has a default that protects a site which changes nothing, and its meaning in words a person in charge can
judge. Unknown keys are errors, so that a misspelt rule is never silently off, and so is a number that means nothing:
a limit that is not a number, or a range that runs backwards, would allow what it seems to forbid.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from bedside.core.errors import MalformedError
from bedside.core.ids import check_id
from bedside.core.limits import (
    MAX_CONTRIBUTORS,
    MAX_NOISE_MULTIPLIER,
    MAX_TRUSTEES,
    MAX_VALUE_BITS,
    MAX_VECTOR_WORDS,
    MAX_WORD_BITS,
    MIN_VALUE_BITS,
    MIN_WORD_BITS,
)
from bedside.core.policy.hours import parse_hours
from bedside.core.policy.templates import TEMPLATES
from bedside.core.privacy.mechanism import multiplier_e6
from bedside.core.signing.envelope import digest

PURPOSES: Final = ("train", "evaluate", "statistic")


def _default_quotas() -> dict[str, int]:
    return {"evaluate": 24, "statistic": 4}


class SitePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules of one site (DESIGN section 5, rules T3, T4 and T7).

    Attributes:
        bundle_signers: hexadecimal Ed25519 keys of those who may sign models, by name. Never the coordinator's.
        tasks: tasks to take part in; empty means any task whose model is signed by a listed signer.
        purposes: what vectors may be summed for.
        statistics: names of the catalogue's templates that may be summed; none, unless they are named.
        trusted_sites: sites whose devices count towards `min_trusted`; the own site always does.
        min_trusted: devices of trusted sites that a set must hold before an own device may be in it; at least 3.
        max_share_one_site: largest part of a set that may come from one site, above 0 to 1; 1 sets no limit.
        min_trustees: K. Sites that opened together with this one's trustee; 1 only in a federation of one site.
        min_contributors: smallest set that a plan may ask for.
        guard_membership: refuse training sets that differ by a few trusted devices from one of the task's last ones.
        max_clip: largest L2 norm of one contribution.
        value_bits: least and most bits of one value.
        word_bits: least and most bits of one ring word.
        min_subsample: least share of a model's coordinates that a round may ask for, from 1/16; 1 allows whole
            updates only.
        min_examples: fewest windows with which a device takes part.
        min_sessions: fewest distinct sessions in those windows.
        min_batch: smallest training batch; tiny batches tell more about single windows.
        min_local_steps: fewest training steps per contribution; a single one only where noise covers it.
        max_epochs: most passes over local data.
        min_learning_rate: smallest one; tiny steps add up to a single gradient. Like the next two, not asked for where
            noise covers.
        max_learning_rate: largest local learning rate.
        max_proximal_pull: largest product of learning rate and FedProx weight, the share of the way back to the start
            that each step takes; from 0 to below 1.
        min_gradient_clip: smallest norm bound of a step's gradient, where a plan sets one.
        max_parameters: largest model, in parameters.
        max_step_ms: slowest training step that the model's author may have measured, milliseconds.
        hours: local hours in which new rounds are joined, such as `20:00-06:00`; empty means always.
        max_close_hours: longest time that a round may stay open.
        max_rounds_per_day: most rounds of all tasks and purposes together.
        quotas: most rounds of one purpose per day; a purpose that is not named has `max_rounds_per_day` only.
        max_evaluations_per_checkpoint: R. Times that one checkpoint may be evaluated.
        noise_multiplier: z of the noise that this site's trustee adds to every sum at the least; 0 for none. See
            `core.privacy.mechanism`.
        max_epsilon: what all sums together may cost a device, by the trustee's own bound; 0 for no bound. With a bound,
            a sum without noise is refused: it costs infinitely much.
        delta: at which that epsilon is meant.
        heartbeat: `minimal` or `standard`: how much a device tells about itself.
        audit_one_in: the trustee recomputes one in so many finished rounds, by its own draw; 0 means none.
    """

    bundle_signers: dict[str, str] = {}
    tasks: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ("train",)
    statistics: tuple[str, ...] = ()
    trusted_sites: tuple[str, ...] = ()
    min_trusted: int = 5
    max_share_one_site: float = 1.0
    min_trustees: int = 2
    min_contributors: int = 3
    guard_membership: bool = False
    max_clip: float = 10.0
    value_bits: tuple[int, int] = (4, 8)
    word_bits: tuple[int, int] = (8, 32)
    min_subsample: float = 0.0625
    min_examples: int = 64
    min_sessions: int = 1
    min_batch: int = 8
    min_local_steps: int = 4
    max_epochs: int = 20
    min_learning_rate: float = 1e-4
    max_learning_rate: float = 1.0
    max_proximal_pull: float = 0.1
    min_gradient_clip: float = 0.1
    max_parameters: int = 10_000_000
    max_step_ms: float = 2_000.0
    hours: str = ""
    max_close_hours: int = 168
    max_rounds_per_day: int = 1_000
    quotas: dict[str, int] = msgspec.field(default_factory=_default_quotas)
    max_evaluations_per_checkpoint: int = 3
    noise_multiplier: float = 0.0
    max_epsilon: float = 0.0
    delta: float = 1e-5
    heartbeat: str = "standard"
    audit_one_in: int = 20

    @property
    def noise_multiplier_e6(self) -> int:
        """As on the wire, rounded up."""
        return multiplier_e6(self.noise_multiplier)

    def __post_init__(self) -> None:
        _check_participation(self)
        _check_sets(self)
        _check_ranges(self)
        _check_times(self)
        _check_noise(self)


def policy_digest(data: bytes) -> bytes:
    """BLAKE2b-256 of the policy file's bytes, as openings carry it."""
    return digest(data)


def _check_participation(policy: SitePolicy) -> None:
    for name, key in policy.bundle_signers.items():
        _require(_is_key(key), f"bundle_signers.{name} is not an Ed25519 public key in 64 hexadecimal digits")
    _require(_are_ids(policy.tasks), "tasks holds a name that no task can have")
    _require(set(policy.purposes) <= set(PURPOSES), f"purposes are {', '.join(PURPOSES)}")
    _require(set(policy.statistics) <= set(TEMPLATES), f"statistics are {', '.join(sorted(TEMPLATES))}")
    _require(policy.heartbeat in ("minimal", "standard"), "heartbeat is minimal or standard")


def _check_sets(policy: SitePolicy) -> None:
    _require(_are_ids(policy.trusted_sites), "trusted_sites holds a name that no site can have")
    _require(policy.min_trusted >= 3, "min_trusted is never under 3: a sum over fewer devices shows single ones")
    _require(policy.min_trusted <= MAX_CONTRIBUTORS, f"min_trusted is at most {MAX_CONTRIBUTORS}: no set is larger")
    _require(0 < policy.max_share_one_site <= 1, "max_share_one_site is above 0 and at most 1")
    _require(1 <= policy.min_trustees <= MAX_TRUSTEES, f"min_trustees is 1 to {MAX_TRUSTEES}")
    _require(1 <= policy.min_contributors <= MAX_CONTRIBUTORS, f"min_contributors is 1 to {MAX_CONTRIBUTORS}")


def _check_ranges(policy: SitePolicy) -> None:
    _require(0 <= policy.audit_one_in <= 1_000_000, "audit_one_in is 0 (never) to 1000000")
    for name in ("max_clip", "max_learning_rate", "max_step_ms"):
        value = getattr(policy, name)
        _require(math.isfinite(value) and value > 0, f"{name} is a number above 0, not {value}")
    for name in ("min_learning_rate", "min_gradient_clip"):
        value = getattr(policy, name)
        _require(math.isfinite(value) and value >= 0, f"{name} is 0 or more, and finite, not {value}")
    _require(policy.min_learning_rate <= policy.max_learning_rate, "min_learning_rate is above max_learning_rate")
    _require(0 <= policy.max_proximal_pull < 1, f"max_proximal_pull is 0 to below 1, not {policy.max_proximal_pull}")
    for name in ("min_examples", "min_sessions", "min_batch", "min_local_steps", "max_epochs"):
        _require(getattr(policy, name) >= 1, f"{name} is at least 1, not {getattr(policy, name)}")
    _require(0.0625 <= policy.min_subsample <= 1, "min_subsample is 0.0625 (1/16) to 1 (whole updates only)")
    _require(1 <= policy.max_parameters <= MAX_VECTOR_WORDS, f"max_parameters is 1 to {MAX_VECTOR_WORDS}")
    low, high = policy.value_bits
    sane = MIN_VALUE_BITS <= low <= high <= MAX_VALUE_BITS
    _require(sane, f"value_bits is [least, most] within {MIN_VALUE_BITS} to {MAX_VALUE_BITS}, not [{low}, {high}]")
    low, high = policy.word_bits
    sane = MIN_WORD_BITS <= low <= high <= MAX_WORD_BITS
    _require(sane, f"word_bits is [least, most] within {MIN_WORD_BITS} to {MAX_WORD_BITS}, not [{low}, {high}]")


def _check_times(policy: SitePolicy) -> None:
    parse_hours(policy.hours)
    _require(1 <= policy.max_close_hours <= 168, "max_close_hours is 1 to 168 (seven days)")
    _require(policy.max_rounds_per_day >= 0, "max_rounds_per_day is not negative")
    _require(set(policy.quotas) <= set(PURPOSES), f"quotas are per purpose: {', '.join(PURPOSES)}")
    _require(all(most >= 0 for most in policy.quotas.values()), "quotas are not negative")
    _require(policy.max_evaluations_per_checkpoint >= 0, "max_evaluations_per_checkpoint is not negative")


def _check_noise(policy: SitePolicy) -> None:
    sane = 0 <= policy.noise_multiplier <= MAX_NOISE_MULTIPLIER
    _require(sane, f"noise_multiplier is 0 to {MAX_NOISE_MULTIPLIER}")
    _require(0 <= policy.max_epsilon < math.inf, "max_epsilon is 0 or more, and finite")
    _require(0 < policy.delta < 1, "delta is between 0 and 1")


def _are_ids(names: tuple[str, ...]) -> bool:
    try:
        for name in names:
            check_id(name, "name")
    except MalformedError:
        return False
    return True


def _is_key(text: str) -> bool:
    return len(text) == 64 and all(char in "0123456789abcdefABCDEF" for char in text)


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise ValueError(sentence)
