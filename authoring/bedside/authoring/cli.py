"""`bedside model`: build, look into and check model bundles."""

from __future__ import annotations

import math
from pathlib import Path

import click
import msgspec

from bedside.authoring.build import build_bundle
from bedside.authoring.bundle_folder import write_bundle
from bedside.authoring.recipe import load_recipe, shipped_recipes
from bedside.authoring.reference import reference_of
from bedside.authoring.replaying import replay_in_children
from bedside.core.bundle.archive import unpack_bundle
from bedside.core.bundle.manifest import MANIFEST, Manifest, WindowSpec, bundle_digest, decode_manifest
from bedside.core.bundle.training import Cost
from bedside.core.bundle.verify import verify_archive
from bedside.core.errors import BedsideError, ConfigError
from bedside.firmware_bridge.recording import read_recording
from bedside.service.bundle_file import read_bundle
from bedside.service.keys import create_signing_key, load_signing_key
from bedside.service.output import Table, emit, human_bytes, json_option
from bedside.service.platform import SystemEntropy

_KEY_BYTES = 32
_FILE = click.Path(path_type=Path, dir_okay=False)
_PATH = click.Path(path_type=Path)


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
@click.argument("recipe")
@click.argument("out", type=_PATH)
@click.option("--signing-key", type=_FILE, required=True, help="The author's key, made by `bedside model key`.")
@click.option("--reference", type=_FILE, help="A recording (.npz) of the stream, for devices to measure drift against.")
@json_option
def build(recipe: str, out: Path, signing_key: Path, reference: Path | None, as_json: bool) -> None:
    """Build RECIPE (a file, or the name of a shipped one) into the folder OUT, with bundle.tar in it."""
    if not signing_key.exists():
        raise ConfigError(
            "key-missing",
            f"there is no signing key in {signing_key}",
            remedy=f"make one with `bedside model key {signing_key}`",
        )
    author = load_signing_key(signing_key)
    loaded = load_recipe(recipe)
    described = None if reference is None else reference_of(loaded, read_recording(reference))
    built = build_bundle(loaded, author, described)
    before = _digest_in(out)
    tar = write_bundle(out, built)
    costs = built.manifest.costs
    data = {
        "name": built.manifest.name,
        "version": built.manifest.version,
        "digest": built.digest,
        "signer_pk": bytes(author.verify_key),
        "parameters": _parameter_count(built.manifest),
        "costs": costs if as_json else _cost_words(costs),
        "folder": out,
        "tar": tar,
        "tar_bytes": len(built.tar),
    }
    emit(data, as_json)
    if before not in (None, built.digest):
        why = "" if loaded.costs else "; each build measures its cost, so that no two have one digest"
        click.echo(f"note: another bundle was replaced in {out}{why}", err=True)


def _digest_in(folder: Path) -> bytes | None:
    """Of the bundle that is in a folder already; None where there is none that can be read."""
    try:
        return bundle_digest(unpack_bundle(read_bundle(folder))[MANIFEST])
    except (BedsideError, OSError):
        return None


@model.command()
@click.argument("bundle", type=_PATH)
@json_option
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what is in BUNDLE, a folder or a tar. Nothing is verified."""
    data = unpack_bundle(read_bundle(bundle))[MANIFEST]
    manifest = decode_manifest(data)
    told = {"digest": bundle_digest(data), "manifest": msgspec.to_builtins(manifest)}
    emit(told, as_json, table=_table(bundle_digest(data), manifest))


@model.command()
@click.argument("bundle", type=_PATH)
@click.option("--signer", "signers", multiple=True, help="Accepted public key, hexadecimal; may be repeated.")
@json_option
def verify(bundle: Path, signers: tuple[str, ...], as_json: bool) -> None:
    """Check BUNDLE's signature and digests, and replay its golden vectors in a limited child on this machine.

    Without --signer the bundle must be signed by the key that it names itself: whole, but by whom is yours to judge.
    """
    data = read_bundle(bundle)
    claimed = decode_manifest(unpack_bundle(data)[MANIFEST]).signer
    accepted = [_public_key(text) for text in (signers or (claimed,))]
    verified = verify_archive(data, accepted)
    differences, measured = replay_in_children(data, accepted)
    told = {
        "name": verified.manifest.name,
        "version": verified.manifest.version,
        "digest": verified.digest,
        "signer": claimed,
        "signer_checked": bool(signers),
        "golden": differences,
        "runtimes": measured,
    }
    rows = [[name, f"{value:.3g}", f"{verified.manifest.tolerance(name):.3g}"] for name, value in differences.items()]
    title = f"{verified.manifest.name} {verified.manifest.version} {verified.digest.hex()} holds"
    emit(told, as_json, table=Table(("golden tensor", "off by", "allowed"), rows, title))


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


def _parameter_count(manifest: Manifest) -> int:
    return sum(math.prod(spec.shape) for spec in manifest.parameters)


def _cost_words(costs: tuple[Cost, ...]) -> str:
    """What a training step takes."""
    return "; ".join(
        f"{cost.graph}: {cost.step_ms:g} ms for {cost.batch} windows, {cost.rss_mb:g} MB" for cost in costs
    )


def _stages(window: WindowSpec) -> str:
    """In the order in which they run."""
    shaping = [f"{name} {way}" for name, way in (("detrend", window.detrend), ("normalise", window.normalise))]
    named = {
        f"channels {', '.join(map(str, window.pick))}": window.pick,
        "resample": window.resample is not None,
        f"filter of {len(window.filter.sections) if window.filter else 0} sections": window.filter is not None,
        "beats": window.beat is not None,
        **{text: not text.endswith(" none") for text in shaping},
        f"records of {', '.join(window.fields)}": window.fields,
    }
    return ", ".join(text for text, there in named.items() if there) or "none"


def _table(digest: bytes, manifest: Manifest) -> Table:
    window = manifest.window
    rows = [
        ["digest", digest.hex()],
        ["signer", manifest.signer],
        ["labels", ", ".join(manifest.labels)],
        [
            "window",
            f"{window.length} samples of {window.channels} channels of {window.stream} at {window.rate_hz:g} Hz",
        ],
        ["stages", _stages(window)],
        ["layers", ", ".join(str(layer.__struct_config__.tag) for layer in manifest.layers)],
        ["parameters", str(_parameter_count(manifest))],
        ["task", manifest.task],
        ["weights", f"within ±{manifest.quantisation.weight_qmax}"],
        ["training graphs", ", ".join(graph.key for graph in manifest.graphs)],
        ["a step", _cost_words(manifest.costs)],
        *([entry.name, human_bytes(entry.size)] for entry in manifest.files),
    ]
    return Table(("what", "value"), rows, f"{manifest.name} {manifest.version}")
