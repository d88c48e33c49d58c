"""Names of sessions, and which of them are held out of every training.

A session is held out whole by its name, which is drawn at random: nobody can choose it, and it never changes. One in
ten is, but not the first of a stream that may be trained on, or a new device would have nothing to learn from.
"""

from __future__ import annotations

import hashlib
from typing import Final

from bedside.core.clock import Entropy
from bedside.core.ids import SessionId

ONE_IN: Final = 10
_ID_BYTES: Final = 8


def draw_session_id(entropy: Entropy, *, trained_on: bool = False) -> SessionId:
    """A new name; with `trained_on` one that is not held out."""
    while True:
        drawn = SessionId(entropy.token_bytes(_ID_BYTES).hex())
        if not (trained_on and is_held_out(drawn)):
            return drawn


def is_held_out(session: str) -> bool:
    """Whether no window of a session is ever trained on: it is kept to judge models with."""
    drawn = hashlib.blake2b(session.encode(), person=b"bedside-hold-v1", digest_size=8).digest()
    return int.from_bytes(drawn, "big") % ONE_IN == 0
