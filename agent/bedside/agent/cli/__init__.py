"""`bedside agent`: set up, run, look at and talk to one device."""

from bedside.agent.cli.alarms import alarms
from bedside.agent.cli.checking import check
from bedside.agent.cli.database import database
from bedside.agent.cli.labels import labels
from bedside.agent.cli.looking import health, models, status, streams
from bedside.agent.cli.model import model
from bedside.agent.cli.personal import personal
from bedside.agent.cli.predictions import predict, predictions
from bedside.agent.cli.quarantine import quarantine
from bedside.agent.cli.sessions import forget, sessions
from bedside.agent.cli.setting_up import agent
from bedside.agent.cli.setup import setup
from bedside.agent.cli.sinks import sinks
from bedside.agent.cli.sources import sources
from bedside.agent.cli.top import top

for _command in (
    alarms,
    check,
    database,
    forget,
    health,
    labels,
    model,
    models,
    personal,
    predict,
    predictions,
    quarantine,
    sessions,
    setup,
    sinks,
    sources,
    status,
    streams,
    top,
):
    agent.add_command(_command)

__all__ = ["agent"]
