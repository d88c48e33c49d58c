"""What a FHIR server says is wrong: an OperationOutcome as JSON, made one sentence.

Source: HL7 FHIR R4, OperationOutcome.
"""

from __future__ import annotations

from typing import Final

import msgspec

from bedside.core.errors import MalformedError
from bedside.core.unreadable import UNREADABLE
from bedside.service.text import bounded

MAX_OUTCOME_BYTES: Final = 64 << 10
MAX_ISSUES: Final = 3
"""Issues that are told; a server lists them by weight."""
_MAX_CHARS: Final = 100


class _Details(msgspec.Struct):
    text: str = ""


class _Issue(msgspec.Struct):
    code: str = ""
    diagnostics: str = ""
    details: _Details = msgspec.field(default_factory=_Details)


class _Outcome(msgspec.Struct):
    resource: str = msgspec.field(name="resourceType")
    issue: list[_Issue] = []


_DECODER: Final = msgspec.json.Decoder(_Outcome)


def outcome_sentence(data: bytes) -> str:
    """The first issues of an OperationOutcome, bounded and printable: `processing: Unknown code`.

    Raises:
        MalformedError: `outcome-form`: it is none.
    """
    if len(data) > MAX_OUTCOME_BYTES:
        raise MalformedError("outcome-form", f"an outcome exceeds {MAX_OUTCOME_BYTES} bytes")
    try:
        outcome = _DECODER.decode(data)
    except UNREADABLE as error:
        raise MalformedError("outcome-form", "the answer is no OperationOutcome") from error
    if outcome.resource != "OperationOutcome":
        raise MalformedError("outcome-form", "the answer is no OperationOutcome")
    told = [
        ": ".join(bounded(part, _MAX_CHARS) for part in (one.code, one.details.text or one.diagnostics) if part)
        for one in outcome.issue[:MAX_ISSUES]
    ]
    return "; ".join(filter(None, told))
