"""A ward: a real buffer with rows in it, the sinks of a configuration, and a receiver that can fail in every way."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec

from bedside.agent.alarms.machine import Happens, happen
from bedside.agent.buffer.alarms import AlarmTable
from bedside.agent.buffer.rows import Alarm, Prediction
from bedside.agent.buffer.store import BufferStore
from bedside.agent.config import BUFFER_NAME, AgentConfig, SinkConfig
from bedside.agent.health.facts import SinkFacts
from bedside.agent.sinks.engine import SinkEngine
from bedside.core.samples import Record
from bedside.service.platform import SystemClock, SystemEntropy

KEYS = b"k" * 32
DEADLINE_S = 20.0
S = 1_000_000_000
BEGAN_NS = 1_780_000_000 * S


class Ward:
    """A device's buffer, with a stream `bed-4-ecg` of predictions and one `bed-4-vitals` of records, and its sinks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = SystemClock()
        self.engine: SinkEngine | None = None
        self.open()
        self.session = self.buffer.sessions.open("bed-4-ecg", BEGAN_NS, "cli")
        self.vitals = self.buffer.sessions.open("bed-4-vitals", BEGAN_NS, "cli")
        self.predicted = self.recorded = 0

    def open(self) -> None:
        self.buffer = BufferStore(self.path / BUFFER_NAME, KEYS, self.clock, SystemEntropy())
        self.table = AlarmTable(self.buffer)

    def begin(self, *sinks: SinkConfig) -> SinkEngine:
        config = AgentConfig(state_dir=self.path, sinks=list(sinks))
        self.engine = SinkEngine(config, self.path, self.buffer, KEYS, self.clock, SystemEntropy(), "device-1")
        self.engine.start()
        return self.engine

    async def end(self, *, kill: bool = False) -> None:
        """Stop the sinks and close the buffer; a kill loses what was not committed."""
        if self.engine is not None:
            await self.engine.stop()
            await asyncio.sleep(0)
        self.engine = None
        if kill:
            self.buffer.database.close()
        else:
            self.buffer.close()

    def predict(self, label: str = "fall", confidence: float = 0.9, *, session: str = "", model: str = "har") -> None:
        self.predicted += 1
        end_ns = BEGAN_NS + self.predicted * S
        row = Prediction(
            "bed-4-ecg", session or self.session, end_ns - S, end_ns, label, confidence, b"m" * 32, 0.01, model
        )
        self.buffer.add_prediction(row)
        self.buffer.flush()

    def raise_alarm(self, rule: str = "fall", session: str = "") -> Alarm:
        at_ns = BEGAN_NS + 5 * S
        alarm = Alarm(rule, "bed-4-ecg", session or self.session, "high", at_ns, 0.95, prediction=1)
        (stored,) = self.table.write([alarm])
        assert stored is not None
        return stored

    def change(self, alarm: Alarm, what: Happens) -> Alarm:
        after = happen(alarm, what, BEGAN_NS + 9 * S, "desk")
        assert after is not None
        (stored,) = self.table.write([after])
        assert stored is not None
        return stored

    def record(self, at_s: float = 0.0, **values: float) -> None:
        self.recorded += 1
        time_ns = BEGAN_NS + int((at_s or self.recorded) * S)
        units = {"heart_rate": "/min", "spo2": "%"}
        self.buffer.add_record(Record("bed-4-vitals", time_ns, values or {"heart_rate": 71.0, "spo2": 98.0}, units))
        self.buffer.flush()

    def facts(self, name: str = "out") -> SinkFacts:
        assert self.engine is not None
        return next(one for one in self.engine.facts() if one.name == name)

    async def until(self, good: Callable[[], object]) -> None:
        """Let the sinks work until something holds."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not good():
            assert time.monotonic() < deadline_s, self.engine.facts() if self.engine else "no sinks"
            await asyncio.sleep(0.005)


def sink(kind: str, **options: object) -> SinkConfig:
    """A sink called `out` that waits for 50 ms at most."""
    options = {"within_s": 0.05, **options} if options.get("mode") not in ("scheduled", "demand") else options
    plain = msgspec.to_builtins(options)
    return SinkConfig(kind=kind, name="out", options=plain)


class Receiver:
    """A real HTTP server, with TLS where it is given a context.

    Attributes:
        requests: method, path, headers and body of each that came.
        answers: what the next requests get: a status, or `hang`, or `cut`; 200 when it is empty.
        always: what every request gets when `answers` is empty.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: list[object] = []
        self.always: object = 200
        self.body = b""
        self.headers: dict[str, str] = {}
        self.refuse: Callable[[bytes], bool] = lambda _body: False
        self.released = threading.Event()
        self._tls = tls
        self.port = 0
        self.start()

    def start(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status = receiver.answers.pop(0) if receiver.answers else receiver.always
                if receiver.refuse(body):
                    status = 422
                receiver.requests.append((self.command, self.path, dict(self.headers), body))
                if status == "hang":
                    receiver.released.wait(DEADLINE_S)
                    status = "cut"
                if status == "cut":
                    self.close_connection = True
                    return
                self.send_response(int(str(status)))
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(receiver.body)))
                self.end_headers()
                self.wfile.write(receiver.body)

            do_POST = do_PUT = answer  # noqa: N815 - the server's names

            def log_message(self, *_arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_arguments: object) -> None:
                pass

        self._server = Server(("127.0.0.1", self.port), Handler)
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.released.clear()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}/in"

    def bodies(self) -> list[dict[str, object]]:
        return [json.loads(body) for _, _, _, body in self.requests]

    def items(self) -> list[dict[str, object]]:
        """Of all webhook requests that were answered."""
        return [item for body in self.bodies() for item in body["items"]]
