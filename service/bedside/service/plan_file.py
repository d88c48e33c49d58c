"""A plan as a file, judged by a site's policy without any network: what `bedside policy check` does."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bedside.core.errors import BedsideError, ConfigError, MalformedError
from bedside.core.ids import check_id
from bedside.core.policy.judge import Judged, judge_each
from bedside.core.policy.site_policy import SitePolicy
from bedside.core.policy.times import HOURS_SKIPPED
from bedside.core.securesum.plans import CheckedPlan, open_plan
from bedside.core.signing import Trust, open_federation, open_roster, parse_strict
from bedside.core.signing.envelope import DIGEST_BYTES
from bedside.proto.v1.identity_pb2 import Federation
from bedside.proto.v1.operator_pb2 import PlanFile
from bedside.service.platform import SystemClock, local_minute

MAX_PLAN_FILE_BYTES: Final = 64 << 20
"""Bytes of a plan file: a plan, a manifest, a result, and the rosters of ten thousand sites."""

IDENTITIES: Final = ("identity", "state/identity")
"""Where the pins of a site, and of a device, lie beside its policy."""

NOT_VERIFIED: Final = (
    "nobody has checked here that the federation is yours: give --root-pk, or judge in the site's own directory"
)
WITH_MEMORY: Final = (
    "quotas, evaluations per checkpoint, round numbers and the sets themselves are judged by the trustee, in the round"
)

_NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Home:
    """Who judges: the site, and the pinned key of its federation's root (None where nothing is pinned)."""

    site: str
    root_pk: bytes | None


@dataclass(frozen=True, slots=True)
class PlanVerdict:
    """A plan before a policy, rule by rule.

    Attributes:
        site: who judged.
        task: of the plan.
        round_number: of the plan.
        plan_digest: H.
        rules: in the order in which they are asked.
        notes: what could not be judged here.
    """

    site: str
    task: str
    round_number: int
    plan_digest: bytes
    rules: tuple[Judged, ...]
    notes: tuple[str, ...]

    @property
    def allowed(self) -> bool:
        """Whether no rule refuses."""
        return all(rule.allowed for rule in self.rules)


def home_of(policy: Path, site: str, root_pk: str) -> Home:
    """Whose policy it is: as told, or as the directory says that it lies in.

    Raises:
        ConfigError: `which-site`, when neither says it.
        MalformedError: `bad-id` or `bad-key`.
    """
    pins = next((found for name in IDENTITIES if (found := _read(policy.parent / name / "pins.json"))), {})
    named = site or pins.get("site") or _read(policy.parent / "site.public.json").get("site")
    if not named:
        raise ConfigError(
            "which-site", f"{policy} does not lie in the directory of a site or device", remedy="name one with --site"
        )
    key = root_pk or pins.get("root_pk", "")
    try:
        root = bytes.fromhex(key) if key else None
    except ValueError:
        root = b""
    if root is not None and len(root) != DIGEST_BYTES:
        raise MalformedError("bad-key", "the root's key is not 64 hexadecimal digits", remedy="copy it again")
    return Home(check_id(named, "site"), root)


def check_plan_file(path: Path, policy: SitePolicy, home: Home, *, as_issued: bool = False) -> PlanVerdict:
    """Read a plan file and judge it as the site's trustee and devices would.

    Args:
        path: written by `bedside round plan`.
        policy: the site's rules.
        home: who judges.
        as_issued: judge times as at the plan's issue instead of now.

    Raises:
        ConfigError: `plan-missing`.
        MalformedError, TrustError, ProtocolError: it is no plan of this federation at all, so no rule applies.
    """
    told = _read_plan_file(path)
    if home.root_pk is None:
        federation = parse_strict(Federation, told.federation.payload)
    else:
        federation = open_federation(told.federation, home.root_pk)
    plan = open_plan(told.plan, federation.coordinator.sign_pk)
    now_s = plan.plan.issued_at_s if as_issued else SystemClock().now_ns() // _NS_PER_S
    rules = judge_each(
        plan,
        policy,
        told.manifest,
        own_site=home.site,
        previous=told.previous_result if told.HasField("previous_result") else None,
        now_s=now_s,
        local_minute=None if as_issued else local_minute(now_s),
    )
    notes = [WITH_MEMORY]
    if home.root_pk is None:
        notes.insert(0, NOT_VERIFIED)
    if as_issued and policy.hours:
        notes.append(HOURS_SKIPPED.replace("this machine has no clock to trust", "the plan is judged as at its issue"))
    judged = (_judge_rosters(told, federation, plan, home.site), *rules)
    return PlanVerdict(home.site, plan.plan.task, plan.plan.round_number, plan.digest, judged, tuple(notes))


def _judge_rosters(told: PlanFile, federation: Federation, plan: CheckedPlan, site: str) -> Judged:
    """Whether every trustee of the own cohort is on its site's roster."""
    cohort = next((one for one in plan.plan.cohorts if site in one.sites), None)
    try:
        trust = Trust(federation, [open_roster(roster, federation) for roster in told.rosters])
    except BedsideError as error:
        return Judged(error.code, allowed=False, sentence=error.sentence)
    for trustee in cohort.trustees if cohort is not None else ():
        if not trust.lists(trustee.site, trustee.credential_digest):
            sentence = f"the plan's trustee of site {trustee.site[:64]} is not on that site's roster"
            return Judged("not-on-roster", allowed=False, sentence=sentence)
    return Judged("not-on-roster", allowed=True, sentence="the cohort's trustees are on the rosters of their sites")


def _read_plan_file(path: Path) -> PlanFile:
    try:
        if path.stat().st_size > MAX_PLAN_FILE_BYTES:
            raise MalformedError("bad-plan-file", f"{path} is larger than {MAX_PLAN_FILE_BYTES} bytes")
        return parse_strict(PlanFile, path.read_bytes(), MAX_PLAN_FILE_BYTES)
    except OSError as error:
        raise ConfigError(
            "plan-missing",
            f"the plan {path} cannot be read: {error.strerror}",
            remedy="write one with `bedside round plan`",
        ) from error


def _read(path: Path) -> dict[str, str]:
    """The strings of a small JSON file; none where there is no such file."""
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return {name: value for name, value in told.items() if isinstance(value, str)} if isinstance(told, dict) else {}
