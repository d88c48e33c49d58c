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
        return {"stream": self.name, "path": str(self._path), "mode": "tail", "poll_s": 0.02, "fields": fields}

    async def minute(self, number: int, start_ns: int) -> None:
        time = datetime.fromtimestamp(start_ns // 10**9, UTC).isoformat()
        with self._path.open("a") as file:
            file.write(self._row(number, time) + "\n")

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
    """A table to which a row is added every minute; one in ten holds text where a number should be."""

    kind = "sql"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._path = folder / "ward.db"
        with closing(self._connect()) as database:
            database.execute("CREATE TABLE vitals (id INTEGER PRIMARY KEY, at TEXT, pulse, lactate)")

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, isolation_level=None)

    async def minute(self, number: int, start_ns: int) -> None:
        time = datetime.fromtimestamp(start_ns // 10**9, UTC).isoformat()
        lactate: Any = "haemolysed" if number % 10 == 9 else 1.0 + number % 7 / 10
        with closing(self._connect()) as database:
            database.execute(
                "INSERT INTO vitals (at, pulse, lactate) VALUES (?, ?, ?)", (time, 60 + number % 30, lactate)
            )
        self.sent.good += 1 if number % 10 == 9 else 2
        self.sent.bad["not-a-number"] += number % 10 == 9
