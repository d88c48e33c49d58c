"""Peers on the network: an interface engine that speaks MLLP through python-hl7, and a publisher at a real broker."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hl7
import numpy as np
from hl7.mllp import HL7StreamReader, HL7StreamWriter, open_hl7_connection

from bedside.agent.sources.supervisor import SourceHealth
from mosquitto_broker import Mosquitto, publish
from ports import free_port
from traffic.feeder import Feeder

PLETH_HZ = 25


class MllpFeeder(Feeder):
    """Two beds; a message a minute, each acknowledged before the next; many have something that cannot be mapped."""

    kind = "mllp"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._port = free_port()
        self._peer: tuple[HL7StreamReader, HL7StreamWriter] | None = None

    def options(self) -> dict[str, Any]:
        beds = {"ICU^1": "icu-1", "ICU^2": "icu-2"}
        return {"listen": f"127.0.0.1:{self._port}", "beds": beds}

    def streams(self) -> tuple[str, ...]:
        return ("icu-1", "icu-2")

    async def start(self, health: SourceHealth) -> None:
        while self._peer is None:
            try:
                self._peer = await open_hl7_connection("127.0.0.1", self._port, encoding="utf-8")
            except OSError:
                await asyncio.sleep(0.02)

    async def minute(self, number: int, start_ns: int) -> None:
        assert self._peer is not None
        reader, writer = self._peer
        text = self._message(number, start_ns)
        for _ in range(2 if number % 50 == 49 else 1):  # an acknowledgement that was lost: it comes once more
            writer.writemessage(text)
            await writer.drain()
            answer = await reader.readmessage()
            assert str(answer.segment("MSA")[1]) == "AA", str(answer)
        self.sent.repeated += number % 50 == 49

    def _message(self, number: int, start_ns: int) -> hl7.Message:
        time = datetime.fromtimestamp(start_ns // 10**9, UTC).strftime("%Y%m%d%H%M%S+0000")
        place = "ICU^3" if number % 30 == 29 else f"ICU^{1 + number % 2}"
        known = number % 30 != 29
        rows = [
            ("NM", "147842^MDC_ECG_HEART_RATE^MDC", 60 + number % 60, "264864^MDC_DIM_BEAT_PER_MIN^MDC", "F"),
            ("NM", "150456^MDC_PULS_OXIM_SAT_O2^MDC", 90 + number % 10, "262688^MDC_DIM_PERCENT^MDC", "F"),
            ("NM", "150344^MDC_TEMP^MDC", -999 if number % 9 == 8 else 37.2, "268192^MDC_DIM_DEGC^MDC", "F"),
        ]
        bad = []
        if number % 4 == 3:
            rows.append(("NM", "99999^LOCAL^L", 5, "", "F"))
            bad.append("unknown-code")
        if number % 6 == 5:
            rows.append(("NM", "151562^MDC_RESP_RATE^MDC", "regular", "264928^MDC_DIM_RESP_PER_MIN^MDC", "F"))
            bad.append("not-a-number")
        if number % 8 == 7:
            rows.append(("NM", "150021^MDC_PRESS_BLD_NONINV_SYS^MDC", 118, "266016^MDC_DIM_MMHG^MDC", "C"))
            bad.append("bad-status")
        if known:
            self.sent.good += 3
            self.sent.bad.update(bad)
        else:
            self.sent.bad["unknown-place"] += len(rows)
        obx = [
            f"OBX|{at}|{kind}|{code}|1.1.1.{at}|{value}|{unit}|||||{status}|||{time}"
            for at, (kind, code, value, unit, status) in enumerate(rows, 1)
        ]
        head = f"MSH|^~\\&|GATEWAY|WARD|||{time}||ORU^R01^ORU_R01|m{number}|P|2.6"
        segments = [head, "PID|||123^^^H^MR", f"PV1||I|{place}", f"OBR|1|||VITALS|||{time}", *obx]
        return hl7.parse("\r".join(segments) + "\r")

    async def stop(self) -> None:
        if self._peer is not None:
            self._peer[1].close()


class MqttFeeder(Feeder):
    """Messages of QoS 1 through a real mosquitto: JSON, raw samples, FHIR and APDUs.

    Twice a day the broker is away for a moment.
    """

    kind = "mqtt"
    needs = "mosquitto"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._broker = Mosquitto(folder / "broker")

    async def prepare(self) -> None:
        self._broker.start()

    def options(self) -> dict[str, Any]:
        values = {"hr": "hr", "spo2": "spo2"}
        json_payload = {"kind": "json", "values": values, "time": "ts", "time_format": "ms"}
        samples = {"kind": "samples", "rate_hz": PLETH_HZ, "time": "ms"}
        return {
            "broker": f"127.0.0.1:{self._broker.port}",
            "client_id": "gateway",
            "tls": False,
            "fields": {
                "monitor_rate": {"code": "hr", "unit": "/min", "sent_unit": "/min", "low": 0, "high": 400},
                "monitor_spo2": {"code": "spo2", "unit": "%", "sent_unit": "%", "low": 0, "high": 100},
            },
            "topics": {
                "ward/+/vitals": {"stream": "mqtt-{1}", "places": ["bed-1", "bed-2"], "payload": json_payload},
                "ward/bed-1/pleth": {"stream": "mqtt-pleth", "payload": samples},
                "gateway/fhir": {"stream": "mqtt-fhir", "payload": {"kind": "fhir"}},
                "gateway/apdu": {"stream": "mqtt-apdu", "payload": {"kind": "apdu", "configuration": 400}},
            },
        }

    def streams(self) -> tuple[str, ...]:
        return ("mqtt-bed-1", "mqtt-bed-2", "mqtt-pleth", "mqtt-fhir", "mqtt-apdu")

    async def start(self, health: SourceHealth) -> None:
        while not health.gauge.connected:
            await asyncio.sleep(0.02)

    async def minute(self, number: int, start_ns: int) -> None:
        if number % 720 == 40:
            await asyncio.to_thread(self._restart)
        start_ms = start_ns // 10**6
        messages = [self._vitals(number, at, start_ms + 10_000 * at) for at in range(6)]
        pleth = (np.arange(10 * PLETH_HZ) % 100 + number % 50).astype("<i2").tobytes()
        if number % 20 == 19:
            pleth = pleth[:-1]
            self.sent.bad["bad-message"] += 1
        else:
            self.sent.good += 10 * PLETH_HZ
        messages.append(("ward/bed-1/pleth", start_ms.to_bytes(8, "little") + pleth))
        moment = datetime.fromtimestamp(start_ns // 10**9, UTC)
        messages += [("gateway/fhir", self._observation(number, moment)), ("gateway/apdu", _oximeter(number, moment))]
        self.sent.good += 2
        await publish(self._broker.port, messages)

    def _observation(self, number: int, moment: datetime) -> bytes:
        wrong = number % 13 == 12
        self.sent.bad["bad-status"] += wrong
        self.sent.good += not wrong
        observation = {
            "resourceType": "Observation",
            "status": "entered-in-error" if wrong else "final",
            "effectiveDateTime": moment.isoformat(),
            "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
            "valueQuantity": {"value": 60 + number % 60, "system": "http://unitsofmeasure.org", "code": "/min"},
        }
        return json.dumps(observation).encode()

    def _vitals(self, number: int, at: int, time_ms: int) -> tuple[str, bytes]:
        values: dict[str, Any] = {"ts": time_ms, "hr": 60 + number % 60, "spo2": 90 + at}
        place, whole = f"bed-{1 + at % 2}", True
        if at == 3 and number % 7 == 6:
            whole = False
            self.sent.bad["bad-message"] += 1
        elif at == 4 and number % 9 == 8:
            place = "bed-9"
            self.sent.bad["unknown-place"] += 2
        elif at == 5 and number % 5 == 4:
            values["hr"] = "n/a"
            self.sent.bad["not-a-number"] += 1
            self.sent.good += 1
        else:
            values["spo2"] = -999 if number % 11 == 10 else values["spo2"]
            self.sent.good += 2
        payload = json.dumps(values).encode()
        return f"ward/{place}/vitals", payload if whole else payload[:-5]

    def _restart(self) -> None:
        self._broker.stop()
        self._broker.start()

    async def stop(self) -> None:
        self._broker.stop()


def _oximeter(number: int, moment: datetime) -> bytes:
    """A report of a pulse oximeter of standard configuration 400: saturation and pulse, each with its time."""
    time = moment.strftime("%Y%m%d%H%M%S00")
    return bytes.fromhex(
        "e7000036 0034 0002 0101002e 0000ffffffff0d1d0024 f0000000 0002001c"
        f"0001000a{90 + number % 10:04x}{time} 000a000a{60 + number % 60:04x}{time}"
    )
