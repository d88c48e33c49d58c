"""Where a rule is not kept yet. Each test fails today; whoever closes the gap finds it here and takes its mark away."""

from __future__ import annotations

import pytest
from attack_field import code_of

from bedside.agent.rounds.memory import Seen
from bedside.agent.rounds.receipts import check_receipt
from bedside.core.signing.envelope import digest, sign_message
from bedside.proto.v1 import round_pb2


@pytest.mark.xfail(reason="a device does not compare the boot of `burned` with that of the opening", strict=True)
def test_burned_under_another_boot_than_the_openings_frees_nothing(field) -> None:
    """Rule T2: only a process that held the key without a break may say `burned`; the device could hold it to that."""
    begun, alder = field.begin(), field.world.sites["alder"].trustee
    told = round_pb2.Closed(
        suite=1,
        plan_digest=begun.plan.digest,
        credential_digest=alder.credential.digest,
        reason=round_pb2.CLOSE_REASON_BURNED,
        chain=round_pb2.Chain(boot_id=b"another boot id!", index=9, previous_digest=b"o" * 32),
    )
    receipt = round_pb2.Receipt(plan_digest=begun.plan.digest, closed=sign_message("closed", told, alder.key))
    offer = field.offer(begun.plan, begun.openings)
    header_digest = digest(begun.entries[0].header.payload)
    assert code_of(lambda: check_receipt(receipt, offer, field.standing(), Seen(), header_digest=header_digest))


@pytest.mark.xfail(reason="a trustee keeps no sequence of its own devices' headers", strict=True)
def test_a_header_of_an_own_device_whose_sequence_went_back_is_refused(field) -> None:
    """The sign of a cloned card image: two machines of one identity, the second one behind the first."""
    bench, device = field.bench(), field.world.devices[0]
    device.sequence = 50
    first = field.begin()
    field.reveal(first, bench.others_vote(first, field.seal(first)))
    device.sequence = 7
    again = field.begin(field.plan(task="other"))
    assert code_of(lambda: field.seal(again))
