"""Manual pages and completion are made of the commands themselves."""

import re
import shutil
import subprocess

import build_debs
import click
import pytest
from commands import commands_of, completion_script, main_command
from manual import manual_page
from parts import PARTS, REPOSITORY

PARTS_OF_BEDSIDE = frozenset(root for part in PARTS for root in part.roots)


@click.group()
def ward() -> None:
    """Look after `beds`.

    Two paragraphs - with a dash.

    \b
    .bed 1
    'bed 2
    """


@ward.command()
@click.argument("bed")
@click.option("--loud/--quiet", help="Whether it \\ beeps.")
def ring(bed: str, loud: bool) -> None:
    """Ring at BED."""


@ward.command(hidden=True)
def secret() -> None:
    """Never shown."""


def page(command, **options):
    return manual_page("bedside-ward", command, "9.8.7", 86_400, ["bedside"], **options)


def test_a_page_says_what_help_says():
    text = page(ward)
    assert text.startswith('.TH "BEDSIDE\\-WARD" 1 "1970\\-01\\-02" "bedside 9.8.7" "Bedside"\n')
    assert ".SH NAME\nbedside\\-ward \\- Look after `beds`\n" in text
    assert '.SS "bedside ward ring [OPTIONS] BED"\n.PP\nRing at BED.\n' in text
    assert "\\fB\\-\\-loud / \\-\\-quiet\\fR\nWhether it \\e beeps.\n" in text
    assert "Look after \\fBbeds\\fR." in text
    assert "secret" not in text
    assert text.endswith(".SH SEE ALSO\n\\fBbedside\\fR(1)\n")


def test_no_line_of_help_is_a_request_of_roff():
    assert ".nf\n\\&.bed 1\n\\&'bed 2\n.fi\n" in page(ward)


def test_further_sections_stand_as_they_are_given():
    text = page(ward, sections={"COMMANDS": [("bedside ward", "Of a package.")]})
    assert text.count(".SH COMMANDS\n") == 1
    assert ".SH COMMANDS\n.TP\n\\fBbedside ward\\fR\nOf a package.\n" in text


@pytest.mark.parametrize("name", ["bedside", *commands_of(PARTS_OF_BEDSIDE)])
def test_the_pages_of_our_commands_are_formatted_without_a_warning(name, tmp_path):
    man = shutil.which("man")
    if man is None or shutil.which("groff") is None:
        pytest.skip("man and groff are not installed")
    command = main_command() if name == "bedside" else commands_of(PARTS_OF_BEDSIDE)[name]
    source = tmp_path / "page.1"
    source.write_text(manual_page(f"bedside-{name}", command, "1.0", 0, ["bedside"]))
    done = subprocess.run(
        [man, "--warnings", "-E", "UTF-8", "-l", "-Tutf8", source],
        capture_output=True,
        text=True,
        env={"MANWIDTH": "100", "PATH": "/usr/bin:/bin"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"BEDSIDE-{name.upper()}(1) ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_asks_the_command_itself(shell):
    script = completion_script(shell)
    assert f"_BEDSIDE_COMPLETE={shell}_complete" in script
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed: its script is not read")
    assert subprocess.run([found, "-n"], input=script, text=True).returncode == 0


def test_the_page_has_every_exit_status_of_operations() -> None:
    table = (REPOSITORY / "docs" / "operations.md").read_text().split("| exit status | because |")[1].split("\n\n")[0]
    assert {*re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} <= {status for status, _ in build_debs._STATUSES}
