"""Which models a device serves: from its note, from its configuration, and from rounds."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from bedside.agent.api.status import status_message
from bedside.agent.buffer.keys import load_key_ring
from bedside.agent.buffer.reader import BufferReader
from bedside.agent.config import load_agent_config
from bedside.agent.daemon import Agent
from bedside.agent.health.observer import FIELD_PATIENCE_S
from bedside.agent.rounds.slots import NOTE_NAME, ActiveModel, Slot
from bedside.agent.sources.supervisor import SourceState
from bedside.authoring.build import Built, build_bundle
from bedside.authoring.recipe import load_recipe
from bedside.core.errors import StoreError
from bedside.core.limits import MAX_BLOB_BYTES
from bedside.core.samples import Record
from bedside.proto.v1 import local_pb2
from bedside.service.logs import EventFormatter
from bedside.service.platform import SystemClock, SystemEntropy

RECIPE = (Path(__file__).parents[1] / "recipes" / "tiny.toml").read_text()


@pytest.fixture
def build(tmp_path, tiny_author):
    def make(name: str, version: str = "1", stream: str = "wrist") -> Built:
        text = RECIPE.replace('"tiny"', f'"{name}"').replace('version = "1"', f'version = "{version}"')
        path = tmp_path / "recipe.toml"
        path.write_text(text.replace('"wrist"', f'"{stream}"'))
        return build_bundle(load_recipe(str(path)), tiny_author)

    return make


def configure(device, text: str) -> None:
    (device.path / "agent.toml").write_text(text)


@contextmanager
def assembled(device) -> Iterator[Agent]:
    agent = Agent(device.path, load_agent_config(device.path), SystemClock(), SystemEntropy(), "1.0")
    try:
        yield agent
    finally:
        agent._buffer.close()


async def serving(device) -> dict[str, tuple[bytes, tuple[str, ...], str]]:
    """Start the models of a device as its process does, and look."""
    with assembled(device) as agent:
        await agent._serving.start()
        return {model.name: (model.digest, tuple(model.streams), model.error) for model in agent._pipeline.models()}


async def test_models_of_the_configuration_serve_beside_each_other(device, build, tiny) -> None:
    ecg = build("ecg", stream="chest")
    (device.path / "ecg.tar").write_bytes(ecg.tar)
    configure(device, 'model = "tiny.tar"\n[[models]]\nbundle = "ecg.tar"\nstreams = ["bed-1", "bed-2"]\n')
    wanted = {"tiny": (tiny.digest, ("wrist",), ""), "ecg": (ecg.digest, ("bed-1", "bed-2"), "")}
    assert await serving(device) == wanted
    (device.path / "ecg.tar").unlink()  # what was accepted serves without the file
    assert await serving(device) == wanted


async def test_a_damaged_model_takes_down_its_own_slot_alone(device, build, tiny) -> None:
    (device.path / "ecg.tar").write_bytes(build("ecg").tar[:-900])
    configure(device, 'model = "tiny.tar"\n[[models]]\nbundle = "ecg.tar"\n')
    with assembled(device) as agent:
        await agent._serving.start()
        agent._observer.look()
        state = agent._health.snapshot()["inference"]
    assert (state.level.name, state.sentence.split(":")[0]) == ("DEGRADED", "model ecg")
    assert (await serving(device))["tiny"] == (tiny.digest, ("wrist",), "")


SOURCE = """
[[sources]]
kind = "replay"
name = "{0}"
[sources.options]
stream = "{0}"
data = "signal.npz"
"""


async def test_health_tells_of_alarms_that_wait_and_of_labels_that_nobody_knows(device, monkeypatch) -> None:
    rules = '[[alarms]]\nname = "shakes"\nlabel = "shake"\nabove = 0.5\n'
    rules += '[[alarms]]\nname = "low"\nfield = "spo2"\nbelow = 88.0\n'
    rules += SOURCE.format("wrist")
    configure(device, 'model = "tiny.tar"\n' + rules.replace('"shake"', '"shock"'))
    with assembled(device) as agent:
        await agent._serving.start()
        agent._observer.look()
        state = agent._health.snapshot()["inference"]
        assert (state.level.name, state.sentence) == ("DEGRADED", "no model knows the label of alarm shakes")
    configure(device, 'model = "tiny.tar"\n' + rules)
    with assembled(device) as agent:
        await agent._serving.start()
        agent._pipeline.consume(Record("bed", 100, {"spo2": 97.0}))
        with monkeypatch.context() as patch:
            patch.setattr(agent._buffer.database, "run_tx", refuse)
            agent._pipeline.consume(Record("bed", 200, {"spo2": 80.0}))
            agent._observer.look()
            states = agent._health.snapshot()
        assert states["inference"].sentence == "serves"
        assert (states["buffer"].level.name, states["buffer"].sentence) == ("FAILED", "full; 1 alarms wait for it")
        facts = agent._observer.facts()
        assert (facts.open_alarms, facts.raised_alarms) == (1, 1)


async def test_models_and_alarms_that_wait_for_what_no_source_feeds_are_told_of(device, build) -> None:
    (device.path / "ecg.tar").write_bytes(build("ecg", stream="chest").tar)
    rule = '[[alarms]]\nname = "{0}"\n{1}\nabove = 0.5\n'
    rules = rule.format("far", 'label = "walk"\nstream = "ankle"') + rule.format("low", 'field = "spo2"')
    configure(device, 'model = "tiny.tar"\n[[models]]\nbundle = "ecg.tar"\n' + rules + SOURCE.format("wrist"))
    unfed = "reads stream chest, which no source feeds (streams here: wrist)"
    with assembled(device) as agent:
        await agent._serving.start()
        facts = agent._observer.facts()
        shown = {model.name: model.error for model in status_message(facts, local_pb2.BufferStatus()).models}
        assert shown == {"tiny": "", "ecg": unfed}  # a source that is silent is no fault of its model
        far = "no source feeds stream ankle of alarm far (streams here: wrist)"
        state = facts.components["inference"]
        assert (state.level.name, state.sentence) == ("DEGRADED", f"model ecg {unfed}; {far}")
        agent._observer._started_s -= FIELD_PATIENCE_S + 1
        low = "no record with the field spo2 of alarm low has come"
        assert agent._observer.facts().components["inference"].sentence == f"model ecg {unfed}; {far}; {low}"
        agent._pipeline.consume(Record("bed", 100, {"spo2": 0.1}))
        assert "spo2" not in agent._observer.facts().components["inference"].sentence


async def test_a_device_that_only_collects_is_well_without_a_model(device) -> None:
    alone = "[link]\nenabled = false\n" + SOURCE.format("wrist")
    configure(device, alone)
    with assembled(device) as agent:
        state = agent._observer.facts().components["inference"]
        assert (state.level.name, state.sentence) == ("OK", "no model is configured")
    configure(device, alone + '[[alarms]]\nname = "a"\nlabel = "fall"\nabove = 0.5\n')
    with assembled(device) as agent:
        assert "label of alarm a" in agent._observer.facts().components["inference"].sentence


async def test_recordings_that_have_ended_are_told_of(device) -> None:
    configure(device, 'model = "tiny.tar"\n' + SOURCE.format("wrist") + SOURCE.format("ankle"))
    with assembled(device) as agent:
        sources = agent._supervisor.health
        found = []
        for name in ("wrist", "ankle"):
            sources[name].state = SourceState.ENDED
            agent._observer.look()
            state = agent._health.snapshot()["ingest"]
            found.append((state.level.name, state.sentence))
    wrist, ankle = (f"the recording of source {name} has ended" for name in ("wrist", "ankle"))
    assert found == [("OK", f"samples arrive; {wrist}"), ("DEGRADED", f"{wrist}; {ankle}")]


async def test_logs_name_a_model_by_its_slot_and_the_digest_that_commands_show(device, build, tiny, caplog) -> None:
    (device.path / "other.tar").write_bytes(build("ecg").tar[:-900])
    (device.path / "none.tar").write_bytes(b"nothing")
    configure(device, 'model = "tiny.tar"\n[[models]]\nbundle = "other.tar"\n[[models]]\nbundle = "none.tar"\n')
    caplog.set_level(logging.INFO)
    found = await serving(device)
    assert set(found) == {"tiny", "ecg", "none"}  # what has no manifest has the name of its file
    lines = [EventFormatter(journal=True).format(record) for record in caplog.records]
    assert any(f"model-serves slot=tiny model={tiny.digest.hex()[:12]} " in line for line in lines)
    (refused,) = [line for line in lines if "model-refused slot=ecg" in line]
    assert 'remedy="fetch the bundle again"' in refused


def refuse(name: str, work: object) -> None:
    del name, work
    raise StoreError("store-write", "full")


async def test_a_newer_file_of_the_same_name_replaces_its_slot_and_a_refused_one_does_not(device, build, tiny) -> None:
    configure(device, '[[models]]\nbundle = "tiny.tar"\n')
    assert await serving(device) == {"tiny": (tiny.digest, ("wrist",), "")}
    newer = build("tiny", version="2")
    (device.path / "tiny.tar").write_bytes(newer.tar[:3_000])
    digest, streams, error = (await serving(device))["tiny"]
    assert (digest, streams) == (tiny.digest, ("wrist",))
    assert error
    (device.path / "tiny.tar").write_bytes(newer.tar)
    assert await serving(device) == {"tiny": (newer.digest, ("wrist",), "")}


async def test_a_model_that_the_configuration_names_no_longer_serves_no_longer(device, build, tiny) -> None:
    (device.path / "ecg.tar").write_bytes(build("ecg").tar)
    configure(device, 'model = "tiny.tar"\n[[models]]\nbundle = "ecg.tar"\n')
    assert set(await serving(device)) == {"tiny", "ecg"}
    configure(device, 'model = "tiny.tar"\n')
    assert set(await serving(device)) == {"tiny"}
    assert set(await serving(device)) == {"tiny"}


async def test_a_note_of_one_model_is_taken_over_with_its_name(device, tiny, tiny_author) -> None:
    configure(device, 'model = "tiny.tar"\n')
    await serving(device)
    note = device.path / "state" / "models" / NOTE_NAME
    old = ActiveModel(tiny.digest.hex(), "", (bytes(tiny_author.verify_key).hex(),))
    note.write_bytes(msgspec.json.encode(old))
    with assembled(device) as agent:
        await agent._serving.start()
        assert agent._pipeline.model_digest == tiny.digest
        slots = agent._models.slots()
    assert slots == {"tiny": Slot(old, slots["tiny"].origin)}
    assert slots["tiny"].origin.path.endswith("tiny.tar")
    assert await serving(device) == {"tiny": (tiny.digest, ("wrist",), "")}


async def test_a_damaged_note_costs_nothing_that_the_configuration_names(device, tiny) -> None:
    configure(device, 'model = "tiny.tar"\n')
    await serving(device)
    (device.path / "state" / "models" / NOTE_NAME).write_bytes(b"{")
    found = await serving(device)
    assert found["tiny"] == (tiny.digest, ("wrist",), "")
    assert set(await serving(device)) == {"tiny"}


async def test_what_a_round_brings_takes_its_slot_and_keeps_its_streams(device, build, tiny, tiny_author) -> None:
    configure(device, '[[models]]\nbundle = "tiny.tar"\nstreams = ["bed-1"]\n')
    with assembled(device) as agent:
        await agent._serving.start()
        newer = device.path / "newer.tar"
        newer.write_bytes(build("tiny", version="2").tar)
        active = await agent._models.accept_file(newer, agent._policy())
        await agent._serving.take(active)
        found = [(model.name, model.digest, tuple(model.streams)) for model in agent._pipeline.models()]
    assert found == [("tiny", active.digest, ("bed-1",))]


async def test_two_models_on_two_streams_predict_in_a_real_agent(device, build) -> None:
    (device.path / "ecg.tar").write_bytes(build("ecg", stream="chest").tar)
    source = '[[sources]]\nkind = "replay"\nname = "{0}"\n[sources.options]\nstream = "{0}"\ndata = "signal.npz"\n'
    source += "speed = 10.0\nloop = true\n"
    text = 'model = "tiny.tar"\n[[models]]\nbundle = "ecg.tar"\nstreams = ["chest", "wrist"]\n'
    configure(device, text + source.format("wrist") + source.format("chest"))
    device.start()
    wanted = {("tiny", "wrist"), ("ecg", "chest"), ("ecg", "wrist")}

    def missing() -> int:
        with reading(device) as reader:
            found = {(one.model_name, one.stream) for one in reader.predictions(0, 100_000)}
        return len(wanted ^ found)

    device.await_predictions()
    assert device.await_value(missing, lambda count: count == 0) == 0
    assert device.stop() == 0
    assert "Traceback" not in (device.path / "log.txt").read_text()


async def test_samples_do_not_wait_for_a_model_that_takes_long(device, monkeypatch) -> None:
    monkeypatch.setattr("bedside.agent.daemon.MODELS_FIRST_S", 0.05)
    agent = Agent(device.path, load_agent_config(device.path), SystemClock(), SystemEntropy(), "1.0")
    tried, go_on = asyncio.Event(), asyncio.Event()
    start = agent._serving.start

    async def slowly() -> None:
        tried.set()
        await go_on.wait()
        await start()

    monkeypatch.setattr(agent._serving, "start", slowly)
    running = asyncio.create_task(agent.run())
    async with asyncio.timeout(20):
        await tried.wait()
        while not any(stream.blocks for stream in agent._pipeline.streams()):
            await asyncio.sleep(0.01)
        assert agent._pipeline.predictions == 0
        go_on.set()
        while not agent._pipeline.predictions:
            await asyncio.sleep(0.01)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("kind", ["device", "fifo", "sparse"])
async def test_a_configured_model_that_is_no_file_or_beyond_the_bound_is_refused_before_it_is_read(
    device, tmp_path, kind
) -> None:
    name = {"device": Path("/dev/zero"), "fifo": tmp_path / "fifo", "sparse": tmp_path / "sparse.tar"}[kind]
    if kind == "fifo":
        os.mkfifo(name)
    if kind == "sparse":
        with name.open("wb") as file:
            file.truncate(MAX_BLOB_BYTES + 1)
    configure(device, f'model = "tiny.tar"\n[[models]]\nbundle = "{name}"\n')
    async with asyncio.timeout(60):
        found = await serving(device)
    assert found["tiny"][2] == ""
    assert ("1073741824 at most" if kind == "sparse" else "not a regular file") in found[name.stem][2]


@contextmanager
def reading(device) -> Iterator[BufferReader]:
    with closing(
        BufferReader(device.path / "state" / "buffer.db", load_key_ring(device.path / "state" / "identity"))
    ) as reader:
        yield reader
