from __future__ import annotations

import pytest

from bedside.core.errors import BedsideError, TrustError
from bedside.core.signing.envelope import sign_message
from bedside.core.signing.trust import Trust, fingerprint, open_federation, open_roster
from bedside.proto.v1 import identity_pb2


def code(call, *args, **kwargs):
    with pytest.raises(BedsideError) as caught:
        call(*args, **kwargs)
    return caught.value.code


def test_the_federation_is_believed_under_the_pinned_root_only(world):
    signed = sign_message("federation", world.federation, world.root)
    assert open_federation(signed, bytes(world.root.verify_key)).federation == "test"
    assert code(open_federation, signed, bytes(world.coordinator.verify_key)) == "bad-signature"


def test_a_federation_never_goes_back_and_expires_where_there_is_a_clock(world):
    signed = sign_message("federation", world.federation, world.root)
    root = bytes(world.root.verify_key)
    assert code(open_federation, signed, root, min_version=2) == "federation-rollback"
    assert code(open_federation, signed, root, now_s=world.federation.not_after_s + 1) == "federation-expired"


def test_two_sites_under_one_authority_are_no_federation(world):
    """Trustees of different sites are trustees of different owners: a plan's K counts sites."""
    world.federation.sites[1].authority_pk = world.federation.sites[0].authority_pk
    signed = sign_message("federation", world.federation, world.root)
    assert code(open_federation, signed, bytes(world.root.verify_key)) == "bad-federation"


def test_only_the_sites_own_authority_signs_its_roster(world):
    alder, birch = world.sites["alder"], world.sites["birch"]
    roster = world.roster(alder)
    assert open_roster(sign_message("roster", roster, alder.authority), world.federation).site == "alder"
    for stranger in (birch.authority, world.coordinator, world.root):
        assert code(open_roster, sign_message("roster", roster, stranger), world.federation) == "bad-signature"


def test_a_roster_never_goes_back(world):
    signed = sign_message("roster", world.roster(world.sites["alder"]), world.sites["alder"].authority)
    assert code(open_roster, signed, world.federation, min_version=2) == "roster-rollback"


def test_a_roster_out_of_order_is_malformed(world):
    alder = world.sites["alder"]
    roster = world.roster(alder)
    digests = list(roster.credential_digests)
    del roster.credential_digests[:]
    roster.credential_digests.extend(reversed(digests))
    assert code(open_roster, sign_message("roster", roster, alder.authority), world.federation) == "bad-roster"


def test_a_site_that_the_federation_does_not_name_is_unknown(world):
    stranger = world.new_key()
    party = world.enrol("oak", stranger)
    assert code(world.trust().credential, party.credential.signed, identity_pb2.ROLE_DEVICE) == "unknown-site"


def test_another_sites_trustee_is_not_ones_own(world):
    credential = world.sites["birch"].trustee.credential
    forged = identity_pb2.Credential()
    forged.CopyFrom(credential.credential)
    forged.site = "alder"
    signed = sign_message("credential", forged, world.sites["birch"].authority)
    assert code(world.trust().credential, signed, identity_pb2.ROLE_TRUSTEE) == "bad-signature"


def test_a_credential_whose_subject_does_not_follow_from_its_key_is_malformed(world):
    forged = identity_pb2.Credential()
    forged.CopyFrom(world.devices[0].credential.credential)
    forged.subject = world.devices[1].credential.credential.subject
    signed = sign_message("credential", forged, world.sites["alder"].authority)
    assert code(world.trust().credential, signed, identity_pb2.ROLE_DEVICE) == "bad-credential"


def test_a_credential_of_another_federation_is_refused(world):
    federation = identity_pb2.Federation()
    federation.CopyFrom(world.federation)
    federation.federation = "elsewhere"
    trust = Trust(federation, [world.roster(site) for site in world.sites.values()])
    with pytest.raises(TrustError) as caught:
        trust.credential(world.devices[0].credential.signed, identity_pb2.ROLE_DEVICE)
    assert caught.value.code == "other-federation"


def test_a_fingerprint_is_short_enough_to_compare_by_eye(world):
    shown = fingerprint(world.devices[0].credential.sign_pk)
    assert len(shown) == 39
    assert shown != fingerprint(world.devices[1].credential.sign_pk)
