"""FHIR resources in XML as the same tree that they are in JSON, for the elements that are read here.

Invariants:
    * No document type, so that there are no entities to expand and nothing outside to fetch.
    * Elements that are not read (names, addresses, narratives) are skipped and never kept.
    * Size, depth and the number of elements are bounded.

Source: FHIR R4, 2.6.1 (XML); XML 1.0.
"""

from __future__ import annotations

from typing import Any, Final

from bedside.core.errors import MalformedError

MAX_DEPTH: Final = 64
"""Elements within each other, those of narratives among them."""
MAX_ELEMENTS: Final = 200_000

_NAMESPACE: Final = "http://hl7.org/fhir "
_LISTS: Final = frozenset({"entry", "coding", "component"})
_READ: Final = _LISTS | frozenset(
    {
        *("resource", "status", "code", "system", "value", "unit", "comparator", "subject", "reference"),
        *("valueQuantity", "valueInteger", "valueString", "dataAbsentReason"),
        *("effectiveDateTime", "effectiveInstant", "effectivePeriod", "effectiveTiming", "start", "end"),
    }
)

_OF_SUBJECT: Final = ("identifier", "subject")
"""Read of a subject alone: everything else has identifiers as well, and several."""


def xml_tree(data: bytes) -> dict[str, Any]:
    """Read one resource.

    Args:
        data: a document in UTF-8.

    Returns:
        As `json.loads` would return it, with `resourceType`; every value is text.

    Raises:
        MalformedError: `bad-fhir`.
    """
    from xml.parsers import expat  # only when a configuration meets XML

    tree = _Tree()
    parser = expat.ParserCreate("utf-8", " ")
    parser.StartDoctypeDeclHandler = tree.refuse_doctype
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    try:
        parser.Parse(data, True)  # positional only
    except (expat.ExpatError, ValueError) as error:
        raise MalformedError("bad-fhir", "a resource that is no XML") from error
    return tree.root


class _Tree:
    """Builds the tree as the parser goes."""

    def __init__(self) -> None:
        self.root: dict[str, Any] = {}
        self._open: list[dict[str, Any] | None] = []
        self._names: list[str] = []
        self._elements = 0

    def refuse_doctype(self, *_: object) -> None:
        raise MalformedError("bad-fhir", "a resource with a document type")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if len(self._open) >= MAX_DEPTH or self._elements > MAX_ELEMENTS:
            raise MalformedError(
                "bad-fhir", f"a resource deeper than {MAX_DEPTH}, or of more than {MAX_ELEMENTS} elements"
            )
        ours = name.removeprefix(_NAMESPACE) if name.startswith(_NAMESPACE) else ""
        node: dict[str, Any] | None = None
        if not self._open:
            if not ours:
                raise MalformedError("bad-fhir", "a document that is no FHIR resource")
            node = self.root = {"resourceType": ours}
        elif (parent := self._open[-1]) is not None and ours:
            node = self._child(parent, ours, attributes)
        self._open.append(node)
        self._names.append(ours)

    def end(self, _: str) -> None:
        self._open.pop()
        self._names.pop()

    def _child(self, parent: dict[str, Any], name: str, attributes: dict[str, str]) -> dict[str, Any] | None:
        """The node of an element; None for one that is skipped with all that it holds."""
        if self._names[-1] == "resource" and len(self._open) > 1:
            parent["resourceType"] = name
            return parent
        if name not in _READ and (name, self._names[-1]) != _OF_SUBJECT:
            return None
        node: dict[str, Any] = {}
        value = attributes.get("value", node)
        if name in _LISTS:
            parent.setdefault(name, []).append(value)
        elif name in parent:
            raise MalformedError("bad-fhir", f"a resource with {name} twice")
        else:
            parent[name] = value
        return node
