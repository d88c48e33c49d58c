"""The command `bedside`: a click group whose members come from entry points and load when they are called.

Listing the commands imports none of the parts, so that `bedside --help` and tab completion stay fast on a small board
and an absent part does not spoil the others.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from importlib.metadata import EntryPoint, entry_points
from typing import Final

import click
from click.shell_completion import CompletionItem

from bedside.core.errors import UnavailableError
from bedside.service.failures import DEBUG_VARIABLE, INTERRUPTED_STATUS, report_failure
from bedside.service.installation import how_to_install, how_to_repair, is_packaged, missing_package
from bedside.service.terminal import degrade
from bedside.service.text import bounded

ENTRY_POINT_GROUP: Final = "bedside.commands"
USAGE_STATUS: Final = 64
"""EX_USAGE. Not click's 2, which `agent health` and `trustee status` use for a part that has failed."""

BROKEN_PIPE_STATUS: Final = 141

_SUMMARIES: Final = {
    "agent": "Run and inspect this device: sensors, predictions, sessions, training.",
    "completion": "Print the completion script for a shell.",
    "audit": "Recompute a round from what was stored, here or on another machine.",
    "coordinator": "Plan rounds, sum masked updates and publish models.",
    "demo": "Three hospitals on this machine, with real recordings, in one command.",
    "doctor": "Find what is wrong with this machine, and what to do about it.",
    "federation": "Found a federation and name its sites.",
    "fleet": "See how every device is doing.",
    "model": "Build and sign model bundles.",
    "policy": "Understand a site's policy, and judge a plan by it.",
    "privacy": "See what the rounds have cost in privacy.",
    "round": "Start, watch and list rounds.",
    "site": "Act for a hospital: keys, tokens, approvals, policy.",
    "trustee": "Run this site's trustee, which opens nothing but sums.",
}
_EXTRAS: Final = {
    "bedside.coordinator": "coordinator",
    "bedside.authoring": "authoring",
    "bedside.demo": "demo",
}


_OUR_WORDS: Final = {
    "is not a valid integer range": "is not a whole number",
    "is not a valid integer": "is not a whole number",
    "is not a valid float range": "is not a number",
    "is not a valid float": "is not a number",
}
"""For sentences of click that speak of its types."""

_EPILOG: Final = (
    "Every command explains itself with --help, and most answer with --json. "
    "`bedside --debug COMMAND`, or BEDSIDE_DEBUG=1, shows where an error came from."
)

_DEBUG: Final[ContextVar[bool]] = ContextVar("debug", default=False)
_DEBUG_HELP: Final = "Print the traceback of an error too."


class LazyGroup(click.Group):
    """A group that knows the names of its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        return sorted({*super().list_commands(ctx), *_entry_points()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command, or None when there is none of this name.

        Raises:
            UnavailableError: `extra-missing` or `part-missing`, with the command that installs it.
        """
        own = super().get_command(ctx, cmd_name)
        entry = _entry_points().get(cmd_name)
        return own if own is not None or entry is None else _load(entry)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands with a summary each."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(name)) for name in self.list_commands(ctx)])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what comes first on this machine, and then what is the same everywhere."""
        first = "`bedside doctor`; `man bedside` has all of it" if is_packaged() else "`bedside demo`"
        self.epilog = f"Start with {first}. {_EPILOG}"
        super().format_epilog(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete names of commands, then options."""
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        commands = [CompletionItem(name, help=_SUMMARIES.get(name)) for name in names]
        return commands + click.Command.shell_complete(self, ctx, incomplete)


def _summary(name: str) -> str:
    entry = _entry_points().get(name)
    missing = missing_package(entry.module.split(".")[1]) if entry is not None else ""
    return _SUMMARIES.get(name, "") + (f" Not here: {missing}." if missing else "")


def _entry_points() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}


def _load(entry: EntryPoint) -> click.Command:
    part = ".".join(entry.module.split(".")[:2])
    try:
        command = getattr(importlib.import_module(entry.module), entry.attr)
    except ModuleNotFoundError as error:
        raise _missing(entry, part, error) from error
    if not isinstance(command, click.Command):
        raise TypeError(f"entry point {entry.value} is not a click command")
    return command


def _missing(entry: EntryPoint, part: str, error: ModuleNotFoundError) -> Exception:
    absent = error.name or ""
    if absent in {part, entry.module}:
        return UnavailableError(
            "part-missing",
            f"bedside {entry.name} is not part of this installation",
            remedy=how_to_repair(),
        )
    if absent.startswith("bedside."):
        return error
    extra = _EXTRAS.get(part)
    if extra is None:
        return UnavailableError(
            "extra-missing",
            f"bedside {entry.name} needs {absent}, which is not installed",
            remedy=how_to_repair(),
        )
    return UnavailableError(
        "extra-missing",
        f"bedside {entry.name} needs the extra '{extra}' ({absent} is not installed)",
        remedy=how_to_install(f"bedside[{extra}]"),
    )


def is_debugging() -> bool:
    """Whether this command line asked for tracebacks."""
    return _DEBUG.get()


def _note_debug(_context: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        _DEBUG.set(True)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="bedside", prog_name="bedside", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, callback=_note_debug, expose_value=False, is_eager=True, help=_DEBUG_HELP)
def cli() -> None:
    """Bedside: hospitals learn together while every patient's signal stays at the bedside.

    A device runs `bedside agent`, a hospital runs `bedside trustee` and `bedside site`, and whoever brings the
    hospitals together runs `bedside coordinator`.
    """


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash: bedside completion bash > ~/.local/share/bash-completion/completions/bedside
    zsh:  bedside completion zsh > ~/.zfunc/_bedside    (with fpath+=~/.zfunc before compinit)
    fish: bedside completion fish > ~/.config/fish/completions/bedside.fish
    """  # noqa: D301 - click takes the control character for "leave these lines as they are"
    from click.shell_completion import get_completion_class

    script_class = get_completion_class(shell)
    if script_class is None:
        raise click.UsageError(f"no completion is known for {shell}")
    click.echo(script_class(cli, {}, "bedside", "_BEDSIDE_COMPLETE").source())


def run(args: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command line and return its exit status. A command may set its own with `ctx.exit(status)`.

    Whatever goes wrong is one line on standard error; `--debug` or BEDSIDE_DEBUG=1 puts the traceback before it.
    """
    debug = _DEBUG.set(environ.get(DEBUG_VARIABLE) == "1")
    try:
        result = cli.main(args=args, prog_name="bedside", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return USAGE_STATUS
    except click.ClickException as error:
        click.echo(_usage_line(error), err=True)
        return USAGE_STATUS
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED_STATUS
    except BrokenPipeError:
        # The reader went away (`bedside ... | head`): keep the interpreter from failing again at its last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE_STATUS
    except Exception as error:  # noqa: BLE001 - the outermost place; nothing above it could say more
        return report_failure(error, debug=_DEBUG.get())
    finally:
        _DEBUG.reset(debug)
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def _usage_line(error: click.ClickException) -> str:
    """A mistake in the command line, in the form of all our errors."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context is not None else "bedside"
    sentence = " ".join(error.format_message().split()).rstrip(".")
    for theirs, ours in _OUR_WORDS.items():
        sentence = sentence.replace(theirs, ours)
    return f"error: {bounded(sentence[:1].lower() + sentence[1:])} [usage] — {command} --help"


def main() -> None:
    """Entry point of the console script."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C core writes lines of its own about what we report ourselves
    degrade(sys.stdout, sys.stderr)
    sys.exit(run())
