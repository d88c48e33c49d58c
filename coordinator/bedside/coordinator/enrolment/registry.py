"""The members of the federation as the newest rosters list them, in memory, from what the store keeps.

Invariants:
    * A credential counts only while its site's newest roster lists it; the coordinator can add nobody.
    * A roster's version grows; the same roster again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bedside.coordinator.store import Store, members
from bedside.core.errors import BedsideError, RefusedError, TrustError
from bedside.core.signing import Trust, VerifiedCredential, open_roster, parse_strict
from bedside.core.signing.trust import authority_of, open_credential
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.identity_pb2 import Credential, Federation, Role, Roster

MemberName = tuple[str, str]
"""(site, subject)."""


class Registry:
    """One federation document, the newest rosters, and every credential that was ever shown."""

    def __init__(self, store: Store, federation: Federation, signed_federation: Signed) -> None:
        self._store = store
        self.federation = federation
        self.signed_federation = signed_federation
        self._rosters: dict[str, tuple[Roster, Signed]] = {}
        self._credentials: dict[bytes, VerifiedCredential] = {}
        self._names: dict[MemberName, bytes] = {}
        self._load()
        self.trust = self._view()

    @property
    def sites(self) -> list[str]:
        """All sites of the federation."""
        return [entry.site for entry in self.federation.sites]

    def publish(self, signed: Signed) -> Roster:
        """Take a site's newer roster.

        Raises:
            TrustError: `bad-signature`, `unknown-site` or `roster-rollback`.
            MalformedError: when it is not well-formed.
        """
        claimed = parse_strict(Roster, signed.payload)
        known = self._rosters.get(claimed.site)
        if known is not None and known[1].payload == signed.payload:
            return known[0]
        roster = open_roster(signed, self.federation, min_version=known[0].version + 1 if known else 1)
        row = members.RosterRow(roster.site, roster.version, signed.SerializeToString(deterministic=True))
        self._store.run_tx("publish-roster", lambda tx: members.put_roster(tx, row))
        self._rosters[roster.site] = (roster, signed)
        self.trust = self._view()
        return roster

    def remember(self, credential: VerifiedCredential) -> None:
        """Keep a credential whose signature was verified."""
        if credential.digest not in self._credentials:
            told = credential.credential
            signed = credential.signed.SerializeToString(deterministic=True)
            row = members.CredentialRow(credential.digest, told.site, told.subject, signed)
            self._store.run_tx("remember-credential", lambda tx: members.put_credential(tx, row))
            self._take(credential)

    def open(self, signed: Signed) -> VerifiedCredential:
        """Verify a credential under its site's authority, whether a roster lists it or not.

        Raises:
            TrustError: `unknown-site`, `bad-signature` or `other-federation`.
            MalformedError: when it is not well-formed.
        """
        claimed = parse_strict(Credential, signed.payload)
        verified = open_credential(signed, authority_of(self.federation, claimed.site))
        if claimed.federation != self.federation.federation:
            raise TrustError("other-federation", f"{claimed.subject[:64]!r} belongs to another federation")
        return verified

    def member(self, site: str, subject: str) -> VerifiedCredential:
        """The credential of that name when it is on the newest roster.

        Raises:
            TrustError: `unknown-member`.
            RefusedError: `revoked`.
        """
        digest = self._names.get((site, subject))
        if digest is None:
            raise TrustError("unknown-member", f"no credential of {subject} of site {site} is known here")
        self.check_listed(self._credentials[digest])
        return self._credentials[digest]

    def check_listed(self, credential: VerifiedCredential) -> None:
        """Refuse a credential that its site's newest roster does not list: RefusedError `revoked`."""
        if not self.trust.lists(credential.site, credential.digest):
            raise RefusedError(
                "revoked",
                f"{credential.credential.subject} is not on the newest roster of site {credential.site}",
                remedy="ask the site's admin; enrol again with a new key if it was revoked by mistake",
            )

    def credential(self, digest: bytes) -> VerifiedCredential | None:
        """A credential by digest, listed or not."""
        return self._credentials.get(digest)

    def devices(self, sites: Iterable[str]) -> list[VerifiedCredential]:
        """Listed devices of these sites, in the order of their digests."""
        return self._listed(Role.ROLE_DEVICE, set(sites))

    def trustee(self, site: str) -> VerifiedCredential | None:
        """The listed trustee of a site; the newest when there are several."""
        found = self._listed(Role.ROLE_TRUSTEE, {site})
        return max(found, key=lambda one: (one.credential.issued_at_s, one.digest), default=None)

    def rosters(self, sites: Sequence[str]) -> list[Signed]:
        """The newest rosters of these sites, as signed."""
        return [self._rosters[site][1] for site in sites if site in self._rosters]

    def roster_version(self, site: str) -> int:
        """Version of a site's newest roster; 0 when it has none."""
        return self._rosters[site][0].version if site in self._rosters else 0

    def known_devices(self) -> list[VerifiedCredential]:
        """All devices ever seen, listed or not."""
        return [one for one in self._credentials.values() if one.credential.role == Role.ROLE_DEVICE]

    def _listed(self, role: Role.ValueType, sites: set[str]) -> list[VerifiedCredential]:
        found = [
            one
            for one in self._credentials.values()
            if one.credential.role == role and one.site in sites and self.trust.lists(one.site, one.digest)
        ]
        return sorted(found, key=lambda one: one.digest)

    def _load(self) -> None:
        rosters, credentials = self._store.run_tx(
            "load-registry", lambda tx: (members.rosters(tx), members.credentials(tx))
        )
        for row in rosters:
            signed = parse_strict(Signed, row.signed)
            try:
                self._rosters[row.site] = (open_roster(signed, self.federation), signed)
            except BedsideError:
                continue  # its site left the federation, or has a new authority
        for known in credentials:
            try:
                self._take(self.open(parse_strict(Signed, known.signed)))
            except BedsideError:
                continue  # likewise

    def _take(self, credential: VerifiedCredential) -> None:
        self._credentials[credential.digest] = credential
        name = (credential.credential.site, credential.credential.subject)
        known = self._names.get(name)
        newer = known is None or (self._credentials[known].credential.issued_at_s <= credential.credential.issued_at_s)
        if newer:
            self._names[name] = credential.digest

    def _view(self) -> Trust:
        return Trust(self.federation, [roster for roster, _ in self._rosters.values()])
