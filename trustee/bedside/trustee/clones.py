"""The sign of a cloned device: two machines of one identity, the second one behind the first.

A device persists a sequence before it signs a header with it, so that the headers of one task only rise. One that goes
back comes from a copy of the device's storage, which may also repeat what the first machine drew.

Source: DESIGN section 7 (sequences are persisted before sending).
"""

from __future__ import annotations

from bedside.core.securesum.trustee import CheckedSet
from bedside.trustee.store import Floor


def header_floors(task: str, checked: CheckedSet, site: str) -> list[Floor]:
    """What the headers of this site's own devices become the floors of.

    By task, since rounds of different tasks are sealed in any order.
    """
    return [
        Floor(f"header-sequence/{task}/{header.credential.credential.subject}", header.header.sequence, header.digest)
        for header in (member.header for member in checked.members)
        if header.credential.site == site
    ]
