"""Rounds of a federation without network and masks.

Masks cancel exactly in the ring, so that the sum of the clients' encoded vectors is what a coordinator opens: training,
weights, codec, noise, bounds and the server's step are those of real rounds. Only how many examples a client has right,
which real rounds add up to report it, is not asked.

Source: DESIGN section 5.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np

from bedside.authoring.simulation.settings import Settings
from bedside.core.bundle.verify import Bundle
from bedside.core.codec import DecodedSum, Layout, SegmentKind, TensorUpdate, check_sum, decode_sum, encode_pieces
from bedside.core.learning.schedule import half_cosine
from bedside.core.learning.step import EXAMPLES, CohortSum, next_checkpoint
from bedside.core.learning.training_layout import CORRECT, ValueTerms, narrowest_ring, training_layout
from bedside.core.learning.weighting import Weighting, contribution_weight, counted_examples
from bedside.core.privacy import multiplier_e6, noise_tails
from bedside.core.privacy.noise import add_noise
from bedside.core.securesum.plans import layout_message
from bedside.core.securesum.ring import reduce_in_place, word_dtype
from bedside.ondevice.runtimes import Float32
from bedside.ondevice.runtimes.onnx import open_session, session_options
from bedside.ondevice.training.examples import Examples
from bedside.ondevice.training.train import Counts, Schedule, Trained, train

Value = TypeVar("Value", int, float)
_ANY_BITS: Final = 8
"""Of the layout whose tensors a run with float updates sums."""


class RoundReport(NamedTuple):
    """What a round did: its number from 1, the clients' mean losses in first and last epoch, and if the model moved."""

    number: int
    loss_before: float
    loss_after: float
    stepped: bool


class Federation:
    """Clients with examples of their own, and the model that they train together.

    Args:
        bundle: the model.
        clients: examples by client.
        settings: of the run.
        seed: of shuffles and roundings: the same seed gives the same run.
        start: shared parameters to begin with; None for the bundle's own.

    Raises:
        ConfigError: `bad-settings`.
    """

    def __init__(
        self,
        bundle: Bundle,
        clients: Mapping[str, Examples],
        settings: Settings,
        seed: int,
        start: Mapping[str, Float32] | None = None,
    ) -> None:
        settings.check()
        manifest = bundle.manifest
        self._bundle, self._clients, self._settings, self._seed = bundle, dict(clients), settings, seed
        self._graph = settings.training_graph(manifest)
        self._session = open_session(bundle.files[self._graph.file], session_options())
        self._cap = max(map(len, clients.values()))
        terms = ValueTerms(round(settings.clip * 1e6), settings.bits or _ANY_BITS)
        self._layout = training_layout(manifest.shared(self._graph.suffix), terms, self._cap)
        self._plan = settings.plan(manifest, layout_message(self._layout), self._cap)
        self._noise_e6 = multiplier_e6(settings.noise_multiplier)
        self._shared = {spec.name: (start or bundle.parameters)[spec.name] for spec in manifest.shared()}
        local = {spec.name: bundle.parameters[spec.name] for spec in manifest.parameters if not spec.shared}
        self._local = {client: dict(local) for client in clients}
        self._state: dict[str, Float32] = {}
        self.rounds = 0

    def parameters(self, client: str | None = None) -> dict[str, Float32]:
        """All parameters as one client has them, or, with the bundle's own local ones, as nobody has."""
        own = self._local[client] if client is not None else {}
        return {name: {**self._shared, **own}.get(name, array) for name, array in self._bundle.parameters.items()}

    def round(self) -> RoundReport:
        """Every client trains, and the model takes one step."""
        self.rounds += 1
        sent: list[Trained] = []
        for number, (name, examples) in enumerate(self._clients.items()):
            schedule = self._schedule(len(examples), number)
            trained = train(
                self._bundle, self.parameters(name), examples, schedule, session=self._session, judged=False
            )
            self._local[name] = {local: trained.state[local] for local in self._local[name]}
            sent.append(trained)
        summed = self._rounded_sum(sent) if self._settings.bits else self._float_sum(sent)
        cohort = CohortSum(summed, len(sent), is_noisy=self._noise_e6 > 0)
        step = next_checkpoint(self._plan, [cohort], self._shared, self._state or None)
        if step.no_step is None:
            self._shared, self._state = step.parameters, step.state
        losses = [(one.counts.loss_before, one.counts.loss_after) for one in sent]
        before, after = (float(np.mean(column)) for column in zip(*losses, strict=True))
        return RoundReport(self.rounds, before, after, step.no_step is None)

    def _schedule(self, examples: int, client: int) -> Schedule:
        settings, author = self._settings, self._bundle.manifest.training
        batch = min(_chosen(settings.batch, author.batch), examples)
        epochs = _chosen(settings.epochs, author.epochs)
        if settings.steps:
            epochs = math.ceil(settings.steps / max(1, examples // batch))
        first = _chosen(settings.learning_rate, author.learning_rate)
        last = first if settings.final_learning_rate is None else settings.final_learning_rate
        return Schedule(
            learning_rate=half_cosine(first, last, self.rounds, settings.rounds),
            momentum=_chosen(settings.momentum, author.momentum),
            proximal_mu=_chosen(settings.proximal_mu, author.proximal_mu),
            gradient_clip=_chosen(settings.gradient_clip, author.gradient_clip),
            batch=batch,
            epochs=epochs,
            min_examples=1,
            min_steps=1,
            seed=int.from_bytes(self._key("shuffle", client)[:8], "big"),
            level=self._graph.level,
            suffix=self._graph.suffix,
            optimiser=self._graph.optimiser,
            max_steps=settings.steps,
            noise_seed=int.from_bytes(self._key("noise", client)[:8], "big"),
        )

    def _counts(self, counts: Counts) -> dict[str, int]:
        return {EXAMPLES: counted_examples(counts.examples, self._cap), CORRECT: counts.correct_before}

    def _weight(self, counts: Counts) -> float:
        return contribution_weight(Weighting(self._plan.training.weighting), counts.examples, self._cap)

    def _rounded_sum(self, sent: Sequence[Trained]) -> DecodedSum:
        """Encode every client's vector, add them in the ring, with noise, check the bounds and decode."""
        layout, seed = self._layout, self._key("rotation")
        tails = noise_tails(layout, [self._noise_e6]) if self._noise_e6 else ()
        word_bits = narrowest_ring(layout, len(sent), tails)
        total = np.zeros(layout.words, word_dtype(word_bits))
        for number, one in enumerate(sent):
            update = TensorUpdate(one.delta, self._counts(one.counts), layout, self._weight(one.counts))
            at = 0
            for piece in encode_pieces(update, layout, seed, self._key("rounding", number), word_bits=word_bits):
                total[at : at + piece.size] += piece
                at += piece.size
        add_noise(total, layout, self._noise_e6, self._key("noise"), word_bits)
        reduce_in_place(total, word_bits)
        if not self._noise_e6:
            check_sum(total, layout, len(sent), word_bits=word_bits)
        return decode_sum(total, layout, seed, len(sent), word_bits=word_bits)

    def _float_sum(self, sent: Sequence[Trained]) -> DecodedSum:
        """The same sum in float64 without a codec: no clip, no rounding."""
        parts = [(one.delta, np.float64(self._weight(one.counts))) for one in sent]
        names = _value_names(self._layout)
        tensors = {name: np.sum([delta[name] * weight for delta, weight in parts], axis=0) for name in names}
        counted = [self._counts(one.counts) for one in sent]
        counts = {name: np.array([sum(one[name] for one in counted)]) for name in (EXAMPLES, CORRECT)}
        return DecodedSum({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, counts)

    def _key(self, purpose: str, client: int = 0) -> bytes:
        """32 bytes that differ for every run, round, purpose and client."""
        return hashlib.blake2b(f"{self._seed}/{self.rounds}/{purpose}/{client}".encode(), digest_size=32).digest()


def _value_names(layout: Layout) -> list[str]:
    return [slot.name for segment in layout.segments if segment.kind is SegmentKind.VALUE for slot in segment.tensors]


def _chosen(chosen: Value | None, author: Value) -> Value:
    return author if chosen is None else chosen
