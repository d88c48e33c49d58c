"""Who belongs where: federation, rosters and credentials, verified from bytes.

Invariants:
    * The root key signs the federation; the federation names each site's authority; the authority signs credentials
      and the roster. No key of the coordinator appears in that chain.
    * A credential counts when its site's authority signed it *and* the newest known roster lists it.
    * Versions never go back (rule T8): freshness does not need a clock. Expiry is judged only where the caller has one.

Source: DESIGN section 7; python-tuf's `TrustedMetadataSet` for the shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bedside.core.errors import MalformedError, TrustError
from bedside.core.ids import SiteId, check_id
from bedside.core.signing.envelope import DIGEST_BYTES, SUITE, digest, open_signed, parse_strict
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.identity_pb2 import Credential, Federation, Role, Roster


@dataclass(frozen=True, slots=True)
class VerifiedCredential:
    """A credential whose chain held when this object was made.

    Attributes:
        digest: BLAKE2b-256 of the credential's payload; what rosters and messages refer to.
        credential: its fields.
        signed: the envelope it came in.
    """

    digest: bytes
    credential: Credential
    signed: Signed

    @property
    def sign_pk(self) -> bytes:
        """Ed25519 public key of the bearer."""
        return self.credential.sign_pk

    @property
    def site(self) -> SiteId:
        """The bearer's site."""
        return SiteId(self.credential.site)


def subject_of(role: Role.ValueType, sign_pk: bytes) -> str:
    """The pseudonymous id of a key: `d-` or `t-` and 16 hex digits of its BLAKE2b-256."""
    prefix = "d" if role == Role.ROLE_DEVICE else "t"
    return f"{prefix}-{digest(sign_pk).hex()[:16]}"


def fingerprint(sign_pk: bytes) -> str:
    """What a device shows and a site's admin compares: 32 hex digits in groups of four."""
    text = digest(sign_pk).hex()[:32]
    return "-".join(text[at : at + 4] for at in range(0, len(text), 4))


def open_federation(signed: Signed, root_pk: bytes, *, min_version: int = 0, now_s: int | None = None) -> Federation:
    """Verify the federation document against the pinned root key.

    Raises:
        TrustError: `bad-signature`, `federation-rollback` or `federation-expired`.
        MalformedError: when it is not well-formed.
    """
    try:
        payload = open_signed("federation", signed, root_pk)
    except TrustError as error:
        remedy = "compare the root's 64 digits with those of whoever holds the root key"
        raise TrustError(error.code, error.sentence, remedy=remedy) from error
    federation = parse_strict(Federation, payload)
    _check_suite(federation.suite, "federation")
    check_id(federation.federation, "federation")
    _check_sites(federation)
    _check_version("federation", federation.version, min_version)
    _check_expiry("federation", federation.not_after_s, now_s)
    return federation


def open_roster(signed: Signed, federation: Federation, *, min_version: int = 0, now_s: int | None = None) -> Roster:
    """Verify one site's roster against the authority that the federation names for it.

    Raises:
        TrustError: `unknown-site`, `bad-signature`, `roster-rollback` or `roster-expired`.
        MalformedError: when it is not well-formed.
    """
    claimed = parse_strict(Roster, signed.payload)
    roster = parse_strict(Roster, open_signed("roster", signed, authority_of(federation, claimed.site)))
    _check_suite(roster.suite, "roster")
    if roster.federation != federation.federation:
        raise TrustError("other-federation", f"the roster of {roster.site} is for another federation")
    _check_version("roster", roster.version, min_version)
    _check_expiry("roster", roster.not_after_s, now_s)
    digests = list(roster.credential_digests)
    if digests != sorted(set(digests)) or any(len(entry) != DIGEST_BYTES for entry in digests):
        raise MalformedError("bad-roster", f"the roster of {roster.site} is not in order")
    return roster


def authority_of(federation: Federation, site: str) -> bytes:
    """The site authority's public key.

    Raises:
        TrustError: `unknown-site`.
    """
    for entry in federation.sites:
        if entry.site == site:
            return entry.authority_pk
    raise TrustError(
        "unknown-site",
        f"the federation does not name site {site[:64]!r}",
        remedy="ask the federation's root holder to add the site and publish a new federation document",
    )


def open_credential(signed: Signed, authority_pk: bytes, *, now_s: int | None = None) -> VerifiedCredential:
    """Verify a credential against a site authority's key, without asking any roster.

    Raises:
        TrustError: `bad-signature` or `credential-expired`.
        MalformedError: when it is not well-formed.
    """
    credential = parse_strict(Credential, open_signed("credential", signed, authority_pk))
    _check_suite(credential.suite, "credential")
    check_id(credential.site, "site")
    if credential.role not in (Role.ROLE_DEVICE, Role.ROLE_TRUSTEE):
        raise MalformedError("bad-credential", "a credential is for a device or a trustee")
    if len(credential.sign_pk) != DIGEST_BYTES or len(credential.tls_key_digest) != DIGEST_BYTES:
        raise MalformedError("bad-credential", "a credential's keys have the wrong length")
    if credential.subject != subject_of(credential.role, credential.sign_pk):
        raise MalformedError("bad-credential", "a credential's subject does not follow from its key")
    _check_expiry("credential", credential.not_after_s, now_s)
    return VerifiedCredential(digest(signed.payload), credential, signed)


class Trust:
    """One consistent view: a verified federation and the verified rosters of some of its sites."""

    def __init__(self, federation: Federation, rosters: Iterable[Roster]) -> None:
        self.federation = federation
        self.rosters: Mapping[str, Roster] = {roster.site: roster for roster in rosters}
        self._listed = {site: frozenset(roster.credential_digests) for site, roster in self.rosters.items()}

    def credential(self, signed: Signed, role: Role.ValueType, *, now_s: int | None = None) -> VerifiedCredential:
        """Verify a credential's whole chain, roster included.

        Raises:
            TrustError: `unknown-site`, `bad-signature`, `no-roster`, `not-on-roster`, `wrong-role` or
                `credential-expired`.
            MalformedError: when it is not well-formed.
        """
        claimed = parse_strict(Credential, signed.payload)
        verified = open_credential(signed, authority_of(self.federation, claimed.site), now_s=now_s)
        site = verified.site
        if claimed.federation != self.federation.federation:
            raise TrustError("other-federation", f"{claimed.subject} belongs to another federation")
        if claimed.role != role:
            raise TrustError("wrong-role", f"{claimed.subject} is not a {Role.Name(role)[5:].lower()}")
        if site not in self.rosters:
            raise TrustError("no-roster", f"no roster of site {site} is known")
        if verified.digest not in self._listed[site]:
            raise TrustError(
                "not-on-roster",
                f"{claimed.subject} is not on the roster of site {site}",
                remedy="the site's admin revoked it, or has not published its roster yet",
            )
        return verified

    def lists(self, site: str, credential_digest: bytes) -> bool:
        """Whether the known roster of `site` lists that credential."""
        return credential_digest in self._listed.get(site, frozenset())


def _check_sites(federation: Federation) -> None:
    names = [entry.site for entry in federation.sites]
    if len(set(names)) != len(names):
        raise _bad_federation("a site stands twice in the federation")
    # A plan's K counts sites: two of them under one owner would be one trustee that votes twice.
    if len({entry.authority_pk for entry in federation.sites}) != len(names):
        raise _bad_federation("two sites of the federation share one authority")
    for entry in federation.sites:
        check_id(entry.site, "site")
        if len(entry.authority_pk) != DIGEST_BYTES:
            raise _bad_federation(f"the authority key of {entry.site} has the wrong length")
    if len(federation.coordinator.sign_pk) != DIGEST_BYTES or len(federation.coordinator.ca_digest) != DIGEST_BYTES:
        raise _bad_federation("the coordinator's key or CA digest has the wrong length")


def _bad_federation(sentence: str) -> MalformedError:
    remedy = "name each site once, with the files that `bedside site init` and `bedside coordinator init` wrote"
    return MalformedError("bad-federation", sentence, remedy=remedy)


def _check_suite(suite: int, what: str) -> None:
    if suite != SUITE:
        raise TrustError("bad-suite", f"the {what} uses suite {suite}; this version knows {SUITE} only")


def _check_version(what: str, version: int, min_version: int) -> None:
    if version < max(min_version, 1):
        raise TrustError(
            f"{what}-rollback",
            f"the {what} went back to version {version}; version {min_version} was seen before",
            remedy=f"fetch the newest {what}; if nobody has a newer one, its signer must sign the next version",
        )


def _check_expiry(what: str, not_after_s: int, now_s: int | None) -> None:
    if now_s is not None and now_s > not_after_s:
        raise TrustError(f"{what}-expired", f"the {what} has expired", remedy=f"publish a new {what}")
