import os
from pathlib import Path

import pytest

from bedside.core.errors import ConfigError
from bedside.core.policy.site_policy import SitePolicy
from bedside.core.signing.envelope import digest
from bedside.service.config import parse_config
from bedside.trustee.policy_file import PolicyFile, read_policy
from bedside.trustee.site.founding import POLICY_TEMPLATE

GOOD = b"min_trusted = 4\n"


def replace(path, data):
    fresh = path.with_suffix(".new")
    fresh.write_bytes(data)
    os.replace(fresh, path)


@pytest.fixture
def path(tmp_path):
    replace(tmp_path / "policy.toml", GOOD)
    return tmp_path / "policy.toml"


def test_the_template_says_every_rule_with_its_default():
    assert parse_config(POLICY_TEMPLATE, SitePolicy, Path("policy.toml")) == SitePolicy()
    left_out = {name for name in SitePolicy.__struct_fields__ if name not in POLICY_TEMPLATE}
    assert left_out == set()


def test_the_digest_is_of_the_bytes(path):
    assert read_policy(path).digest == digest(GOOD)


def test_a_changed_file_is_in_force_at_once(path):
    followed = PolicyFile(path)
    replace(path, b"min_trusted = 6\n")
    assert followed.current().policy.min_trusted == 6
    assert followed.current().digest == digest(b"min_trusted = 6\n")


@pytest.mark.parametrize("bad", [b"min_trusted = 2\n", b"min_trustd = 6\n", b"min_trusted =", b"\xff", None])
def test_a_bad_file_changes_nothing_and_is_reported_until_it_is_mended(path, bad):
    followed = PolicyFile(path)
    if bad is None:
        path.unlink()
    else:
        replace(path, bad)
    assert followed.current().policy.min_trusted == 4
    assert isinstance(followed.problem, ConfigError)
    assert followed.current().digest == digest(GOOD)
    assert followed.problem is not None
    replace(path, b"min_trusted = 7\n")
    assert followed.current().policy.min_trusted == 7
    assert followed.problem is None


def test_a_trustee_does_not_start_on_a_bad_policy(path):
    replace(path, b"min_trusted = 1\n")
    with pytest.raises(ConfigError) as caught:
        PolicyFile(path)
    assert "never under 3" in caught.value.remedy
