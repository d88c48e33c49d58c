"""`bedside demo`: the main job on real recordings, on this machine, in one command."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from bedside.service.output import Table, human_bytes, plain_table
from bedside.service.platform import SystemClock

if TYPE_CHECKING:
    from bedside.demo.result import Result
    from bedside.demo.run import Options
    from bedside.demo.world import World

_FAILED_STATUS = 1


@click.command()
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-out"),
    show_default=True,
    help="Folder for everything that the run writes; an earlier run's is emptied.",
)
@click.option("--rounds", type=click.IntRange(3, 100), default=12, show_default=True, help="Rounds to open.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the shuffles of the comparison's training.")
@click.option("--keep", is_flag=True, help="Stay up afterwards, and print commands to look around with.")
@click.option("--in-time", is_flag=True, help="Fail also when the run was slow; for a machine with nothing else to do.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json on standard output; sentences go to stderr.")
@click.pass_context
def demo(context: click.Context, out: Path, rounds: int, seed: int, keep: bool, in_time: bool, as_json: bool) -> None:
    """Three hospitals on this machine learn one model from real smartwatch recordings, and no update is readable.

    Exits with 0 when every check of the run holds, with 1 and their sentences when one does not. That the
    run was slow is a warning.
    """
    from bedside.demo.interruption import interruptible
    from bedside.demo.run import Options

    words = sys.stderr if as_json else sys.stdout
    options = Options(out=out, rounds=rounds, seed=seed, keep=keep)
    click.echo(_announcement(options), file=words)
    with interruptible():
        result = _run(options, words, as_json=as_json)
    failed, warnings = result.failed(), result.warnings()
    if in_time:
        failed, warnings = failed + warnings, ()
    for check in warnings:
        click.echo(f"slow: {check.name}: {check.sentence}", err=True)
    for check in failed:
        click.echo(f"check failed: {check.name}: {check.sentence}", err=True)
    if failed:
        context.exit(_FAILED_STATUS)


def _run(options: Options, words: TextIO, *, as_json: bool) -> Result:
    from bedside.demo.run import Run, kept_commands

    async def stay(world: World, result: Result) -> None:
        _show(result, options, words, as_json=as_json)
        click.echo("\nEverything stays up. Try, in another terminal:", file=words)
        for command in kept_commands(world):
            click.echo(f"  {command}", file=words)
        click.echo("Ctrl-C ends all processes.", file=words)
        stop = asyncio.Event()
        try:
            await stop.wait()
        except asyncio.CancelledError:
            click.echo("ending all processes", file=words)

    result = asyncio.run(Run(options, SystemClock(), words).go(stay))
    if not options.keep:
        _show(result, options, words, as_json=as_json)
    return result


def _announcement(options: Options) -> str:
    return f"""\
Bedside demo: three hospitals, ten devices, one model.
  downloads  nothing: the recordings came with the package seglearn 1.2.5, and their SHA-256 is checked
  runs       15 processes of this user on the loopback interface (a coordinator, three trustees, ten agents, one sensor
             board), with free ports, for about two minutes; all of them end with this command
  writes     {options.out}/ (about 80 MB: keys, databases, logs, result.json, report.html), round keys in memory only
"""


def _show(result: Result, options: Options, words: TextIO, *, as_json: bool) -> None:
    from bedside.demo.result import encode_result

    if as_json:
        click.echo(encode_result(result).decode(), nl=False)
    click.echo("", file=words)
    for table in (_accuracies(result), _costs(result), _checks(result)):
        click.echo(plain_table(table) + "\n", file=words)
    click.echo(f"{options.out / 'result.json'}  {options.out / 'report.html'}", file=words)


def _accuracies(result: Result) -> Table:
    rows = [[name, f"{value:.3f}"] for name, value in result.local_accuracies.items()]
    rows += [
        ["each alone, mean", f"{result.local_accuracy:.3f}"],
        ["federated, float", f"{result.federated_accuracy:.3f}"],
        ["federated, int8", f"{result.federated_int8_accuracy:.3f}"],
        ["all data pooled", f"{result.pooled_accuracy:.3f}"],
    ]
    title = f"Accuracy on {result.held_out_windows:,} windows of two people who never trained"
    return Table(("model", "accuracy"), rows, title=title, right=frozenset({"accuracy"}))


def _costs(result: Result) -> Table:
    rows = [
        ["upload of one device and round", human_bytes(result.upload_bytes_per_round)],
        ["checkpoint", human_bytes(result.model_bytes)],
        ["bundle, once", human_bytes(result.bundle_bytes)],
        ["round, median", f"{result.round_seconds_median:.1f} s"],
        *([f"  {phase}, last round", f"{seconds:.2f} s"] for phase, seconds in result.history[-1].phases),
        ["memory of an agent", f"{result.agent_rss_mb:.0f} MB"],
        ["memory of a trustee", f"{result.trustee_rss_mb:.0f} MB"],
        ["memory of the coordinator", f"{result.coordinator_rss_mb:.0f} MB"],
        ["set-up / run", f"{result.setup_seconds:.0f} s / {result.run_seconds:.0f} s"],
    ]
    return Table(("cost", "measured"), rows, title="What it took", right=frozenset({"measured"}))


def _checks(result: Result) -> Table:
    rows = [
        ["ok" if check.passed else "FAILED" if check.required else "slow", check.sentence] for check in result.checks()
    ]
    return Table(("check", "what had to hold"), rows, title="Checks")
