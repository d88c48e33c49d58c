"""`bedside agent`: set up, run and look at one device."""

from bedside.agent.cli.database import database
from bedside.agent.cli.looking import health, predictions, sessions, status, streams
from bedside.agent.cli.setting_up import agent, enrol, init, renew, run

for _command in (database, status, health, predictions, streams, sessions):
    agent.add_command(_command)

__all__ = ["agent", "enrol", "health", "init", "predictions", "renew", "run", "sessions", "status", "streams"]
