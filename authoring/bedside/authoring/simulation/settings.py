"""How a simulated federation trains: what an operator would say to `bedside round start`."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from bedside.core.bundle.manifest import Manifest
from bedside.core.bundle.training import TrainingGraph
from bedside.core.errors import ConfigError
from bedside.core.learning.plan_graph import name_graph
from bedside.core.limits import MAX_NOISE_MULTIPLIER
from bedside.proto.v1 import plan_pb2

_E6: Final = 1_000_000
_E9: Final = 1_000_000_000

SERVERS: Final = {
    "fedavg": plan_pb2.SERVER_OPTIMISER_FEDAVG,
    "fedadam": plan_pb2.SERVER_OPTIMISER_FEDADAM,
    "fedyogi": plan_pb2.SERVER_OPTIMISER_FEDYOGI,
}


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One federated run. What is None is the author's recommendation in the bundle.

    Attributes:
        rounds: of the run.
        epochs: local passes over a client's examples.
        steps: local steps of every client instead of epochs, so that large and small ones do equal work; 0 for epochs.
        batch: examples per step.
        learning_rate: of devices, in the first round.
        final_learning_rate: of the last round; between the two it falls along half a cosine. None keeps the first. What
            `bedside round start --final-learning-rate` plans, which takes no 0; a site refuses a rate below its
            `min_learning_rate`.
        momentum: of devices.
        proximal_mu: weight of the FedProx term.
        gradient_clip: largest norm of a step's gradient, 0 for any.
        graph: key of the training graph, such as `q1-all-sgd`; empty for the bundle's first.
        server: the server's optimiser.
        server_learning_rate: of it.
        beta1: first decay rate of FedAdam and FedYogi.
        beta2: second.
        tau: their adaptivity.
        weighting: how devices are weighed.
        clip: L2 bound of one contribution's segment.
        bits: of one value on the wire; 0 for float updates without clip, as a comparison.
        noise_multiplier: of the discrete Gaussian noise of one trustee, 0 for none; in a round each adds as much.
    """

    rounds: int
    epochs: int | None = None
    steps: int = 0
    batch: int | None = None
    learning_rate: float | None = None
    final_learning_rate: float | None = None
    momentum: float | None = None
    proximal_mu: float | None = None
    gradient_clip: float | None = None
    graph: str = ""
    server: Literal["fedavg", "fedadam", "fedyogi"] = "fedavg"
    server_learning_rate: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3
    weighting: Literal["examples", "uniform"] = "examples"
    clip: float = 10.0
    bits: int = 8
    noise_multiplier: float = 0.0

    def check(self) -> None:
        """Refuse what no run can mean.

        Raises:
            ConfigError: `bad-settings`.
        """
        rules = (
            (1 <= self.rounds <= 100_000, "rounds are 1 to 100000"),
            (self.bits == 0 or 2 <= self.bits <= 8, "bits are 2 to 8, or 0 for float updates"),
            (self.clip > 0, "clip is above zero"),
            (self.steps >= 0, "steps are 0 or more"),
            (0 <= self.noise_multiplier <= MAX_NOISE_MULTIPLIER, f"noise_multiplier is 0 to {MAX_NOISE_MULTIPLIER}"),
            (self.bits > 0 or not self.noise_multiplier, "noise is added to rounded updates: bits must not be 0"),
        )
        for holds, sentence in rules:
            if not holds:
                raise ConfigError("bad-settings", f"the simulation's {sentence}", remedy="correct its settings")

    def filled(self, manifest: Manifest) -> Settings:
        """As they run with a model: its author's advice where nothing was said.

        Raises:
            ConfigError: `bad-settings`: the bundle has no such graph.
        """
        advised = manifest.training
        given = {
            "epochs": self.epochs,
            "batch": self.batch,
            "learning_rate": self.learning_rate,
            "momentum": self.momentum,
            "proximal_mu": self.proximal_mu,
            "gradient_clip": self.gradient_clip,
        }
        advice = {name: getattr(advised, name) for name, value in given.items() if value is None}
        filled = msgspec.structs.replace(self, **advice, graph=self.training_graph(manifest).key)
        last = filled.learning_rate if self.final_learning_rate is None else self.final_learning_rate
        return msgspec.structs.replace(filled, final_learning_rate=last)

    def training_graph(self, manifest: Manifest) -> TrainingGraph:
        """The graph that devices train with.

        Raises:
            ConfigError: `bad-settings`: the bundle has no such graph.
        """
        for graph in manifest.graphs:
            if self.graph in ("", graph.key):
                return graph
        keys = ", ".join(graph.key for graph in manifest.graphs)
        raise ConfigError(
            "bad-settings", f"the bundle has no training graph {self.graph}", remedy=f"name one of {keys}"
        )

    def plan(self, manifest: Manifest, layout: plan_pb2.Layout, cap: int) -> plan_pb2.Plan:
        """What the coordinator's step reads of a plan.

        Args:
            manifest: of the model.
            layout: of the vectors.
            cap: the most examples that a client has.
        """
        weighting = plan_pb2.WEIGHTING_EXAMPLES if self.weighting == "examples" else plan_pb2.WEIGHTING_UNIFORM
        training = plan_pb2.Training(weighting=weighting, min_examples=1, max_examples=cap)
        name_graph(training, self.training_graph(manifest))
        server = plan_pb2.ServerStep(
            optimiser=SERVERS[self.server],
            learning_rate_e6=round(self.server_learning_rate * _E6),
            beta1_e6=round(self.beta1 * _E6),
            beta2_e6=round(self.beta2 * _E6),
            tau_e9=round(self.tau * _E9),
        )
        return plan_pb2.Plan(training=training, layout=layout, server=server, cohorts=[plan_pb2.Cohort(index=0)])
