"""Numbers of `agent.toml` that no device can mean end in one sentence that names them."""

from __future__ import annotations

import pytest

from bedside.agent.config import CONFIG_NAME, load_agent_config
from bedside.agent.windows.retention import RetentionRules
from bedside.core.errors import ConfigError

ONE_STREAM = "[[buffer.streams]]\nstream = 'ecg'\nraw_hours"


@pytest.mark.parametrize("value", ["inf", "1e300", "nan", "-1e9", "0"])
@pytest.mark.parametrize(
    "key",
    [
        *("[buffer]\nsession_gap_s", "[buffer]\nraw_hours", "[buffer]\nwindows_days", "[buffer]\nsummaries_days"),
        *("[training]\ntimeout_s", "[link]\nheartbeat_s", ONE_STREAM),
    ],
)
def test_a_time_must_be_finite_and_above_zero(tmp_path, key, value) -> None:
    (tmp_path / CONFIG_NAME).write_text(f"{key} = {value}\n")
    with pytest.raises(ConfigError) as caught:
        load_agent_config(tmp_path)
    assert caught.value.code == "config-value"
    assert key.rpartition("\n")[2] in caught.value.sentence


@pytest.mark.parametrize("text", [f"[buffer]\ncap_mib = {(1 << 63) - 1}", f"[training]\nmemory_mib = {1 << 50}"])
def test_a_size_is_a_pebibyte_at_most(tmp_path, text) -> None:
    (tmp_path / CONFIG_NAME).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_agent_config(tmp_path)
    assert caught.value.code == "config-value"


def test_the_largest_numbers_that_are_allowed_can_be_counted_with(tmp_path) -> None:
    (tmp_path / CONFIG_NAME).write_text(
        "[buffer]\ncap_mib = 1073741824\nsession_gap_s = 31536000\nraw_hours = 876000\nwindows_days = 36500\n"
        "summaries_days = 36500\n[[buffer.streams]]\nstream = 'ecg'\nraw_hours = 876000\n"
    )
    config = load_agent_config(tmp_path)
    assert config.buffer.cap_mib << 20 < 1 << 63
    assert RetentionRules.of(config.buffer).raw_ns < 1 << 63


def test_two_sources_do_not_listen_on_one_address_and_port(tmp_path) -> None:
    source = "[[sources]]\nkind = 'mllp'\nname = '{0}'\noptions = {{ listen = '{1}', stream = '{0}' }}\n"
    config, first = tmp_path / CONFIG_NAME, source.format("a", "127.0.0.1:2575")
    config.write_text(first + source.format("b", "127.0.0.1:2576"))
    load_agent_config(tmp_path)
    for other in ("localhost:2575", "127.0.0.1:2575"):
        config.write_text(first + source.format("b", other))
        with pytest.raises(ConfigError, match="listen on one address"):
            load_agent_config(tmp_path)
