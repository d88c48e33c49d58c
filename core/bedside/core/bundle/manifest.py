"""The manifest of a bundle: everything a device needs to know, and the digest of every file.

The manifest is canonical JSON (sorted keys, no spaces, UTF-8); its BLAKE2b-256 names the bundle. It commits
to every other file by size and digest, so one signature over it covers the whole bundle.

Source: DESIGN section 6.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final, Literal

import msgspec

from bedside.core.bundle import bounds
from bedside.core.bundle.layers import Layer, walk
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
from bedside.core.errors import MalformedError
from bedside.core.limits import MAX_VECTOR_WORDS
from bedside.core.unreadable import UNREADABLE

SCHEMA: Final = 1
MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.sig"
TRAIN: Final = "train.onnx"
INFER: Final = "infer.onnx"
INFER_FLOAT: Final = "infer_float.onnx"
PARAMETERS: Final = "parameters.safetensors"
GOLDEN: Final = "golden.safetensors"
INFER_TFLITE: Final = "infer.tflite"
COMMITTED: Final = (TRAIN, INFER, INFER_FLOAT, PARAMETERS, GOLDEN)
"""The files that every manifest commits to, in the order in which they travel."""

OPTIONAL: Final = (INFER_TFLITE,)
"""The files that may follow them, in this order."""

SIGNED_KIND: Final = "bundle"
_SHORT_KEY_CHARS: Final = 16
"""The domain of the signature over the manifest's bytes."""

Level = Literal["Q0", "Q1"]
"""Q0: float training, quantised afterwards. Q1: quantisation-aware training on a float master."""


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


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One named tensor. A tensor that is not `shared` is local: it never enters an update."""

    name: str
    shape: tuple[int, ...]
    shared: bool = True
    dtype: Literal["float32"] = "float32"


class QuantisedLayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the int8 form of one layer comes from.

    Attributes:
        weight: parameter name; one symmetric scale per index of its last axis.
        bias: parameter name; int32 at scale (input scale x weight scale).
        amax_index: place of the input's range in the `amax` parameter.
        signed: input range is -amax..amax (else 0..amax).
    """

    weight: str
    bias: str
    amax_index: int
    signed: bool


class Quantisation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How float parameters become int8.

    Attributes:
        level: Q0 or Q1.
        amax: name of the parameter that holds every layer's input range; it is model state like a weight.
        scale_axis: axis of a weight that carries its scales; always the last.
        weight_qmax: largest magnitude of a quantised weight. 127 uses the whole range; 63 keeps pairs of
            products within int16 on CPUs whose 8-bit kernels saturate there.
        layers: in the order of the net.
    """

    level: Level
    amax: str
    weight_qmax: int
    layers: tuple[QuantisedLayer, ...]
    scale_axis: Literal[-1] = -1


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Largest allowed absolute difference of one golden tensor."""

    tensor: str
    absolute: float


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the golden vectors were made with. Predicted classes must agree exactly.

    Attributes:
        steps: training steps replayed from the bundle's own parameters.
        learning_rate: of those steps.
        momentum: of those steps.
        proximal_mu: of those steps.
        tolerances: of `loss`, `logits`, `logits_litert` (against the same vector), `logits_float` and every parameter.
    """

    steps: int
    learning_rate: float
    momentum: float
    proximal_mu: float
    tolerances: tuple[Tolerance, ...]


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hyper-parameters that the author recommends; a plan may state others."""

    learning_rate: float
    momentum: float
    batch: int
    epochs: int
    proximal_mu: float = 0.0


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Measured on the author's machine.

    Attributes:
        batch: examples per step.
        step_ms: median of one training step, milliseconds.
        rss_mb: resident memory of the training process, megabytes.
    """

    batch: int
    step_ms: float
    rss_mb: float


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file: name, bytes, BLAKE2b-256 in hexadecimal."""

    name: str
    size: int
    blake2b: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The manifest. `optimiser` tensors start at zero, have no file, and never leave the device.

    `checkpoint` is the BLAKE2b-256, in hexadecimal, of the shared parameters that training starts from, as a
    safetensors file: the first link of every lineage. `patches` is there together with `infer.tflite`, and says where
    the parameters are in it; a manifest without has the bytes that it had before there was such a file.
    `reference` is what the author's streams looked like.
    """

    name: str
    version: str
    signer: str
    labels: tuple[str, ...]
    window: WindowSpec
    layers: tuple[Layer, ...]
    parameters: tuple[TensorSpec, ...]
    optimiser: tuple[TensorSpec, ...]
    quantisation: Quantisation
    training: Training
    golden: Golden
    cost: Cost
    files: tuple[FileEntry, ...]
    checkpoint: str
    schema: int = SCHEMA
    patches: tuple[Patch, ...] | msgspec.UnsetType = msgspec.UNSET
    reference: Reference | msgspec.UnsetType = msgspec.UNSET

    def shared(self) -> tuple[TensorSpec, ...]:
        """The parameters that an update carries, in the manifest's order."""
        return tuple(tensor for tensor in self.parameters if tensor.shared)

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
    if not 2 <= len(manifest.labels) <= bounds.MAX_LABELS or len(set(manifest.labels)) != len(manifest.labels):
        raise _bad(f"a model has 2 to {bounds.MAX_LABELS} different labels")
    names = (manifest.name, manifest.version, manifest.signer, manifest.window.stream, *manifest.labels)
    if any(not 0 < len(name) <= bounds.MAX_NAME_CHARS or not name.isprintable() for name in names):
        raise _bad(f"names and labels have 1 to {bounds.MAX_NAME_CHARS} printable characters")
    optional = OPTIONAL if isinstance(manifest.patches, tuple) else ()
    if tuple(entry.name for entry in manifest.files) != (*COMMITTED, *optional):
        raise _bad(f"a bundle commits to exactly {', '.join((*COMMITTED, *optional))}, in this order")
    if any(not 0 < entry.size <= bounds.MAX_BUNDLE_FILE_BYTES for entry in manifest.files):
        raise _bad("a file's size is outside its bounds")
    if isinstance(manifest.patches, tuple):
        check_patches(manifest.patches, manifest.files[-1].size)
    if len(manifest.checkpoint) != 64 or not set(manifest.checkpoint) <= set("0123456789abcdef"):
        raise _bad("the first checkpoint is not named by 64 hexadecimal digits")


def _check_tensors(manifest: Manifest) -> None:
    """The parameters must be those of the layer list: nothing else could be trained or requantised."""
    window, quantisation = manifest.window, manifest.quantisation
    wanted, layers = expected_tensors(manifest.layers, window, len(manifest.labels), quantisation.amax)
    if {(t.name, t.shape) for t in manifest.parameters} != wanted or len(manifest.parameters) != len(wanted):
        raise _bad("the parameters are not those of the layer list")
    if sum(math.prod(tensor.shape) for tensor in manifest.parameters) > MAX_VECTOR_WORDS:
        raise _bad(f"a model has at most {MAX_VECTOR_WORDS} parameters")
    if quantisation.layers != layers:
        raise _bad("the quantised layers are not those of the layer list")
    if not 1 <= quantisation.weight_qmax <= 127:
        raise _bad("a quantised weight's largest magnitude is 1 to 127")


def expected_tensors(
    layers: tuple[Layer, ...], window: WindowSpec, classes: int, amax: str
) -> tuple[set[tuple[str, tuple[int, ...]]], tuple[QuantisedLayer, ...]]:
    """Return the (name, shape) of every parameter that a layer list has, and its quantised layers."""
    shapes: set[tuple[str, tuple[int, ...]]] = set()
    quantised = []
    for step in walk(layers, (window.length, window.channels), classes):
        if step.order < 0:
            continue
        taps = (step.layer.taps,) if hasattr(step.layer, "taps") else ()
        weight, bias = f"w{step.order}", f"b{step.order}"
        shapes |= {(weight, (*taps, step.before[-1], step.after[-1])), (bias, step.after[-1:])}
        quantised.append(QuantisedLayer(weight, bias, step.order, step.signed))
    return shapes | {(amax, (len(quantised),))}, tuple(quantised)


def _bad(sentence: str) -> MalformedError:
    return MalformedError("bad-manifest", sentence, remedy="build the bundle again with `bedside model build`")
