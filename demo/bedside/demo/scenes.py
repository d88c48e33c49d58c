"""Three things that go wrong in hospitals, done on purpose: each is a sentence, and checks of what had to hold."""

from __future__ import annotations

import asyncio
import signal
from typing import Final

from blake3 import blake3

from bedside.agent.rounds.contribution import CHILD as TRAINING_CHILD
from bedside.agent.rounds.outbox import DIRECTORY_NAME, Outbox
from bedside.demo.cast import Device
from bedside.demo.founding import COORDINATOR
from bedside.demo.operators import devices_of, has_ended, trustees_of
from bedside.demo.policies import RAISED_MINIMUM, policy_text, rule_words, write_policy
from bedside.demo.result import Check, Scene
from bedside.demo.waiting import wait_until
from bedside.demo.world import World
from bedside.proto.v1.operator_pb2 import RoundDetail

ROUND_TIMEOUT_S: Final = 60.0
OUTAGE_S: Final = 4.0
"""Seconds that the coordinator stays away: every device decides several windows in that time."""

_LOOK_S: Final = 0.03
_LINGER_S: Final = 0.5
"""Seconds between an update's last byte on the device and the kill: it is committed, and on its way, by then."""


async def kill_coordinator(world: World, number: int) -> Scene:
    """Kill the coordinator while devices train; they go on predicting, and finish the round when it is back."""
    started_s = world.elapsed_s()
    await _phase(world, number, "collecting")
    world.say("Scene 1: the coordinator is killed (kill -9) in the middle of a round.")
    agents = {device.name: world.processes[device.name].process.pid for device in world.cast.devices}
    world.poll()
    before = {name: eye.predictions for name, eye in world.eyes.items()}
    world.processes.kill(COORDINATOR)
    await asyncio.sleep(OUTAGE_S)
    world.poll()
    made = {name: eye.predictions - before[name] for name, eye in world.eyes.items()}
    world.processes.restart(COORDINATOR)
    world.say(f"It was away for {OUTAGE_S:.0f} s; meanwhile the devices made {sum(made.values())} predictions.")
    detail = await world.operator.wait_for(number, has_ended, "its end", ROUND_TIMEOUT_S)
    same = all(
        world.processes[name].is_running and world.processes[name].process.pid == agents[name] for name in agents
    )
    trained = len(world.cast.training)
    return Scene(
        "coordinator-killed",
        f"In round {number} the coordinator was killed with kill -9 and started again {OUTAGE_S:.0f} s later.",
        started_s,
        (
            Check(
                "predictions-went-on",
                min(made.values()) > 0,
                f"all {len(made)} devices went on predicting meanwhile: {sum(made.values())} predictions, "
                f"at least {min(made.values())} on each",
            ),
            Check(
                "agents-came-back",
                detail.summary.phase == "opened" and detail.summary.contributors == trained and same,
                f"the same round then opened with {detail.summary.contributors} of {trained} devices, "
                f"and no agent was restarted",
            ),
        ),
    )


async def kill_device(world: World, number: int) -> Scene:
    """Kill a device between its update's commit and its arrival; restarted, it sends the same bytes once."""
    started_s = world.elapsed_s()
    victim = next(device for device in world.cast.training if not device.on_board)
    begun = await _phase(world, number, "collecting")
    world.say(f"Scene 2: {victim.name} is killed (kill -9) while its upload is under way.")
    digest = await _kill_in_upload(world, victim, begun)
    world.processes.restart(victim.name)
    world.say(f"{victim.name} is started again and sends the same bytes.")
    detail = await world.operator.wait_for(number, has_ended, "its end", ROUND_TIMEOUT_S)
    found = [one for one in devices_of(detail) if one.label == victim.name and one.state == "counted"]
    copies = list(detail.upload_digests).count(digest)
    return Scene(
        "device-killed",
        f"In round {number} the device of {victim.name} was killed with kill -9 in mid-upload, and started again.",
        started_s,
        (
            Check(
                "same-bytes",
                copies == 1,
                f"the upload that it had signed before it died, {digest.hex()[:12]}, is in the sum {_times(copies)}",
            ),
            Check(
                "counted-once",
                len(found) == 1 and detail.summary.contributors == len(world.cast.training),
                f"it was counted {_times(len(found))} among {detail.summary.contributors} devices",
            ),
        ),
    )


async def raise_minimum(world: World) -> Scene:
    """Hospital B asks for larger sums than there are devices; the round is refused, until it takes that back."""
    started_s = world.elapsed_s()
    site = world.cast.sites[1]
    world.say(f"Scene 3: {site} raises its minimum to {RAISED_MINIMUM} devices in policy.toml.")
    _set_minimum(world, site, policy_text(site, world.signer_pk, RAISED_MINIMUM), rule_words(RAISED_MINIMUM))
    number = await world.start_rounds(1)
    detail = await world.operator.wait_for(number, has_ended, "its end", ROUND_TIMEOUT_S)
    words = [one.sentence for one in trustees_of(detail) if one.site == site and one.state == "refused"]
    world.say(f"Round {number} was refused: {words[0] if words else detail.summary.reason}")
    _set_minimum(world, site, policy_text(site, world.signer_pk), rule_words())
    after = await world.start_rounds(1)
    world.say(f"{site} restores its policy; round {after} begins.")
    opened = await world.operator.wait_for(after, has_ended, "its end", ROUND_TIMEOUT_S)
    return Scene(
        "policy-raised",
        f"Before round {number}, {site} raised its minimum to {RAISED_MINIMUM} devices in its policy.toml, "
        "and took that back afterwards.",
        started_s,
        (
            Check(
                "round-refused",
                detail.summary.phase == "failed" and bool(words),
                f"its trustee refused round {number}: “{words[0] if words else detail.summary.reason}”",
            ),
            Check(
                "next-round-opened",
                opened.summary.phase == "opened",
                f"round {after} opened with {opened.summary.contributors} devices",
            ),
        ),
    )


def _set_minimum(world: World, site: str, text: str, words: str) -> None:
    """The hospital's file: its trustee reads it, and so do its devices."""
    write_policy(world.paths.site(site) / "policy.toml", text)
    for device in world.cast.devices:
        if device.site == site:
            write_policy(world.paths.device(device.name) / "policy.toml", text)
    world.board.rules[site] = words


async def _kill_in_upload(world: World, victim: Device, begun: RoundDetail) -> bytes:
    """Kill the device once its update is committed and cannot have arrived; returns the upload's digest (BLAKE3).

    The coordinator is held (SIGSTOP) from the moment in which the device trains, so that the time between commit and
    arrival lasts long enough to hit on any machine.
    """
    device = world.processes[victim.name]
    waiting = world.paths.device_state(victim.name) / DIRECTORY_NAME / Outbox.name_for(begun.summary.plan_digest)
    coordinator = world.processes[COORDINATOR].process
    await wait_until(
        lambda: device.runs_child(TRAINING_CHILD), world.clock, "its training", ROUND_TIMEOUT_S, look_s=_LOOK_S
    )
    coordinator.send_signal(signal.SIGSTOP)
    try:
        await wait_until(waiting.exists, world.clock, "an update to be sent", ROUND_TIMEOUT_S, look_s=_LOOK_S)
        await asyncio.sleep(_LINGER_S)
        world.processes.kill(victim.name)
        return blake3(waiting.read_bytes()).digest()
    finally:
        coordinator.send_signal(signal.SIGCONT)


async def _phase(world: World, number: int, phase: str) -> RoundDetail:
    def reached(detail: RoundDetail) -> bool:
        return detail.summary.phase == phase or has_ended(detail)

    return await world.operator.wait_for(number, reached, phase, ROUND_TIMEOUT_S)


def _times(count: int) -> str:
    return {0: "not at all", 1: "exactly once", 2: "twice"}.get(count, f"{count} times")
