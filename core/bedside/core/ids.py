"""Names of things, as distinct types.

An id is a short string of lower-case letters, digits, dots and dashes, so that it is safe in file names, SPIFFE paths,
logs and terminals. Ids of patients do not exist here: a session id is random, local, and never leaves the device.
"""

from __future__ import annotations

import re
from typing import NewType

from bedside.core.errors import MalformedError
from bedside.core.limits import MAX_ID_CHARS

SiteId = NewType("SiteId", str)
DeviceId = NewType("DeviceId", str)
TrusteeId = NewType("TrusteeId", str)
TaskId = NewType("TaskId", str)
StreamId = NewType("StreamId", str)
SessionId = NewType("SessionId", str)
PlanDigest = NewType("PlanDigest", bytes)
"""`H`: BLAKE2b-256 of the plan's bytes (32 bytes)."""

_ID = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?", re.ASCII)


def check_id(text: str, what: str) -> str:
    """Return `text` when it is a well-formed id.

    Raises:
        MalformedError: `bad-id`, naming `what`.
    """
    if len(text) > MAX_ID_CHARS or _ID.fullmatch(text) is None:
        raise MalformedError(
            "bad-id",
            f"{what} {text[:MAX_ID_CHARS]!r} is not an id",
            remedy=f"use 1 to {MAX_ID_CHARS} lower-case letters, digits, dots and dashes",
        )
    return text
