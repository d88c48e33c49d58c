"""What wards measure: the name of each quantity in a record, its unit, and what it can be at all.

Quantities that a monitor sends side by side by different methods (heart rate of the ECG, pulse of the oximeter, pulse
of the cuff) have a field each. Bounds are what the quantity can be, not what is healthy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Quantity:
    """One thing that is measured.

    Attributes:
        field: its name in a record.
        unit: UCUM code of the field.
        low: smallest possible value, in `unit`.
        high: largest possible value.
        signed: whether -1 is a value that it can have, in some unit in which it is sent.
        substance: for conversion between mass and amount.
    """

    field: str
    unit: str
    low: float
    high: float
    signed: bool = False
    substance: str = ""


_SITES: Final = (
    *("body", "core", "skin", "tympanic", "rectal", "oral", "ear", "axillary", "finger", "toe", "bladder", "gut"),
    *("oesophagus", "nasopharynx", "arterial", "venous", "blood", "airway"),
)
"""Where a temperature is measured; plain `temp` is one of a monitor that does not say it."""

_GENERAL: Final[dict[str, frozenset[str]]] = {
    **dict.fromkeys(("pulse_rate", "nibp_pulse_rate", "abp_pulse_rate"), frozenset({"heart_rate"})),
    **{
        f"{method}_{phase}": frozenset({f"bp_{phase}"})
        for method in ("nibp", "abp")
        for phase in ("systolic", "diastolic", "mean")
    },
    **{f"resp_rate_{method}": frozenset({"resp_rate"}) for method in ("co2", "airway", "vent", "pleth", "acoustic")},
    **dict.fromkeys(("spo2", "spo2_left", "spo2_right"), frozenset({"spo2", "sao2"})),
    **{f"temp_{site}": frozenset({"temp", "temp_body"}) for site in _SITES},
    "glucose_interstitial": frozenset({"glucose"}),
}
"""What a field may be called where the method is left open: LOINC's 8867-4 goes with every pulse, 8310-5 with every
temperature (FHIR's vital signs ask for them beside a device's own code)."""

QUANTITIES: Final[dict[str, Quantity]] = {
    one.field: one
    for one in (
        Quantity("heart_rate", "/min", 0, 400),
        Quantity("pulse_rate", "/min", 0, 400),
        Quantity("nibp_pulse_rate", "/min", 0, 400),
        Quantity("abp_pulse_rate", "/min", 0, 400),
        Quantity("pvc_rate", "/min", 0, 400),
        Quantity("rr_interval", "ms", 100, 5_000),
        Quantity("qrs_duration", "ms", 0, 2_000),
        Quantity("qt_interval", "ms", 0, 2_000),
        Quantity("qtc_interval", "ms", 0, 2_000),
        *(
            Quantity(f"st_{lead}", "mV", -5, 5, signed=True)
            for lead in ["i", "ii", "iii", "avr", "avl", "avf", "v", "v1", "v2", "v3", "v4", "v5", "v6"]
        ),
        Quantity("spo2", "%", 0, 100),
        Quantity("spo2_left", "%", 0, 100),
        Quantity("spo2_right", "%", 0, 100),
        Quantity("sao2", "%", 0, 100),
        Quantity("svo2", "%", 0, 100),
        Quantity("spo2_quality", "%", 0, 100),
        Quantity("perfusion_index", "%", 0, 100),
        *(
            Quantity(f"{prefix}_{phase}", "mm[Hg]", low, 400, signed=low < 0)
            for prefix, low in (("bp", 0), ("nibp", 0), ("abp", -30), ("pap", -30))
            for phase in ("systolic", "diastolic", "mean")
        ),
        Quantity("cuff_pressure", "mm[Hg]", 0, 400),
        Quantity("pawp", "mm[Hg]", -30, 200, signed=True),
        Quantity("cvp", "mm[Hg]", -50, 200, signed=True),
        Quantity("icp", "mm[Hg]", -50, 200, signed=True),
        Quantity("cpp", "mm[Hg]", -50, 300, signed=True),
        Quantity("resp_rate", "/min", 0, 200),
        Quantity("resp_rate_co2", "/min", 0, 200),
        Quantity("resp_rate_airway", "/min", 0, 200),
        Quantity("resp_rate_vent", "/min", 0, 200),
        Quantity("resp_rate_pleth", "/min", 0, 200),
        Quantity("resp_rate_acoustic", "/min", 0, 200),
        Quantity("etco2", "mm[Hg]", 0, 250),
        Quantity("etco2_fraction", "%", 0, 40),
        Quantity("co2_expired", "mm[Hg]", 0, 250),
        Quantity("co2_expired_fraction", "%", 0, 40),
        Quantity("co2_inspired", "mm[Hg]", 0, 250),
        Quantity("co2_inspired_fraction", "%", 0, 40),
        Quantity("fio2", "%", 0, 100),
        Quantity("tidal_volume", "mL", 0, 5_000),
        Quantity("minute_volume", "L/min", 0, 200),
        Quantity("peep", "cm[H2O]", -50, 200, signed=True),
        Quantity("airway_pressure_peak", "cm[H2O]", -50, 200, signed=True),
        Quantity("airway_pressure_mean", "cm[H2O]", -50, 200, signed=True),
        Quantity("airway_pressure_plateau", "cm[H2O]", -50, 200, signed=True),
        *(Quantity(field, "Cel", 0, 50, signed=True) for field in ("temp", *(f"temp_{site}" for site in _SITES))),
        Quantity("cardiac_output", "L/min", 0, 50),
        Quantity("cardiac_index", "L/min/m2", 0, 30),
        Quantity("stroke_volume", "mL", 0, 500),
        Quantity("weight", "kg", 0, 700),
        Quantity("height", "cm", 0, 300),
        Quantity("bmi", "kg/m2", 0, 300),
        Quantity("glucose", "mg/dL", 0, 2_000, substance="glucose"),
        Quantity("glucose_interstitial", "mg/dL", 0, 2_000, substance="glucose"),
        Quantity("base_excess", "mmol/L", -60, 60, signed=True),
        Quantity("ph_arterial", "[pH]", 6, 8.5),
        Quantity("ph_venous", "[pH]", 6, 8.5),
        Quantity("pco2_arterial", "mm[Hg]", 0, 300),
        Quantity("pco2_venous", "mm[Hg]", 0, 300),
        Quantity("po2_arterial", "mm[Hg]", 0, 800),
        Quantity("po2_venous", "mm[Hg]", 0, 800),
        Quantity("glasgow_coma_score", "1", 3, 15),
    )
}
"""By field."""


def agree(one: str, other: str) -> bool:
    """Whether two fields can be one quantity: they are the same, or one is what the other is called in general."""
    return one == other or other in _GENERAL.get(one, ()) or one in _GENERAL.get(other, ())
