"""The hospitals' policy files in this demo: real rules, small enough for eight devices."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bedside.demo.cast import SIGNER, SITES, TASK

MIN_TRUSTED: Final = 3
MIN_CONTRIBUTORS: Final = 3
RAISED_MINIMUM: Final = 20
"""More devices than this federation has: no plan of the demo can meet it."""


def policy_text(site: str, signer_pk: str, min_contributors: int = MIN_CONTRIBUTORS) -> str:
    """Return a `policy.toml`.

    Args:
        site: whose.
        signer_pk: key under which models are accepted, 64 hexadecimal digits.
        min_contributors: smallest set that a plan may ask for.
    """
    trusted = ", ".join(f'"{one}"' for one in SITES)
    return f"""\
# What {site} allows. Its devices and its trustee read this file before every round; the coordinator can only ask.

tasks = ["{TASK}"]
purposes = ["train"]
trusted_sites = [{trusted}]
min_trusted = {MIN_TRUSTED}            # devices of trusted sites that a sum must hold before one of ours may be in it
min_trustees = {len(SITES)}           # hospitals that must open a round together
min_contributors = {min_contributors}       # smallest set that a plan may ask for
max_epochs = 5
min_examples = 64
heartbeat = "standard"

[bundle_signers]
{SIGNER} = "{signer_pk}"
"""


def rule_words(min_contributors: int = MIN_CONTRIBUTORS) -> str:
    """The policy in the few words that fit a column."""
    return f"{min_contributors}+ devices, {MIN_TRUSTED}+ trusted"


def write_policy(path: Path, text: str) -> None:
    """Replace a policy file in one step, so that nobody reads half of it."""
    beside = path.with_suffix(".toml.new")
    beside.write_text(text, "utf-8")
    beside.replace(path)
