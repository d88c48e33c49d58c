"""What people write in an afternoon: `python plain_receivers.py mqtt|mllp PORT DATABASE`.

mqtt    an aiomqtt subscriber that writes a row per message, and commits it
mllp    python-hl7's own server, which writes the same rows, and answers AA after the commit
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from typing import Any

import aiomqtt
import hl7.mllp


def opened(path: str) -> sqlite3.Connection:
    """A database as it is recommended: WAL, and a commit that is on the disk."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE IF NOT EXISTS vitals (at, heart_rate, spo2)")
    database.commit()
    return database


def insert(database: sqlite3.Connection, row: tuple[Any, Any, Any]) -> None:
    """One row, durable when this returns."""
    with database:
        database.execute("INSERT INTO vitals VALUES (?, ?, ?)", row)


async def receive_mqtt(port: int, database: sqlite3.Connection) -> None:
    """Subscribe with QoS 1."""
    async with aiomqtt.Client("127.0.0.1", port, identifier="plain", clean_session=False) as client:
        await client.subscribe("vitals", qos=1)
        print("ready", flush=True)
        async for message in client.messages:
            said = json.loads(message.payload)  # type: ignore[arg-type]  # bytes
            insert(database, (said["ts"], said["hr"], said["spo2"]))


async def receive_mllp(port: int, database: sqlite3.Connection) -> None:
    """Listen."""

    async def serve(reader: Any, writer: Any) -> None:
        try:
            while True:
                message = await reader.readmessage()
                values = [float(str(one[5])) for one in message.segments("OBX")]
                insert(database, (str(message.segment("OBR")[7]), *values))
                writer.writemessage(message.create_ack("AA"))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await hl7.mllp.start_hl7_server(serve, "127.0.0.1", port, encoding="utf-8") as server:
        print("ready", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    receive = {"mqtt": receive_mqtt, "mllp": receive_mllp}[sys.argv[1]]
    asyncio.run(receive(int(sys.argv[2]), opened(sys.argv[3])))
