"""What one run measured, and the checks that decide its exit status. `result.json` is this Struct.

Field names are stable: others compare them over time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

SCHEMA: Final = 1
MIN_GAIN: Final = 0.15
"""Federated accuracy must exceed the mean of training alone by so much."""

MIN_SHARE_OF_POOLED: Final = 0.95
"""And be at least this part of what all windows in one place would give."""

MIN_AGREEMENT: Final = 0.98
"""Part of windows on which the int8 model must name the same class as the float model."""

MAX_RUN_S: Final = 120.0
"""Seconds from the first round to the last figure, on two cores that have nothing else to do."""

MAX_UNIFORM_Z: Final = 5.0
"""Chi-square of an upload's words against the uniform distribution, in standard deviations."""


class Check(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that must hold, said in a sentence with the measured values.

    Attributes:
        name: of it.
        passed: whether it holds.
        sentence: with what was measured.
        required: whether a run without it has failed; else it is a warning.
    """

    name: str
    passed: bool
    sentence: str
    required: bool = True


class Scene(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scripted event.

    Attributes:
        name: `coordinator-killed`, `device-killed` or `policy-raised`.
        sentence: what was done.
        started_s: seconds since the first round began.
        checks: what had to hold.
    """

    name: str
    sentence: str
    started_s: float
    checks: tuple[Check, ...]


class RoundFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One round.

    Attributes:
        number: of the round within its task.
        phase: how it ended: `opened` or `failed`.
        seconds: from plan to result.
        phases: (phase, seconds) in order.
        contributors: devices in the sum.
        received_accuracy: accuracy of the model that the round started from, on all devices' training windows; it
            reached the coordinator only as a secure sum. None when the round did not open.
        accuracy: of the new checkpoint on the held-out wearers, float32. None when the round did not open.
        reason: why it failed; empty otherwise.
    """

    number: int
    phase: str
    seconds: float
    phases: tuple[tuple[str, float], ...]
    contributors: int
    received_accuracy: float | None
    accuracy: float | None
    reason: str = ""


class View(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the coordinator holds of one round, as counts of equal bins.

    Attributes:
        round_number: of the round.
        upload: words of one stored upload, over 0 .. 2^word_bits.
        upload_z: chi-square of those words against uniform, in standard deviations.
        opened: words of the opened sum, over `opened_low` .. `opened_high` ring steps.
        opened_low: left end, ring steps from the middle.
        opened_high: right end.
        word_bits: bits of a ring word.
        contributors: devices in the sum.
    """

    round_number: int
    upload: tuple[int, ...]
    upload_z: float
    opened: tuple[int, ...]
    opened_low: float
    opened_high: float
    word_bits: int
    contributors: int


class Hospital(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One hospital.

    Attributes:
        site: its id.
        wearers: numbers of the wearers whose devices train.
        held_out: numbers of the wearers whose devices only infer.
        windows: windows of its training devices.
        min_trusted: its rule for the smallest set.
        answers: sums that its trustee has opened.
        trustee_rss_mb: resident memory of its trustee.
    """

    site: str
    wearers: tuple[int, ...]
    held_out: tuple[int, ...]
    windows: int
    min_trusted: int
    answers: int
    trustee_rss_mb: float


class Result(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All figures of a run. Accuracies are of the held-out wearers' windows; megabytes are 10^6 bytes.

    Attributes:
        local_accuracy: mean over wearers of a model trained on that wearer alone.
        local_accuracies: each of them, by wearer.
        federated_accuracy: the last checkpoint, float32.
        federated_int8_accuracy: the same checkpoint as int8.
        int8_agreement: part of windows on which both name the same class.
        pooled_accuracy: one model on all wearers' windows in one place.
        device_predictions: predictions that the held-out devices themselves had made with the last checkpoint.
        device_accuracy: accuracy of those; None when there were none.
        rounds: rounds that opened.
        devices: devices that trained.
        trustees: trustees.
        windows: training windows of all wearers.
        held_out_windows: windows that accuracies are measured on.
        parameters: shared parameters of the model.
        upload_bytes_per_round: masked words that one device sends in a round.
        model_bytes: the checkpoint that one device fetches in a round.
        bundle_bytes: the signed bundle, fetched once.
        round_seconds_median: from plan to result.
        agent_rss_mb: median of the agents' resident processes, while no plan trains.
        trustee_rss_mb: median of the trustees.
        coordinator_rss_mb: the coordinator.
        setup_seconds: from the first command until the fleet is complete.
        run_seconds: from the start of the first round to the last figure.
    """

    schema: int = SCHEMA
    local_accuracy: float
    local_accuracies: dict[str, float]
    federated_accuracy: float
    federated_int8_accuracy: float
    int8_agreement: float
    pooled_accuracy: float
    device_predictions: int
    device_accuracy: float | None
    rounds: int
    devices: int
    trustees: int
    windows: int
    held_out_windows: int
    parameters: int
    upload_bytes_per_round: int
    model_bytes: int
    bundle_bytes: int
    round_seconds_median: float
    agent_rss_mb: float
    trustee_rss_mb: float
    coordinator_rss_mb: float
    setup_seconds: float
    run_seconds: float
    seed: int
    history: tuple[RoundFigures, ...]
    scenes: tuple[Scene, ...]
    hospitals: tuple[Hospital, ...]
    view: View
    versions: dict[str, str]

    def checks(self) -> tuple[Check, ...]:
        """Everything that ought to hold, the scenes' checks included."""
        return (*self._figures(), *(check for scene in self.scenes for check in scene.checks))

    def failed(self) -> tuple[Check, ...]:
        """The checks that do not hold, though the run needs them."""
        return tuple(check for check in self.checks() if check.required and not check.passed)

    def warnings(self) -> tuple[Check, ...]:
        """The other checks that do not hold."""
        return tuple(check for check in self.checks() if not check.required and not check.passed)

    def _figures(self) -> Sequence[Check]:
        gain = self.federated_accuracy - self.local_accuracy
        share = self.federated_accuracy / self.pooled_accuracy if self.pooled_accuracy else 0.0
        return (
            Check(
                "federated-beats-alone",
                gain >= MIN_GAIN,
                f"federated {self.federated_accuracy:.3f} is {gain:+.3f} against each wearer alone "
                f"({self.local_accuracy:.3f}); needed {MIN_GAIN:+.2f}",
            ),
            Check(
                "federated-near-pooled",
                share >= MIN_SHARE_OF_POOLED,
                f"federated reaches {share:.1%} of pooling all data ({self.pooled_accuracy:.3f}); "
                f"needed {MIN_SHARE_OF_POOLED:.0%}",
            ),
            Check(
                "int8-agrees",
                self.int8_agreement >= MIN_AGREEMENT,
                f"int8 names the same exercise as float on {self.int8_agreement:.1%} of {self.held_out_windows:,} "
                f"windows; needed {MIN_AGREEMENT:.0%}",
            ),
            Check(
                "uploads-are-uniform",
                abs(self.view.upload_z) <= MAX_UNIFORM_Z,
                f"a stored upload is {self.view.upload_z:+.1f} standard deviations from uniform noise; "
                f"allowed {MAX_UNIFORM_Z:g}",
            ),
            Check(
                "run-in-time",
                self.run_seconds <= MAX_RUN_S,
                f"the run took {self.run_seconds:.0f} s; two cores with nothing else to do need at most "
                f"{MAX_RUN_S:.0f} s",
                required=False,
            ),
        )


def encode_result(result: Result) -> bytes:
    """Return the bytes of `result.json`: all figures, and the checks with their outcome."""
    plain = msgspec.to_builtins(result)
    plain["checks"] = msgspec.to_builtins(result.checks())
    plain["passed"] = not result.failed()
    return msgspec.json.format(msgspec.json.encode(plain), indent=2) + b"\n"
