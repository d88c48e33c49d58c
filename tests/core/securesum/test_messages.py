from __future__ import annotations

import pytest

from bedside.core.errors import MalformedError
from bedside.core.securesum.messages import open_closed
from bedside.core.signing.envelope import SUITE, sign_message
from bedside.proto.v1 import round_pb2


@pytest.mark.parametrize(("reason", "code"), [(0, "bad-closed"), (99, "bad-message")])
def test_a_closing_without_a_known_reason_is_malformed(world, reason, code):
    plan, trustee = world.plan(), world.sites["alder"].trustee
    told = round_pb2.Closed(
        suite=SUITE,
        plan_digest=plan.digest,
        credential_digest=trustee.credential.digest,
        reason=reason,
        chain=round_pb2.Chain(boot_id=b"b" * 16, index=1),
    )
    with pytest.raises(MalformedError) as caught:
        open_closed(sign_message("closed", told, trustee.key), trustee.credential, plan, 0)
    assert caught.value.code == code
