import os
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from bedside.core.errors import ConfigError
from bedside.service.config import config_digest, load_config, parse_config
from bedside.service.policy_file import read_policy


class Stream(msgspec.Struct):
    name: str
    rate_hz: float = 50.0


class Buffer(msgspec.Struct):
    max_bytes: int = 1000
    path: Path = Path("buffer.db")


class Agent(msgspec.Struct):
    site: str
    buffer: Buffer = msgspec.field(default_factory=Buffer)
    streams: list[Stream] = []
    tasks: dict[str, Stream] = {}
    trustee: Stream | None = None


@pytest.fixture
def write(tmp_path):
    def write(text, name="agent.toml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_a_number_of_thousands_of_digits_is_a_sentence(write):
    with pytest.raises(ConfigError) as caught:
        load_config(write("site = " + "9" * 5_000), Agent)
    assert caught.value.code == "config-toml"


def refused(path):
    with pytest.raises(ConfigError) as caught:
        load_config(path, Agent)
    return caught.value


def policy_refused(path):
    with pytest.raises(ConfigError) as caught:
        read_policy(path)
    return caught.value


def test_a_file_becomes_a_typed_configuration_with_defaults(write, tmp_path):
    config = load_config(write('site = "north"\n[buffer]\npath = "b.db"\n[[streams]]\nname = "imu"\n'), Agent)
    assert config.streams == [Stream("imu", 50.0)]
    assert config.buffer.path == tmp_path / "b.db"
    assert config.buffer.max_bytes == 1000


@pytest.mark.parametrize(
    ("text", "place", "near"),
    [
        ('site = "n"\n[buffer]\nmax_byte = 3\n', "agent.toml:3: 'buffer.max_byte'", "max_bytes"),
        ('site = "n"\n[[streams]]\nnam = "x"\n', "agent.toml:3: 'streams.nam'", "name"),
        ('site = "n"\n[tasks.har]\nname = "x"\nrate = 3\n', "agent.toml:4: 'tasks.har.rate'", "rate_hz"),
        ('site = "n"\n[trustee]\nname = "x"\nrate_h = 3\n', "'trustee.rate_h'", "rate_hz"),
        ('sight = "n"\n', "agent.toml:1: 'sight'", "site"),
        ('site = "n"\n[buffre]\n', "agent.toml:2: 'buffre'", "buffer"),
    ],
)
def test_an_unknown_key_names_file_line_and_nearest_key(write, text, place, near):
    error = refused(write(text))
    assert error.code == "config-unknown-key"
    assert place in error.sentence
    assert error.remedy == f"did you mean {near!r}?"


def test_a_key_that_resembles_nothing_lists_what_is_known(write):
    error = refused(write('site = "n"\n[buffer]\nzzz = 1\n'))
    assert error.remedy == "known here: max_bytes, path"


def test_an_unknown_key_in_a_drop_in_names_the_drop_in(write):
    path = write('site = "n"\n')
    write("[buffer]\nmax_byts = 1\n", "conf.d/50-big.toml")
    assert "conf.d/50-big.toml:2" in refused(path).sentence


def test_drop_ins_merge_in_order_and_the_last_wins(write):
    path = write('site = "n"\n[buffer]\nmax_bytes = 1\n')
    write("[buffer]\nmax_bytes = 3\n", "conf.d/20-b.toml")
    write('site = "m"\n[buffer]\nmax_bytes = 2\n', "conf.d/10-a.toml")
    config = load_config(path, Agent)
    assert (config.site, config.buffer.max_bytes) == ("m", 3)


def test_a_wrong_type_names_key_and_the_file_it_came_from(write):
    path = write('site = "n"\n')
    write('[buffer]\nmax_bytes = "many"\n', "conf.d/x.toml")
    error = refused(path)
    assert error.code == "config-type"
    assert "conf.d/x.toml:2: 'buffer.max_bytes'" in error.sentence
    assert error.remedy == "expected `int`, got `str`"


class Wire(msgspec.Struct):
    pins: list[Literal["a", "b"]] = []


class Chosen(msgspec.Struct):
    power: Literal["any", "mains", "battery"] = "any"
    ways: dict[str, Wire] = {}
    mode: Literal["on", "off"] | None = None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('power = "solar"\n', "invalid enum value 'solar': one of any, mains, battery"),
        ('mode = "x"\n', "invalid enum value 'x': one of on, off"),
        ('[ways.north]\npins = ["a", "c"]\n', "invalid enum value 'c': one of a, b"),
    ],
)
def test_a_value_that_is_none_of_a_few_lists_them(write, text, said):
    with pytest.raises(ConfigError) as caught:
        load_config(write(text), Chosen)
    assert caught.value.code == "config-type"
    assert sorted(caught.value.remedy.replace(",", "").split()) == sorted(said.replace(",", "").split())


@pytest.mark.parametrize(("text", "key"), [("", "site"), ('site = "n"\n[trustee]\nrate_hz = 1\n', "trustee.name")])
def test_a_missing_key_is_named(write, text, key):
    error = refused(write(text))
    assert error.code == "config-missing-key"
    assert repr(key) in error.sentence


@pytest.mark.parametrize("path", ["~nobody-of-that-name/buffer.db", "a\\u0000b"])
def test_a_path_that_no_file_can_have_is_a_wrong_value(write, path):
    error = refused(write(f'site = "n"\n[buffer]\npath = "{path}"'))
    assert error.code == "config-type"
    assert "buffer.path" in error.sentence


def test_bad_toml_names_the_line(write):
    error = refused(write('site = "n"\nbuffer = = 3\n'))
    assert error.code == "config-toml"
    assert "line 2" in error.sentence


def test_a_missing_file_and_a_file_that_is_no_text_are_clear(write, tmp_path):
    assert refused(tmp_path / "none.toml").code == "config-missing"
    (tmp_path / "raw.toml").write_bytes(b"\xff\xfe")
    assert refused(tmp_path / "raw.toml").code == "config-toml"


def test_a_fifo_is_no_configuration_and_no_policy_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "a.toml")
    for read in (refused, policy_refused):
        error = read(tmp_path / "a.toml")
        assert (error.code, "not a regular file" in error.sentence) == ("config-missing", True)


def test_a_file_of_any_size_is_refused_before_it_is_in_memory(tmp_path):
    path = tmp_path / "a.toml"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # no machine reads that, and it takes no disk
    for read in (refused, policy_refused):
        error = read(path)
        assert (error.code, "larger than 1048576 bytes" in error.sentence) == ("config-toml", True)


@pytest.mark.parametrize("text", ["a." * 1000 + "b = 1\n", "[" + '"a" . ' * 1000 + "b]\n"])
def test_a_key_of_many_parts_is_refused_before_it_is_parsed(write, text):
    """One that fills a file would keep the parser busy for minutes, and the watchdog would end who reloads it."""
    error = refused(write(text))
    assert (error.code, "64 parts" in error.sentence) == ("config-toml", True)


def test_embedded_text_is_held_to_the_same_rules():
    assert parse_config('site = "n"', Agent, Path("default.toml")).site == "n"
    with pytest.raises(ConfigError, match=r"default\.toml:1"):
        parse_config("sit = 3", Agent, Path("default.toml"))


def test_the_digest_follows_effective_values_only(write):
    plain = load_config(write('site = "n"\n'), Agent)
    spelled = load_config(
        write("# same\n[buffer]\nmax_bytes = 1000\n", "conf.d/x.toml").parent.parent / "agent.toml", Agent
    )
    other = load_config(write('site = "m"\n'), Agent)
    assert config_digest(plain) == config_digest(spelled) != config_digest(other)
    assert len(config_digest(plain)) == 32
