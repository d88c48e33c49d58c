"""349 figures of an intensive-care stay's first 48 hours, from that stay alone.

What was never measured is filled with a fixed clinical normal: no statistics of other stays enter, so that a device can
make the vector. Every figure is centred and scaled by fixed clinical values, too; what the federation's own moments do
after that is the model's first layer.

Source of the series: Silva et al. 2012, "Predicting in-hospital mortality of ICU patients: the PhysioNet/Computing in
Cardiology challenge 2012".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


class Series(NamedTuple):
    """One series: its plausible range, a normal value, how far apart patients are, and whether its logarithm is taken.

    `spread` is in units of the series, or of log(1 + value).
    """

    low: float
    high: float
    normal: float
    spread: float
    logged: bool = False


SERIES = {
    "ALP": Series(1, 5000, 80, 0.6, True),
    "ALT": Series(1, 20000, 30, 1.2, True),
    "AST": Series(1, 30000, 35, 1.2, True),
    "Albumin": Series(0.5, 7, 3.5, 0.6),
    "BUN": Series(1, 250, 15, 0.7, True),
    "Bilirubin": Series(0.05, 70, 0.7, 0.5, True),
    "Cholesterol": Series(20, 500, 160, 20),
    "Creatinine": Series(0.1, 25, 0.9, 0.4, True),
    "DiasABP": Series(10, 200, 60, 15),
    "FiO2": Series(0.2, 1, 0.21, 0.25),
    "GCS": Series(3, 15, 15, 5),
    "Glucose": Series(10, 1500, 120, 0.4, True),
    "HCO3": Series(3, 60, 24, 5),
    "HCT": Series(5, 70, 33, 5),
    "HR": Series(15, 250, 80, 18),
    "K": Series(1, 12, 4.1, 0.6),
    "Lactate": Series(0.1, 40, 1.5, 0.4, True),
    "MAP": Series(15, 220, 80, 18),
    "Mg": Series(0.3, 10, 2, 0.4),
    "NIDiasABP": Series(10, 200, 60, 15),
    "NIMAP": Series(15, 220, 80, 15),
    "NISysABP": Series(30, 300, 120, 22),
    "Na": Series(90, 190, 139, 5),
    "PaCO2": Series(5, 150, 40, 9),
    "PaO2": Series(15, 600, 120, 0.5, True),
    "Platelets": Series(2, 2000, 220, 0.5, True),
    "RespRate": Series(2, 80, 18, 5),
    "SaO2": Series(30, 100, 97, 3),
    "SysABP": Series(30, 300, 120, 22),
    "Temp": Series(25, 44, 37, 1),
    "TroponinI": Series(0.01, 100, 0.4, 0.4, True),
    "TroponinT": Series(0.005, 50, 0.03, 0.3, True),
    "Urine": Series(0, 5000, 100, 1, True),
    "WBC": Series(0.05, 300, 10, 0.5, True),
    "Weight": Series(25, 300, 80, 20),
    "pH": Series(6.5, 8, 7.4, 0.07),
}
ONCE = {"Cholesterol"}
"""Nobody measures these twice in two days: they have no deviation and no trend."""

VENTILATED = "MechVent"
DAY_2 = 24 * 60
DAYS = 24 * 60

Readings = Mapping[str, tuple[Float64, Float64]]
"""Minutes and plausible values of every series, in the order of time."""


class Feature(NamedTuple):
    """One figure: its value, and what it is centred and scaled by. A value of None was not measured."""

    name: str
    value: float | None
    normal: float
    spread: float

    @property
    def scaled(self) -> float:
        """As the model is given it."""
        return 0.0 if self.value is None else (self.value - self.normal) / self.spread


class Stay(NamedTuple):
    """Descriptors on admission; negative values are unknown."""

    age: float
    sex: float
    height_cm: float
    unit: int
    weight_kg: float


def features(stay: Stay, readings: Readings) -> list[Feature]:
    """All figures of a stay, in an order of their own."""
    found = [figure for name, series in SERIES.items() for figure in _of_series(name, series, *readings[name])]
    return found + _of_ventilation(*readings[VENTILATED]) + _derived(readings) + _of_admission(stay)


def plausible(name: str, minutes: Float64, values: Float64) -> tuple[Float64, Float64]:
    """Without readings that no patient has; a pH whose point slipped is put right."""
    if name == "pH":
        values = np.where(values > 100, values / 100, np.where(values > 14, values / 10, values))
    low, high = (1.0, 1.0) if name == VENTILATED else SERIES[name][:2]
    kept = (values >= low) & (values <= high)
    return minutes[kept], values[kept]


def _of_series(name: str, series: Series, minutes: Float64, values: Float64) -> list[Feature]:
    """Last, lowest, highest, mean, deviation, first, second day less first, count, and whether there is none."""
    values = np.log1p(values) if series.logged else values
    normal, spread = math.log1p(series.normal) if series.logged else series.normal, series.spread
    late, early = values[minutes >= DAY_2], values[minutes < DAY_2]
    known = len(values) > 0
    level = {
        "last": values[-1:],
        "min": values.min(keepdims=True) if known else values,
        "max": values.max(keepdims=True) if known else values,
        "mean": values.mean(keepdims=True) if known else values,
        "first": values[:1],
    }
    trend = late.mean() - early.mean() if len(late) and len(early) else 0.0
    changes = (
        Feature(f"{name}/deviation", float(values.std()) if known else None, 0.0, spread / 4),
        Feature(f"{name}/trend", float(trend), 0.0, spread / 3),
    )
    return [
        *(
            Feature(f"{name}/{kind}", float(v[0]) if known else None, normal, series.spread)
            for kind, v in level.items()
        ),
        *(() if name in ONCE else changes),
        Feature(f"{name}/count", math.log1p(len(values)), 2, 1),
        Feature(f"{name}/missing", float(not known), 0.5, 0.3),
    ]


def _of_ventilation(minutes: Float64, values: Float64) -> list[Feature]:
    span = float(np.ptp(minutes)) / DAYS if len(minutes) else 0.0
    return [
        Feature("ventilated/any", float(len(values) > 0), 0.5, 0.5),
        Feature("ventilated/day_2", float((minutes >= DAY_2).any()), 0.5, 0.5),
        Feature("ventilated/count", math.log1p(len(values)), 1.5, 1),
        Feature("ventilated/span", span, 0.5, 0.5),
    ]


def _derived(readings: Readings) -> list[Feature]:
    """What clinicians compute of several series; invasive pressures go before those of a cuff."""
    at, urine = readings["Urine"]
    systolic, mean = (_first_known(readings, *names) for names in (("SysABP", "NISysABP"), ("MAP", "NIMAP")))
    oxygen, inspired = readings["PaO2"][1], readings["FiO2"][1]
    rate, coma = readings["HR"][1], readings["GCS"][1] <= 8
    urea, creatinine = readings["BUN"][1], readings["Creatinine"][1]
    oxygenated, filtered = bool(len(oxygen) and len(inspired)), bool(len(urea) and len(creatinine))
    late = urine[at >= DAY_2]
    return [
        Feature("urine/total", math.log1p(urine.sum()) if len(urine) else None, math.log1p(3500), 1),
        Feature("urine/day_2", math.log1p(late.sum()) if len(late) else None, math.log1p(1700), 1),
        *_pressure("systolic", systolic, 120, 22),
        *_pressure("mean_pressure", mean, 80, 15),
        Feature("oxygenation/last", float(oxygen[-1] / inspired[-1]) if oxygenated else None, 400, 150),
        Feature("oxygenation/worst", float(oxygen.min() / inspired.max()) if oxygenated else None, 400, 150),
        Feature("shock", float(rate.mean() / systolic.mean()) if len(rate) and len(systolic) else None, 0.7, 0.2),
        Feature("urea_to_creatinine", math.log(urea[-1] / creatinine[-1]) if filtered else None, math.log(16), 0.5),
        Feature("coma", float(coma.mean()) if len(coma) else None, 0.0, 0.4),
    ]


def _pressure(name: str, values: Float64, normal: float, spread: float) -> list[Feature]:
    figures = {"last": values[-1:], "min": values.min(initial=np.inf), "mean": values.sum() / max(1, len(values))}
    return [
        Feature(f"{name}/{kind}", float(np.ravel(one)[0]) if len(values) else None, normal, spread)
        for kind, one in figures.items()
    ]


def _first_known(readings: Readings, invasive: str, cuff: str) -> Float64:
    values = readings[invasive][1]
    return values if len(values) else readings[cuff][1]


def _of_admission(stay: Stay) -> list[Feature]:
    height = stay.height_cm if 120 <= stay.height_cm <= 220 else None
    weight = stay.weight_kg if 25 <= stay.weight_kg <= 300 else None
    mass_index = weight / (height / 100) ** 2 if weight and height else None
    return [
        Feature("age", stay.age, 65, 17),
        Feature("age_squared", stay.age**2 / 100, 42, 20),
        Feature("sex", stay.sex if stay.sex >= 0 else None, 0.5, 0.5),
        Feature("height", height, 170, 8),
        Feature("weight", weight, 80, 22),
        Feature("mass_index", mass_index, 27.5, 6),
        *(Feature(f"unit_{number}", float(stay.unit == number), 0.5, 0.45) for number in (1, 2, 3, 4)),
    ]
