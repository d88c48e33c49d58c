r"""EDF+ annotations: time-stamped annotation lists (TALs), the signal "EDF Annotations" of a data record.

`onset [\x15 duration] \x14 text \x14 text \x14 \x00`: the first of a record has an empty text and says when the record
begins, which in a discontinuous file (EDF+D) nothing else does.

Source: Kemp and Olivan, European data format 'plus' (EDF+), section 2.2.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from bedside.core.errors import MalformedError

MAX_TAL_BYTES: Final = 1 << 20
"""Of the annotations of one data record; the signals of a record are 61,440 bytes at most by the standard."""
MAX_TALS: Final = 4_096

_TAL: Final = re.compile(
    rb"([+-][0-9]{1,12}(?:\.[0-9]{0,12})?)(?:\x15([0-9]{1,12}(?:\.[0-9]{0,12})?))?\x14([^\0]*)\x14"
)


class Tal(NamedTuple):
    """One list.

    Attributes:
        onset_s: seconds from the start of the file.
        duration_s: zero when it has none.
        texts: of a list that only says when its record begins, none.
    """

    onset_s: float
    duration_s: float
    texts: tuple[str, ...]


def read_tals(data: bytes) -> list[Tal]:
    """Read the annotations of one data record, the zeros behind them included.

    Raises:
        MalformedError: `bad-edf`.
    """
    if len(data) > MAX_TAL_BYTES:
        raise MalformedError("bad-edf", f"annotations of one record exceed {MAX_TAL_BYTES} bytes")
    pieces = data.rstrip(b"\0").split(b"\0", MAX_TALS)
    if len(pieces) > MAX_TALS:
        raise MalformedError("bad-edf", f"a record has more than {MAX_TALS} annotations")
    return [_tal(piece) for piece in pieces if piece]


def _tal(piece: bytes) -> Tal:
    found = _TAL.fullmatch(piece)
    if found is None:
        raise MalformedError("bad-edf", "an annotation has no onset and text")
    onset, duration, texts = found.groups()
    try:
        words = tuple(text.decode() for text in texts.split(b"\x14") if text)
    except UnicodeError as error:
        raise MalformedError("bad-edf", "an annotation is not UTF-8") from error
    return Tal(float(onset), float(duration or 0), words)
