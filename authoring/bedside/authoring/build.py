"""From a recipe and a signing key to a bundle.

Everything but the measured cost follows from the recipe: the same recipe, cost and key give the same bytes on the same
onnxruntime and CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

from msgspec import UNSET
from nacl.signing import SigningKey

from bedside.authoring.cost import batch_sizes, measure_cost
from bedside.authoring.golden import GoldenSet, golden_batch, make_golden
from bedside.authoring.inference_graph import build_float_graph, build_int8_graph
from bedside.authoring.initialise import initial_parameters
from bedside.authoring.net import Net
from bedside.authoring.notices import without_notices
from bedside.authoring.recipe import Recipe
from bedside.authoring.tflite_graph import build_tflite
from bedside.authoring.torch_import.exact import check_exact
from bedside.authoring.torch_import.peer import Peer
from bedside.authoring.training_graph import build_training_graph
from bedside.core.bundle.archive import pack_bundle
from bedside.core.bundle.manifest import (
    GOLDEN,
    INFER,
    INFER_FLOAT,
    INFER_TFLITE,
    MANIFEST,
    PARAMETERS,
    SIGNATURE,
    SIGNED_KIND,
    FileEntry,
    Manifest,
    bundle_digest,
    committed_files,
    encode_manifest,
)
from bedside.core.bundle.parameters import AMAX, TensorSpec
from bedside.core.bundle.patch import Patch
from bedside.core.bundle.preprocessing import Reference
from bedside.core.bundle.quantise import quantise_parameters, real_tensors
from bedside.core.bundle.tensors import encode_tensors
from bedside.core.bundle.training import Cost, TrainingGraph, first_layer, suffix_tensors
from bedside.core.bundle.verify import file_digest, verify_archive
from bedside.core.errors import ConfigError
from bedside.core.signing.envelope import signature_of
from bedside.ondevice.golden import check_differences
from bedside.ondevice.refresh import int8_runtime
from bedside.ondevice.replay import compare_golden, compare_litert, golden_parameters
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.training.step import Targets


@dataclass(frozen=True, slots=True)
class Built:
    """A signed bundle.

    Attributes:
        manifest: as signed.
        digest: BLAKE2b-256 of the manifest: the bundle's name (32 bytes).
        files: content of every file, manifest and signature among them.
        tar: the same as one deterministic archive.
        from_torch: of a torch module, the largest differences between it and its layers (`check_exact`).
    """

    manifest: Manifest
    digest: bytes
    files: dict[str, bytes]
    tar: bytes
    from_torch: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a recipe determines before it is measured and signed."""

    net: Net
    parameters: dict[str, Float32]
    training: dict[TrainingGraph, bytes]
    changed: dict[TrainingGraph, tuple[TensorSpec, ...]]
    inference: dict[str, bytes]
    patches: tuple[Patch, ...]
    from_torch: dict[str, float]


def build_bundle(
    recipe: Recipe, key: SigningKey, reference: Reference | None = None, sample: tuple[Float32, Targets] | None = None
) -> Built:
    """Build, measure unless the recipe states its costs, and sign.

    Args:
        recipe: of the model.
        key: the author's.
        reference: for devices to compare their streams with.
        sample: examples that show which ranges the layers' inputs have; synthetic ones by default.

    Raises:
        ConfigError: `bad-recipe`, `no-clear-golden`; `torch-module`, `torch-unsupported`.
        MalformedError: `bad-layers`, `bad-manifest`: the recipe is outside what a device accepts.
        TrustError: `import-not-exact`: the layers of a torch module do not train as it does;
            `golden-mismatch`: this machine's onnxruntime does not run the graphs as they are meant.
        UnavailableError: `cost-not-measured`, `torch-missing`.
    """
    recipe, peer = _resolved(recipe)
    parts = _parts(recipe, peer, sample)
    golden = make_golden(parts.net, parts.training, parts.changed, parts.parameters, recipe.seed, peer)
    costs = recipe.costs or _measured(recipe, parts, golden)
    files = {graph.file: data for graph, data in parts.training.items()} | parts.inference
    files |= {PARAMETERS: encode_tensors(parts.parameters), GOLDEN: encode_tensors(golden.tensors)}
    built = _sign(_manifest(recipe, parts, golden, costs, files, key, reference), files, key)
    bundle = verify_archive(built.tar, [bytes(key.verify_key)])
    check_differences(bundle.manifest, compare_golden(bundle))  # what a device would refuse is refused here
    with without_notices():
        litert = int8_runtime(bundle, golden_parameters(bundle), "litert")
    check_differences(bundle.manifest, compare_litert(bundle, litert))
    return replace(built, from_torch=parts.from_torch)


def _resolved(recipe: Recipe) -> tuple[Recipe, Peer | None]:
    """A recipe with layers, and the torch module that they come from."""
    if recipe.torch is None:
        return recipe, None
    from bedside.authoring.torch_import.imported import import_module

    return import_module(recipe)


def _parts(recipe: Recipe, peer: Peer | None, sample: tuple[Float32, Targets] | None) -> Parts:
    net, suffixes = recipe.net(), recipe.suffix_list()
    given = {} if peer is None else peer.parameters()
    parameters = initial_parameters(net, recipe.seed, *(sample or golden_batch(net, recipe.seed)), given)
    from_torch = {} if peer is None else check_exact(net, peer, parameters, recipe.seed)
    weights = {name: array for name, array in parameters.items() if name != AMAX}
    quantised = quantise_parameters(parameters, net.quantisation)
    tflite, patches = build_tflite(net, quantised | real_tensors(quantised, net.quantisation))
    changed, training = {}, {}
    for graph in recipe.graph_list():
        first = first_layer(suffixes, graph.suffix)
        if first is None:
            raise ConfigError(
                "bad-recipe",
                f"a training graph of {recipe.name} begins at {graph.suffix!r}, which is no suffix of it",
                remedy="name all, head, or one of its [[suffixes]]",
            )
        changed[graph] = suffix_tensors(net.steps, first)
        training[graph] = build_training_graph(net, graph, first)
    inference = {
        INFER: build_int8_graph(net, quantised),
        INFER_FLOAT: build_float_graph(net, weights),
        INFER_TFLITE: tflite,
    }
    return Parts(net, parameters, training, changed, inference, patches, from_torch)


def _manifest(
    recipe: Recipe,
    parts: Parts,
    golden: GoldenSet,
    costs: tuple[Cost, ...],
    files: dict[str, bytes],
    key: SigningKey,
    reference: Reference | None,
) -> Manifest:
    specs = parts.net.parameters
    names = committed_files(recipe.graph_list(), optional=True)
    return Manifest(
        name=recipe.name,
        version=recipe.version,
        signer=bytes(key.verify_key).hex(),
        task=recipe.task,
        labels=recipe.labels,
        window=recipe.window_spec(),
        layers=recipe.layer_list(),
        parameters=specs,
        quantisation=parts.net.quantisation,
        suffixes=recipe.suffix_list(),
        graphs=recipe.graph_list(),
        training=recipe.training,
        golden=golden.terms,
        costs=costs,
        files=tuple(FileEntry(name, len(files[name]), file_digest(files[name])) for name in names),
        checkpoint=file_digest(
            encode_tensors({spec.name: parts.parameters[spec.name] for spec in specs if spec.shared})
        ),
        class_weights=recipe.class_weights,
        targets=UNSET if recipe.targets is None else recipe.targets,
        patches=parts.patches,
        reference=UNSET if reference is None else reference,
    )


def _sign(manifest: Manifest, files: dict[str, bytes], key: SigningKey) -> Built:
    data = encode_manifest(manifest)
    signed = {MANIFEST: data, SIGNATURE: signature_of(SIGNED_KIND, data, key), **files}
    return Built(manifest, bundle_digest(data), signed, pack_bundle(signed))


def _measured(recipe: Recipe, parts: Parts, golden: GoldenSet) -> tuple[Cost, ...]:
    """What a step of each graph takes here, with batches about the recommended one."""
    training = recipe.training
    rates = (training.learning_rate, training.momentum, training.proximal_mu, training.gradient_clip)
    examples = (cast("Float32", golden.tensors["x"]), golden.tensors["y"])
    return tuple(
        measure_cost(graph, data, parts.parameters, parts.changed[graph], examples, batch, rates)
        for graph, data in parts.training.items()
        for batch in batch_sizes(training.batch)
    )
