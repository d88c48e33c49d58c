"""What a rule says: allowed, or refused with a stable code and a sentence for the operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Verdict:
    """Allowed, or refused with a stable code and a sentence for the operator.

    Attributes:
        allowed: whether every rule that was asked says yes.
        code: of the rule that says no.
        sentence: what was asked, and what the site allows.
        notes: rules that could not be judged here, in sentences.
    """

    allowed: bool
    code: str = ""
    sentence: str = ""
    notes: tuple[str, ...] = ()


ALLOWED: Final = Verdict(allowed=True)


def refused(code: str, sentence: str) -> Verdict:
    """A refusal."""
    return Verdict(allowed=False, code=code, sentence=sentence)
