"""`bedside policy`, as a person in charge types it."""

from __future__ import annotations

import json

import pytest

from bedside.core.bundle.manifest import encode_manifest
from bedside.core.codec.layout import Layout, Segment, SegmentKind, TensorSlot
from bedside.core.policy import SitePolicy
from bedside.core.securesum.plans import layout_message
from bedside.core.signing.envelope import digest, sign, sign_message
from bedside.proto.v1.common_pb2 import BlobRef, Signed
from bedside.proto.v1.operator_pb2 import PlanFile
from bedside.service.cli import run
from tiny_manifest import make_manifest


class Desk:
    """A site's directory with its policy, and plans from a coordinator that it never talks to."""

    def __init__(self, world, directory, capsys):
        self.world, self.directory, self._capsys = world, directory, capsys
        self.policy = directory / "policy.toml"
        self.plan = directory / "plan.bin"
        self.write_policy('trusted_sites = ["birch", "cedar"]')
        (directory / "site.public.json").write_text('{"site": "alder", "authority_pk": "00"}')
        (directory / "identity").mkdir()
        self.pin(bytes(world.root.verify_key).hex())

    def pin(self, root_pk):
        pins = {"site": "alder", "root_pk": root_pk}
        (self.directory / "identity" / "pins.json").write_text(json.dumps(pins))

    def write_policy(self, *lines):
        author = bytes(self.world.author.verify_key).hex()
        self.policy.write_text("\n".join([*lines, "[bundle_signers]", f'author = "{author}"', ""]))

    def write_plan(self, **changes):
        encoded = encode_manifest(make_manifest())
        slots = (TensorSlot("w0", (4, 2)), TensorSlot("b0", (2,)))
        values = Segment("parameters", SegmentKind.VALUE, slots, clip_e6=1_000_000, bits=8, rotation_block=4)
        fields = {
            "bundle": BlobRef(digest=digest(encoded), size_bytes=10),
            "layout": layout_message(Layout((values, Segment("examples", SegmentKind.COUNT, cap=400)))),
        }
        plan = self.world.plan(**(fields | changes))
        told = PlanFile(
            plan=plan.signed,
            federation=sign_message("federation", self.world.federation, self.world.root),
            rosters=[sign_message("roster", self.world.roster(s), s.authority) for s in self.world.sites.values()],
            manifest=Signed.FromString(sign("bundle", encoded, self.world.author)),
            previous_result=self.world.results.get(plan.plan.previous_result_digest),
        )
        self.plan.write_bytes(told.SerializeToString(deterministic=True))
        return plan

    def call(self, *words):
        """Exit status, standard output and standard error."""
        status = run(["policy", *(str(word) for word in words)], {})
        said = self._capsys.readouterr()
        return status, said.out, said.err

    def check(self, *words):
        return self.call("check", self.policy, self.plan, *words)


@pytest.fixture
def desk(world, tmp_path, capsys):
    return Desk(world, tmp_path, capsys)


def test_a_plan_that_the_policy_allows_is_shown_rule_by_rule_and_exits_0(desk):
    plan = desk.write_plan()
    status, out, _ = desk.check("--as-issued")
    assert status == 0, out
    assert out.startswith(f"round 1 of watch, plan {plan.digest.hex()[:16]}: allowed by site alder\n")
    assert "REFUSED" not in out
    assert "the checkpoint is the model's first" in out


def test_a_refused_plan_names_each_rule_that_refuses_it_and_exits_1(desk):
    desk.write_plan(min_contributors=2, checkpoint=BlobRef(digest=b"z" * 32, size_bytes=10))
    status, out, _ = desk.check("--as-issued")
    assert status == 1
    refused = [line.split()[1] for line in out.splitlines() if line.startswith("REFUSED")]
    assert refused == ["too-few-contributors", "checkpoint-outside-lineage"]
    assert "the plan allows sets of 2 devices; site alder asks for at least 3" in out


def test_the_verdict_is_json_for_programs(desk):
    plan = desk.write_plan(round_number=2, previous_result_digest=b"r" * 32)
    status, out, _ = desk.check("--as-issued", "--json")
    told = json.loads(out)
    assert (status, told["allowed"], told["site"], told["round_number"]) == (0, True, "alder", 2)
    assert told["plan_digest"] == plan.digest.hex()
    assert {rule["code"] for rule in told["rules"]} >= {"unknown-signer", "not-on-roster", "outside-hours"}
    assert told["notes"]


def test_a_plan_whose_round_is_over_is_refused_unless_it_is_judged_as_issued(desk):
    desk.write_plan(issued_at_s=1_000_000_000, close_at_s=1_000_000_600)
    status, out, _ = desk.check()
    assert status == 1
    assert "closes-too-late" in out
    assert desk.check("--as-issued")[0] == 0


def test_a_plan_under_another_root_than_the_pinned_one_is_no_plan(desk):
    desk.write_plan()
    desk.pin("11" * 32)
    status, _, err = desk.check("--as-issued")
    assert status == 77
    assert "[bad-signature]" in err
    assert desk.check("--as-issued", "--root-pk", bytes(desk.world.root.verify_key).hex())[0] == 0
    assert "[bad-key]" in desk.check("--root-pk", "11")[2]


def test_away_from_a_sites_directory_it_says_what_it_could_not_verify(desk, tmp_path):
    desk.write_plan()
    elsewhere = tmp_path / "elsewhere" / "policy.toml"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(desk.policy.read_bytes())
    status, _, err = desk.call("check", elsewhere, desk.plan)
    assert (status, "[which-site]" in err) == (78, True)
    status, out, _ = desk.call("check", elsewhere, desk.plan, "--site", "birch", "--as-issued")
    assert status == 0
    assert "nobody has checked here that the federation is yours" in out


@pytest.mark.parametrize("data", [None, b"", b"junk" * 9], ids=["missing", "empty", "junk"])
def test_a_file_that_is_no_plan_is_one_line_on_standard_error(desk, data):
    if data is not None:
        desk.plan.write_bytes(data)
    status, out, err = desk.check()
    assert status != 0
    assert (out, err.count("\n")) == ("", 1)


def test_a_policy_with_nonsense_is_refused_with_its_line(desk):
    for line, rule in (
        ("max_clip = nan", "max_clip"),
        ("value_bits = [8, 4]", "value_bits"),
        ("min_batch = -1", "min_"),
    ):
        desk.write_policy("# one", "# two", line)
        status, _, err = desk.call("explain", desk.policy)
        assert status == 78
        assert "policy.toml:3: " in err
        assert rule in err


def test_different_policies_are_explained_differently(desk):
    def told(*lines):
        desk.write_policy(*lines)
        status, out, _ = desk.call("explain", desk.policy, "--json")
        assert status == 0
        return json.loads(out)

    alone = told()
    assert any("one gateway gets no protection" in sentence for sentence in alone["not_protected_from"])
    assert any("guard_membership is off" in sentence for sentence in alone["not_protected_from"])
    assert any("No noise is added" in sentence for sentence in alone["not_protected_from"])
    assert any("A single trustee is enough" in s for s in told("min_trustees = 1")["not_protected_from"])
    trusting = told('trusted_sites = ["birch"]', "guard_membership = true", 'heartbeat = "minimal"')
    unsaid = ("one gateway", "guard_membership is off", "heartbeat = standard", "A single trustee")
    assert not any(words in sentence for words in unsaid for sentence in trusting["not_protected_from"])
    assert any("birch work together with the coordinator" in s for s in trusting["not_protected_from"])
    assert any("guard_membership" in sentence for sentence in trusting["protected_from"])
    assert any("20:00-06:00" in s for s in told('hours = "20:00-06:00"')["takes_part"])
    assert any("Evaluations are opened exactly" in s for s in told('purposes = ["evaluate"]')["not_protected_from"])
    shared = told("max_share_one_site = 0.5")["protected_from"]
    assert any("50%" in sentence for sentence in shared)


def test_a_policy_without_signers_takes_part_in_nothing(desk):
    desk.policy.write_text("")
    assert "takes part in nothing" in desk.call("explain", desk.policy)[1]


def test_every_rule_is_explained_and_shown(desk):
    explained, shown = desk.call("explain", desk.policy)[1], desk.call("show", desk.policy)[1]
    for name in SitePolicy.__struct_fields__:
        assert f"- {name} = " in explained
        assert any(line.startswith(f"{name} ") for line in shown.splitlines())
    assert "default: []" in next(line for line in shown.splitlines() if line.startswith("trusted_sites"))
    told = json.loads(desk.call("show", desk.policy, "--json")[1])
    assert set(told["rules"]) == set(SitePolicy.__struct_fields__)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("min_trusted = 1\n", "policy.toml:1: 'min_trusted'"),
        ('tasks = []\n[bundle_signers]\nbob = "zz"\n', "policy.toml:3: 'bundle_signers.bob'"),
        ("tasks = []\n[bundle_signers]\nbob = 3\n", "policy.toml:2: an entry of 'bundle_signers'"),
    ],
)
def test_a_mistake_in_a_policy_names_its_line(tmp_path, capsys, text, words):
    (tmp_path / "policy.toml").write_text(text)
    assert run(["policy", "show", str(tmp_path / "policy.toml")], {}) == 78
    assert words in capsys.readouterr().err
