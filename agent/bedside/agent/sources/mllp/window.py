"""Messages that a peer has sent lately, so that one that comes again is not taken again.

A sender that has seen no acknowledgement sends the same bytes under the same MSH-10. What an earlier process took, the
buffer knows: a record of the same stream, time and values is one record.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from bedside.agent.formats.hl7.writing import Verdict
from bedside.core.ids import StreamId

MESSAGES_OF_ONE_PEER: Final = 256
PEERS: Final = 64
"""With 256 messages each, 3 MB."""
_DIGEST_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Seen:
    """What was made of a message.

    Attributes:
        verdict: that it got, or gets once its streams are on the disk.
        streams: where something of it went.
        error: HL7 table 0357; empty for none.
        words: why, for people.
    """

    verdict: Verdict
    streams: frozenset[StreamId] = frozenset()
    error: str = ""
    words: str = ""


class Window:
    """The newest messages of the newest peers."""

    def __init__(self) -> None:
        self._peers: OrderedDict[str, OrderedDict[bytes, Seen]] = OrderedDict()

    def find(self, peer: str, message: bytes) -> Seen | None:
        """What was made of the same bytes; None when they are new."""
        messages = self._peers.get(peer)
        return messages.get(_digest(message)) if messages is not None else None

    def note(self, peer: str, message: bytes, seen: Seen) -> None:
        """Remember a message, and forget the oldest beyond the bounds."""
        messages = self._peers.setdefault(peer, OrderedDict())
        self._peers.move_to_end(peer)
        messages[_digest(message)] = seen
        if len(messages) > MESSAGES_OF_ONE_PEER:
            messages.popitem(last=False)
        if len(self._peers) > PEERS:
            self._peers.popitem(last=False)


def _digest(message: bytes) -> bytes:
    return blake2b(message, digest_size=_DIGEST_BYTES).digest()
