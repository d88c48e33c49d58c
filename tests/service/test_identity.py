import stat

import pytest
from nacl.signing import SigningKey

from bedside.core.errors import ConfigError, TrustError
from bedside.core.signing.envelope import sign_message
from bedside.core.signing.trust import subject_of
from bedside.proto.v1.identity_pb2 import Credential, Federation, Role, SiteAuthority
from bedside.service.identity import Pins, create_identity, open_identity
from bedside.service.keys import load_secret
from bedside.service.platform import SystemEntropy

ROOT = SigningKey(b"r" * 32)
AUTHORITY = SigningKey(b"a" * 32)


def pins(**changes):
    told = {
        "federation": "demo",
        "root_pk": bytes(ROOT.verify_key).hex(),
        "authority_pk": bytes(AUTHORITY.verify_key).hex(),
        "ca_digest": "00" * 32,
        "site": "north",
        "enrolment_address": "127.0.0.1:1",
    }
    return Pins(**(told | changes))


@pytest.fixture
def identity(tmp_path):
    made = create_identity(tmp_path / "identity", Role.ROLE_DEVICE, SystemEntropy())
    made.save_pins(pins())
    return made


def credential(identity, authority=AUTHORITY, **changes):
    told = {
        "suite": 1,
        "federation": "demo",
        "site": "north",
        "role": Role.ROLE_DEVICE,
        "subject": subject_of(Role.ROLE_DEVICE, identity.sign_pk),
        "sign_pk": identity.sign_pk,
        "tls_key_digest": identity.tls_key_digest,
    }
    return sign_message("credential", Credential(**(told | changes)), authority)


def federation(version):
    told = Federation(suite=1, federation="demo", version=version)
    told.sites.append(SiteAuthority(site="north", authority_pk=bytes(AUTHORITY.verify_key)))
    told.coordinator.sign_pk, told.coordinator.ca_digest = b"c" * 32, b"d" * 32
    return sign_message("federation", told, ROOT)


def test_every_file_of_an_identity_is_private(identity):
    identity.save_credential(credential(identity))
    identity.sequence().next()
    assert stat.S_IMODE(identity.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in identity.directory.iterdir()} == {0o600}


def test_making_an_identity_twice_keeps_its_keys(identity):
    buffer_key = load_secret(identity.directory / "buffer.key", 32)
    again = create_identity(identity.directory, Role.ROLE_DEVICE, SystemEntropy())
    assert (again.sign_pk, again.tls_key_digest) == (identity.sign_pk, identity.tls_key_digest)
    assert again.device_secret == identity.device_secret
    assert load_secret(again.directory / "buffer.key", 32) == buffer_key


def test_a_trustee_has_no_device_secrets(tmp_path):
    made = create_identity(tmp_path / "identity", Role.ROLE_TRUSTEE, SystemEntropy())
    assert sorted(path.name for path in made.directory.iterdir()) == ["sign.key", "tls.key"]
    assert made.subject.startswith("t-")


@pytest.mark.parametrize("name", ["sign.key", "tls.key", "device.secret", "buffer.key"])
def test_a_key_that_others_may_read_stops_the_start_with_its_repair(identity, name):
    (identity.directory / name).chmod(0o640)
    with pytest.raises(ConfigError) as caught:
        open_identity(identity.directory, Role.ROLE_DEVICE)
    assert caught.value.code == "key-mode"
    assert caught.value.remedy == f"chmod 600 {identity.directory / name}"


def test_a_directory_that_others_may_enter_is_refused(identity):
    identity.directory.chmod(0o755)
    with pytest.raises(ConfigError) as caught:
        open_identity(identity.directory, Role.ROLE_DEVICE)
    assert caught.value.code == "directory-mode"


def test_no_identity_names_the_way_to_get_one(tmp_path):
    with pytest.raises(ConfigError) as caught:
        open_identity(tmp_path / "none", Role.ROLE_DEVICE)
    assert caught.value.code == "not-enrolled"
    assert "token" in caught.value.remedy


def test_sequence_numbers_never_repeat_after_a_crash_at_any_point(identity):
    used = []
    for run in range(1, 6):
        numbers = identity.sequence()  # a crash is a counter that is opened anew
        used += [numbers.next() for _ in range(run * 100)]
    assert used == sorted(set(used))


def test_a_sequence_number_is_durable_before_it_is_used(identity):
    for _ in range(1_000):
        number = identity.sequence().next()
        assert int((identity.directory / "sequence").read_bytes()) >= number


def test_sequence_numbers_cost_one_write_per_block(identity, monkeypatch):
    writes = []
    monkeypatch.setattr("bedside.service.identity.write_durable", lambda path, data: writes.append(data))
    numbers = identity.sequence()
    assert [numbers.next() for _ in range(512)] == list(range(1, 513))
    assert len(writes) == 2


def test_pins_may_be_completed_but_never_moved_to_another_site(identity):
    identity.save_pins(pins(service_address="127.0.0.1:2"))
    for change in ({"site": "south"}, {"root_pk": "11" * 32}, {"authority_pk": "11" * 32}, {"federation": "other"}):
        with pytest.raises(ConfigError) as caught:
            identity.save_pins(pins(**change))
        assert caught.value.code == "pins-differ"
    assert identity.pins.service_address == "127.0.0.1:2"


def test_a_damaged_pin_file_is_a_sentence(identity):
    (identity.directory / "pins.json").write_bytes(b'{"federation": "demo"}')
    with pytest.raises(ConfigError) as caught:
        _ = identity.pins
    assert caught.value.code == "bad-pins"


def test_only_a_credential_for_exactly_this_key_is_stored(identity):
    stranger = SigningKey(b"s" * 32)
    with pytest.raises(TrustError) as caught:
        identity.save_credential(credential(identity, authority=stranger))
    assert caught.value.code == "bad-signature"
    other_pk = bytes(stranger.verify_key)
    wrong = (
        {"sign_pk": other_pk, "subject": subject_of(Role.ROLE_DEVICE, other_pk)},
        {"site": "south"},
        {"federation": "other"},
        {"role": Role.ROLE_TRUSTEE, "subject": subject_of(Role.ROLE_TRUSTEE, identity.sign_pk)},
    )
    for change in wrong:
        with pytest.raises(TrustError) as caught:
            identity.save_credential(credential(identity, **change))
        assert caught.value.code == "other-credential"
    assert identity.credential is None
    identity.save_credential(credential(identity))
    assert identity.require_credential().credential.site == "north"


def test_a_federation_never_goes_back(identity):
    identity.save_federation(federation(3))
    with pytest.raises(TrustError) as caught:
        identity.save_federation(federation(2))
    assert caught.value.code == "federation-rollback"
    assert identity.federation.version == 3


def test_two_federations_of_one_version_are_a_fork(identity):
    identity.save_federation(federation(3))
    twin = Federation.FromString(federation(3).payload)
    twin.coordinator.sign_pk = b"x" * 32
    with pytest.raises(TrustError) as caught:
        identity.save_federation(sign_message("federation", twin, ROOT))
    assert caught.value.code == "federation-fork"
    assert identity.federation.coordinator.sign_pk == b"c" * 32
