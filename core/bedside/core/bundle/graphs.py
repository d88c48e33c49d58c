"""Every graph of a bundle against what its manifest calls for, before a runtime sees one.

At the author's, where a device takes a bundle, and whenever it reads it again to serve or train; it takes some ten
milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from bedside.core.bundle.layers import Standardise
from bedside.core.bundle.manifest import INFER, INFER_FLOAT, INFER_TFLITE, Manifest
from bedside.core.bundle.onnx_graph import (
    FLOAT_OPERATORS,
    INT8_OPERATORS,
    TRAINING_OPERATORS,
    Rules,
    check_graph,
)
from bedside.core.bundle.parameters import tensors_of
from bedside.core.bundle.tflite_file import check_tflite
from bedside.core.bundle.training import LOGITS, WINDOWS, training_inputs, training_outputs
from bedside.core.errors import MalformedError


def check_graphs(manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Check the graphs of a bundle whose files are those that its manifest names.

    Raises:
        MalformedError: `bad-graph`: the sentence names the file, and the operator or what else it is.
    """
    for name, rules in graph_rules(manifest).items():
        with _naming(name):
            check_graph(files[name], rules)
    if isinstance(manifest.patches, tuple):
        with _naming(INFER_TFLITE):
            check_tflite(files[INFER_TFLITE], manifest.patches)


@contextmanager
def _naming(file: str) -> Iterator[None]:
    try:
        yield
    except MalformedError as error:
        raise MalformedError(error.code, f"{file}: {error.sentence}", remedy=error.remedy) from error


def graph_rules(manifest: Manifest) -> dict[str, Rules]:
    """What each ONNX file of a bundle may hold, by its name."""
    weights = [spec.name for spec in manifest.parameters if spec.name != manifest.quantisation.amax]
    steps = manifest.steps()
    moments = {spec.name for step in steps if isinstance(step.layer, Standardise) for spec in tensors_of(step)}
    rules = {
        INFER: Rules(INT8_OPERATORS, (WINDOWS,), (LOGITS,)),
        INFER_FLOAT: Rules(FLOAT_OPERATORS, (WINDOWS, *weights), (LOGITS,)),
    }
    for graph in manifest.graphs:
        changed = manifest.changed(graph.suffix)
        inputs = training_inputs(graph, manifest.parameters, changed)
        given = [spec for spec in changed if spec.name not in moments]
        rules[graph.file] = Rules(TRAINING_OPERATORS, inputs, training_outputs(graph, given))
    return rules
