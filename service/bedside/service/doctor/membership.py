"""Keys, credential and certificate of a device or a trustee."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from bedside.proto.v1.identity_pb2 import Role
from bedside.service.doctor.check import Check, Finding, Place, bad, doubtful, good
from bedside.service.identity import Identity, open_identity
from bedside.service.output import human_duration

LATE_S: Final = 14 * 86_400
"""Certificates are renewed 30 days before they end: one that ends so soon should have been renewed long ago."""

_NS_PER_S: Final = 1_000_000_000

Locate = Callable[[Place], Path]
"""Where the identity lies."""


def identity_of(locate: Locate, role: Role.ValueType, place: Place) -> Identity | None:
    """The identity, where it is whole and pinned; what is wrong with it is for other checks to say."""
    directory = locate(place)
    if not directory.is_dir():
        return None
    identity = open_identity(directory, role)
    return identity if identity.is_pinned else None


def _keys(locate: Locate, role: Role.ValueType, join: str, place: Place) -> Iterator[Finding]:
    if not locate(place).is_dir():
        yield bad("there are no keys yet", join)
        return
    identity = open_identity(locate(place), role)
    yield good(f"{identity.subject}, keys whole and private; fingerprint {identity.fingerprint}")


def _enrolment(locate: Locate, role: Role.ValueType, place: Place) -> Iterator[Finding]:
    if not locate(place).is_dir():
        return
    identity = open_identity(locate(place), role)
    if not identity.is_pinned:
        yield doubtful("it belongs to no site yet")
    elif identity.credential is None:
        yield doubtful(
            f"site {identity.pins.site} has not approved it yet; fingerprint {identity.fingerprint}",
            "bedside site approve DIRECTORY FINGERPRINT at the site, then here the same command again",
        )
    else:
        yield good(f"belongs to site {identity.pins.site} of federation {identity.federation.federation}")


def _certificate(locate: Locate, role: Role.ValueType, place: Place) -> Iterator[Finding]:
    from bedside.service.tls import certificate_expiry_ns

    identity = identity_of(locate, role, place)
    pem = identity.certificate_pem if identity is not None else None
    if pem is None:
        return
    left_s = (certificate_expiry_ns(pem) - place.clock.now_ns()) // _NS_PER_S
    if left_s < 0:
        yield doubtful(f"it ended {human_duration(-left_s)} ago")
    elif left_s < LATE_S:
        yield doubtful(f"it ends in {human_duration(left_s)}, and should have been renewed long ago")
    else:
        yield good(f"it ends in {human_duration(left_s)}")


def membership_checks(locate: Locate, role: Role.ValueType, join: str) -> tuple[Check, ...]:
    """Checks of an identity.

    Args:
        locate: where it lies.
        role: whose it is.
        join: the command that makes this machine a member.
    """
    return (
        Check(
            "keys",
            "that they are there, whole, its owner's and nobody else's",
            "chmod 600 FILE; or restore them from the backup",
            partial(_keys, locate, role, join),
        ),
        Check(
            "enrolment",
            "that a site has accepted it, and that its credential holds",
            join,
            partial(_enrolment, locate, role),
        ),
        Check(
            "certificate",
            "when its TLS certificate ends",
            "it is renewed by itself where the enrolment port is reached: see the check of that",
            partial(_certificate, locate, role),
        ),
    )
