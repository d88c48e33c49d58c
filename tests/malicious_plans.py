"""One plan per rule of the site policy that breaks just it, for every party that has to refuse it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bedside.proto.v1 import plan_pb2


@dataclass(frozen=True)
class MaliciousPlan:
    """What is asked, and by which rule it is refused.

    Attributes:
        code: of the refusal.
        name: what the plan tries.
        change: made to a plan that is allowed.
        rules: of the policy, where they differ from the defaults.
        words: a part of the sentence, that states what the plan asks and what the site allows.
    """

    code: str
    name: str
    change: Callable[[plan_pb2.Plan], None]
    rules: dict[str, object] = field(default_factory=dict)
    words: tuple[str, ...] = ()


def keep(plan: plan_pb2.Plan) -> None:
    """The plan is an honest one; the site does not want it."""


def training(**values: int | str) -> Callable[[plan_pb2.Plan], None]:
    def change(plan: plan_pb2.Plan) -> None:
        for name, value in values.items():
            setattr(plan.training, name, value)

    return change


def set_fields(**values: int) -> Callable[[plan_pb2.Plan], None]:
    def change(plan: plan_pb2.Plan) -> None:
        for name, value in values.items():
            setattr(plan, name, value)

    return change


def segment(**values: int) -> Callable[[plan_pb2.Plan], None]:
    def change(plan: plan_pb2.Plan) -> None:
        for name, value in values.items():
            setattr(plan.layout.segments[0], name, value)

    return change


def only_sites(*sites: str) -> Callable[[plan_pb2.Plan], None]:
    def change(plan: plan_pb2.Plan) -> None:
        del plan.cohorts[0].sites[:]
        plan.cohorts[0].sites.extend(sites)

    return change


def alone(plan: plan_pb2.Plan) -> None:
    del plan.cohorts[0].trustees[1:]


def one_tensor_more(plan: plan_pb2.Plan) -> None:
    plan.layout.segments[0].tensors.append(plan_pb2.TensorSlot(name="personal-head", shape=[1]))


def one_tensor_less(plan: plan_pb2.Plan) -> None:
    del plan.layout.segments[0].tensors[-1]


def one_count_more(plan: plan_pb2.Plan) -> None:
    plan.layout.segments.append(plan_pb2.Segment(name="patients-with-fever", kind=plan_pb2.SEGMENT_KIND_COUNT, cap=1))


def capped_below_the_examples(plan: plan_pb2.Plan) -> None:
    plan.layout.segments[1].cap = plan.training.max_examples - 1


def counts(purpose: plan_pb2.Purpose.ValueType, template: str, *names: str, noise_multiplier_e6: int = 0):
    def change(plan: plan_pb2.Plan) -> None:
        plan.purpose = purpose
        plan.statistic_template = template
        del plan.layout.segments[:]
        cap = 100 if template else plan.training.max_examples
        for name in names:
            plan.layout.segments.append(plan_pb2.Segment(name=name, kind=plan_pb2.SEGMENT_KIND_COUNT, cap=cap))
        plan.noise.noise_multiplier_e6 = noise_multiplier_e6

    return change


def other_checkpoint(plan: plan_pb2.Plan) -> None:
    plan.checkpoint.digest = b"z" * 32


def other_bundle(plan: plan_pb2.Plan) -> None:
    plan.bundle.digest = b"o" * 32


def two_hours(plan: plan_pb2.Plan) -> None:
    plan.close_at_s = plan.issued_at_s + 7_200


STATISTIC = plan_pb2.PURPOSE_STATISTIC
ALLOWS_STATISTICS = {"purposes": ("train", "statistic"), "statistics": ("signal-quality",)}
QUALITY = ("windows", "windows-rejected")

MALICIOUS = (
    MaliciousPlan("site-not-in-plan", "leaves the site out", only_sites("birch", "cedar"), words=("alder",)),
    MaliciousPlan("task-not-allowed", "other task", keep, {"tasks": ("sleep",)}, ("watch", "sleep")),
    MaliciousPlan(
        "purpose-not-allowed",
        "evaluates",
        counts(plan_pb2.PURPOSE_EVALUATE, "", "correct"),
        words=("evaluate", "train"),
    ),
    MaliciousPlan("too-few-trustees", "one trustee", alone, words=("1 sites", "2 sites")),
    MaliciousPlan("too-few-contributors", "set of two", set_fields(min_contributors=2), words=("2", "3")),
    MaliciousPlan("codec-out-of-range", "clip", segment(clip_e6=11_000_000), words=("11", "10")),
    MaliciousPlan("codec-out-of-range", "coarse values", segment(bits=2), words=("2 bits", "4 to 8")),
    MaliciousPlan("codec-out-of-range", "narrow words", keep, {"word_bits": (20, 32)}, ("16 bits", "20 to 32")),
    MaliciousPlan(
        "codec-out-of-range",
        "few coordinates",
        set_fields(subsample_e32=1 << 29),
        {"min_subsample": 0.5},
        ("0.125", "0.5"),
    ),
    MaliciousPlan("layout-not-the-models", "local tensor", one_tensor_more, words=("personal-head",)),
    MaliciousPlan("layout-not-the-models", "part of the model", one_tensor_less, words=("exactly",)),
    MaliciousPlan("layout-not-the-models", "free count", one_count_more, words=("patients-with-fever", "examples")),
    MaliciousPlan(
        "layout-not-the-models", "a cap as an oracle", capped_below_the_examples, words=("caps the count", "399", "400")
    ),
    MaliciousPlan(
        "layout-not-the-models", "statistic of values", set_fields(purpose=STATISTIC), ALLOWS_STATISTICS, ("statistic",)
    ),
    MaliciousPlan(
        "statistic-not-in-catalogue",
        "free predicate",
        counts(STATISTIC, "patients-with-fever", *QUALITY, noise_multiplier_e6=10**6),
        ALLOWS_STATISTICS,
        ("patients-with-fever", "signal-quality"),
    ),
    MaliciousPlan(
        "statistic-not-in-catalogue",
        "template that the site does not name",
        counts(STATISTIC, "labelled-windows", "windows", "windows-labelled", noise_multiplier_e6=10**6),
        ALLOWS_STATISTICS,
        ("labelled-windows", "signal-quality"),
    ),
    MaliciousPlan(
        "statistic-not-in-catalogue",
        "other words than the template's",
        counts(STATISTIC, "signal-quality", "windows", "patients-with-fever", noise_multiplier_e6=10**6),
        ALLOWS_STATISTICS,
        ("windows-rejected",),
    ),
    MaliciousPlan(
        "statistic-without-noise", "exact", counts(STATISTIC, "signal-quality", *QUALITY), ALLOWS_STATISTICS, ("noise",)
    ),
    MaliciousPlan("training-out-of-range", "one step", training(min_local_steps=1), words=("1 local steps", "4")),
    MaliciousPlan(
        "training-out-of-range", "ends before it may", training(max_local_steps=2), words=("after 2 steps", "4")
    ),
    MaliciousPlan("training-out-of-range", "tiny batch", training(batch_size=1), words=("1 examples per batch", "8")),
    MaliciousPlan("training-out-of-range", "few examples", training(min_examples=1), words=("1 examples", "64")),
    MaliciousPlan(
        "training-out-of-range", "one session", training(min_sessions=1), {"min_sessions": 2}, ("1 sessions", "2")
    ),
    MaliciousPlan(
        "training-out-of-range", "examples as an oracle", training(min_examples=271), words=("271", "powers of two")
    ),
    MaliciousPlan(
        "training-out-of-range", "sessions as an oracle", training(min_sessions=3), words=("3", "powers of two")
    ),
    MaliciousPlan(
        "training-out-of-range", "steps as an oracle", training(min_local_steps=13), words=("64 examples", "13 steps")
    ),
    MaliciousPlan("training-out-of-range", "suffix", training(suffix="tail"), words=("tail",)),
    MaliciousPlan("training-out-of-range", "unknown level", training(level=4), words=("Q0, Q1 and Q2",)),
    MaliciousPlan("training-out-of-range", "many epochs", training(epochs=21), words=("21 epochs", "20")),
    MaliciousPlan("training-out-of-range", "huge rate", training(learning_rate_e9=2 * 10**9), words=("2", "1")),
    MaliciousPlan("training-out-of-range", "no rate", training(learning_rate_e9=0), words=("not 0",)),
    MaliciousPlan("training-out-of-range", "momentum", training(momentum_e6=1_000_000), words=("below 1",)),
    MaliciousPlan("training-out-of-range", "no weighting", training(weighting=0), words=("weighting",)),
    MaliciousPlan("training-out-of-range", "examples reversed", training(max_examples=63), words=("63", "64")),
    MaliciousPlan(
        "single-step-gradient", "without noise", training(min_local_steps=1), {"min_local_steps": 1}, ("1", "2")
    ),
    MaliciousPlan(
        "single-step-gradient",
        "steps back to the start",
        training(learning_rate_e9=10**6, proximal_mu_e6=10**9),
        words=("takes 1 of each move", "0.1"),
    ),
    MaliciousPlan("single-step-gradient", "tiny rate", training(learning_rate_e9=10**4), words=("1e-05", "0.0001")),
    MaliciousPlan(
        "single-step-gradient", "tiny gradients", training(gradient_clip_e6=100), words=("norm of 0.0001", "0.1")
    ),
    MaliciousPlan(
        "single-step-gradient",
        "one batch of all examples",
        training(batch_size=64, epochs=4),
        words=("batch of 64", "64 examples"),
    ),
    MaliciousPlan("model-too-large", "large", keep, {"max_parameters": 1}, ("parameters", "allows 1")),
    MaliciousPlan("model-too-slow", "slow", keep, {"max_step_ms": 1e-6}, ("ms",)),
    MaliciousPlan("checkpoint-outside-lineage", "crafted parameters", other_checkpoint, words=("7a7a7a",)),
    MaliciousPlan("closes-too-late", "two hours", two_hours, {"max_close_hours": 1}, ("2.0 hours", "1")),
    MaliciousPlan("other-bundle", "unsigned model", other_bundle, words=("manifest",)),
)
