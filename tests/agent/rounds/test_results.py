"""Which results a device believes, and which are news."""

import pytest

from bedside.agent.rounds.memory import RoundPoint, Seen
from bedside.agent.rounds.results import check_result
from bedside.core.signing.envelope import digest, sign_message
from bedside.proto.v1.common_pb2 import BlobRef
from bedside.proto.v1.device_pb2 import Offer
from bedside.proto.v1.round_pb2 import Result


@pytest.fixture
def offer(offering):
    return make_offer(offering, offering.world.coordinator)


def make_offer(offering, key, **changes) -> Offer:
    fields = {"checkpoint": BlobRef(digest=b"c" * 32, size_bytes=9), "bundle_digest": offering.built.digest, **changes}
    result = Result(suite=1, plan_digest=b"h" * 32, task="watch", round_number=3, **fields)
    return Offer(
        result=sign_message("result", result, key),
        federation=sign_message("federation", offering.world.federation, offering.world.root),
        manifest=offering.manifest(),
        bundle_tar_digest=b"t" * 32,
    )


def test_a_newer_result_is_news_and_remembered(offering, offer) -> None:
    found = check_result(offer, offering.standing(), Seen())
    assert (found.result.round_number, found.tar) == (3, b"t" * 32)
    assert (found.digest, found.bundle) == (digest(offer.result.payload), offering.built.digest)
    assert found.seen.results == {"watch": 3}
    assert check_result(offer, offering.standing(), found.seen) is None


def test_a_result_older_than_the_newest_served_or_planned_is_no_news(offering, offer) -> None:
    assert check_result(offer, offering.standing(), Seen(results={"watch": 4})) is None
    assert check_result(offer, offering.standing(), Seen(rounds={"watch": RoundPoint(4, b"p" * 32)})) is None
    assert check_result(offer, offering.standing(), Seen(rounds={"watch": RoundPoint(3, b"p" * 32)})) is not None
    assert check_result(offer, offering.standing(), Seen(results={"other": 9})) is not None


def test_the_newest_result_is_news_again_where_its_checkpoint_was_lost(offering, offer) -> None:
    assert (
        check_result(offer, offering.standing(), Seen(results={"watch": 3}), lost=lambda manifest: bool(manifest))
        is not None
    )
    assert (
        check_result(offer, offering.standing(), Seen(results={"watch": 4}), lost=lambda manifest: bool(manifest))
        is None
    )


def test_a_result_of_a_task_that_the_policy_leaves_out_is_refused(offering, offer, refusal) -> None:
    assert check_result(offer, offering.standing(tasks=("watch",)), Seen()) is not None
    assert refusal(lambda: check_result(offer, offering.standing(tasks=("gait",)), Seen())) == "task-not-allowed"


def test_a_strangers_result_is_refused(offering, refusal) -> None:
    offer = make_offer(offering, offering.world.new_key())
    assert refusal(lambda: check_result(offer, offering.standing(), Seen())) == "bad-signature"


def test_a_model_by_an_unlisted_author_is_refused(offering, offer, refusal) -> None:
    signers = {"other": bytes(offering.world.new_key().verify_key).hex()}
    assert refusal(lambda: check_result(offer, offering.standing(bundle_signers=signers), Seen())) == "unknown-signer"


def test_a_policy_that_names_the_coordinators_key_serves_nothing(offering, offer, refusal) -> None:
    signers = {"friend": bytes(offering.world.coordinator.verify_key).hex()}
    standing = offering.standing(bundle_signers=signers)
    assert refusal(lambda: check_result(offer, standing, Seen())) == "coordinator-signs-models"


def test_a_checkpoint_of_another_bundle_is_refused(offering, refusal) -> None:
    offer = make_offer(offering, offering.world.coordinator, bundle_digest=b"o" * 32)
    assert refusal(lambda: check_result(offer, offering.standing(), Seen())) == "other-bundle"


def test_a_federation_that_went_back_is_refused(offering, offer, refusal) -> None:
    seen = Seen(federation_version=2)
    assert refusal(lambda: check_result(offer, offering.standing(), seen)) == "federation-rollback"


@pytest.mark.parametrize("blob", [BlobRef(), BlobRef(digest=b"c", size_bytes=9), BlobRef(digest=b"c" * 32)])
def test_a_result_without_a_checkpoint_is_malformed(offering, refusal, blob) -> None:
    offer = make_offer(offering, offering.world.coordinator, checkpoint=blob)
    assert refusal(lambda: check_result(offer, offering.standing(), Seen())) == "bad-result"


@pytest.mark.parametrize("tar", [b"", b"t" * 31, b"t" * 200])
def test_a_result_without_its_bundles_tar_is_malformed(offering, offer, refusal, tar) -> None:
    offer.bundle_tar_digest = tar
    assert refusal(lambda: check_result(offer, offering.standing(), Seen())) == "bad-result"
