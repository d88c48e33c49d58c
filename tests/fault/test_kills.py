"""kill -9 at the worst moments of a round. The round ends as if nothing had happened, and counts every device once.

The slow link makes the moments last: while it holds the end of one upload, the round cannot be sealed; while one
trustee is suspended, the others have voted and nobody answers.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

import psutil
import pytest
from chaos_proxy import ChaosProxy
from federation import TASK, Agent, Federation, bedside

from watched_rounds import wait_until

pytestmark = pytest.mark.system

MAX_EXAMPLES = 256
HELD_BYTES = 400_000
"""Bytes of the upload that pass before the link holds: more than its first chunk, and less than all of it."""


def device(detail: Any, label: str) -> Any:
    (found,) = [one for cohort in detail["cohorts"] for one in cohort["devices"] if one["label"] == label]
    return found


def trustee(detail: Any, site: str) -> Any:
    (found,) = [one for cohort in detail["cohorts"] for one in cohort["trustees"] if one["site"] == site]
    return found


def assert_all_counted_once(federation: Federation, detail: Any) -> None:
    count = len(federation.agents)
    assert detail["phase"] == "opened", json.dumps(detail, indent=1)
    (cohort,) = detail["cohorts"]
    assert cohort["set_size"] == count
    assert sorted(one["label"] for one in cohort["devices"] if one["state"] == "counted") == sorted(federation.agents)
    assert len(set(detail["upload_digests"])) == count
    assert detail["counts"]["examples"] == count * MAX_EXAMPLES  # whoever were in it twice would be in this sum twice


def start_held_round(federation: Federation, slow_link: ChaosProxy, slow_agent: Agent) -> int:
    """Start a round and wait until the slow device is in the middle of its upload, and all others are done."""
    slow_link.hold_after(HELD_BYTES)  # before the round: what a waiting device sends is small beside an upload
    number = federation.start_round()

    def is_held(detail: Any) -> bool:
        states = {one["label"]: one["state"] for one in detail["cohorts"][0]["devices"]}
        held = device(detail, slow_agent.label)
        return (
            states.pop(slow_agent.label) == "uploading"
            and held["received_bytes"] > 0
            and set(states.values()) == {"accepted"}
        )

    held = federation.wait_round(number, is_held, "one device is in mid-upload and the others are done")
    assert slow_link.is_holding
    size = device(held, next(label for label in federation.agents if label != slow_agent.label))["received_bytes"]
    assert 0 < device(held, slow_agent.label)["received_bytes"] < size
    return number


def is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_device_killed_in_training_trains_again_and_is_counted_once(federation: Federation) -> None:
    agent = federation.agents["birch-1"]
    number = federation.start_round()
    leader = psutil.Process(federation.table[agent.process].process.pid)

    def training_child() -> psutil.Process | None:
        for child in leader.children():
            try:
                if any("contribute_child" in word for word in child.cmdline()):
                    return child
            except psutil.Error:
                continue
        return None

    child = wait_until(training_child, "the training child runs", interval_s=0.005)
    federation.table.kill(agent.process)
    wait_until(lambda: is_gone(child), "the training child has ended with it")
    assert device(federation.show(number), agent.label)["state"] != "accepted"
    federation.start_agent(agent)
    assert_all_counted_once(federation, federation.finish_round(number))


def test_a_device_killed_in_mid_upload_goes_on_where_it_was_and_is_counted_once(
    federation: Federation, slow_link: ChaosProxy, slow_agent: Agent
) -> None:
    number = start_held_round(federation, slow_link, slow_agent)
    before = device(federation.show(number), slow_agent.label)["received_bytes"]
    federation.table.kill(slow_agent.process)
    slow_link.cut()
    passed = slow_link.upstream_bytes
    slow_link.release()
    federation.start_agent(slow_agent)
    detail = federation.finish_round(number)
    assert_all_counted_once(federation, detail)
    size = device(detail, slow_agent.label)["received_bytes"]
    assert slow_link.upstream_bytes - passed < size - before + 60_000  # what had arrived was not sent again


def test_a_trustee_killed_between_vote_and_answer_answers_after_its_restart(
    federation: Federation, slow_link: ChaosProxy, slow_agent: Agent
) -> None:
    number = start_held_round(federation, slow_link, slow_agent)
    site = federation.sites["birch"]
    with federation.suspended(federation.sites["alder"].process):
        slow_link.release()
        federation.wait_round(number, lambda detail: trustee(detail, "birch")["state"] == "voted", "birch has voted")
        federation.table.kill(site.process)
    federation.wait_round(number, lambda detail: detail["phase"] == "voted", "all have voted")
    assert trustee(federation.show(number), "birch")["state"] == "voted"
    federation.start_trustee(site)
    assert_all_counted_once(federation, federation.finish_round(number))


def test_a_coordinator_killed_between_seal_and_result_goes_on_from_its_store(
    federation: Federation, slow_link: ChaosProxy, slow_agent: Agent
) -> None:
    number = start_held_round(federation, slow_link, slow_agent)
    with federation.suspended(federation.sites["alder"].process):
        slow_link.release()
        federation.wait_round(number, lambda detail: trustee(detail, "birch")["state"] == "voted", "birch has voted")
        assert federation.show(number)["phase"] == "sealed"
        federation.table.kill("coordinator")
    federation.start_coordinator()
    assert_all_counted_once(federation, federation.finish_round(number))


def test_a_trustee_without_its_ram_store_says_lost_and_the_next_round_opens(
    federation: Federation, slow_link: ChaosProxy, slow_agent: Agent
) -> None:
    number = start_held_round(federation, slow_link, slow_agent)
    site = federation.sites["cedar"]
    federation.table.kill(site.process)
    shutil.rmtree(site.runtime)  # what a reboot leaves of a tmpfs
    federation.start_trustee(site)
    detail = federation.finish_round(number)
    assert detail["phase"] == "failed"
    assert trustee(detail, "cedar")["state"] == "lost"
    assert "cedar lost its round key" in detail["reason"]
    shown = bedside("round", "show", "--task", TASK, "--round", str(number), "--socket", federation.socket)
    assert "cedar lost its round key" in shown
    assert not detail["counts"]
    slow_link.release()
    following = federation.start_round()
    assert_all_counted_once(federation, federation.finish_round(following))
