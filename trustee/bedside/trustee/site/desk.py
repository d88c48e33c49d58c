"""Decides who joins the site.

A valid site token that has uses left is an answer given in advance: its bearer is countersigned at once. A
coordinator's token proves only that the coordinator knows of the request; it waits until a person at the site has
compared the fingerprint and said `bedside site approve`.

Only devices join through the desk. The site's one trustee is made on the site's own machine (`bedside site join`): a
second one would open the sums of every device of this site, so that a request for one is refused whoever let it in.

The daemon and the commands share this code and the database; whoever decides stores the decision, and the daemon
sends it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from bedside.core.clock import Clock, Entropy
from bedside.core.errors import BedsideError, ProtocolError, RefusedError, TrustError
from bedside.core.signing.tokens import BearerToken, open_request, open_token, token_digest
from bedside.core.signing.trust import fingerprint, subject_of
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.enrolment_pb2 import EnrolRequest
from bedside.proto.v1.identity_pb2 import CredentialRequest, Role
from bedside.proto.v1.trustee_pb2 import CredentialDecision
from bedside.service.identity import Identity
from bedside.trustee.site.authority import DAY_S, ROSTER_DAYS, SiteAuthority
from bedside.trustee.site.register import GRANTED, PENDING, REFUSED, Register, Request, request_digest

MAX_PENDING: Final = 1_000
"""Requests that may wait for a person at one time: the coordinator cannot fill the site's disk."""

_NS_PER_S: Final = 1_000_000_000


class Desk:
    """The site authority at work."""

    def __init__(self, authority: SiteAuthority, register: Register, coordinator_pk: bytes, clock: Clock) -> None:
        self.register = register
        self._authority = authority
        self._coordinator_pk = coordinator_pk
        self._clock = clock

    def receive(self, enrol: EnrolRequest) -> Request:
        """Store a request that arrived, and decide it when a token decides. The same request keeps its decision.

        Raises:
            MalformedError, TrustError: what is not even a request of this site leaves no trace.
        """
        known = self.register.request(request_digest(enrol))
        if known is not None:
            if known.state != PENDING:
                self.register.mark_sent(known.digest, sent=False)
            return known
        asked, signed_token = open_request(enrol)
        if (asked.site, asked.federation) != (self._authority.site, self._authority.federation):
            raise TrustError("wrong-site", f"this request is for site {asked.site}, not for {self._authority.site}")
        request = _new_request(enrol, asked, self._now_s())
        try:
            by_site = self._judge_token(asked, signed_token)
        except BedsideError as error:
            return self._refuse(request, error)
        if by_site:
            return self._grant(request, asked, token_digest(signed_token))
        if len(self.register.requests(PENDING)) >= MAX_PENDING:
            raise RefusedError("too-many-requests", "too many requests wait at this site", remedy="decide them first")
        self.register.add_request(request)
        return request

    def approve(self, wanted: str) -> Request:
        """Grant the request whose fingerprint a person has compared.

        Raises:
            ProtocolError: `no-such-request`.
            RefusedError: `second-trustee`; the request is refused for good.
        """
        request = self.waiting(wanted)
        asked, _ = open_request(request.enrol)
        try:
            _check_role(asked)
        except RefusedError as error:
            self._refuse(request, error)
            raise
        return self._grant(request, asked, b"")

    def waiting(self, wanted: str) -> Request:
        """The request with exactly this fingerprint that waits for a person.

        Raises:
            ProtocolError: `no-such-request`.
        """
        plain = wanted.replace("-", "").strip().lower()
        for request in self.register.requests(PENDING):
            if request.fingerprint.replace("-", "") == plain:
                return request
        raise ProtocolError(
            "no-such-request",
            f"no request with fingerprint {wanted[:64]} waits at this site",
            remedy="see `bedside site requests`; the whole fingerprint that the device shows is needed",
        )

    def enlist_trustee(self, identity: Identity, label: str) -> None:
        """Countersign the site's own trustee and put it on the roster."""
        now_s = self._now_s()
        credential = self._authority.credential(
            Role.ROLE_TRUSTEE, identity.sign_pk, identity.tls_key_digest, label, now_s=now_s
        )
        self.register.list_member(credential, self._sign_roster, issued_at_s=now_s)
        identity.save_credential(credential.signed)

    def revoke(self, subject: str) -> None:
        """Take a device, or a trustee, off the roster.

        Raises:
            ProtocolError: `no-such-member`.
        """
        if not self.register.revoke(subject, self._sign_roster, at_s=self._now_s()):
            raise ProtocolError(
                "no-such-member", f"{subject[:64]} is not on the roster of this site", remedy="see `bedside site show`"
            )

    def mint(
        self, identity: Identity, role: Role.ValueType, *, uses: int, hours: int, label: str, entropy: Entropy
    ) -> BearerToken:
        """Mint a token and remember how often it may be used."""
        bearer = self._authority.token(
            identity.pins, role, uses=uses, hours=hours, label=label, now_s=self._now_s(), entropy=entropy
        )
        self.register.add_token(bearer)
        return bearer

    def renew_roster(self) -> bool:
        """Sign the roster again when half of its life is over; whether that was so."""
        roster = self.register.roster()
        if roster is None or roster.not_after_s - self._now_s() > ROSTER_DAYS * DAY_S // 2:
            return False
        self.register.renew_roster(self._sign_roster)
        return True

    def _judge_token(self, asked: CredentialRequest, signed: Signed) -> bool:
        """True for a usable site token, False for the coordinator's; raises for all others."""
        _check_role(asked)
        now_s = self._now_s()
        try:
            open_token(signed, self._authority.authority_pk, now_s=now_s)
        except TrustError as error:
            if error.code != "bad-signature":
                raise
            open_token(signed, self._coordinator_pk, now_s=now_s)
            return False
        left = self.register.uses_left(token_digest(signed))
        if left is None:
            raise TrustError("token-unknown", "this token is not in the site's register", remedy="mint a new token")
        if left < 1:
            raise RefusedError("token-used", "this token is used up", remedy="ask the site's admin for a new one")
        return True

    def _grant(self, request: Request, asked: CredentialRequest, used_token: bytes) -> Request:
        now_s = self._now_s()
        credential = self._authority.credential(
            asked.role, asked.sign_pk, asked.tls_key_digest, asked.label, now_s=now_s, token_digest=used_token
        )
        granted = dataclasses.replace(request, state=GRANTED, credential=credential.signed)
        self.register.grant(granted, credential, self._sign_roster, issued_at_s=now_s)
        return granted

    def _refuse(self, request: Request, error: BedsideError) -> Request:
        remedy = f" ({error.remedy})" if error.remedy else ""
        refused = dataclasses.replace(request, state=REFUSED, code=error.code, sentence=f"{error.sentence}{remedy}")
        self.register.add_request(refused)
        return refused

    def _sign_roster(self, version: int, digests: Sequence[bytes]) -> Signed:
        return self._authority.roster(version, digests, now_s=self._now_s())

    def _now_s(self) -> int:
        return self._clock.now_ns() // _NS_PER_S


def decision_of(request: Request) -> CredentialDecision:
    """A decided request as the coordinator relays it."""
    return CredentialDecision(
        request_digest=request.digest,
        credential=request.credential,
        code=request.code,
        sentence=request.sentence,
    )


def _check_role(asked: CredentialRequest) -> None:
    if asked.role != Role.ROLE_DEVICE:
        raise RefusedError(
            "second-trustee",
            "this request is not a device's; a site has one trustee, which `bedside site join` makes on the spot",
            remedy="ask who minted that token: with a second trustee somebody could open this site's sums",
        )


def _new_request(enrol: EnrolRequest, asked: CredentialRequest, now_s: int) -> Request:
    return Request(
        digest=request_digest(enrol),
        fingerprint=fingerprint(asked.sign_pk),
        subject=subject_of(asked.role, asked.sign_pk),
        role=asked.role,
        label=asked.label,
        enrol=enrol,
        received_at_s=now_s,
        state=PENDING,
        credential=None,
        code="",
        sentence="",
    )
