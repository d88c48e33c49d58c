"""The hospital's commands, as a person or a script calls them."""

import json
import os
import stat

import pytest
from nacl.signing import SigningKey

from bedside.core.privacy import Spending
from bedside.core.signing.envelope import sign_message
from bedside.core.signing.tokens import open_token, read_token
from bedside.proto.v1.identity_pb2 import Federation, SiteAuthority
from bedside.service.cli import run
from bedside.service.health import Health, Level
from bedside.service.platform import SystemClock
from bedside.trustee.ledger import Charge, charge
from bedside.trustee.paths import SitePaths, default_runtime_directory
from bedside.trustee.status import write_status
from bedside.trustee.store import TrusteeStore

ROOT, COORDINATOR = SigningKey(b"r" * 32), SigningKey(b"c" * 32)
ROOT_PK = bytes(ROOT.verify_key).hex()


@pytest.fixture
def call(capsys):
    def call(*arguments):
        status = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def joined(call, tmp_path):
    site = tmp_path / "site"
    assert call("site", "init", site, "--site", "north")[0] == 0
    document = federation_for(site, tmp_path)
    assert call("site", "join", site, document, "--root-pk", ROOT_PK, "--enrolment-address", "gw.example:7444")[0] == 0
    return site


def federation_for(site, folder, *, authority_pk=None, root=ROOT, name="fed"):
    public = json.loads((site / "site.public.json").read_text())
    told = Federation(suite=1, federation=name, version=1)
    told.sites.append(SiteAuthority(site="north", authority_pk=bytes.fromhex(authority_pk or public["authority_pk"])))
    told.coordinator.sign_pk, told.coordinator.ca_digest = bytes(COORDINATOR.verify_key), b"\xab" * 32
    path = folder / "federation.bin"
    path.write_bytes(sign_message("federation", told, root).SerializeToString(deterministic=True))
    return path


def test_init_makes_a_private_authority_and_a_public_card(call, tmp_path):
    status, out, _ = call("site", "init", tmp_path / "s", "--site", "north", "--json")
    assert status == 0
    card = json.loads((tmp_path / "s" / "site.public.json").read_text())
    assert card == {"site": "north", "authority_pk": json.loads(out)["authority_pk"]}
    assert stat.S_IMODE((tmp_path / "s" / "authority" / "authority.key").stat().st_mode) == 0o600


def test_init_never_replaces_a_site(call, tmp_path):
    call("site", "init", tmp_path / "s", "--site", "north")
    before = (tmp_path / "s" / "authority" / "authority.key").read_bytes()
    status, _, err = call("site", "init", tmp_path / "s", "--site", "south")
    assert status == 78
    assert "key-exists" in err
    assert (tmp_path / "s" / "authority" / "authority.key").read_bytes() == before
    assert json.loads((tmp_path / "s" / "site.public.json").read_text())["site"] == "north"


def test_a_site_name_that_is_no_id_is_refused(call, tmp_path):
    status, _, err = call("site", "init", tmp_path / "s", "--site", "St. Anna")
    assert status == 65
    assert "bad-id" in err


def test_join_makes_a_trustee_on_the_first_roster_and_may_be_repeated(call, joined, tmp_path):
    _, out, _ = call("site", "show", joined, "--json")
    shown = json.loads(out)
    assert [member["subject"] for member in shown["members"]] == [shown["trustee"]]
    assert (shown["roster_version"], shown["federation"]) == (1, "fed")
    again = call("site", "join", joined, tmp_path / "federation.bin", "--root-pk", ROOT_PK,
                 "--enrolment-address", "other.example:7444")  # fmt: skip
    assert again[0] == 0
    shown = json.loads(call("site", "show", joined, "--json")[1])
    assert (shown["roster_version"], shown["enrolment_address"]) == (1, "other.example:7444")


def test_join_refuses_what_the_root_did_not_sign_or_another_authority(call, tmp_path):
    site = tmp_path / "site"
    call("site", "init", site, "--site", "north")
    stranger = federation_for(site, tmp_path, root=COORDINATOR)
    status, _, err = call("site", "join", site, stranger, "--root-pk", ROOT_PK, "--enrolment-address", "a:1")
    assert (status, "bad-signature" in err) == (77, True)
    other = federation_for(site, tmp_path, authority_pk=ROOT_PK)
    status, _, err = call("site", "join", site, other, "--root-pk", ROOT_PK, "--enrolment-address", "a:1")
    assert (status, "other-authority" in err) == (77, True)
    assert not (site / "identity").exists()


def test_a_site_replaces_its_trustee_as_the_operations_page_says(call, joined, tmp_path):
    old = json.loads(call("site", "show", joined, "--json")[1])["trustee"]
    assert call("site", "revoke", joined, old)[0] == 0
    (joined / "identity").rename(joined / "identity.old")
    again = call("site", "join", joined, tmp_path / "federation.bin", "--root-pk", ROOT_PK,
                 "--enrolment-address", "gw.example:7444")  # fmt: skip
    assert again[0] == 0, again
    shown = json.loads(call("site", "show", joined, "--json")[1])
    assert shown["trustee"] != old
    members = {member["subject"]: member["revoked"] for member in shown["members"]}
    assert members == {old: True, shown["trustee"]: False}


def test_a_second_trustee_is_not_made_while_the_first_is_listed(call, joined, tmp_path):
    (joined / "identity").rename(joined / "identity.old")
    status, _, err = call("site", "join", joined, tmp_path / "federation.bin", "--root-pk", ROOT_PK,
                          "--enrolment-address", "gw.example:7444")  # fmt: skip
    assert (status, "second-trustee" in err) == (77, True)


def test_a_joined_site_does_not_move_to_another_federation(call, joined, tmp_path):
    other = federation_for(joined, tmp_path, name="other")
    status, _, err = call("site", "join", joined, other, "--root-pk", ROOT_PK, "--enrolment-address", "a:1")
    assert (status, "pins-differ" in err) == (78, True)


def test_a_token_says_all_that_a_device_pins(call, joined):
    status, out, err = call("site", "token", joined, "--uses", 3, "--hours", 2, "--label", "ward")
    assert status == 0
    bearer = read_token(out)
    shown = json.loads(call("site", "show", joined, "--json")[1])
    open_token(bearer.signed, bytes.fromhex(shown["authority_pk"]), now_s=0)
    token = bearer.token
    assert (token.root_pk.hex(), token.ca_digest, token.enrolment_address, token.uses) == (
        ROOT_PK, b"\xab" * 32, "gw.example:7444", 3,
    )  # fmt: skip
    assert token.not_after_s - token.issued_at_s == 7_200
    assert f"fingerprint (SHA-256): {'ab' * 32}\n" in err
    assert shown["tokens"] == [{"label": "ward", "uses_left": 3, "not_after_s": token.not_after_s}]


def test_the_secret_half_of_a_token_is_not_kept(call, joined):
    _, out, _ = call("site", "token", joined)
    seed = read_token(out).seed
    stored = b"".join(path.read_bytes() for path in joined.rglob("*") if path.is_file())
    assert seed not in stored


@pytest.mark.parametrize(
    "command", [("site", "token"), ("site", "requests"), ("trustee", "run"), ("trustee", "status")]
)
def test_commands_before_join_say_what_to_do(call, tmp_path, command):
    status, _, err = call(*command, tmp_path)
    assert (status, "no-site" in err) == (78, True)
    call("site", "init", tmp_path / "s", "--site", "north")
    status, _, err = call(*command, tmp_path / "s")
    assert (status, "not-joined" in err, "bedside site join" in err) == (78, True, True)


def test_an_authority_key_that_others_may_read_signs_nothing(call, joined):
    key = SitePaths(joined).authority_key
    key.chmod(0o644)
    status, _, err = call("site", "token", joined)
    assert status == 78
    assert f"chmod 600 {key}" in err


def test_an_authority_key_of_another_site_signs_nothing(call, joined, tmp_path):
    call("site", "init", tmp_path / "other", "--site", "north")
    os.replace(SitePaths(tmp_path / "other").authority_key, SitePaths(joined).authority_key)
    status, _, err = call("site", "token", joined)
    assert (status, "other-authority" in err) == (77, True)


def test_status_without_a_daemon_is_critical_and_still_tells_the_store(call, joined):
    status, out, _ = call("trustee", "status", joined, "--json")
    report = json.loads(out)
    assert status == 2
    assert (report["running"], report["ledger_entries"], report["open_rounds"]) == (False, 0, [])
    _, out, _ = call("trustee", "status", joined)
    assert f"FAILED no trustee runs here: bedside trustee run {joined}" in out


def test_status_says_which_component_makes_it_unwell(call, joined):
    paths = SitePaths(joined)
    health = Health(SystemClock(), ("link", "policy"))
    health.set("policy", Level.OK, "in force")
    health.set("link", Level.DEGRADED, "the coordinator cannot be reached")
    write_status(paths.status, 1, health)
    with paths.hold():
        status, out, _ = call("trustee", "status", joined)
    assert status == 1
    assert "DEGRADED link: the coordinator cannot be reached" in out
    assert "policy" not in out


def test_the_runtime_directory_is_systemds_where_there_is_one(tmp_path):
    assert str(default_runtime_directory(tmp_path, {"RUNTIME_DIRECTORY": "/run/bedside-trustee"})) == (
        "/run/bedside-trustee"
    )
    two = {str(default_runtime_directory(tmp_path / name, {})) for name in ("a", "b")}
    assert len(two) == 2
    assert all(name.startswith("/dev/shm/") for name in two)


def test_what_a_site_has_spent_is_shown_and_an_altered_ledger_is_not_believed(call, joined):
    status, out, _ = call("site", "privacy", joined)
    assert status == 0
    assert "site north: epsilon at a delta of 1e-05, no bound in the policy" in out
    assert "no sum was voted for yet" in out
    store = TrusteeStore.open(SitePaths(joined).database)
    for round_number, multiplier_e6 in ((1, 2_000_000), (2, 0)):
        spent = Charge(bytes([round_number]) * 32, 0, "watch", round_number, 1, b"r" * 32, 5, multiplier_e6, 7)
        store.database.run_tx("charge", lambda tx, spent=spent: charge(tx, spent))
        _, out, _ = call("site", "privacy", joined, "--json")
        told = json.loads(out)
        assert told["tasks"] == [told["total"] | {"task": "watch"}]
        assert told["total"]["sums"] == round_number
        expected = Spending.of([2_000_000]).epsilon(1e-5) if round_number == 1 else None
        assert told["total"]["epsilon"] == expected
    assert told["total"]["without_noise"] == 1
    _, out, _ = call("site", "privacy", joined)
    assert "no bound" in out.splitlines()[-1]
    store.database.connection.execute("UPDATE ledger SET noise_multiplier_e6 = 9000000 WHERE entry = 2")
    store.close()
    status, out, err = call("site", "privacy", joined)
    assert (status, out) == (74, "")
    assert "ledger-broken" in err
