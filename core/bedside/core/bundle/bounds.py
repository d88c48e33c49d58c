"""Limits of a bundle, with unit and reason. Nothing is allocated for a part before it passed these."""

from __future__ import annotations

from typing import Final

MAX_MANIFEST_BYTES: Final = 1 << 20
"""Bytes of `manifest.json`: a net of a thousand tensors needs a fifth of it."""

SIGNATURE_BYTES: Final = 64
"""Bytes of `manifest.sig`: one detached Ed25519 signature."""

MAX_BUNDLE_FILE_BYTES: Final = 256 << 20
"""Bytes of one file of a bundle: ten million float32 parameters, five times over."""

MAX_TENSOR_HEADER_BYTES: Final = 1 << 18
"""Bytes of a safetensors header: a thousand tensors with long names."""

MAX_TENSORS: Final = 1_024
"""Named tensors of one file."""

MAX_TENSOR_RANK: Final = 8
"""Axes of one tensor."""

MAX_LAYERS: Final = 256
"""Layers of one list."""

MAX_GRAPHS: Final = 8
"""Ways to train one model: each is replayed before the bundle is believed, and is a file of 10 to 20 KiB."""

MAX_COSTS: Final = 256
"""Measured costs of one model: each graph at a dozen batch sizes, and more."""

MAX_GOLDEN_STEPS: Final = 1_000
"""Training steps that each graph is replayed for: four do, and a device waits for them."""

LEAST_TOLERANCE: Final = 1e-5
"""Golden tolerance that any tensor may have: of what hardly moves, or not at all."""

MAX_GRAPH_FIELDS: Final = 1 << 18
"""Fields of one ONNX file that lead to its tensors: a net of all layers has a tenth of it, at about 1 us each."""

MAX_GRAPH_DEPTH: Final = 64
"""Messages in messages of an ONNX file: a subgraph is three deeper than its node, and none of ours has one."""

MAX_GRAPH_NODES: Final = 1 << 15
"""Operators of one ONNX file or `infer.tflite`: a net of 22 weights trains with 1,100, at about 5 us each."""

MAX_GRAPH_CONSTANT_BYTES: Final = 128 << 20
"""Constants of one ONNX file: ten million float32 parameters, three times over."""

MAX_TFLITE_VALUES: Final = 1 << 26
"""Values of all tensors of `infer.tflite`: ten million parameters, in integers and in float, and what they give."""

MAX_ACTIVATION_VALUES: Final = 1 << 22
"""Values that one window becomes behind any layer: 16 MiB of float32, of which a board of 512 MiB can hold a few."""

MAX_CLASS_WEIGHT: Final = 1e6
"""Of one class's loss: a class that is once in a million windows."""

MAX_PATCHES: Final = 4_096
"""Places in `infer.tflite` that follow from the parameters: a dozen for each layer."""

MAX_TARGET: Final = 1e18
"""Of a regression's offset, scale and 1 / scale: 1e12 cells are in a litre, and 1e-12 mol."""

MAX_LABELS: Final = 256
"""Classes of one model."""

MAX_CHANNELS: Final = 1_024
"""Channels of a stream, of which a sample has as many at most, or fields of a record: an ICU stay in 349 figures."""

MAX_WINDOW_SAMPLES: Final = 65_536
"""Samples of one window: a minute at 1 kHz."""

MAX_NAME_CHARS: Final = 64
"""Characters of a tensor, file, label or model name."""

MAX_REFERENCE_EDGES: Final = 64
"""Borders between the bins of one channel's reference histogram: deciles need nine."""
