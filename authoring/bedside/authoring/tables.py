"""A manifest and what a bundle did, as tables that people read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bedside.authoring.bench import Benched
from bedside.authoring.replaying import Replayed
from bedside.core.bundle.layers import Add, Step
from bedside.core.bundle.manifest import Manifest, WindowSpec
from bedside.core.bundle.parameters import TensorSpec, tensors_of
from bedside.core.bundle.training import Cost, first_layer
from bedside.service.output import Table, human_bytes


def manifest_tables(digest: bytes, manifest: Manifest) -> Iterator[Table]:
    """All that a manifest says."""
    yield Table(("what", "value"), _summary(digest, manifest), f"{manifest.name} {manifest.version}")
    layers = [[str(step.number), *_layer(step)] for step in manifest.steps()]
    yield Table(("layer", "kind", "with", "from", "to", "parameters"), layers, right=frozenset({"layer"}))
    graphs = [
        [graph.key, f"layer {first_layer(manifest.suffixes, graph.suffix)}", *_moved(manifest, graph.suffix)]
        for graph in manifest.graphs
    ]
    yield Table(("training graph", "trains from", "values in an update", "values that stay local"), graphs)
    yield cost_table(manifest.costs)
    yield _tolerances(manifest)
    files = [[entry.name, human_bytes(entry.size), entry.blake2b] for entry in manifest.files]
    yield Table(("file", "size", "blake2b"), files, right=frozenset({"size"}))


def replayed_tables(replayed: Replayed, manifest: Manifest, title: str) -> Iterator[Table]:
    """Golden vectors, then the time of a window."""
    rows = [[name, f"{off:.3g}", f"{manifest.tolerance(name):.3g}"] for name, off in replayed.differences.items()]
    yield Table(("golden tensor", "off by", "allowed"), rows, title, right=frozenset({"off by", "allowed"}))
    yield _windows(replayed, "")


def benched_tables(benched: Benched, title: str) -> Iterator[Table]:
    """The time of a window, then each training step beside what the manifest says."""
    yield _windows(benched.inference, title)
    rows = [
        [
            step.here.graph,
            str(step.here.batch),
            f"{step.here.step_ms:.2f}",
            f"{step.here.rss_mb:.0f}",
            *_of(step.stated),
        ]
        for step in benched.steps
    ]
    heads = ("a step of", "batch", "cpu ms", "peak MB", "stated ms", "stated MB")
    yield Table(heads, rows, right=frozenset(heads[1:]))


def parameter_count(manifest: Manifest) -> int:
    """Values of all parameters."""
    return _count(manifest.parameters)


def cost_table(costs: Sequence[Cost]) -> Table:
    """What a training step takes, a row for each graph and batch."""
    rows = [[cost.graph, str(cost.batch), f"{cost.step_ms:g}", f"{cost.rss_mb:g}"] for cost in costs]
    heads = ("a step of", "batch", "ms", "peak MB")
    return Table(heads, rows, right=frozenset(heads[1:]), empty="the manifest states no cost")


def _tolerances(manifest: Manifest) -> Table:
    """The tensors of one training graph stand together, with the smallest and the largest that is allowed."""
    groups: dict[str, list[float]] = {}
    for tolerance in manifest.golden.tolerances:
        key, slash, _ = tolerance.tensor.partition("/")
        groups.setdefault(f"{key}/*" if slash else key, []).append(tolerance.absolute)
    rows = [[name, str(len(values)), f"{min(values):g}", f"{max(values):g}"] for name, values in groups.items()]
    heads = ("golden", "tensors", "may be off by", "at most")
    return Table(heads, rows, right=frozenset(heads[1:]))


def _windows(replayed: Replayed, title: str) -> Table:
    rows = [[one.runtime, f"{one.median_us:g}", f"{one.p99_us:g}", ""] for one in replayed.measured]
    rows += [[name, "", "", why] for name, why in replayed.missing.items()]
    heads = ("int8 window on", "median us", "p99 us", "not tried")
    return Table(
        heads if replayed.missing else heads[:-1],
        [row[: 4 if replayed.missing else 3] for row in rows],
        title,
        right=frozenset(heads[1:3]),
    )


def _of(stated: Cost | None) -> tuple[str, str]:
    return ("-", "-") if stated is None else (f"{stated.step_ms:g}", f"{stated.rss_mb:g}")


def _summary(digest: bytes, manifest: Manifest) -> list[list[str]]:
    window, training = manifest.window, manifest.training
    told = [
        ["digest", digest.hex()],
        ["signer", manifest.signer],
        ["task", manifest.task],
        ["labels", ", ".join(manifest.labels)],
        [
            "window",
            f"{window.length} samples of {window.channels} channels of {window.stream} at {window.rate_hz:g} Hz",
        ],
        ["stages", _stages(window)],
        ["parameters", str(parameter_count(manifest))],
        ["int8 weights", f"within ±{manifest.quantisation.weight_qmax}"],
        ["advice", f"{training.epochs} epochs of batch {training.batch}, learning rate {training.learning_rate:g}"],
        ["suffixes", ", ".join(f"{one.name} from layer {one.first_layer}" for one in manifest.suffixes) or "none"],
    ]
    if manifest.class_weights:
        told.append(["class weights", ", ".join(f"{weight:g}" for weight in manifest.class_weights)])
    return told


def _layer(step: Step) -> list[str]:
    """Kind, what it needs, form before and after, and its tensors."""
    fields = {name: getattr(step.layer, name) for name in step.layer.__struct_fields__}
    scope = fields.pop("scope", "shared")
    words = [f"{name} {value}" for name, value in fields.items() if (name, value) != ("stride", 1)]
    if isinstance(step.layer, Add):
        words.append(f"takes layer {step.skip}" + (" through a projection" if step.kernel else ""))
    tensors = tensors_of(step)
    if tensors and scope == "local":
        words.append("local")
    named = " ".join(f"{spec.name}{_form(spec.shape)}" for spec in tensors)
    return [str(step.layer.__struct_config__.tag), ", ".join(words), _form(step.before), _form(step.after), named]


def _form(shape: Sequence[int]) -> str:
    return f"({'x'.join(map(str, shape))})"


def _moved(manifest: Manifest, suffix: str) -> list[str]:
    changed = manifest.changed(suffix)
    shared = [spec for spec in changed if spec.shared]
    return [str(_count(shared)), str(_count(changed) - _count(shared))]


def _count(specs: Sequence[TensorSpec]) -> int:
    return sum(math.prod(spec.shape) for spec in specs)


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
