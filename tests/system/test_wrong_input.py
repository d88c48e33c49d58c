"""Wrong input gets one clear line with the remedy, and a non-zero exit."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from federation import TASK, Federation, bedside, bedside_command, bedside_json, run_bedside
from founding import build_model

from bedside.core.bundle.archive import pack_bundle, unpack_bundle
from bedside.core.bundle.manifest import GOLDEN, MANIFEST, SIGNATURE, SIGNED_KIND, decode_manifest, encode_manifest
from bedside.core.bundle.tensors import decode_tensors, encode_tensors
from bedside.core.bundle.verify import file_digest
from bedside.core.signing.envelope import signature_of
from bedside.core.signing.tokens import mint_token, read_token
from bedside.service.keys import create_signing_key, load_signing_key
from bedside.service.platform import SystemEntropy
from watched_rounds import wait_until

pytestmark = pytest.mark.system

LINE = re.compile(r"error: (?P<sentence>.+) \[(?P<code>[a-z-]+)\] — (?P<remedy>.+)\n")


def assert_refused(done: subprocess.CompletedProcess[str], code: str, *words: str) -> None:
    """One line on stderr, with this code, these words, and a remedy."""
    assert done.returncode >= 64, done
    line = LINE.fullmatch(done.stderr)
    assert line is not None, f"not one line with a remedy:\n{done.stderr}"
    assert line["code"] == code
    for word in words:
        assert word in done.stderr
    assert done.stdout == ""


@pytest.fixture
def hub(federation: Federation, tmp_path: Path) -> Path:
    """A copy of the coordinator's directory."""
    return copy_of(federation.hub, tmp_path / "hub")


@pytest.fixture
def site(federation: Federation, tmp_path: Path) -> Path:
    """A copy of a site's directory, whose trustee does not run."""
    return copy_of(federation.sites["alder"].directory, tmp_path / "site")


@pytest.fixture
def device(federation: Federation, tmp_path: Path) -> Path:
    """A new device that has not enrolled."""
    bedside("agent", "init", tmp_path / "device")
    return tmp_path / "device"


def copy_of(directory: Path, target: Path) -> Path:
    ignored = shutil.ignore_patterns("*.sock", "*.db*", "daemon.lock", "blobs", "recording.npz")
    shutil.copytree(directory, target, ignore=ignored)
    return target


def token_of(federation: Federation, *more: str) -> str:
    return str(bedside_json("site", "token", federation.sites["alder"].directory, *more)["token"])


def test_an_unknown_key_of_the_coordinators_configuration(hub: Path) -> None:
    (hub / "conf.d" / "typo.toml").write_text("heartbeats_s = 3\n")
    done = run_bedside("coordinator", "serve", hub)
    assert_refused(done, "config-unknown-key", "typo.toml:1", "'heartbeats_s'", "did you mean 'heartbeat_s'?")


def test_an_unknown_rule_of_a_policy(site: Path) -> None:
    policy = site / "policy.toml"
    policy.write_text("min_trustd = 3\n" + policy.read_text())
    done = run_bedside("trustee", "run", site)
    assert_refused(done, "config-unknown-key", "policy.toml:1", "did you mean 'min_trusted'?")


def test_an_unknown_key_of_a_devices_configuration(federation: Federation, tmp_path: Path) -> None:
    agent = copy_of(federation.agents["birch-1"].directory, tmp_path / "agent")
    config = agent / "agent.toml"
    config.write_text('heartbeet = "minimal"\n' + config.read_text())
    done = run_bedside("agent", "run", agent)
    assert_refused(done, "config-unknown-key", "agent.toml:1", "did you mean 'heartbeat'?")


@pytest.mark.parametrize("part", ["coordinator", "trustee", "agent"])
def test_a_key_file_that_others_may_read(part: str, federation: Federation, tmp_path: Path) -> None:
    source, command = {
        "coordinator": (federation.hub, ("coordinator", "serve")),
        "trustee": (federation.sites["alder"].directory, ("trustee", "run")),
        "agent": (federation.agents["birch-1"].directory, ("agent", "run")),
    }[part]
    directory = copy_of(source, tmp_path / part)
    (key,) = directory.rglob("sign.key")
    key.chmod(0o644)
    assert_refused(run_bedside(*command, directory), "key-mode", str(key), f"chmod 600 {key}")


def test_a_used_token(federation: Federation, tmp_path: Path) -> None:
    token = token_of(federation, "--uses", "1")
    for name in ("first", "second"):
        bedside("agent", "init", tmp_path / name)
    bedside("agent", "enrol", tmp_path / "first", token)
    try:
        assert_refused(run_bedside("agent", "enrol", tmp_path / "second", token), "token-used-up", "bedside site token")
    finally:
        members = bedside_json("site", "show", federation.sites["alder"].directory)["members"]
        newest = [member for member in members if member["role"] == "device"][-1]
        bedside("site", "revoke", federation.sites["alder"].directory, newest["subject"])


def test_an_expired_token(federation: Federation, device: Path) -> None:
    authority = load_signing_key(federation.sites["alder"].directory / "authority" / "authority.key")
    token = read_token(token_of(federation)).token
    token.not_after_s = token.issued_at_s - 1
    expired = mint_token(token, b"s" * 32, authority).text()
    assert_refused(run_bedside("agent", "enrol", device, expired), "token-expired")


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-9], lambda text: text[:40] + "AAAA" + text[44:], lambda _: "no-token-at-all"]
)
def test_a_damaged_token(damage: Callable[[str], str], federation: Federation, device: Path) -> None:
    assert_refused(run_bedside("agent", "enrol", device, damage(token_of(federation))), "bad-token")


def test_a_port_in_use(federation: Federation, hub: Path) -> None:
    done = run_bedside("coordinator", "serve", hub)
    assert_refused(done, "port-in-use", str(federation.service_port))


def test_a_trustee_with_the_identity_of_another_site(federation: Federation, site: Path) -> None:
    shutil.rmtree(site / "identity")
    shutil.copytree(federation.sites["birch"].directory / "identity", site / "identity")
    done = run_bedside("trustee", "run", site, "--runtime-dir", federation.runtime / "elsewhere")
    assert_refused(done, "other-authority")


def test_a_site_that_the_federation_does_not_name(federation: Federation, tmp_path: Path) -> None:
    bedside("site", "init", tmp_path / "dogwood", "--site", "dogwood")
    done = run_bedside(
        *("site", "join", tmp_path / "dogwood", federation.folder / "federation.bin"),
        *("--root-pk", federation.root_pk, "--enrolment-address", f"127.0.0.1:{federation.enrolment_port}"),
    )
    assert_refused(done, "unknown-site", "dogwood")


def test_round_keys_on_a_disk(site: Path, tmp_path: Path) -> None:
    done = run_bedside("trustee", "run", site, "--runtime-dir", Path(__file__).parent)
    assert_refused(done, "runtime-not-ram", "--runtime-dir")


def test_a_second_trustee_of_one_directory(federation: Federation) -> None:
    site = federation.sites["alder"]
    done = run_bedside("trustee", "run", site.directory, "--runtime-dir", site.runtime)
    assert_refused(done, "trustee-running")


def test_a_round_that_is_not_there(federation: Federation) -> None:
    done = run_bedside("round", "show", "--task", TASK, "--round", "999", "--socket", federation.socket)
    assert_refused(done, "no-round", "round 999")


def test_a_task_that_is_not_there(federation: Federation) -> None:
    done = run_bedside("round", "show", "--task", "nothing", "--socket", federation.socket)
    assert_refused(done, "no-round", "task nothing", "bedside round list")


def test_no_coordinator_behind_the_socket(tmp_path: Path) -> None:
    done = run_bedside("round", "list", "--socket", tmp_path / "operator.sock")
    assert_refused(done, "no-coordinator", "bedside coordinator serve")


# Models


def with_other_golden(tar: bytes, author_key: Path) -> bytes:
    """The same bundle, signed by the same author, whose golden logits are not what its graphs compute."""
    files = unpack_bundle(tar)
    golden = {name: value.copy() for name, value in decode_tensors(files[GOLDEN]).items()}
    golden["logits"] += 1.0
    files[GOLDEN] = encode_tensors(golden)
    manifest = decode_manifest(files[MANIFEST])
    entries = tuple(
        msgspec.structs.replace(entry, size=len(files[GOLDEN]), blake2b=file_digest(files[GOLDEN]))
        if entry.name == GOLDEN
        else entry
        for entry in manifest.files
    )
    files[MANIFEST] = encode_manifest(msgspec.structs.replace(manifest, files=entries))
    files[SIGNATURE] = signature_of(SIGNED_KIND, files[MANIFEST], load_signing_key(author_key))
    return pack_bundle(files)


@pytest.fixture
def other_golden(federation: Federation, tmp_path: Path) -> Path:
    """A bundle that computes something else than its author saw."""
    target = tmp_path / "golden.tar"
    target.write_bytes(with_other_golden((federation.bundle / "bundle.tar").read_bytes(), federation.author_key))
    return target


@pytest.fixture(scope="session")
def strangers_bundle(federation: Federation) -> Path:
    """A sound bundle whose author no site knows."""
    folder = federation.folder / "strangers-bundle"
    build_model(folder, federation.folder / "stranger.key")
    return folder


def health_of_a_device_with(model: Path, federation: Federation, directory: Path) -> tuple[int, str]:
    """Start a device of its own that is told to serve `model`; its health, once it has looked at the model."""
    bedside("agent", "init", directory)
    shutil.copy(federation.agents["birch-1"].directory / "policy.toml", directory / "policy.toml")
    (directory / "agent.toml").write_text(f'model = "{model}"\n[link]\nenabled = false\n')
    started = federation.table.start("wrong-model", bedside_command("agent", "run", directory))
    try:
        wait_until(lambda: "model-" in started.log.read_text(), "the device has looked at its model")
        done = run_bedside("agent", "health", directory)
    finally:
        federation.table.kill("wrong-model")
        started.log.unlink()
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_bundle_whose_golden_vectors_do_not_match(other_golden: Path) -> None:
    assert_refused(run_bedside("model", "verify", other_golden), "golden-mismatch", "logits")


def test_a_device_does_not_serve_a_bundle_whose_golden_vectors_do_not_match(
    other_golden: Path, federation: Federation, tmp_path: Path
) -> None:
    status, line = health_of_a_device_with(other_golden, federation, tmp_path / "device")
    assert status != 0
    assert "logits" in line


def test_an_altered_bundle(federation: Federation, tmp_path: Path) -> None:
    files = unpack_bundle((federation.bundle / "bundle.tar").read_bytes())
    graph = files["train-q1-all-sgd.onnx"]
    files["train-q1-all-sgd.onnx"] = graph[:-1] + bytes([graph[-1] ^ 1])
    (tmp_path / "altered.tar").write_bytes(pack_bundle(files))
    assert_refused(run_bedside("model", "verify", tmp_path / "altered.tar"), "bundle-file", "train-q1-all-sgd.onnx")


def test_a_bundle_of_an_unknown_signer_is_not_accepted_under_a_known_key(
    strangers_bundle: Path, federation: Federation
) -> None:
    done = run_bedside("model", "verify", strangers_bundle, "--signer", federation.author_pk)
    assert_refused(done, "unknown-signer")


def test_a_device_does_not_serve_a_bundle_of_an_unknown_signer(
    strangers_bundle: Path, federation: Federation, tmp_path: Path
) -> None:
    status, line = health_of_a_device_with(strangers_bundle, federation, tmp_path / "device")
    assert status != 0
    assert "signer" in line


def test_sites_refuse_a_round_with_a_model_of_an_unknown_signer_in_a_sentence(
    strangers_bundle: Path, federation: Federation
) -> None:
    watch = ("--watch", "--socket", federation.socket)
    done = run_bedside("round", "start", "--task", "unsigned", "--bundle", strangers_bundle, *watch)
    assert done.returncode == 1
    assert "(unknown-signer): no signer that this site allows has signed the model" in done.stdout
    shown = bedside("round", "show", "--task", "unsigned", "--socket", federation.socket)
    assert "refused (unknown-signer)" in shown


# Plans


@pytest.fixture
def stranger(federation: Federation, tmp_path: Path) -> Iterator[Path]:
    """Our coordinator's ports, certificates and rosters with another signing key: the operators' socket of it."""
    hub = tmp_path / "hub"
    federation.table.kill("coordinator")
    shutil.copytree(federation.hub, hub, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
    with closing(sqlite3.connect(hub / "coordinator.db")) as database, database:
        for table in ("tasks", "rounds", "cohorts", "tenure"):  # the true key's: no stranger could go on with them
            database.execute(f"DELETE FROM {table}")
    key = hub / "identity" / "sign.key"
    key.unlink()
    create_signing_key(key, SystemEntropy())
    federation.table.start("stranger", bedside_command("coordinator", "serve", hub))
    try:
        yield hub / "operator.sock"
    finally:
        federation.table.kill("stranger")
        federation.start_coordinator()


def test_a_plan_signed_by_a_stranger_is_refused_by_every_site_in_a_sentence(
    stranger: Path, federation: Federation
) -> None:
    wait_until(lambda: run_bedside("coordinator", "status", "--socket", stranger).returncode == 0, "it answers")
    cohorts = [word for site in federation.sites for word in ("--cohort", site)]  # or the first refusal would end it
    few, watch = ("--min-contributors", "1"), ("--watch", "--socket", stranger)
    done = run_bedside("round", "start", "--task", "forged", "--bundle", federation.bundle, *cohorts, *few, *watch)
    assert done.returncode == 1
    assert "stranger-plan" in done.stdout
    for site in federation.sites:
        wait_until(lambda site=site: "stranger-plan" in federation.log(site), f"{site} says why")
