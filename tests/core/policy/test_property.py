"""`judge_plan` answers, whatever well-formed plan and policy meet."""

from __future__ import annotations

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bedside.core.errors import BedsideError
from bedside.core.limits import MAX_TEXT_CHARS
from bedside.core.policy import SitePolicy, judge_plan
from bedside.core.policy.judge import judge_each
from bedside.core.policy.site_policy import PURPOSES
from bedside.core.policy.templates import TEMPLATES
from bedside.core.signing.envelope import digest, sign
from bedside.proto.v1 import plan_pb2, round_pb2
from bedside.proto.v1.common_pb2 import BlobRef, Signed

SITES = ("alder", "birch", "cedar", "oak")
SMALL = st.integers(0, 2**32 - 1) | st.integers(0, 100)
LARGE = st.integers(0, 2**63 - 1) | st.integers(0, 10**9)
ENUM = st.integers(1, 3) | st.just(99)
NAMES = ("examples", "correct", "windows", "windows-rejected", "patients-with-fever")
COUNTS = st.lists(
    st.builds(plan_pb2.Segment, name=st.sampled_from(NAMES), kind=st.just(2), cap=st.integers(1, 600)),
    min_size=1,
    max_size=3,
    unique_by=lambda segment: segment.name,
)
VALUES = st.builds(
    plan_pb2.Segment,
    name=st.just("parameters"),
    kind=st.just(1),
    tensors=st.lists(
        st.builds(plan_pb2.TensorSlot, name=st.sampled_from(("w0", "b0", "amax", "x")), shape=st.just([2])),
        min_size=1,
        unique_by=lambda slot: slot.name,
    ),
    clip_e6=st.sampled_from((1, 1_000_000, 2**62)),
    bits=st.integers(2, 8),
)
SEGMENTS = COUNTS | st.tuples(VALUES, COUNTS).map(lambda pair: [pair[0], *pair[1]])
TRAINING = st.builds(
    plan_pb2.Training,
    level=ENUM,
    epochs=SMALL,
    batch_size=SMALL,
    learning_rate_e9=LARGE,
    proximal_mu_e6=LARGE,
    gradient_clip_e6=LARGE,
    momentum_e6=LARGE,
    weighting=ENUM,
    min_examples=SMALL,
    max_examples=SMALL,
    min_local_steps=SMALL,
    suffix=st.text(max_size=300),
    min_sessions=SMALL,
)
RANGE = st.tuples(st.integers(8, 32), st.integers(8, 32)).map(lambda pair: (min(pair), max(pair)))
POLICIES = st.builds(
    SitePolicy,
    tasks=st.sampled_from(((), ("watch",), ("sleep",))),
    purposes=st.lists(st.sampled_from(PURPOSES), unique=True).map(tuple),
    statistics=st.lists(st.sampled_from(sorted(TEMPLATES)), unique=True).map(tuple),
    trusted_sites=st.lists(st.sampled_from(SITES), unique=True).map(tuple),
    min_trusted=st.integers(3, 100),
    min_trustees=st.integers(1, 5),
    max_clip=st.floats(1e-300, 1e300),
    min_learning_rate=st.floats(0, 1e-300),
    max_learning_rate=st.floats(1e-300, 1e300),
    max_proximal_pull=st.floats(0, 1, exclude_max=True),
    min_gradient_clip=st.floats(0, 1e300),
    max_step_ms=st.floats(1e-300, 1e300),
    word_bits=RANGE,
    min_subsample=st.floats(0.0625, 1.0),
    min_local_steps=st.integers(1, 10),
    hours=st.sampled_from(("", "20:00-06:00", "06:00-20:00")),
    max_close_hours=st.integers(1, 168),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_it_never_raises_and_always_has_a_code_and_a_sentence(world, tiny_manifest, data):
    from bedside.core.bundle.manifest import encode_manifest

    encoded = encode_manifest(tiny_manifest())
    message = world.plan_message(
        bundle=BlobRef(digest=digest(encoded), size_bytes=10),
        purpose=data.draw(ENUM),
        statistic_template=data.draw(st.sampled_from(("", *TEMPLATES)) | st.text(max_size=300)),
        training=data.draw(TRAINING),
        word_bits=data.draw(st.integers(16, 32)),
        subsample_e32=data.draw(st.just(0) | st.integers(1 << 28, (1 << 32) - 1)),
        min_contributors=data.draw(st.integers(1, 5)),
        noise=plan_pb2.Noise(noise_multiplier_e6=data.draw(SMALL)),
        close_at_s=1_800_000_000 + data.draw(st.integers(1, 7 * 86_400)),
        checkpoint=BlobRef(digest=data.draw(st.sampled_from((b"k" * 32, b"z" * 32))), size_bytes=10),
    )
    if data.draw(st.booleans()):
        del message.layout.segments[:]
        message.layout.segments.extend(data.draw(SEGMENTS))
    previous = data.draw(st.none() | st.binary(max_size=50).map(lambda junk: sign("result", junk, world.coordinator)))
    previous = None if previous is None else Signed.FromString(previous)
    if data.draw(st.booleans()):
        good = round_pb2.Result(suite=1, task="watch", round_number=data.draw(st.integers(0, 2)))
        previous = Signed.FromString(sign("result", good.SerializeToString(deterministic=True), world.coordinator))
    if previous is not None:
        message.round_number = 2
        message.previous_result_digest = digest(previous.payload)
    try:
        plan = world.sign_plan(message)
    except BedsideError:
        return  # not well-formed
    signers = data.draw(st.sampled_from((world.author, world.author, world.author, world.root)))
    policy = data.draw(POLICIES)
    listed = {"author": bytes(world.author.verify_key).hex()}
    policy = msgspec.structs.replace(policy, bundle_signers=listed)
    told = {
        "own_site": data.draw(st.sampled_from(SITES)),
        "previous": previous,
        "now_s": data.draw(st.none() | LARGE),
        "local_minute": data.draw(st.none() | st.integers(0, 1439)),
    }
    manifest = Signed.FromString(sign("bundle", encoded, signers))
    verdict = judge_plan(plan, policy, manifest, **told)
    judged = judge_each(plan, policy, manifest, **told)
    assert all(0 < len(one.sentence) <= MAX_TEXT_CHARS for one in judged)
    assert verdict.allowed == all(one.allowed for one in judged)
    if not verdict.allowed:
        assert verdict.code == next(one.code for one in judged if not one.allowed)
        assert 0 < len(verdict.sentence) <= MAX_TEXT_CHARS
