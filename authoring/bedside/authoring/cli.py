"""`bedside model`: build, look into, check and measure model bundles."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import msgspec
from click.shell_completion import CompletionItem

from bedside.authoring.bench import bench_bundle, usual_batches
from bedside.authoring.build import build_bundle
from bedside.authoring.bundle_folder import write_bundle
from bedside.authoring.data.dataset import Dataset
from bedside.authoring.data.read import read_data
from bedside.authoring.recipe import Recipe, load_recipe, shipped_recipes
from bedside.authoring.reference import describe, reference_of
from bedside.authoring.replaying import replay_in_children
from bedside.authoring.simulation.command import simulate
from bedside.authoring.tables import benched_tables, cost_table, manifest_tables, parameter_count, replayed_tables
from bedside.core.bundle.archive import unpack_bundle
from bedside.core.bundle.manifest import MANIFEST, Manifest, bundle_digest, decode_manifest
from bedside.core.bundle.parameters import tensors_of
from bedside.core.bundle.verify import Bundle, verify_archive
from bedside.core.errors import BedsideError, ConfigError, UnavailableError
from bedside.firmware_bridge.recording import read_recording
from bedside.ondevice.runtimes.installed import runtime_versions
from bedside.service.bundle_file import read_bundle
from bedside.service.keys import create_signing_key, load_signing_key
from bedside.service.output import Table, emit, json_option
from bedside.service.platform import SystemEntropy
from bedside.service.text import bounded

_KEY_BYTES = 32
_FILE = click.Path(path_type=Path, dir_okay=False)
_PATH = click.Path(path_type=Path)


def _complete_recipe(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete by the shipped recipes, and by files."""
    shipped = [CompletionItem(name) for name in shipped_recipes() if name.startswith(begun)]
    return [*shipped, CompletionItem(begun, type="file")]


@click.group()
def model() -> None:
    """Build and sign model bundles, and look into them."""


@model.command()
@click.argument("file", type=_FILE)
@json_option
def key(file: Path, as_json: bool) -> None:
    """Make a signing key in FILE and print its public half, which sites list in their policy."""
    created = create_signing_key(file, SystemEntropy())
    emit({"signer_pk": bytes(created.verify_key), "file": file}, as_json)
    if not as_json:
        click.echo("next: each site adds signer_pk to bundle_signers in its policy.toml")


@model.command(epilog=f"Recipes that come with Bedside: {', '.join(shipped_recipes())}.")
@click.argument("recipe", shell_complete=_complete_recipe)
@click.argument("out", type=_PATH)
@click.option("--signing-key", type=_FILE, required=True, help="The author's key, made by `bedside model key`.")
@click.option("--reference", type=_FILE, help="A recording (.npz) of the stream, for devices to measure drift against.")
@click.option("--data", type=_FILE, help="A data.toml: activation ranges and the reference come from its examples.")
@click.option("--force", is_flag=True, help="Replace a model of another name that is in OUT.")
@json_option
def build(
    recipe: str, out: Path, signing_key: Path, reference: Path | None, data: Path | None, force: bool, as_json: bool
) -> None:
    """Build RECIPE (a file, or the name of a shipped one) into the folder OUT, with bundle.tar in it."""
    if not signing_key.exists():
        raise ConfigError(
            "key-missing",
            f"there is no signing key in {signing_key}",
            remedy=f"make one with `bedside model key {signing_key}`",
        )
    author = load_signing_key(signing_key)
    loaded = load_recipe(recipe)
    before = _bundle_in(out)
    if before is not None and before[1].name != loaded.name and not force:
        raise ConfigError(
            "other-model",
            f"{out} holds another model, {_short(*before)}, and {loaded.name} would replace it",
            remedy="name another folder, or say --force",
        )
    dataset = None if data is None else read_data(data, loaded.question())
    described = None if reference is None else reference_of(loaded, read_recording(reference))
    if described is None and dataset is not None and dataset.signal is not None:
        described = describe(loaded, dataset.signal)
    built = build_bundle(loaded, author, described, None if dataset is None else dataset.sample())
    tar = write_bundle(out, built)
    told = {
        "name": built.manifest.name,
        "version": built.manifest.version,
        "digest": built.digest,
        "signer_pk": bytes(author.verify_key),
        "parameters": parameter_count(built.manifest),
        **({"costs": built.manifest.costs} if as_json else {}),
        "folder": out,
        "tar": tar,
        "tar_bytes": len(built.tar),
        **({} if dataset is None else _dataset_told(loaded, dataset, as_json=as_json)),
        **({"from_torch": built.from_torch} if as_json and built.from_torch else {}),
    }
    emit(told, as_json)
    if not as_json:
        click.echo()
        emit(told, as_json, table=cost_table(built.manifest.costs))
        if built.from_torch:
            worst = max(built.from_torch, key=built.from_torch.__getitem__)
            click.echo(f"at most {built.from_torch[worst]:.2g} away from torch ({worst.replace('_', ', ')})")
    if before is not None and before[0] != built.digest:
        why = "" if loaded.costs else "; each build measures its cost, so that no two have one digest"
        click.echo(f"note: replaced {_short(*before)} in {out}{why}", err=True)


def _dataset_told(recipe: Recipe, dataset: Dataset, *, as_json: bool) -> dict[str, object]:
    """What the data set has; weights are for the author to put into the recipe, or not to."""
    told: dict[str, object] = {}
    for name, parts in (("clients", dataset.training), ("held_out", dataset.held_out)):
        counts = {client: len(part) for client, part in parts.items()}
        told[name] = (
            counts if as_json else ", ".join(f"{client}: {count}" for client, count in counts.items()) or "none"
        )
    if recipe.task == "classification":
        told["balanced_class_weights"] = dataset.class_weights(len(recipe.labels))
    return told


def _bundle_in(folder: Path) -> tuple[bytes, Manifest] | None:
    """Digest and manifest of the bundle that is in a folder already; None where there is none that can be read."""
    try:
        data = unpack_bundle(read_bundle(folder))[MANIFEST]
        return bundle_digest(data), decode_manifest(data)
    except (BedsideError, OSError):
        return None


def _short(digest: bytes, manifest: Manifest) -> str:
    return f"{manifest.name} {manifest.version} {digest.hex()[:8]}"


model.add_command(simulate)


@model.command()
@click.argument("bundle", type=_PATH)
@json_option
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what is in BUNDLE, a folder or a tar. Nothing is verified."""
    data = unpack_bundle(read_bundle(bundle))[MANIFEST]
    manifest = decode_manifest(data)
    told = {"digest": bundle_digest(data), "manifest": msgspec.to_builtins(manifest), "steps": _steps(manifest)}
    _emit_all(told, as_json, manifest_tables(bundle_digest(data), manifest))


@model.command()
@click.argument("bundle", type=_PATH)
@click.option("--signer", "signers", multiple=True, help="Accepted public key, hexadecimal; may be repeated.")
@json_option
def verify(bundle: Path, signers: tuple[str, ...], as_json: bool) -> None:
    """Check BUNDLE's signature and digests, and replay its golden vectors in limited children on this machine.

    Without --signer the bundle must be signed by the key that it names itself: whole, but by whom is yours to judge.
    """
    data, accepted = read_bundle(bundle), [_public_key(text) for text in signers]
    verified = _verified(data, accepted)
    replayed = replay_in_children(data, accepted or [bytes.fromhex(verified.manifest.signer)])
    told = {
        **_named(verified),
        "signer_checked": bool(signers),
        "golden": replayed.differences,
        "runtimes": replayed.measured,
        "not_tried": replayed.missing,
    }
    by = f"signed by {verified.manifest.signer[:8]}" + ("" if signers else ", which nobody asked for: name --signer")
    _emit_all(told, as_json, replayed_tables(replayed, verified.manifest, f"{_title(verified)} holds; {by}"))


@model.command()
@click.argument("bundle", type=_PATH)
@click.option("--batch", "batches", multiple=True, type=click.IntRange(1, 4_096), help="Batch size; may be repeated.")
@click.option(
    "--timeout", type=click.FloatRange(1), help="Seconds of each measurement. [default: 60 of windows, 300 of steps]"
)
@json_option
def bench(bundle: Path, batches: tuple[int, ...], timeout: float | None, as_json: bool) -> None:
    """Measure BUNDLE on this machine: an int8 window on each runtime, and a training step of each graph.

    Each figure comes from a limited child of its own, and is told on standard error as it comes. Times of steps are
    processor time; peaks are resident memory. What could not be measured is an error after the tables.
    """
    data = read_bundle(bundle)
    verified = _verified(data, [])
    signer, sizes = bytes.fromhex(verified.manifest.signer), sorted(set(batches)) or usual_batches(verified)
    numbers, total = itertools.count(1), 1 + len(verified.manifest.graphs) * len(sizes)
    benched = bench_bundle(
        verified,
        data,
        [signer],
        sizes,
        lambda figure: click.echo(f"{next(numbers)} of {total}: {bounded(figure)}", err=True),
        timeout,
    )
    told = {
        **_named(verified),
        "versions": runtime_versions(),
        "runtimes": benched.inference.measured,
        "not_tried": benched.inference.missing,
        "steps": benched.steps,
        "failed": benched.failed,
    }
    _emit_all(told, as_json, benched_tables(benched, f"{_title(verified)} with {runtime_versions()}"))
    if benched.failed:
        raise UnavailableError(
            "cost-not-measured",
            f"{len(benched.failed)} of {total} could not be measured: {benched.failed[0].why}",
            remedy="name a longer --timeout or a smaller --batch, or free memory",
        )


def _verified(data: bytes, accepted: Sequence[bytes]) -> Bundle:
    """The bundle, signed by one of `accepted`, or where there is none by the key that it names itself."""
    return verify_archive(data, accepted or [_public_key(decode_manifest(unpack_bundle(data)[MANIFEST]).signer)])


def _named(bundle: Bundle) -> dict[str, object]:
    manifest = bundle.manifest
    return {"name": manifest.name, "version": manifest.version, "digest": bundle.digest, "signer": manifest.signer}


def _title(bundle: Bundle) -> str:
    return f"{bundle.manifest.name} {bundle.manifest.version} {bundle.digest.hex()}"


def _emit_all(told: object, as_json: bool, tables: Iterable[Table]) -> None:
    """One JSON document, or tables with a line between."""
    if as_json:
        return emit(told, as_json)
    for number, table in enumerate(tables):
        if number:
            click.echo()
        emit(told, as_json, table=table)
    return None


def _steps(manifest: Manifest) -> list[dict[str, object]]:
    """What follows from the layer list: forms, tensors, and what an `add` takes."""
    return [
        {
            "layer": step.number,
            "kind": step.layer.__struct_config__.tag,
            "before": step.before,
            "after": step.after,
            "takes": step.skip if step.skip >= 0 else None,
            "tensors": tensors_of(step),
        }
        for step in manifest.steps()
    ]


def _public_key(text: str) -> bytes:
    try:
        public = bytes.fromhex(text)
    except ValueError:
        public = b""
    if len(public) != _KEY_BYTES:
        raise ConfigError(
            "bad-signer",
            f"{text[: _KEY_BYTES * 2]!r} is not an Ed25519 public key in {2 * _KEY_BYTES} hexadecimal digits",
            remedy="name the author's key with --signer",
        )
    return public
