"""What may be meant as it is configured and most likely is not: `bedside agent check` warns of it and refuses nothing.

Also what each source reads and each sink sends where, in a line, without secrets.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bedside.agent.alarms.unwatched import some, unwatched
from bedside.agent.config import AlarmRule
from bedside.agent.sinks.kind import SinkOptions
from bedside.agent.sources.kind import SourceOptions
from bedside.agent.training.settings import ANY_STREAM
from bedside.core.vocabulary.mdc import term_of
from bedside.core.vocabulary.normaliser import FieldRule
from bedside.core.vocabulary.quantities import QUANTITIES
from bedside.service.text import bounded

_PLACES: Final = ("listen", "url", "broker", "address", "port", "path", "record", "data", "directory", "device")
"""Options, of whatever kind, that say where something comes from or goes to."""
_CODED: Final = frozenset({"mllp", "mqtt", "ble"})
"""Kinds of which each reading has a code, so that the vocabulary fills fields that no rule names."""
_RECORDINGS: Final = frozenset({"replay", "edf", "wfdb", "serial"})
"""Kinds that deliver signal and no record."""
_STANDARD_PAYLOADS: Final = frozenset({"hl7", "fhir", "apdu"})
_OF_URL: Final = re.compile(r"(?<=//)[^/@]*@|[?#].*", re.DOTALL)
_GLOB: Final = re.compile(r"[*?\[]")
_SQLITE: Final = "sqlite:///"
_SHOWN_CHARS: Final = 80


def place_of(options: msgspec.Struct) -> str:
    """Where a source reads or a sink sends: an address or a path, without account, query or secret; empty if unknown.

    An account's name is no secret, but a token in its place would be one.
    """
    for name in _PLACES:
        where = getattr(options, name, "")
        if where and isinstance(where, str):
            topic = getattr(options, "topic", "")
            return bounded(_OF_URL.sub("", where) + (f", topic {topic}" if topic else ""), _SHOWN_CHARS)
    return ""


def reads(options: SourceOptions) -> str:
    """What a source reads and delivers, in a line."""
    streams = some([one for one in options.streams() if one])
    return f"reads {place_of(options) or 'what its kind reads'}, delivers {streams}"


def sends(options: SinkOptions) -> str:
    """What a sink sends, and where, in a line."""
    of = f" of {some(options.streams)}" if options.streams else ""
    place = place_of(options)
    return f"sends {', '.join(options.send)}{of}" + (f" to {place}" if place else "") + f" ({options.mode})"


def of_source(kind: str, options: SourceOptions, directory: Path) -> Iterator[str]:
    """Doubts about one source, in sentences.

    Args:
        kind: of it.
        options: of it.
        directory: relative paths start here.
    """
    yield from _of_files(options, directory)
    if _has_codes(kind, options):
        for field, rule in _rules(options).items():
            yield from _of_rule(field, rule)


def of_alarms(rules: Sequence[AlarmRule], fed: Collection[str], delivered: Collection[str] | None) -> Iterator[str]:
    """Doubts about alarms.

    Args:
        rules: of `[[alarms]]`.
        fed: streams that sources deliver.
        delivered: fields that records may have; None where that is not known.
    """
    yield from unwatched(rules, {}, fed, [rule.name for rule in rules])
    for rule in rules:
        if rule.field and delivered is not None and rule.field not in delivered:
            yield f"no source delivers the field {bounded(rule.field, 64)} of alarm {rule.name}"


def of_idle_streams(idle: Sequence[str], known: Collection[str]) -> Iterator[str]:
    """Doubts about the streams whose sessions hold training up, given those that sources deliver and models read."""
    strange = [stream for stream in idle if stream != ANY_STREAM and stream not in known]
    if strange:
        yield (
            f"no source and no model names {some(strange)} of training.gates.idle_streams, so that it holds up no "
            f"training (streams here: {some(known)})"
        )


def of_sink(options: SinkOptions, fed: Collection[str]) -> Iterator[str]:
    """Doubts about one sink, given the streams that sources deliver."""
    strange = [stream for stream in options.streams if stream not in fed]
    if strange:
        yield f"no source delivers {some(strange)} (streams here: {some(fed)})"


def delivered(sources: Sequence[tuple[str, SourceOptions]]) -> frozenset[str] | None:
    """Fields that the records of sources, kind and options of each, may have; None where one may deliver any."""
    found: set[str] = set()
    for kind, options in sources:
        if kind in _RECORDINGS:
            continue
        rules = _rules(options)
        if kind in _CODED or bool(getattr(options, "code_column", "")):
            found |= QUANTITIES.keys()
        elif kind not in {"csv", "sql"}:
            return None
        found |= rules.keys()
    return frozenset(found)


def _rules(options: SourceOptions) -> Mapping[str, FieldRule]:
    fields = getattr(options, "fields", None)
    return fields if isinstance(fields, dict) else {}


def _has_codes(kind: str, options: SourceOptions) -> bool:
    """Whether readings come under codes of a standard, and not under a name that somebody here has chosen."""
    if kind == "mqtt":
        payloads = [topic.payload.__struct_config__.tag for topic in getattr(options, "topics", {}).values()]
        return not _STANDARD_PAYLOADS.isdisjoint(payloads)
    return kind in _CODED or bool(getattr(options, "code_column", ""))


def _of_rule(field: str, rule: FieldRule) -> Iterator[str]:
    code = rule.code or field
    if "^" in code:
        first, _, rest = code.partition("^")
        yield (
            f"field {field}: no code has a ^: {bounded(code, 40)} is code = {bounded(first, 40)!r}"
            f" and system = {bounded(rest.rpartition('^')[2], 40)!r}"
        )
    elif field in QUANTITIES and rule.code:
        terms = [term_of(code, system) for system in ([rule.system] if rule.system else ["", "MDC", "LN"])]
        if not any(term and QUANTITIES[field] in term.quantities for term in terms):
            yield (
                f"field {field} takes {bounded(code, 40)} alone, and no longer the codes that are known for it:"
                f" call it {field}_local where both come"
            )


def _of_files(options: SourceOptions, directory: Path) -> Iterator[str]:
    path, url = getattr(options, "path", ""), getattr(options, "url", "")
    named = path or (url.removeprefix(_SQLITE) if url.startswith(_SQLITE) else "")
    if named and not _GLOB.search(named) and not (directory / named).exists():
        yield f"there is no {named} yet"
