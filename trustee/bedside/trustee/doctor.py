"""What `bedside doctor` looks at on a trustee's machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from bedside.proto.v1.identity_pb2 import Role
from bedside.service.doctor.check import Check, Finding, Part, Place, bad, doubtful, good
from bedside.service.doctor.membership import membership_checks
from bedside.service.doctor.reach import reach_checks
from bedside.service.doctor.storage import DISK, OWNER, WRITING
from bedside.service.doctor.unit import SERVICE, how_to_start
from bedside.service.health import Level
from bedside.service.mounts import RAM_FILE_SYSTEMS, file_system_of
from bedside.service.policy_file import read_policy
from bedside.trustee.hardening import swap_in_use
from bedside.trustee.paths import SitePaths, default_runtime_directory

PACKAGED_RUNTIME: Final = Path("run/bedside-trustee")
"""Below the root of the machine: RuntimeDirectory= of the unit."""


def _identity(place: Place) -> Path:
    return SitePaths(place.directory).identity


def _swap(place: Place) -> Iterator[Finding]:
    if swap_in_use(place.root / "proc/swaps"):
        yield doubtful("this machine has swap: round keys in memory may reach a disk")
    else:
        yield good("there is none")


def _round_keys(place: Place) -> Iterator[Finding]:
    packaged = place.root / PACKAGED_RUNTIME
    directory = packaged if packaged.is_dir() else default_runtime_directory(place.directory, place.environ)
    kind = file_system_of(directory, place.root / "proc/self/mounts")
    if kind not in RAM_FILE_SYSTEMS:
        yield bad(f"{directory} is on {kind or 'an unknown file system'}: round keys would survive on a disk")
    elif directory.is_dir() and directory.stat().st_mode & 0o077:
        yield bad(f"others may look into {directory}", f"chmod 700 {directory}")
    else:
        yield good(f"{directory} lies in memory")


def _policy(place: Place) -> Iterator[Finding]:
    SitePaths(place.directory).read_public()
    policy = read_policy(SitePaths(place.directory).policy).policy
    if not policy.bundle_signers:
        yield doubtful(
            "the policy names no signer of models: every plan is refused",
            "add the public key of a model's author to [bundle_signers] of policy.toml",
        )
    else:
        yield good(f"it holds, and names {len(policy.bundle_signers)} signers of models")


def _running(place: Place) -> Iterator[Finding]:
    from bedside.service.identity import open_identity
    from bedside.trustee.status import read_report
    from bedside.trustee.store import TrusteeStore

    paths = SitePaths(place.directory)
    if not paths.identity.is_dir() or not paths.database.exists():
        return
    identity = open_identity(paths.identity, Role.ROLE_TRUSTEE)
    with closing(TrusteeStore.open(paths.database)) as store:
        report = read_report(paths, identity.pins.site, identity.subject, store)
    if not report.running:
        yield bad("no trustee runs here", how_to_start(place, f"bedside trustee run {place.directory}"))
    for word in report.foreign_words:
        yield bad(f"{word.kind} at position {word.position} of the log was never said here", "see docs/audit.md")
    for part in report.components:
        if part.level != Level.OK.name.lower() and part.component != "keys":  # swap has a check of its own
            level = Level.FAILED if part.level == Level.FAILED.name.lower() else Level.DEGRADED
            yield Finding(level, f"{part.component}: {part.sentence}")
    if report.running and not report.components:
        yield doubtful("it runs, and has not said yet how it is")
    if report.running and not report.exit_status:
        yield good(f"well; {report.ledger_entries} sums in its ledger")


PART: Final = Part(
    name="trustee",
    directory=Path("/var/lib/bedside/trustee"),
    marker="site.public.json",
    unit="bedside-trustee",
    early=(
        DISK,
        WRITING,
        Check("swap", "that no round key in memory can reach a disk", "swapoff -a, and take swap out of fstab", _swap),
        Check(
            "round-keys",
            "that they lie on tmpfs and nobody else may look there",
            "RuntimeDirectory= of the unit lies under /run; else name one on tmpfs with --runtime-dir",
            _round_keys,
        ),
    ),
    checks=(
        Check("policy", "that policy.toml can be read, and names signers", "correct policy.toml", _policy),
        *membership_checks(_identity, Role.ROLE_TRUSTEE, "bedside site join"),
        OWNER,
        *reach_checks(_identity, Role.ROLE_TRUSTEE),
        SERVICE,
        Check(
            "trustee",
            "that it runs, each of its components, and that nobody else uses its key",
            "bedside trustee status DIRECTORY; journalctl -u bedside-trustee",
            _running,
        ),
    ),
)
