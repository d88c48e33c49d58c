import hashlib
import threading

import pytest
from nacl.signing import SigningKey

from bedside.core.errors import BedsideError, StoreError
from bedside.core.signing.envelope import digest
from bedside.core.signing.tokens import mint_token, use_token
from bedside.core.signing.trust import open_federation, open_roster
from bedside.proto.v1 import identity_pb2
from bedside.trustee.daemon import open_desk
from bedside.trustee.site.authority import SiteAuthority
from bedside.trustee.site.desk import Desk, decision_of
from bedside.trustee.site.register import Register
from bedside.trustee.store import TrusteeStore


@pytest.fixture
def desk(bench):
    return open_desk(bench.paths, bench.identity, bench.register, bench.clock)


@pytest.fixture
def mint(bench, desk):
    def mint(uses=1, hours=1):
        return desk.mint(
            bench.identity,
            identity_pb2.ROLE_DEVICE,
            uses=uses,
            hours=hours,
            label="ward 3",
            entropy=bench.world.entropy,
        )

    return mint


def coordinators_token(bench, issuer=None, **changes):
    told = {
        "federation": "test",
        "site": "alder",
        "role": identity_pb2.ROLE_DEVICE,
        "uses": 1,
        "not_after_s": bench.clock.now_s + 600,
        "root_pk": b"r" * 32,
        "ca_digest": b"c" * 32,
        "authority_pk": b"a" * 32,
    }
    issuer = issuer or bench.world.coordinator
    return mint_token(identity_pb2.Token(**(told | changes)), bench.world.entropy.token_bytes(32), issuer)


def request(bearer, name="one", **changes):
    key = SigningKey(hashlib.sha256(name.encode()).digest())
    told = {
        "suite": 1,
        "federation": bearer.token.federation,
        "site": bearer.token.site,
        "role": bearer.token.role,
        "label": name,
        "sign_pk": bytes(key.verify_key),
        "tls_key_digest": b"t" * 32,
        "nonce": name.encode(),
        "token": bearer.signed.SerializeToString(deterministic=True),
    }
    return use_token(bearer, identity_pb2.CredentialRequest(**(told | changes)), key)


def listed(bench):
    federation = open_federation(bench.federation(), bytes(bench.world.root.verify_key))
    return open_roster(bench.register.roster().signed, federation)


def test_a_site_token_is_an_answer_given_in_advance(bench, desk, mint):
    before = listed(bench)
    granted = desk.receive(request(mint()))
    after = listed(bench)
    assert granted.state == "granted"
    assert after.version == before.version + 1
    assert digest(granted.credential.payload) in after.credential_digests
    assert not bench.register.roster().published
    assert decision_of(granted).credential == granted.credential


def test_the_same_request_gets_the_same_credential_and_costs_one_use(bench, desk, mint):
    bearer = mint(uses=2)
    first = desk.receive(request(bearer))
    assert desk.receive(request(bearer)).credential == first.credential
    assert desk.receive(request(bearer, "two")).state == "granted"
    refused = desk.receive(request(bearer, "three"))
    assert (refused.state, refused.code) == ("refused", "token-used")
    assert decision_of(refused).code == "token-used"


def test_uses_are_counted_across_restarts(bench, mint):
    bearer = mint()
    open_desk(bench.paths, bench.identity, bench.register, bench.clock).receive(request(bearer))
    bench.restart()
    again = open_desk(bench.paths, bench.identity, bench.register, bench.clock)
    assert again.receive(request(bearer, "two")).code == "token-used"


def test_an_expired_token_is_refused(bench, desk, mint):
    bearer = mint(hours=1)
    bench.clock.now_s += 3_601
    assert desk.receive(request(bearer)).code == "token-expired"


def test_a_token_of_the_sites_key_that_is_not_in_the_register_is_refused(bench, desk):
    """A restored register has forgotten how often its tokens were used."""
    forgotten = coordinators_token(bench, issuer=bench.site.authority)
    assert desk.receive(request(forgotten)).code == "token-unknown"


def test_a_token_of_a_stranger_is_refused(bench, desk, world):
    assert desk.receive(request(coordinators_token(bench, issuer=world.author))).code == "bad-signature"


def test_no_token_makes_a_second_trustee(bench, desk):
    bearer = desk.mint(
        bench.identity, identity_pb2.ROLE_TRUSTEE, uses=1, hours=1, label="", entropy=bench.world.entropy
    )
    assert desk.receive(request(bearer)).code == "second-trustee"


def test_a_coordinators_token_makes_no_second_trustee_either(bench, desk):
    before = bench.register.roster().version
    refused = desk.receive(request(coordinators_token(bench, role=identity_pb2.ROLE_TRUSTEE)))
    assert (refused.state, refused.code) == ("refused", "second-trustee")
    assert decision_of(refused).code == "second-trustee"
    assert bench.register.roster().version == before


def test_a_trustee_that_waits_already_is_refused_when_a_person_approves_it(bench, desk, monkeypatch):
    monkeypatch.setattr("bedside.trustee.site.desk._check_role", lambda _asked: None)
    waiting = desk.receive(request(coordinators_token(bench, role=identity_pb2.ROLE_TRUSTEE)))
    monkeypatch.undo()
    assert waiting.state == "pending"
    with pytest.raises(BedsideError) as caught:
        desk.approve(waiting.fingerprint)
    assert caught.value.code == "second-trustee"
    assert bench.register.request(waiting.digest).state == "refused"
    assert [entry.code for entry in bench.register.unsent()] == ["second-trustee"]


def test_no_roster_lists_two_trustees(bench, desk):
    before = listed(bench)
    second = bench.world.enrol("alder", bench.site.authority, identity_pb2.ROLE_TRUSTEE)
    with pytest.raises(BedsideError) as caught:
        desk.register.list_member(second.credential, desk._sign_roster, issued_at_s=1)
    assert caught.value.code == "second-trustee"
    assert listed(bench) == before
    desk.revoke(bench.site.trustee.credential.credential.subject)
    desk.register.list_member(second.credential, desk._sign_roster, issued_at_s=1)
    assert second.credential.digest in listed(bench).credential_digests


def test_the_bearer_of_a_token_cannot_be_replaced_on_the_way(bench, desk, mint):
    """The coordinator sees the request; it cannot put its own key under the token."""
    stolen = request(mint())
    own = request(coordinators_token(bench), "mine")
    stolen.request.CopyFrom(own.request)
    with pytest.raises(BedsideError) as caught:
        desk.receive(stolen)
    assert caught.value.code == "bad-signature"
    assert bench.register.requests() == []


def test_a_request_for_another_site_leaves_no_trace(bench, desk):
    with pytest.raises(BedsideError) as caught:
        desk.receive(request(coordinators_token(bench, site="birch")))
    assert caught.value.code == "wrong-site"
    assert bench.register.requests() == []


def test_a_coordinators_token_waits_for_a_person(bench, desk):
    before = listed(bench).version
    waiting = desk.receive(request(coordinators_token(bench)))
    assert waiting.state == "pending"
    assert listed(bench).version == before
    assert bench.register.unsent() == []
    granted = desk.approve(waiting.fingerprint.upper().replace("-", ""))
    assert digest(granted.credential.payload) in listed(bench).credential_digests
    assert [entry.digest for entry in bench.register.unsent()] == [waiting.digest]
    assert desk.receive(request(coordinators_token(bench), "other")).state == "pending"


@pytest.mark.parametrize("part", [slice(0, 8), slice(0, 0), slice(0, 31)])
def test_a_part_of_a_fingerprint_approves_nobody(desk, bench, part):
    waiting = desk.receive(request(coordinators_token(bench)))
    with pytest.raises(BedsideError) as caught:
        desk.approve(waiting.fingerprint.replace("-", "")[part])
    assert caught.value.code == "no-such-request"


def test_revocation_takes_a_subject_off_the_roster_for_good(bench, desk, mint):
    enrol = request(mint())
    granted = desk.receive(enrol)
    desk.revoke(granted.subject)
    gone = listed(bench)
    assert digest(granted.credential.payload) not in gone.credential_digests
    desk.receive(enrol)
    assert listed(bench) == gone, "the old request does not bring it back"
    with pytest.raises(BedsideError) as caught:
        desk.revoke(granted.subject)
    assert caught.value.code == "no-such-member"


def test_a_decided_request_is_sent_again_when_it_is_asked_again(bench, desk, mint):
    enrol = request(mint())
    granted = desk.receive(enrol)
    bench.register.mark_sent(granted.digest)
    assert bench.register.unsent() == []
    desk.receive(enrol)
    assert [entry.digest for entry in bench.register.unsent()] == [granted.digest]


def test_of_decided_requests_no_body_is_kept(bench, desk, mint):
    granted = desk.receive(request(mint()))
    refused = desk.receive(request(coordinators_token(bench, issuer=bench.world.author), "two"))
    waiting = desk.receive(request(coordinators_token(bench), "three"))
    kept = {entry.digest: entry.enrol.ByteSize() for entry in bench.register.requests()}
    assert kept[granted.digest] == kept[refused.digest] == 0
    assert kept[waiting.digest] > 0
    desk.approve(waiting.fingerprint)
    assert bench.register.request(waiting.digest).enrol.ByteSize() == 0


def test_refused_requests_are_kept_in_a_bounded_number_and_for_a_bounded_time(bench, desk, monkeypatch):
    monkeypatch.setattr("bedside.trustee.site.register.MAX_REFUSED", 3)
    bearer = coordinators_token(bench, issuer=bench.world.author)
    for number in range(5):
        assert desk.receive(request(bearer, f"device {number}")).state == "refused"
    assert [entry.label for entry in bench.register.requests()] == ["device 2", "device 3", "device 4"]
    bench.clock.now_s += 31 * 86_400
    desk.receive(request(bearer, "late"))
    assert [entry.label for entry in bench.register.requests()] == ["late"]


def test_the_roster_is_signed_again_at_half_of_its_life(bench, desk):
    desk.revoke(bench.site.devices[0].credential.credential.subject)
    before = listed(bench)
    assert not desk.renew_roster()
    bench.clock.now_s = bench.register.roster().not_after_s - 86_400
    assert desk.renew_roster()
    assert listed(bench).not_after_s > before.not_after_s
    assert listed(bench).credential_digests == before.credential_digests
    assert not desk.renew_roster()


def test_two_commands_at_the_same_time_sign_two_versions(bench):
    """Each thread is a process of its own: own connection, own desk."""
    parties = [bench.world.enrol("alder", bench.site.authority) for _ in range(8)]
    failures = []

    def enlist(party):
        store = TrusteeStore.open(bench.paths.database)
        authority = SiteAuthority(bench.site.authority, "alder", "test")
        desk = Desk(authority, Register(store.database), b"", bench.clock)
        try:
            desk.register.list_member(party.credential, desk._sign_roster, issued_at_s=1)
        except StoreError as error:
            failures.append(error)
        finally:
            store.close()

    before = listed(bench)
    threads = [threading.Thread(target=enlist, args=(party,)) for party in parties]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = listed(bench)
    assert failures == []
    assert after.version == before.version + len(parties)
    assert len(after.credential_digests) == len(before.credential_digests) + len(parties)


def test_the_last_use_of_a_token_is_given_once_even_when_two_judged_it_before_either_wrote(bench, desk, mint):
    bearer = mint()
    assert desk.receive(request(bearer)).state == "granted"
    version = bench.register.roster().version
    late = Register(bench.store.database)
    late.uses_left = lambda _digest: 1
    with pytest.raises(StoreError):
        Desk(SiteAuthority(bench.site.authority, "alder", "test"), late, b"", bench.clock).receive(
            request(bearer, "two")
        )
    assert bench.register.roster().version == version
