"""A site's policy: what its devices and its trustee allow. A file on the hospital's own machine; it wins over any plan.

Every field has a default that protects a site which changes nothing, and its meaning in words a person in charge can
judge. Unknown keys are errors, so that a misspelt rule is never silently off.
"""

from __future__ import annotations

from typing import Final

import msgspec

from bedside.core.signing.envelope import digest

PURPOSES: Final = ("train", "evaluate", "statistic")


class SitePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rules of one site (DESIGN section 5, rules T3 and T7).

    Attributes:
        bundle_signers: hexadecimal Ed25519 keys of those who may sign models, by name. Never the coordinator's.
        tasks: tasks to take part in; empty means any task whose model is signed by a listed signer.
        purposes: what vectors may be summed for.
        trusted_sites: sites whose devices count towards `min_trusted`; the own site always does.
        min_trusted: devices of trusted sites that a set must hold before an own device may be in it; at least 3.
        min_trustees: K. Sites that opened together with this one's trustee; 1 only in a federation of one site.
        min_contributors: smallest set that a plan may ask for.
        max_clip: largest L2 norm of one contribution.
        value_bits: least and most bits of one value.
        word_bits: least and most bits of one ring word.
        min_subsample: least share of a model's coordinates that a round may ask for, from 1/16; 1 allows whole
            updates only.
        min_examples: fewest windows with which a device trains.
        min_sessions: fewest distinct sessions in those windows.
        min_batch: smallest training batch; tiny batches tell more about single windows.
        min_local_steps: fewest training steps per contribution: no single-step gradients.
        max_epochs: most passes over local data.
        max_learning_rate: largest local learning rate.
        max_close_hours: longest time that a round may stay open.
        max_rounds_per_day: most rounds of all tasks together.
        heartbeat: `minimal` or `standard`: how much a device tells about itself.
    """

    bundle_signers: dict[str, str] = {}
    tasks: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ("train",)
    trusted_sites: tuple[str, ...] = ()
    min_trusted: int = 5
    min_trustees: int = 2
    min_contributors: int = 3
    max_clip: float = 10.0
    value_bits: tuple[int, int] = (4, 8)
    word_bits: tuple[int, int] = (8, 32)
    min_subsample: float = 0.0625
    min_examples: int = 64
    min_sessions: int = 1
    min_batch: int = 8
    min_local_steps: int = 4
    max_epochs: int = 20
    max_learning_rate: float = 1.0
    max_close_hours: int = 168
    max_rounds_per_day: int = 1_000
    heartbeat: str = "standard"

    def __post_init__(self) -> None:
        _require(self.min_trusted >= 3, "min_trusted is never under 3: a sum over fewer devices shows single ones")
        _require(1 <= self.min_trustees <= 5, "min_trustees is 1 to 5")
        _require(0.0625 <= self.min_subsample <= 1, "min_subsample is 0.0625 (1/16) to 1 (whole updates only)")
        _require(set(self.purposes) <= set(PURPOSES), f"purposes are {', '.join(PURPOSES)}")
        _require(self.heartbeat in ("minimal", "standard"), "heartbeat is minimal or standard")
        _require(1 <= self.max_close_hours <= 168, "max_close_hours is 1 to 168 (seven days)")
        _require(self.min_local_steps >= 2, "min_local_steps is at least 2: a single step is a gradient")
        for name, key in self.bundle_signers.items():
            _require(_is_key(key), f"bundle_signers.{name} is not an Ed25519 public key in 64 hexadecimal digits")


def policy_digest(data: bytes) -> bytes:
    """BLAKE2b-256 of the policy file's bytes, as openings carry it."""
    return digest(data)


def _is_key(text: str) -> bool:
    return len(text) == 64 and all(char in "0123456789abcdefABCDEF" for char in text)


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise ValueError(sentence)
