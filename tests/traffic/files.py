"""Files and databases that others fill."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from traffic.feeder import Feeder


class CsvFeeder(Feeder):
    """A file to which a row is added every minute; one in seven is wrong in some way."""

    kind = "csv"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._path = folder / "ward.csv"
        self._path.write_text("time,pulse,spo2,temp\n")

    def options(self) -> dict[str, Any]:
        fields = {
            "heart_rate": {"code": "pulse", "sent_unit": "/min"},
            "spo2": {"code": "spo2", "sent_unit": "%"},
            "temperature": {"code": "temp", "unit": "Cel", "sent_unit": "[degF]"},
        }
        return {"stream": self.name, "path": str(self._path), "mode": "tail", "every_s": 0.02, "fields": fields}

    async def minute(self, number: int, start_ns: int) -> None:
        with self._path.open("a") as file:
            file.write(self._row(number, _iso(start_ns)) + "\n")

    def _row(self, number: int, time: str) -> str:
        good = f"{60 + number % 40},{95 + number % 5},{98 + number % 3}.5"
        match number % 28:
            case 7:
                self.sent.bad["bad-time"] += 3
                return f"yesterday,{good}"
            case 14:
                self.sent.bad["bad-message"] += 3
                return f"{time},70"
            case 21:
                self.sent.good += 2
                self.sent.bad["not-a-number"] += 1
                return f"{time},regular,97,98.6"
            case 27:
                self.sent.good += 2
                self.sent.bad["out-of-range"] += 1
                return f"{time},70,970,98.6"
            case 26:
                self.sent.good += 3  # two of them say "no value"
                return f"{time},-999,,98.6"
        self.sent.good += 3
        return f"{time},{good}"


class SqlFeeder(Feeder):
    """A table to which ten rows are added every ten minutes; in one of them a number is text."""

    kind = "sql"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._path = folder / "ward.db"
        with closing(self._connect()) as database:
            database.execute("CREATE TABLE vitals (id INTEGER PRIMARY KEY, at TEXT, pulse, lactate)")

    def options(self) -> dict[str, Any]:
        fields = {
            "heart_rate": {"code": "pulse", "sent_unit": "/min"},
            "lactate": {"unit": "mmol/L", "sent_unit": "mmol/L"},
        }
        query = "SELECT id, at, pulse, lactate FROM vitals WHERE id > :since ORDER BY id"
        return {
            "stream": self.name,
            "url": f"sqlite:///{self._path}",
            "query": query,
            "watermark": "id",
            "watermark_type": "integer",
            "begin": "0",
            "time_column": "at",
            "every_s": 0.1,
            "fields": fields,
        }

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path)

    async def minute(self, number: int, start_ns: int) -> None:
        if number % 10:
            return
        rows = [(_iso(start_ns + at * 10**9), 60 + at, 1.0 + at / 10) for at in range(9)]
        with closing(self._connect()) as database, database:
            wrong = (_iso(start_ns + 9 * 10**9), 70, "haemolysed")
            database.executemany("INSERT INTO vitals (at, pulse, lactate) VALUES (?, ?, ?)", [*rows, wrong])
        self.sent.good += 2 * len(rows) + 1
        self.sent.bad["not-a-number"] += 1


def _iso(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // 10**9, UTC).isoformat()
