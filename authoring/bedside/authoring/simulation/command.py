"""`bedside model simulate`: what a federation would make of a bundle, before any hospital is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import click
import msgspec

from bedside.authoring.data.dataset import Dataset
from bedside.authoring.data.read import read_data
from bedside.authoring.simulation.comparison import Compared, compare, summary, work
from bedside.authoring.simulation.settings import SERVERS, Settings
from bedside.core.bundle.archive import unpack_bundle
from bedside.core.bundle.manifest import MANIFEST, Manifest, Targets, decode_manifest
from bedside.core.bundle.verify import first_checkpoint, verify_archive
from bedside.core.errors import BedsideError
from bedside.ondevice.windows.targets import Question
from bedside.service.bundle_file import read_bundle
from bedside.service.config import load_config
from bedside.service.files import write_durable
from bedside.service.output import Table, emit, json_option, progress

_FILE = click.Path(path_type=Path, dir_okay=False)
_ROUNDS = 20
_MODE = 0o644
_OF_ONE_OUTPUT = ("mae_", "rmse_")
"""How figures begin that a regression has once for each output."""


def _complete_graph(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Complete by the training graphs of the bundle that is typed before."""
    bundle = context.params.get("bundle") or Path(*context.args[:1])  # click has not placed arguments when options end
    with suppress(BedsideError, OSError):
        manifest = decode_manifest(unpack_bundle(read_bundle(bundle))[MANIFEST])
        return [graph.key for graph in manifest.graphs if graph.key.startswith(begun)]
    return []


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--data", type=_FILE, required=True, help="The data.toml that names examples and what is held out.")
@click.option("--settings", "file", type=_FILE, help="A TOML file of settings; options here go before it.")
@click.option("--rounds", type=click.IntRange(1, 100_000), help=f"Of the run; {_ROUNDS} unless the settings say.")
@click.option("--epochs", type=click.IntRange(1, 1_000), help="Local passes in a round; the author's advice otherwise.")
@click.option("--steps", type=click.IntRange(1, 1_000_000), help="Local steps in a round, the same for every client.")
@click.option("--batch", type=click.IntRange(1, 4_096), help="Examples of a step.")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Of devices.")
@click.option(
    "--graph",
    shell_complete=_complete_graph,
    help="How devices train, such as q1-all-sgd; the bundle's first by default.",
)
@click.option("--server", type=click.Choice(sorted(SERVERS)), help="The server's optimiser.")
@click.option("--server-learning-rate", type=click.FloatRange(min=0, min_open=True), help="Of it.")
@click.option("--bits", type=click.IntRange(0, 8), help="Of a value of an update; 0 for float.")
@click.option("--noise-multiplier", type=click.FloatRange(min=0), help="Of the noise on each sum.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="The first of the seeds.")
@click.option(
    "--seeds", type=click.IntRange(1, 100), default=1, show_default=True, help="Runs, for mean and deviation."
)
@click.option("--out", type=_FILE, help="Write the first run's shared parameters there, as safetensors.")
@json_option
def simulate(
    bundle: Path, data: Path, file: Path | None, seed: int, seeds: int, out: Path | None, as_json: bool,
    **chosen: object,
) -> None:  # fmt: skip
    """Train BUNDLE as a federation of the clients in --data would, and compare with pooled and local training.

    Everything is judged on the examples that data.toml holds out.
    """
    tar = read_bundle(bundle)
    signer = bytes.fromhex(decode_manifest(unpack_bundle(tar)[MANIFEST]).signer)
    model = verify_archive(tar, [signer])
    settings = _settings(file, {name: value for name, value in chosen.items() if value is not None})
    settings.check()
    settings = settings.filled(model.manifest)
    dataset = read_data(data, Question.of(model.manifest))
    with progress("simulating", seeds * work(dataset, settings)) as shown:
        runs = [compare(model, dataset, settings, seed + number, shown.advance) for number in range(seeds)]
    if out is not None:
        write_durable(out, first_checkpoint(model.manifest, runs[0].parameters), _MODE)
    rows = {row: summary([run.figures[row] for run in runs]) for row in runs[0].figures}
    told = {
        "name": model.manifest.name,
        "digest": model.digest,
        "settings": settings,
        "clients": {client: len(part) for client, part in dataset.training.items()},
        "held_out": {client: len(part) for client, part in dataset.held_out.items()},
        "seeds": seeds,
        "outputs": _outputs(model.manifest),
        "figures": {
            row: {name: {"mean": mean, "deviation": deviation} for name, (mean, deviation) in figures.items()}
            for row, figures in rows.items()
        },
        "rounds": [[report._asdict() for report in run.rounds] for run in runs],
        "checkpoint": out,
    }
    emit(told, as_json, table=None if as_json else _table(rows, runs, dataset))
    if not as_json and isinstance(model.manifest.targets, Targets):
        click.echo()
        emit(told, as_json, table=_errors(rows, seeds, _outputs(model.manifest)))


def _settings(file: Path | None, chosen: dict[str, object]) -> Settings:
    """Of the file, or the usual ones; what was chosen goes before them."""
    settings = Settings(rounds=_ROUNDS) if file is None else load_config(file, Settings)
    return msgspec.structs.replace(settings, **chosen)


def _table(rows: dict[str, dict[str, tuple[float, float]]], runs: Sequence[Compared], dataset: Dataset) -> Table:
    names = [name for name in next(iter(rows.values())) if not name.startswith(_OF_ONE_OUTPUT)]
    losses = [run.rounds[-1].loss_after for run in runs]
    trained, held = (sum(map(len, parts.values())) for parts in (dataset.training, dataset.held_out))
    seen = f"{len(dataset.training)} clients, {trained} examples, {len(runs[0].rounds)} rounds"
    title = f"{seen}, last training loss {sum(losses) / len(losses):.4g}; on {held} held-out examples"
    if len(runs) > 1:
        title = f"{title}, mean ± deviation of {len(runs)} seeds"
    cells = [[row, *(_cell(*figures[name], len(runs)) for name in names)] for row, figures in rows.items()]
    return Table(["model", *names], cells, title=title, right=frozenset(names))


def _outputs(manifest: Manifest) -> list[dict[str, str]]:
    """What the numbers in `mae_0` or `rmse_0` stand for."""
    units = manifest.targets.unit if isinstance(manifest.targets, Targets) else ("",) * len(manifest.labels)
    return [{"label": label, "unit": unit} for label, unit in zip(manifest.labels, units, strict=True)]


def _errors(rows: dict[str, dict[str, tuple[float, float]]], seeds: int, outputs: Sequence[Mapping[str, str]]) -> Table:
    """Errors of each output in its unit."""
    cells = [
        [one["label"], one["unit"], row, *(_cell(*figures[f"{name}{at}"], seeds) for name in _OF_ONE_OUTPUT)]
        for at, one in enumerate(outputs)
        for row, figures in rows.items()
    ]
    heads = ("output", "unit", "model", "mean error", "rms error")
    return Table(heads, cells, right=frozenset(heads[3:]))


def _cell(mean: float, deviation: float, count: int) -> str:
    return f"{mean:.3f} ± {deviation:.3f}" if count > 1 else f"{mean:.3f}"
