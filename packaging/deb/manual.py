"""Manual pages of click commands: one page for a first-level command, with a section for each below it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from inspect import cleandoc
from types import MappingProxyType
from typing import Final

import click

_CODE: Final = re.compile(r"`([^`]+)`")

Sections = Mapping[str, Iterable[tuple[str, str]]]
NO_SECTIONS: Final[Sections] = MappingProxyType({})


def manual_page(
    name: str, command: click.Command, version: str, epoch_s: int, also: Iterable[str], sections: Sections = NO_SECTIONS
) -> str:
    """The roff source of `name`(1).

    Args:
        name: of the page, such as bedside-agent.
        command: what it is about.
        version: of Bedside.
        epoch_s: its date, seconds since 1970.
        also: names of other pages.
        sections: further ones, by heading: terms with what they are.
    """
    words = name.replace("-", " ", 1)
    date = datetime.fromtimestamp(epoch_s, UTC).date().isoformat()
    context = click.Context(command, info_name=words)
    summary = command.get_short_help_str(limit=200).removeprefix("Bedside: ").rstrip(".")
    lines = [
        f'.TH {_quoted(name.upper())} 1 {_quoted(date)} {_quoted(f"bedside {version}")} "Bedside"',
        ".ad l",  # ragged, as long words of commands cannot be stretched
        ".nh",
        ".SH NAME",
        f"{_escaped(name)} \\- {_escaped(summary)}",
        ".SH SYNOPSIS",
        f".B {_escaped(_usage(command, context))}",
        ".SH DESCRIPTION",
        *_paragraphs(command.help or summary),
    ]
    options = _options(command, context)
    lines += [".SH OPTIONS", *options] if options else []
    lines += [] if "COMMANDS" in sections else _commands(command, context)
    for heading, entries in sections.items():
        lines += [f".SH {heading}", *(line for term, text in entries for line in _entry(term, text))]
    lines += [".SH SEE ALSO", ", ".join(f"\\fB{_escaped(page)}\\fR(1)" for page in also)]
    return "\n".join(lines) + "\n"


def _commands(command: click.Command, context: click.Context) -> list[str]:
    lines: list[str] = []
    for child, child_context in _below(command, context):
        lines += [f".SS {_quoted(_usage(child, child_context))}", *_paragraphs(child.help or "")]
        lines += _options(child, child_context)
    return [".SH COMMANDS", *lines] if lines else []


def _entry(term: str, text: str) -> list[str]:
    return [".TP", f"\\fB{_escaped(term)}\\fR", *([_line(text)] if text else [])]


def _below(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Every command that does something, with its place."""
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name) if name in command.commands else None
        if child is None or child.hidden:
            continue
        child_context = click.Context(child, info_name=name, parent=context)
        if isinstance(child, click.Group):
            yield from _below(child, child_context)
        else:
            yield child, child_context


def _usage(command: click.Command, context: click.Context) -> str:
    return " ".join([context.command_path, *command.collect_usage_pieces(context)])


def _options(command: click.Command, context: click.Context) -> list[str]:
    records = [param.get_help_record(context) for param in command.get_params(context) if not _is_help(param)]
    return [line for record in records if record is not None and record[1] for line in _entry(*record)]


def _is_help(param: click.Parameter) -> bool:
    return "--help" in param.opts


def _paragraphs(text: str) -> list[str]:
    """Paragraphs as click reads them: one that begins with a backspace keeps its lines."""
    lines: list[str] = []
    for paragraph in cleandoc(text.partition("\f")[0]).split("\n\n"):
        rows = paragraph.split("\n")
        if rows[0].strip() == "\b":
            lines += [".PP", ".nf", *map(_line, rows[1:]), ".fi"]
        elif paragraph.strip():
            lines += [".PP", _line(" ".join(row.strip() for row in rows))]
    return lines


def _line(text: str) -> str:
    return _CODE.sub(r"\\fB\1\\fR", _escaped(text))


def _quoted(text: str) -> str:
    return '"' + _escaped(text).replace('"', "\\(dq") + '"'


def _escaped(text: str) -> str:
    """Text that roff takes as it stands: no line of it is a request, no character an escape."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace("|", "|\\:")  # a line may be broken there
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain
