"""From a recipe and a signing key to a bundle.

Everything but the measured cost follows from the recipe: the same recipe, cost and key give the same bytes on the same
onnxruntime and CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from msgspec import UNSET
from nacl.signing import SigningKey

from bedside.authoring.cost import measure_cost
from bedside.authoring.golden import GoldenSet, golden_batch, make_golden, replay_golden, synthetic_windows
from bedside.authoring.inference_graph import build_float_graph, build_int8_graph
from bedside.authoring.initialise import AMAX, initial_parameters, parameter_tensors
from bedside.authoring.recipe import Recipe
from bedside.authoring.session import Float32
from bedside.authoring.tflite_graph import build_tflite
from bedside.authoring.training_graph import START, build_training_graph, optimiser_tensors
from bedside.core.bundle.archive import pack_bundle
from bedside.core.bundle.layers import Step
from bedside.core.bundle.manifest import (
    COMMITTED,
    GOLDEN,
    INFER,
    INFER_FLOAT,
    INFER_TFLITE,
    MANIFEST,
    OPTIONAL,
    PARAMETERS,
    SIGNATURE,
    SIGNED_KIND,
    TRAIN,
    Cost,
    FileEntry,
    Manifest,
    Quantisation,
    TensorSpec,
    bundle_digest,
    encode_manifest,
    expected_tensors,
)
from bedside.core.bundle.patch import Patch
from bedside.core.bundle.preprocessing import Reference
from bedside.core.bundle.quantise import quantise_parameters, real_tensors
from bedside.core.bundle.tensors import Array, encode_tensors
from bedside.core.bundle.verify import file_digest, verify_archive
from bedside.core.signing.envelope import signature_of


@dataclass(frozen=True, slots=True)
class Built:
    """A signed bundle.

    Attributes:
        manifest: as signed.
        digest: BLAKE2b-256 of the manifest: the bundle's name (32 bytes).
        files: content of every file, manifest and signature among them.
        tar: the same as one deterministic archive.
    """

    manifest: Manifest
    digest: bytes
    files: dict[str, bytes]
    tar: bytes


@dataclass(frozen=True, slots=True)
class Parts:
    """What a recipe determines before it is measured and signed."""

    specs: tuple[TensorSpec, ...]
    optimiser: tuple[TensorSpec, ...]
    quantisation: Quantisation
    parameters: dict[str, Float32]
    graphs: dict[str, bytes]
    patches: tuple[Patch, ...]


def build_bundle(recipe: Recipe, key: SigningKey, reference: Reference | None = None) -> Built:
    """Build, measure unless the recipe states its cost, and sign; `reference` is for devices to compare streams with.

    Raises:
        ConfigError: `bad-recipe`, `no-clear-golden`.
        MalformedError: `bad-layers`, `bad-manifest`: the recipe is outside what a device accepts.
        TrustError: `golden-mismatch`: this machine's onnxruntime does not run the graphs as they are meant.
        UnavailableError: `cost-not-measured`.
    """
    steps = recipe.steps()
    parts = _parts(recipe, steps)
    golden = make_golden(parts.graphs[TRAIN], steps, parts.parameters, parts.optimiser, parts.quantisation, recipe.seed)
    cost = recipe.cost or measure_cost(parts.graphs[TRAIN], _feeds(recipe, parts))
    files = parts.graphs | {PARAMETERS: encode_tensors(parts.parameters), GOLDEN: encode_tensors(golden.tensors)}
    built = _sign(_manifest(recipe, parts, golden, cost, files, key, reference), files, key)
    replay_golden(verify_archive(built.tar, [bytes(key.verify_key)]))  # what a device would refuse is refused here
    return built


def _parts(recipe: Recipe, steps: tuple[Step, ...]) -> Parts:
    window, classes = recipe.window, len(recipe.labels)
    specs = parameter_tensors(steps)
    _, layers = expected_tensors(recipe.layer_list(), window, classes, AMAX)
    quantisation = Quantisation(recipe.level, AMAX, recipe.weight_qmax, layers)
    x, y = golden_batch((window.length, window.channels), classes, recipe.seed)
    parameters = initial_parameters(steps, recipe.seed, x, y)
    weights = {name: array for name, array in parameters.items() if name != AMAX}
    quantised = quantise_parameters(parameters, quantisation)
    tflite, patches = build_tflite(steps, quantised | real_tensors(quantised, quantisation))
    graphs = {
        TRAIN: build_training_graph(steps, specs, AMAX, recipe.level, recipe.weight_qmax),
        INFER: build_int8_graph(steps, quantised),
        INFER_FLOAT: build_float_graph(steps, weights),
        INFER_TFLITE: tflite,
    }
    return Parts(specs, optimiser_tensors(specs, AMAX), quantisation, parameters, graphs, patches)


def _manifest(
    recipe: Recipe,
    parts: Parts,
    golden: GoldenSet,
    cost: Cost,
    files: dict[str, bytes],
    key: SigningKey,
    reference: Reference | None,
) -> Manifest:
    return Manifest(
        name=recipe.name,
        version=recipe.version,
        signer=bytes(key.verify_key).hex(),
        labels=recipe.labels,
        window=recipe.window_spec(),
        layers=recipe.layer_list(),
        parameters=parts.specs,
        optimiser=parts.optimiser,
        quantisation=parts.quantisation,
        training=recipe.training,
        golden=golden.terms,
        cost=cost,
        files=tuple(FileEntry(name, len(files[name]), file_digest(files[name])) for name in (*COMMITTED, *OPTIONAL)),
        checkpoint=file_digest(
            encode_tensors({spec.name: parts.parameters[spec.name] for spec in parts.specs if spec.shared})
        ),
        patches=parts.patches,
        reference=UNSET if reference is None else reference,
    )


def _sign(manifest: Manifest, files: dict[str, bytes], key: SigningKey) -> Built:
    data = encode_manifest(manifest)
    signed = {MANIFEST: data, SIGNATURE: signature_of(SIGNED_KIND, data, key), **files}
    return Built(manifest, bundle_digest(data), signed, pack_bundle(signed))


def _feeds(recipe: Recipe, parts: Parts) -> dict[str, Array]:
    """One batch of the recommended size, and a state, for measuring."""
    window = recipe.window
    x, y = synthetic_windows((window.length, window.channels), len(recipe.labels), recipe.training.batch, recipe.seed)
    feeds: dict[str, Array] = {"x": x, "y": y, **parts.parameters}
    feeds |= {START + name: array for name, array in parts.parameters.items() if name != AMAX}
    feeds |= {spec.name: np.zeros(spec.shape, np.float32) for spec in parts.optimiser}
    training = recipe.training
    scalars = {"lr": training.learning_rate, "momentum": training.momentum, "mu": training.proximal_mu}
    return feeds | {name: np.array(value, np.float32) for name, value in scalars.items()}
