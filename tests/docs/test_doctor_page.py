"""docs/doctor.md lists every check as the code has it; run as a program, this writes it."""

from __future__ import annotations

from pathlib import Path

from bedside.service.doctor.check import Check
from bedside.service.doctor.machine import MACHINE
from bedside.service.doctor.parts import installed_parts

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"
HEAD = """# What `bedside doctor` looks at

```console
$ sudo bedside doctor                         # this machine, and what the packages have set up on it
$ bedside doctor DIRECTORY...                 # or what lies elsewhere
$ bedside doctor --json                       # for programs
```

It ends with 0 (all is well), 1 (it works, and somebody should look) or 2 (something does not work), as monitoring
expects it, and changes nothing. Run as root it looks at each directory as the user that it belongs to, with the groups
and the proxy of its service. Where the packages of several parts are on one machine, each looks at what is its own.
`bedside agent setup` makes the first of these checks before it begins.

What does not apply is left out: without systemd there is no `service`, without a sensor on Bluetooth no `bluetooth`. A
finding names its own remedy where it knows a better one than this table.

"""


def listed() -> dict[Check, list[str]]:
    """Every check, with the parts that have it."""
    found: dict[Check, list[str]] = {check: ["machine"] for check in MACHINE}
    for part in installed_parts():
        for check in (*part.early, *part.checks):
            words = (check.name, check.about, check.remedy)
            same = next((one for one in found if (one.name, one.about, one.remedy) == words), check)
            found.setdefault(same, []).append(part.name)
    return found


def written() -> str:
    rows = [
        f"| `{check.name}` | {', '.join(parts)} | {check.about} | {check.remedy} |" for check, parts in listed().items()
    ]
    return HEAD + "\n".join(["| check | of | looks at | what usually helps |", "|---|---|---|---|", *rows]) + "\n"


def test_the_page_lists_every_check_as_the_code_has_it() -> None:
    assert PAGE.read_text() == written(), "write it anew: python tests/docs/test_doctor_page.py"


if __name__ == "__main__":
    PAGE.write_text(written())
