"""docs/source-options.md lists every option of every kind as the code has it; run as a program, this writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from bedside.agent.kinds import options_of
from bedside.agent.sources.registry import BUILT_IN, find_kind

PAGE = Path(__file__).parents[2] / "docs" / "source-options.md"
HEAD = """# Every option of every kind of source

What `bedside agent sources kinds KIND` prints, for reading. How options go together, with an example of each kind,
is in [sources.md](sources.md). An option without a default is empty.
"""


def default_of(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "**needed**"
    value: Any = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return "" if value in ("", None) or value in ({}, (), []) else f"`{json.dumps(value)}`".replace('"', "")


def table_of(kind: str) -> list[str]:
    options = find_kind(kind).options
    fields = {field.name: field for field in msgspec.structs.fields(options)}
    rows = [
        f"| `{name}` | {default_of(fields[name])} | {words.replace('<', '&lt;')} |"
        for name, words in options_of(options).items()
    ]
    return [
        "",
        f"## {kind}",
        (options.__doc__ or "").splitlines()[0],
        "",
        "| option | default | |",
        "|---|---|---|",
        *rows,
    ]


def written() -> str:
    return HEAD + "\n".join(line for kind in sorted(BUILT_IN) for line in table_of(kind)) + "\n"


def test_the_page_lists_every_option_as_the_code_has_it() -> None:
    assert PAGE.read_text() == written(), "write it anew: python tests/docs/test_source_options.py"


if __name__ == "__main__":
    PAGE.write_text(written())
