"""What a receiver says to a message: MSA and ERR of its acknowledgement.

Source: HL7 v2.6 chapter 2, 2.9.2 and 2.14.8; table 0008.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bedside.agent.formats.hl7.message import read_message
from bedside.core.errors import MalformedError
from bedside.core.vocabulary.reading import shown

_CODES: Final = frozenset({"AA", "AE", "AR", "CA", "CE", "CR"})


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """An answer.

    Attributes:
        code: MSA-1 (`AA`, `AE`, `AR`, or `CA`, `CE`, `CR`).
        control_id: MSA-2: of the message that it answers.
        words: why, as far as the receiver says: one bounded line.
    """

    code: str
    control_id: str
    words: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the receiver has the message now."""
        return self.code in ("AA", "CA")

    @property
    def rejected(self) -> bool:
        """Whether the receiver will never take it; otherwise it may later."""
        return self.code in ("AR", "CR")


def read_ack(data: bytes) -> Acknowledgement:
    """Read an acknowledgement without its framing.

    Raises:
        MalformedError: `hl7-ack`, or from `read_message`.
    """
    message = read_message(data)
    said, error = message.first("MSA"), message.first("ERR")
    code = said.text(1).upper() if said is not None else ""
    if said is None or code not in _CODES:
        raise MalformedError("hl7-ack", "an answer is no acknowledgement: it has no MSA-1 that HL7 knows")
    words = said.text(3)
    if error is not None:
        words = error.text(8) or error.text(7) or " ".join(error.components(3)[:2]) or words
    return Acknowledgement(code, said.raw(2), shown(words))
