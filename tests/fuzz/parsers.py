"""Every parser of bytes that come from outside.

To add one: an `add(...)` in the file of its part, and its row in README.md (a test says which is missing).
"""

from __future__ import annotations

import clinical_parsers
import core_parsers
import device_parsers
import hl7_parsers
import mqtt_parsers
import service_parsers
import table_parsers
from registry import PARSERS, Parser

__all__ = [
    "PARSERS",
    "Parser",
    "clinical_parsers",
    "core_parsers",
    "device_parsers",
    "hl7_parsers",
    "mqtt_parsers",
    "service_parsers",
    "table_parsers",
]
