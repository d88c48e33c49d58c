"""Where a rule is not kept yet. Each test fails today; whoever closes the gap finds it here and takes its mark away."""

from __future__ import annotations

import pytest
from attack_field import code_of


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
