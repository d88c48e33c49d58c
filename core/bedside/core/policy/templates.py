"""The catalogue of statistics that a site may allow: what each sums, and nothing else can be asked for.

A statistic has no free predicate, time slice or bin edge: those would let a coordinator ask about one patient. A
template names its counts; a plan for it carries exactly these, one word each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Template:
    """One statistic.

    Attributes:
        name: catalogue id, as a plan and a policy name it.
        words: what is summed, for the person who allows it.
        counts: the count words of a device's contribution, in order.
    """

    name: str
    words: str
    counts: tuple[str, ...]


TEMPLATES: Final = {
    template.name: template
    for template in (
        Template("signal-quality", "windows seen, and windows too poor to use", ("windows", "windows-rejected")),
        Template("labelled-windows", "windows that carry a label, of any class", ("windows", "windows-labelled")),
    )
}
"""By name."""
