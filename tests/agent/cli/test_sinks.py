"""What commands say of sinks."""

import os

from bedside.agent.cli.glance import Glance, Stored
from bedside.agent.cli.screen import draw
from bedside.agent.cli.sink_words import needs_help, sink_fields, sink_words
from bedside.proto.v1.local_pb2 import AgentStatus, SinkStatus


def test_words_of_a_sink() -> None:
    well = SinkStatus(name="a", state="idle", sent=9)
    assert (sink_words(well), needs_help(well)) == ("idle", False)
    away = SinkStatus(name="a", state="waiting", waiting=7)
    assert (sink_words(away), needs_help(away)) == ("failed, tries again, 7 wait", True)
    lossy = SinkStatus(name="a", state="sending", skipped=2, refused=1)
    assert (sink_words(lossy), needs_help(lossy)) == ("sending, 2 skipped, 1 refused", True)
    assert sink_fields(SinkStatus())["last_sent_age_ms"] is None
    assert sink_fields(SinkStatus(last_sent_age_ms=0))["last_sent_age_ms"] == 0


def test_top_names_the_sinks_that_need_somebody() -> None:
    from rich.console import Console

    status = AgentStatus(sinks=[SinkStatus(name="well", state="idle"), SinkStatus(name="his", state="waiting")])
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(draw(Glance(0, Stored(), status), 40, 80))
        text = console.export_text()
    assert "sink his: failed, tries again" in text
    assert "well" not in text
