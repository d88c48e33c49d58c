"""The options of `bedside round start`, and the request that they make."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import click

from bedside.coordinator.cli.present import COMBINERS
from bedside.core.bundle.manifest import Manifest
from bedside.core.bundle.training import TrainingGraph
from bedside.core.errors import ProtocolError
from bedside.core.learning.plan_graph import name_graph
from bedside.core.limits import MAX_NOISE_MULTIPLIER
from bedside.proto.v1 import plan_pb2
from bedside.proto.v1.operator_pb2 import StartTaskRequest
from bedside.service.options import COUNT, NUMBER, FiniteRange

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What the operator chose; None leaves it to the bundle's author."""

    task: str
    rounds: int
    epochs: int | None
    batch_size: int | None
    learning_rate: float | None
    final_learning_rate: float | None
    momentum: float | None
    proximal_mu: float | None
    level: str | None
    suffix: str | None
    local_optimiser: str | None
    gradient_clip: float | None
    min_examples: int
    max_examples: int
    min_sessions: int
    min_local_steps: int
    max_local_steps: int
    weighting: str
    clip: float
    bits: int
    word_bits: int
    min_contributors: int
    max_contributors: int
    collect_seconds: int
    subsample: float
    cohort: tuple[str, ...]
    combiner: str
    trim_cohorts: int
    optimiser: str
    server_learning_rate: float | None
    beta1: float
    beta2: float
    tau: float
    noise_multiplier: float


ADAPTIVE = {"fedadam": plan_pb2.SERVER_OPTIMISER_FEDADAM, "fedyogi": plan_pb2.SERVER_OPTIMISER_FEDYOGI}
"""Server optimisers with moments."""

_MAX_SCALED = 1e6
"""Keeps every scaled integer of a plan within 64 bits; a site's policy allows far less."""
_POSITIVE = FiniteRange(0, _MAX_SCALED, min_open=True)
_AMOUNT = FiniteRange(0, _MAX_SCALED)
_SHARE = FiniteRange(0, 1)

_OPTIONS = (
    click.option("--bundle", type=click.Path(path_type=Path), required=True, help="Folder or tar of the model bundle."),
    click.option("--task", required=True, help="Id of the task."),
    click.option("--rounds", type=COUNT, default=1, show_default=True, help="Rounds to run."),
    click.option("--epochs", type=COUNT, help="Local passes over the data. [default: the author's]"),
    click.option("--batch-size", type=COUNT, help="Examples of one step. [default: the author's]"),
    click.option("--learning-rate", type=_POSITIVE, help="Local learning rate. [default: the author's]"),
    click.option(
        "--final-learning-rate",
        type=_POSITIVE,
        help="Of the last of these rounds; it falls along half a cosine. [default: as in the first]",
    ),
    click.option("--momentum", type=_SHARE, help="Local momentum. [default: the author's]"),
    click.option("--proximal-mu", type=_AMOUNT, help="FedProx term. [default: the author's]"),
    click.option(
        "--level",
        type=click.Choice(["Q0", "Q1", "Q2"]),
        help="Q0 trains in float and rounds afterwards, Q1 with rounding in the loop, Q2 on int8 weights. [default: the"
        " bundle's first training graph]",
    ),
    click.option("--suffix", help="Layers to train: all, head, or another suffix of the bundle. [default: as --level]"),
    click.option("--local-optimiser", type=click.Choice(["sgd", "adam"]), help="Of devices. [default: as --level]"),
    click.option(
        "--gradient-clip",
        type=_AMOUNT,
        help="Norm bound of a local gradient, 0 for none. [default: the author's]",
    ),
    click.option(
        "--min-examples",
        type=NUMBER,
        default=64,
        show_default=True,
        help="A device with fewer declines; a power of two.",
    ),
    click.option("--max-examples", type=COUNT, default=1024, show_default=True, help="A device uses at most so many."),
    click.option(
        "--min-sessions",
        type=NUMBER,
        default=1,
        show_default=True,
        help="Distinct sessions a device needs; a power of two.",
    ),
    click.option(
        "--min-local-steps", type=NUMBER, default=4, show_default=True, help="Training steps a device must do."
    ),
    click.option(
        "--max-local-steps",
        type=NUMBER,
        default=0,
        show_default=True,
        help="Steps after which a device ends though epochs are left, so that all work alike; 0 for no such end.",
    ),
    click.option("--weighting", type=click.Choice(["examples", "uniform"]), default="examples", show_default=True),
    click.option("--clip", type=_POSITIVE, default=10.0, show_default=True, help="L2 bound of one contribution."),
    click.option("--bits", type=COUNT, default=8, show_default=True, help="Bits of one quantised value."),
    click.option(
        "--word-bits", type=NUMBER, default=0, help="Bits of one ring word. [default: as few as fit, from 16]"
    ),
    click.option(
        "--subsample",
        type=FiniteRange(0.0625, 1.0),
        default=1.0,
        show_default=True,
        metavar="SHARE",
        help="Share of the coordinates that is sent, 0.0625 to 1; the same ones by every device.",
    ),
    click.option("--min-contributors", type=COUNT, default=3, show_default=True, help="Smallest set of a cohort."),
    click.option("--max-contributors", type=NUMBER, default=0, help="Largest set. [default: all devices]"),
    click.option("--collect-seconds", type=COUNT, default=300, show_default=True, help="How long uploads may take."),
    click.option("--cohort", multiple=True, help="Sites of one cohort, with commas; repeat. [default: all together]"),
    click.option(
        "--combiner",
        type=click.Choice(list(COMBINERS)),
        default="mean",
        show_default=True,
        help="How cohorts become one step. The trimmed mean and the median need 3 cohorts or more (--cohort), bear a "
        "compromised minority of them, and count every cohort alike.",
    ),
    click.option(
        "--trim-cohorts",
        type=NUMBER,
        default=0,
        metavar="F",
        help="Cohorts that the trimmed mean leaves out at either end; 2 F must be below their number.",
    ),
    click.option("--optimiser", type=click.Choice(["fedavg", *ADAPTIVE]), default="fedavg", show_default=True),
    click.option("--server-learning-rate", type=_POSITIVE, help="[default: 1 for fedavg, 0.01 for the others]"),
    click.option("--beta1", type=_SHARE, default=0.9, show_default=True, help="FedAdam, FedYogi."),
    click.option("--beta2", type=_SHARE, default=0.99, show_default=True, help="FedAdam, FedYogi."),
    click.option("--tau", type=_AMOUNT, default=0.001, show_default=True, help="FedAdam, FedYogi."),
    click.option(
        "--noise-multiplier",
        type=FiniteRange(0, MAX_NOISE_MULTIPLIER),
        default=0.0,
        show_default=True,
        help="Gaussian noise that every trustee adds in full, as a multiple of what one device can change. A site's"
        " policy may ask for more. For small vectors; see `bedside privacy show`.",
    ),
)


def task_options(command: Callable[..., Result]) -> Callable[..., Result]:
    """Add the options; they reach the command as `options: TaskOptions` and `bundle: Path`."""

    @functools.wraps(command)
    def gather(*args: object, bundle: Path, **named: object) -> Result:
        chosen = {field.name: named.pop(field.name) for field in fields(TaskOptions)}
        options = TaskOptions(**chosen)  # type: ignore[arg-type]  # click has converted each to its field's type
        return command(*args, options=options, bundle=bundle, **named)

    for option in reversed(_OPTIONS):
        gather = option(gather)
    return gather


def start_request(options: TaskOptions, manifest: Manifest) -> StartTaskRequest:
    """The request, with the author's hyper-parameters where the operator chose none."""
    from bedside.core.privacy import multiplier_e6

    return StartTaskRequest(
        task=options.task,
        rounds=options.rounds,
        training=_training(options, manifest),
        server=_server(options),
        clip_e6=round(options.clip * 1e6),
        value_bits=options.bits,
        word_bits=options.word_bits,
        min_contributors=options.min_contributors,
        max_contributors=options.max_contributors,
        collect_s=options.collect_seconds,
        noise_multiplier_e6=multiplier_e6(options.noise_multiplier),
        cohorts=[
            plan_pb2.Cohort(index=at, sites=[site.strip() for site in text.split(",")])
            for at, text in enumerate(options.cohort)
        ],
        final_learning_rate_e9=round((options.final_learning_rate or 0) * 1e9),
        subsample_e32=int(options.subsample * (1 << 32)) if options.subsample < 1 else 0,
    )


def _training(options: TaskOptions, manifest: Manifest) -> plan_pb2.Training:
    author = manifest.training
    examples = options.weighting == "examples"
    training = plan_pb2.Training(
        epochs=_chosen(options.epochs, author.epochs),
        batch_size=_chosen(options.batch_size, author.batch),
        learning_rate_e9=round(_chosen(options.learning_rate, author.learning_rate) * 1e9),
        momentum_e6=round(_chosen(options.momentum, author.momentum) * 1e6),
        proximal_mu_e6=round(_chosen(options.proximal_mu, author.proximal_mu) * 1e6),
        weighting=plan_pb2.WEIGHTING_EXAMPLES if examples else plan_pb2.WEIGHTING_UNIFORM,
        min_examples=options.min_examples,
        max_examples=options.max_examples,
        min_local_steps=options.min_local_steps,
        max_local_steps=options.max_local_steps,
        min_sessions=options.min_sessions,
        gradient_clip_e6=round(_chosen(options.gradient_clip, author.gradient_clip) * 1e6),
    )
    name_graph(training, _graph(options, manifest))
    return training


def _graph(options: TaskOptions, manifest: Manifest) -> TrainingGraph:
    """The author's first that has what the operator chose."""
    asked = (options.level, options.suffix, options.local_optimiser)
    for graph in manifest.graphs:
        had = (graph.level, graph.suffix, graph.optimiser)
        if all(wish in (None, has) for wish, has in zip(asked, had, strict=True)):
            return graph
    raise ProtocolError(
        "no-such-graph",
        f"the bundle cannot be trained so; it has {', '.join(graph.key for graph in manifest.graphs)}",
        remedy="choose --level, --suffix and --local-optimiser among those, or build the bundle with more [[graphs]]",
    )


def _server(options: TaskOptions) -> plan_pb2.ServerStep:
    combiner = COMBINERS[options.combiner]
    if options.optimiser == "fedavg":
        rate = _chosen(options.server_learning_rate, 1.0)
        return plan_pb2.ServerStep(
            optimiser=plan_pb2.SERVER_OPTIMISER_FEDAVG,
            learning_rate_e6=round(rate * 1e6),
            combiner=combiner,
            trim_cohorts=options.trim_cohorts,
        )
    return plan_pb2.ServerStep(
        combiner=combiner,
        trim_cohorts=options.trim_cohorts,
        optimiser=ADAPTIVE[options.optimiser],
        learning_rate_e6=round(_chosen(options.server_learning_rate, 0.01) * 1e6),
        beta1_e6=round(options.beta1 * 1e6),
        beta2_e6=round(options.beta2 * 1e6),
        tau_e9=round(options.tau * 1e9),
    )


Number = TypeVar("Number", int, float)


def _chosen(value: Number | None, default: Number) -> Number:
    return default if value is None else value
