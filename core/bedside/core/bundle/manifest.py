"""The manifest of a bundle: everything a device needs to know, and the digest of every file.

The manifest is canonical JSON (sorted keys, no spaces, UTF-8); its BLAKE2b-256 names the bundle. It commits
to every other file by size and digest, so one signature over it covers the whole bundle.

Source: DESIGN section 6.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from bedside.core.bundle import bounds
from bedside.core.bundle.layers import Layer, Step, walk
from bedside.core.bundle.parameters import AMAX, QuantisedLayer, TensorSpec, kept_norms, layer_tensors, quantised_layers
from bedside.core.bundle.patch import Patch, check_patches
from bedside.core.bundle.preprocessing import (
    Beat,
    Detrend,
    Filter,
    Normalise,
    Reference,
    Resample,
    check_reference,
    check_stages,
    signal_channels,
)
from bedside.core.bundle.terms import check_costs, check_golden
from bedside.core.bundle.training import (
    ALL,
    Cost,
    Suffix,
    Task,
    Training,
    TrainingGraph,
    augmentation_fault,
    expected_cost,
    first_layer,
    suffix_tensors,
)
from bedside.core.errors import MalformedError
from bedside.core.limits import MAX_VECTOR_WORDS
from bedside.core.unreadable import UNREADABLE

SCHEMA: Final = 2
MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.sig"
INFER: Final = "infer.onnx"
INFER_FLOAT: Final = "infer_float.onnx"
PARAMETERS: Final = "parameters.safetensors"
GOLDEN: Final = "golden.safetensors"
INFER_TFLITE: Final = "infer.tflite"
COMMITTED: Final = (INFER, INFER_FLOAT, PARAMETERS, GOLDEN)
"""The files that every manifest commits to, in the order in which they travel, behind its training graphs."""

OPTIONAL: Final = (INFER_TFLITE,)
"""The files that may follow them, in this order."""

SIGNED_KIND: Final = "bundle"
"""The domain of the signature over the manifest's bytes."""

SUFFIX_NAME: Final = re.compile("[a-z0-9]{1,16}")
_SHORT_KEY_CHARS: Final = 16


class WindowSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a stream is cut into model inputs.

    What has a default is a stage that a model may leave out; then the manifest's bytes do not have it either.

    Attributes:
        stream: id of the stream.
        channels: values per sample of the model's input.
        rate_hz: samples per second of the model's input.
        length: samples of one window.
        hop: samples from one window's start to the next one's.
        offset: per channel, physical units.
        scale: per channel; the model sees x = (physical - offset) * scale.
        pick: channels of the stream to take, in this order; empty for all.
        resample: None when the stream has the window's rate.
        filter: None for none.
        beat: None for sliding windows.
        detrend: per window and channel.
        normalise: per window and channel.
        fields: names of a record's values, when the model takes records; no stage of a stream applies then.
    """

    stream: str
    channels: int
    rate_hz: float
    length: int
    hop: int
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    pick: tuple[int, ...] = ()
    resample: Resample | None = None
    filter: Filter | None = None
    beat: Beat | None = None
    detrend: Detrend = "none"
    normalise: Normalise = "none"
    fields: tuple[str, ...] = ()


class Quantisation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How float parameters become int8.

    Attributes:
        amax: name of the parameter that holds every layer's input range; it is model state like a weight.
        weight_qmax: largest magnitude of a quantised weight. 127 uses the whole range; 63 keeps pairs of
            products within int16 on CPUs whose 8-bit kernels saturate there.
        layers: in the order of the net.
        groups: numbers of the group norms; they are computed in float.
        standardised: numbers of the standardising layers; likewise.
    """

    amax: str
    weight_qmax: int
    layers: tuple[QuantisedLayer, ...]
    groups: tuple[int, ...] = ()
    standardised: tuple[int, ...] = ()


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Largest allowed difference of one golden tensor: any value's, or of a parameter the root mean square."""

    tensor: str
    absolute: float


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the golden vectors were made with. Predicted classes must agree exactly.

    Attributes:
        steps: training steps replayed from the bundle's own parameters, by each graph.
        learning_rate: of those steps.
        momentum: of those steps.
        proximal_mu: of those steps.
        gradient_clip: of those steps.
        tolerances: of `logits`, `logits_litert` (against the same vector), `logits_float`, and of `<graph>/loss` and
            `<graph>/<parameter>` for each training graph by its key.
    """

    steps: int
    learning_rate: float
    momentum: float
    proximal_mu: float
    gradient_clip: float
    tolerances: tuple[Tolerance, ...]


class Targets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the outputs of a regression stand for: y = (target - offset) * scale, one entry per label.

    Attributes:
        unit: UCUM.
        offset: in that unit.
        scale: per unit; the loss is that of scaled values.
    """

    unit: tuple[str, ...]
    offset: tuple[float, ...]
    scale: tuple[float, ...]


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file: name, bytes, BLAKE2b-256 in hexadecimal."""

    name: str
    size: int
    blake2b: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The manifest. `graphs` are the ways in which plans may have the model trained, the author's advice first.

    `labels` names the outputs: classes, or what is measured. `checkpoint` is the BLAKE2b-256, in hexadecimal, of the
    shared parameters that training starts from, as a safetensors file: the first link of every lineage. `class_weights`
    multiply the loss of each class or label. `patches` is there together with `infer.tflite`, and says where the
    parameters are in it. `reference` is what the author's streams looked like.
    """

    name: str
    version: str
    signer: str
    task: Task
    labels: tuple[str, ...]
    window: WindowSpec
    layers: tuple[Layer, ...]
    parameters: tuple[TensorSpec, ...]
    quantisation: Quantisation
    suffixes: tuple[Suffix, ...]
    graphs: tuple[TrainingGraph, ...]
    training: Training
    golden: Golden
    costs: tuple[Cost, ...]
    files: tuple[FileEntry, ...]
    checkpoint: str
    schema: int = SCHEMA
    class_weights: tuple[float, ...] = ()
    targets: Targets | msgspec.UnsetType = msgspec.UNSET
    patches: tuple[Patch, ...] | msgspec.UnsetType = msgspec.UNSET
    reference: Reference | msgspec.UnsetType = msgspec.UNSET

    def steps(self) -> tuple[Step, ...]:
        """The layers in their places."""
        return walk(self.layers, (self.window.length, self.window.channels), len(self.labels))

    def shared(self, suffix: str = ALL) -> tuple[TensorSpec, ...]:
        """The parameters that an update carries when a suffix is trained, in the manifest's order.

        Raises:
            MalformedError: `bad-manifest`: there is no such suffix.
        """
        return tuple(tensor for tensor in self.changed(suffix) if tensor.shared)

    def changed(self, suffix: str = ALL) -> tuple[TensorSpec, ...]:
        """The parameters, shared and local, that training a suffix may change, in the manifest's order.

        Raises:
            MalformedError: `bad-manifest`: there is no such suffix.
        """
        first = first_layer(self.suffixes, suffix)
        if first is None:
            raise _bad(f"the model has no suffix {suffix[:64]!r}")
        names = {spec.name for spec in suffix_tensors(self.steps(), first)}
        return tuple(tensor for tensor in self.parameters if tensor.name in names)

    def graph(self, level: str, suffix: str, optimiser: str) -> TrainingGraph | None:
        """The training graph of a plan; None when the bundle has none."""
        asked = (level, suffix, optimiser)
        return next((g for g in self.graphs if (g.level, g.suffix, g.optimiser) == asked), None)

    def cost(self, graph: TrainingGraph, batch: int) -> Cost | None:
        """What a step of a graph takes with a batch, by what was measured; None when nothing was."""
        return expected_cost([row for row in self.costs if row.graph == graph.key], batch)

    def tolerance(self, tensor: str) -> float:
        """Absolute golden tolerance of `tensor`; zero when the manifest names none."""
        return next((t.absolute for t in self.golden.tolerances if t.tensor == tensor), 0.0)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the canonical bytes of `manifest`."""
    return msgspec.json.encode(manifest, order="sorted")


def decode_manifest(data: bytes) -> Manifest:
    """Parse and check canonical manifest bytes.

    Raises:
        MalformedError: `bad-manifest`, or `bad-layers` from the layer list.
    """
    if len(data) > bounds.MAX_MANIFEST_BYTES:
        raise _bad(f"a manifest has at most {bounds.MAX_MANIFEST_BYTES} bytes, not {len(data)}")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except UNREADABLE as error:
        raise _bad(f"the manifest cannot be read: {str(error)[:200]}") from error
    if manifest.schema != SCHEMA:
        raise _bad(f"the manifest has schema {manifest.schema}, this version reads {SCHEMA}")
    if encode_manifest(manifest) != data:
        raise _bad("the manifest is not in canonical form")
    _check_window(manifest.window)
    if manifest.reference is not msgspec.UNSET:
        check_reference(manifest.reference, signal_channels(manifest.window))
    _check_names(manifest)
    _check_tensors(manifest)
    _check_training(manifest)
    check_golden(manifest.golden)
    check_costs(manifest.costs)
    return manifest


def claimed_signer(manifest_bytes: bytes) -> str:
    """Whose key an unverified manifest says it has, as the end of a sentence of refusal; empty when it says nothing.

    The admin who reads it knows then which key to ask the author about; nobody else may act on it.
    """
    try:
        signer = decode_manifest(manifest_bytes).signer
        return f"; it names the signer {bytes.fromhex(signer).hex()[:_SHORT_KEY_CHARS]}…"
    except (MalformedError, ValueError):
        return ""


def bundle_digest(manifest_bytes: bytes) -> bytes:
    """BLAKE2b-256 of the manifest's bytes: the name of the bundle in plans, logs and stores."""
    return hashlib.blake2b(manifest_bytes, digest_size=32).digest()


def _check_window(window: WindowSpec) -> None:
    if not 0 < window.channels <= bounds.MAX_CHANNELS:
        raise _bad(f"a window has 1 to {bounds.MAX_CHANNELS} channels, not {window.channels}")
    if not 0 < window.hop <= window.length <= bounds.MAX_WINDOW_SAMPLES:
        raise _bad(f"0 < hop <= length <= {bounds.MAX_WINDOW_SAMPLES} samples does not hold for the window")
    if not window.rate_hz > 0:
        raise _bad("the window's rate must be above zero")
    if not len(window.offset) == len(window.scale) == window.channels:
        raise _bad("offset and scale need one value per channel")
    check_stages(window)


def _check_names(manifest: Manifest) -> None:
    least = 2 if manifest.task == "classification" else 1
    if not least <= len(manifest.labels) <= bounds.MAX_LABELS or len(set(manifest.labels)) != len(manifest.labels):
        raise _bad(f"a model of {manifest.task} has {least} to {bounds.MAX_LABELS} different labels")
    names = (manifest.name, manifest.version, manifest.signer, manifest.window.stream, *manifest.labels)
    if any(not 0 < len(name) <= bounds.MAX_NAME_CHARS or not name.isprintable() for name in names):
        raise _bad(f"names and labels have 1 to {bounds.MAX_NAME_CHARS} printable characters")
    wanted = committed_files(manifest.graphs, optional=isinstance(manifest.patches, tuple))
    if tuple(entry.name for entry in manifest.files) != wanted:
        raise _bad(f"this bundle commits to exactly {', '.join(wanted)}, in this order")
    if any(not 0 < entry.size <= bounds.MAX_BUNDLE_FILE_BYTES for entry in manifest.files):
        raise _bad("a file's size is outside its bounds")
    if isinstance(manifest.patches, tuple):
        check_patches(manifest.patches, manifest.files[-1].size)
    if len(manifest.checkpoint) != 64 or not set(manifest.checkpoint) <= set("0123456789abcdef"):
        raise _bad("the first checkpoint is not named by 64 hexadecimal digits")


def committed_files(graphs: Sequence[TrainingGraph], *, optional: bool) -> tuple[str, ...]:
    """The files that a manifest commits to, in the order in which they travel."""
    return (*sorted(graph.file for graph in graphs), *COMMITTED, *(OPTIONAL if optional else ()))


def _check_tensors(manifest: Manifest) -> None:
    """The parameters must be those of the layer list: nothing else could be trained or requantised."""
    steps, quantisation = manifest.steps(), manifest.quantisation
    *specs, ranges = layer_tensors(steps)
    if manifest.parameters not in ((*specs, ranges), (*specs, msgspec.structs.replace(ranges, shared=False))):
        raise _bad("the parameters are not those of the layer list; their ranges may be shared or local")
    if sum(math.prod(tensor.shape) for tensor in manifest.parameters) > MAX_VECTOR_WORDS:
        raise _bad(f"a model has at most {MAX_VECTOR_WORDS} parameters")
    if quantisation != quantisation_of(steps, quantisation.weight_qmax):
        raise _bad("the quantised layers are not those of the layer list")
    if not 1 <= quantisation.weight_qmax <= 127:
        raise _bad("a quantised weight's largest magnitude is 1 to 127")


def quantisation_of(steps: Sequence[Step], weight_qmax: int) -> Quantisation:
    """How the parameters of a layer list become int8."""
    groups, standardised = kept_norms(steps)
    return Quantisation(AMAX, weight_qmax, quantised_layers(steps), groups, standardised)


def _check_training(manifest: Manifest) -> None:
    steps, suffixes = manifest.steps(), manifest.suffixes
    places = [suffix.first_layer for suffix in suffixes]
    if places != sorted(set(places)) or not all(0 < place < len(steps) for place in places):
        raise _bad("suffixes begin behind the first layer, each at a place of its own, in the order of the layers")
    names = {ALL, *(suffix.name for suffix in suffixes)}
    if len(names) != len(suffixes) + 1 or any(not SUFFIX_NAME.fullmatch(suffix.name) for suffix in suffixes):
        raise _bad("suffixes have different names of 1 to 16 small letters and digits, other than all")
    if not 0 < len(manifest.graphs) <= bounds.MAX_GRAPHS or len(set(manifest.graphs)) != len(manifest.graphs):
        raise _bad(f"a bundle has 1 to {bounds.MAX_GRAPHS} different training graphs")
    keys = {graph.key for graph in manifest.graphs}
    if any(graph.suffix not in names for graph in manifest.graphs) or any(
        row.graph not in keys for row in manifest.costs
    ):
        raise _bad("a training graph has a suffix that is not named, or a cost belongs to no graph")
    for suffix in suffixes:
        if any(step.skip >= 0 and step.skip < suffix.first_layer - 1 for step in steps[suffix.first_layer :]):
            raise _bad(f"the suffix {suffix.name} begins inside a residual block")
    _check_loss(manifest)


def _check_loss(manifest: Manifest) -> None:
    weights, targets, outputs = manifest.class_weights, manifest.targets, len(manifest.labels)
    if weights and (len(weights) != outputs or not all(0 < weight <= bounds.MAX_CLASS_WEIGHT for weight in weights)):
        raise _bad(f"class weights are one per label, above 0 and at most {bounds.MAX_CLASS_WEIGHT:g}")
    if fault := augmentation_fault(manifest.training.augmentation, manifest.task, manifest.window.length):
        raise _bad(fault)
    if (manifest.task == "regression") != isinstance(targets, Targets) or (weights and manifest.task == "regression"):
        raise _bad("a regression says what its outputs stand for, and has no class weights; others the other way round")
    if isinstance(targets, Targets):
        if not len(targets.unit) == len(targets.offset) == len(targets.scale) == outputs:
            raise _bad("targets have one unit, offset and scale per label")
        most = bounds.MAX_TARGET
        if not all(1 / most <= abs(scale) <= most for scale in targets.scale):
            raise _bad(f"a target's scale is between {1 / most:g} and {most:g}, or the negative of that")
        if not all(abs(offset) <= most for offset in targets.offset):
            raise _bad(f"a target's offset is at most {most:g} away from 0")


def _bad(sentence: str) -> MalformedError:
    return MalformedError("bad-manifest", sentence, remedy="build the bundle again with `bedside model build`")
