import os
import socket

import pytest

from bedside.service.notify import Notifier


class FixedClock:
    def now_ns(self):
        return 0

    def monotonic_s(self):
        return 12.5


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    name = str(tmp_path / "notify") if request.param == "path" else f"@bedside-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name[1:] if name.startswith("@") else name)
        receiver.settimeout(5)
        yield receiver, Notifier(FixedClock(), {"NOTIFY_SOCKET": name})


def test_the_manager_hears_every_state(manager):
    receiver, notifier = manager
    notifier.ready("ingesting")
    notifier.status("two\nlines")
    notifier.watchdog()
    notifier.reloading()
    notifier.stopping()
    heard = [receiver.recv(1000).decode() for _ in range(5)]
    assert heard == [
        "READY=1\nSTATUS=ingesting",
        "STATUS=two\\nlines",
        "WATCHDOG=1",
        "RELOADING=1\nMONOTONIC_USEC=12500000",
        "STOPPING=1",
    ]


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "/no/such/socket"}, {"NOTIFY_SOCKET": "vsock:1:2"}])
def test_without_a_manager_nothing_happens(environ):
    Notifier(FixedClock(), environ).ready("up")


def test_the_watchdog_interval_is_half_of_the_limit_and_only_for_this_process():
    mine = {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    assert Notifier(FixedClock(), mine).watchdog_interval_s == 15
    assert Notifier(FixedClock(), mine | {"WATCHDOG_PID": "1"}).watchdog_interval_s is None
    assert Notifier(FixedClock(), {"WATCHDOG_USEC": "no"}).watchdog_interval_s is None
