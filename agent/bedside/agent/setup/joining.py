"""Joining a site: both ports tried first, so that no token is used up in vain, then the request, then the wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bedside.core.clock import Clock, Entropy
from bedside.core.errors import RefusedError, UnavailableError
from bedside.service.identity import Identity

if TYPE_CHECKING:
    from bedside.core.signing.tokens import BearerToken
    from bedside.service.link.enrolment import Enrolment

LOOK_S: Final = 5.0
"""Seconds for which one call waits for the site's approval."""


async def find_service_port(bearer: BearerToken) -> str:
    """Try the enrolment port that a token names, and return the address of the other one, which it tells.

    Raises:
        UnavailableError: `coordinator-unreachable`.
        TrustError: `ca-mismatch`: somebody inspects TLS on the way; or the coordinator is not the token's.
    """
    from bedside.service.link.address import check_told_address
    from bedside.service.link.enrolment import connect_enrolment

    token = bearer.token
    async with await connect_enrolment(token.enrolment_address, token.ca_digest) as client:
        told = (await client.get_federation(token.root_pk)).service_address
    return check_told_address(told) if told else ""


async def try_service_port(address: str, ca_digest: bytes) -> None:
    """See that the mTLS port answers with the pinned authority. Raises as `find_service_port`."""
    from bedside.service.link.pinned_ca import fetch_ca

    await fetch_ca(address, ca_digest)


async def join_site(
    identity: Identity, token_text: str, label: str, wait_s: float, *, clock: Clock, entropy: Entropy
) -> Enrolment:
    """Ask a site with a token for a credential, and wait for a person's approval for so many seconds at most.

    Raises:
        RefusedError: with the site's own code and sentence.
        BedsideError: as `start_enrolment`.
    """
    from bedside.service.link.enrolment import poll_enrolment, start_enrolment

    found = await start_enrolment(identity, token_text, label, clock=clock, entropy=entropy)
    if found.phase == "pending" and wait_s > 0:
        found = await poll_enrolment(identity, clock=clock, entropy=entropy, wait_s=wait_s)
    return accepted(found)


async def await_approval(
    identity: Identity, wait_s: float, tell: Callable[[str], None], *, clock: Clock, entropy: Entropy
) -> Enrolment:
    """Wait until a site has decided on the request that is stored, through absences of the coordinator.

    Args:
        identity: that has asked.
        wait_s: seconds to wait at most; infinite for ever.
        tell: hears what is waited for, again and again.
        clock: measures the wait.
        entropy: for the request of the certificate.

    Raises:
        RefusedError: with the site's own code and sentence.
        UnavailableError: the coordinator was away at the last look.
    """
    from bedside.service.link.enrolment import poll_enrolment

    ends_s = clock.monotonic_s() + wait_s
    look_s = 0.0  # the first one at once, so that whoever waits soon sees for what
    while True:
        left_s = max(0.0, ends_s - clock.monotonic_s())
        try:
            found = await poll_enrolment(identity, clock=clock, entropy=entropy, wait_s=min(look_s, left_s))
            tell(found.sentence)
        except UnavailableError as error:
            if clock.monotonic_s() >= ends_s:
                raise
            tell(error.sentence)
            await asyncio.sleep(min(LOOK_S, left_s))
            continue
        if found.phase != "pending" or clock.monotonic_s() >= ends_s:
            return accepted(found)
        look_s = LOOK_S


def accepted(found: Enrolment) -> Enrolment:
    """What was found, unless it is a refusal.

    Raises:
        RefusedError: with the site's own code and sentence.
    """
    if found.phase == "refused":
        raise RefusedError(
            found.code or "enrolment-refused", found.sentence, remedy="ask the site's admin for a new token"
        )
    return found


def after_pending(needs_approval: bool, again: str) -> str:
    """What whoever waits has to do; `again` is what to call then."""
    if needs_approval:
        return f"a person at the site compares the fingerprint and runs `bedside site approve`; then {again}"
    return f"the site's trustee answers as soon as it is connected; then {again}"
