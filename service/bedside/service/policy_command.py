"""`bedside policy`: what a site's rules mean, and what they say of a plan.

It lives here because a policy belongs to a site, not to a part: the same file lies beside the trustee and on every
device, and neither of the two may need the other to explain it. Nothing is asked of any network.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bedside.service.output import Table, emit, json_option
from bedside.service.text import bounded

if TYPE_CHECKING:
    from bedside.core.policy.site_policy import SitePolicy
    from bedside.service.plan_file import PlanVerdict

_FILE: Final = click.Path(dir_okay=False, path_type=Path)

REFUSED_STATUS: Final = 1


@click.group()
def policy() -> None:
    """Understand a site's policy: what it protects from, and what it says of a plan."""


@policy.command()
@click.argument("file", type=_FILE)
@json_option
def explain(file: Path, as_json: bool) -> None:
    """Say in plain words what the policy in FILE protects its site from, and what not."""
    from bedside.core.policy.explain import explain as explain_policy
    from bedside.core.policy.words import FIELD_WORDS
    from bedside.service.policy_file import read_policy

    rules = read_policy(file).policy
    told = explain_policy(rules)
    if as_json:
        words = {name: FIELD_WORDS[name] for name in rules.__struct_fields__}
        emit(
            {
                "takes_part": told.takes_part,
                "protected_from": told.protected,
                "not_protected_from": told.not_protected,
                "rules": words,
            },
            as_json,
        )
        return
    for heading, sentences in (
        ("What this site takes part in", told.takes_part),
        ("What it is protected from", told.protected),
        ("What it is NOT protected from", told.not_protected),
        ("Its rules, one by one", _rule_sentences(rules)),
    ):
        click.echo(f"{heading}\n")
        for sentence in sentences:
            click.echo(click.wrap_text(sentence, width=96, initial_indent="  - ", subsequent_indent="    "))
        click.echo("")


@policy.command()
@click.argument("file", type=_FILE)
@json_option
def show(file: Path, as_json: bool) -> None:
    """List every rule that the policy in FILE sets, and which of them differ from the defaults."""
    from bedside.core.policy.site_policy import SitePolicy
    from bedside.service.policy_file import read_policy

    loaded = read_policy(file)
    default = SitePolicy()
    values = {name: getattr(loaded.policy, name) for name in loaded.policy.__struct_fields__}
    data = {"digest": loaded.digest, "rules": values}
    rows = [
        [name, _shown(value), "" if value == getattr(default, name) else f"default: {_shown(getattr(default, name))}"]
        for name, value in values.items()
    ]
    title = f"policy {loaded.digest.hex()[:16]}"
    emit(data, as_json, table=Table(("rule", "value", "changed"), rows, title=title))


@policy.command()
@click.argument("file", type=_FILE)
@click.argument("plan", type=_FILE)
@click.option("--site", default="", help="Judge as this site. [default: the site whose directory FILE is in]")
@click.option("--root-pk", default="", help="Key of the federation root, 64 hexadecimal digits. [default: as pinned]")
@click.option("--as-issued", is_flag=True, help="Judge the times as if the plan had just been issued.")
@json_option
@click.pass_context
def check(
    context: click.Context, file: Path, plan: Path, site: str, root_pk: str, as_issued: bool, as_json: bool
) -> None:
    """Judge the PLAN, a file by `bedside round plan`, by the policy in FILE, rule by rule.

    The verdicts are those that the site's trustee and devices reach. The exit status is 0 when the plan is allowed and
    1 when a rule refuses it.
    """
    from bedside.service.plan_file import check_plan_file, home_of
    from bedside.service.policy_file import read_policy

    home = home_of(file, site, root_pk)
    verdict = check_plan_file(plan, read_policy(file).policy, home, as_issued=as_issued)
    rows = [
        ["allowed" if rule.allowed else "REFUSED", rule.code, bounded(rule.sentence, 200)] for rule in verdict.rules
    ]
    emit(_verdict_data(verdict), as_json, table=Table(("verdict", "rule", "why"), rows, title=_title(verdict)))
    for note in () if as_json else verdict.notes:
        click.echo(f"note: {note}")
    context.exit(0 if verdict.allowed else REFUSED_STATUS)


def _title(verdict: PlanVerdict) -> str:
    said = "allowed" if verdict.allowed else "refused"
    what = f"round {verdict.round_number} of {verdict.task}, plan {verdict.plan_digest.hex()[:16]}"
    return f"{what}: {said} by site {verdict.site}"


def _verdict_data(verdict: PlanVerdict) -> dict[str, object]:
    return {
        "allowed": verdict.allowed,
        "site": verdict.site,
        "task": verdict.task,
        "round_number": verdict.round_number,
        "plan_digest": verdict.plan_digest,
        "rules": [{"code": one.code, "allowed": one.allowed, "sentence": one.sentence} for one in verdict.rules],
        "notes": verdict.notes,
    }


def _rule_sentences(rules: SitePolicy) -> Iterable[str]:
    from bedside.core.policy.words import FIELD_WORDS

    return [f"{name} = {_shown(getattr(rules, name))}. {FIELD_WORDS[name]}" for name in rules.__struct_fields__]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
