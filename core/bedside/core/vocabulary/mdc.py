"""The part of the ISO/IEEE 11073-10101 nomenclature that wards send, its units, and LOINC's codes of vital signs.

A code is context-free (partition * 65536 + term), or the term alone where a message names the partition. Codes
that differ in name alone share a field. Plain blood pressure (150017-150019) does not say whether a cuff or a catheter
measured it, and so has fields of its own, as LOINC's 8480-6 has; a source's `fields` may say more.

Source: ISO/IEEE 11073-10101 (partition 2, SCADA; partition 4, dimensions); LOINC, vital signs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bedside.core.vocabulary.quantities import QUANTITIES, Quantity, agree
from bedside.core.vocabulary.ucum import UNITS, Unit, meanings

PARTITION_SCADA: Final = 2
"""Measured quantities."""
PARTITION_DIM: Final = 4
"""Units."""
_PARTITION: Final = 0x10000


@dataclass(frozen=True, slots=True)
class Term:
    """One code of the nomenclature, and the quantities that it can stand for: told apart by the unit sent."""

    code: int
    reference: str
    quantities: tuple[Quantity, ...]


_TERMS: Final = """
16770 ECG_HEART_RATE heart_rate
18442 PULS_RATE pulse_rate
18450 BLD_PULS_RATE_INV abp_pulse_rate
18458 PULS_OXIM_PULS_RATE pulse_rate
18466 PLETH_PULS_RATE pulse_rate
18474 PULS_RATE_NON_INV nibp_pulse_rate
16994 ECG_V_P_C_RATE pvc_rate
16156 ECG_TIME_PD_QRS_GL qrs_duration
16160 ECG_TIME_PD_QT_GL qt_interval
16164 ECG_TIME_PD_QTc qtc_interval
16168 ECG_TIME_PD_RR_GL rr_interval
769 ECG_AMPL_ST_I st_i
770 ECG_AMPL_ST_II st_ii
771 ECG_AMPL_ST_V1 st_v1
772 ECG_AMPL_ST_V2 st_v2
773 ECG_AMPL_ST_V3 st_v3
774 ECG_AMPL_ST_V4 st_v4
775 ECG_AMPL_ST_V5 st_v5
776 ECG_AMPL_ST_V6 st_v6
829 ECG_AMPL_ST_III st_iii
830 ECG_AMPL_ST_AVR st_avr
831 ECG_AMPL_ST_AVL st_avl
832 ECG_AMPL_ST_AVF st_avf
835 ECG_AMPL_ST_V st_v
19384 PULS_OXIM_SAT_O2 spo2
19400 PULS_OXIM_SAT_O2_ART_LEFT spo2_left
19404 PULS_OXIM_SAT_O2_ART_RIGHT spo2_right
19252 SAT_O2_ART sao2
19260 SAT_O2_VEN svo2
19248 SAT_O2_QUAL spo2_quality
19376 PULS_OXIM_PERF_REL perfusion_index
19416 BLD_PERF_INDEX perfusion_index
18945 PRESS_BLD_SYS bp_systolic
18946 PRESS_BLD_DIA bp_diastolic
18947 PRESS_BLD_MEAN bp_mean
18949 PRESS_BLD_NONINV_SYS nibp_systolic
18950 PRESS_BLD_NONINV_DIA nibp_diastolic
18951 PRESS_BLD_NONINV_MEAN nibp_mean
19228 PRESS_CUFF cuff_pressure
19229 PRESS_CUFF_SYS nibp_systolic
19230 PRESS_CUFF_DIA nibp_diastolic
19231 PRESS_CUFF_MEAN nibp_mean
18961 PRESS_BLD_ART_SYS abp_systolic
18962 PRESS_BLD_ART_DIA abp_diastolic
18963 PRESS_BLD_ART_MEAN abp_mean
18965 PRESS_BLD_ART_ABP_SYS abp_systolic
18966 PRESS_BLD_ART_ABP_DIA abp_diastolic
18967 PRESS_BLD_ART_ABP_MEAN abp_mean
18973 PRESS_BLD_ART_PULM_SYS pap_systolic
18974 PRESS_BLD_ART_PULM_DIA pap_diastolic
18975 PRESS_BLD_ART_PULM_MEAN pap_mean
18980 PRESS_BLD_ART_PULM_WEDGE pawp
19012 PRESS_BLD_VEN_CENT cvp
19015 PRESS_BLD_VEN_CENT_MEAN cvp
22536 PRESS_INTRA_CRAN icp
22539 PRESS_INTRA_CRAN_MEAN icp
22532 PRESS_CEREB_PERF cpp
20490 RESP_RATE resp_rate
20506 TTHOR_RESP_RATE resp_rate
20522 CO2_RESP_RATE resp_rate_co2
20538 VENT_CO2_RESP_RATE resp_rate_co2
20498 AWAY_RESP_RATE resp_rate_airway
20514 VENT_RESP_RATE resp_rate_vent
20586 PULS_OXIM_PLETH_RESP_RATE resp_rate_pleth
20578 ACOUSTIC_RESP_RATE resp_rate_acoustic
20636 CONC_AWAY_CO2_ET etco2 etco2_fraction
20656 AWAY_CO2_ET etco2 etco2_fraction
20824 VENT_CONC_AWAY_CO2_ET etco2 etco2_fraction
20856 VENT_AWAY_CO2_ET etco2 etco2_fraction
20640 CONC_AWAY_CO2_EXP co2_expired co2_expired_fraction
20660 AWAY_CO2_EXP co2_expired co2_expired_fraction
20644 CONC_AWAY_CO2_INSP co2_inspired co2_inspired_fraction
20664 AWAY_CO2_INSP co2_inspired co2_inspired_fraction
20648 VENT_CONC_AWAY_O2 fio2
20848 VENT_CONC_AWAY_O2_INSP fio2
21124 CONC_AWAY_O2_INSP fio2
20796 VOL_AWAY_TIDAL tidal_volume
20908 VENT_VOL_TIDAL tidal_volume
20808 VOL_MINUTE_AWAY minute_volume
20924 VENT_VOL_MINUTE minute_volume
20732 PRESS_AWAY_END_EXP_POS peep
20904 VENT_PRESS_AWAY_END_EXP_POS peep
20745 PRESS_AWAY_INSP_PEAK airway_pressure_peak
20747 PRESS_AWAY_INSP_MEAN airway_pressure_mean
20712 PRESS_RESP_PLAT airway_pressure_plateau
21352 VENT_PRESS_RESP_PLAT airway_pressure_plateau
19272 TEMP temp
19292 TEMP_BODY temp_body
19296 TEMP_CORE temp_core
19316 TEMP_SKIN temp_skin
19320 TEMP_TYMP temp_tympanic
19276 TEMP_FOLEY temp_bladder
19280 TEMP_ART temp_arterial
19324 TEMP_VEN temp_venous
19284 TEMP_AWAY temp_airway
19300 TEMP_ESOPH temp_oesophagus
19308 TEMP_NASOPH temp_nasopharynx
57348 TEMP_RECT temp_rectal
57352 TEMP_ORAL temp_oral
57356 TEMP_EAR temp_ear
57360 TEMP_FINGER temp_finger
57364 TEMP_BLD temp_blood
57376 TEMP_TOE temp_toe
57380 TEMP_AXILLA temp_axillary
57384 TEMP_GIT temp_gut
19204 OUTPUT_CARD cardiac_output
18700 OUTPUT_CARD_INDEX cardiac_index
19332 VOL_BLD_STROKE stroke_volume
57664 MASS_BODY_ACTUAL weight
57668 LEN_BODY_ACTUAL height
57680 RATIO_MASS_BODY_LEN_SQ bmi
28948 CONC_GLU_GEN glucose
29112 CONC_GLU_CAPILLARY_WHOLEBLOOD glucose
29116 CONC_GLU_CAPILLARY_PLASMA glucose
29120 CONC_GLU_VENOUS_WHOLEBLOOD glucose
29124 CONC_GLU_VENOUS_PLASMA glucose
29128 CONC_GLU_ARTERIAL_WHOLEBLOOD glucose
29132 CONC_GLU_ARTERIAL_PLASMA glucose
29292 CONC_GLU_UNDETERMINED_WHOLEBLOOD glucose
29296 CONC_GLU_UNDETERMINED_PLASMA glucose
29140 CONC_GLU_ISF glucose_interstitial
29036 BASE_EXCESS_ART_INDEX base_excess
28676 CONC_PH_ART ph_arterial
28724 CONC_PH_VEN ph_venous
28680 CONC_PCO2_ART pco2_arterial
28728 CONC_PCO2_VEN pco2_venous
28684 CONC_PO2_ART po2_arterial
28732 CONC_PO2_VEN po2_venous
22656 SCORE_GLAS_COMA glasgow_coma_score
"""
"""Term code, reference id without `MDC_`, and the fields. Control solution (29136) is no patient's glucose."""

_LOINC: Final = """
8867-4 heart_rate
8889-8 pulse_rate
2708-6 spo2
59408-5 spo2
8480-6 bp_systolic
8462-4 bp_diastolic
8478-0 bp_mean
76215-3 abp_systolic
76213-8 abp_diastolic
76214-6 abp_mean
9279-1 resp_rate
8310-5 temp_body
8331-1 temp_oral
8332-9 temp_rectal
8328-7 temp_axillary
8333-7 temp_tympanic
29463-7 weight
3141-9 weight
8302-2 height
39156-5 bmi
3150-0 fio2
19889-5 etco2 etco2_fraction
2339-0 glucose
2345-7 glucose
41653-7 glucose
15074-8 glucose
11555-0 base_excess
1925-7 base_excess
2744-1 ph_arterial
2746-6 ph_venous
2019-8 pco2_arterial
2021-4 pco2_venous
2703-7 po2_arterial
2705-2 po2_venous
9269-2 glasgow_coma_score
"""

_DIMENSIONS: Final = """
512 DIMLESS 1
544 PERCENT %
608 PARTS_PER_MILLION [ppm]
992 PH [pH]
1280 X_M m
1297 CENTI_M cm
1298 MILLI_M mm
1344 X_FOOT [ft_i]
1376 X_INCH [in_i]
1600 X_L L
1618 MILLI_L mL
1728 X_G g
1731 KILO_G kg
1746 MILLI_G mg
1760 X_LB [lb_av]
1952 KG_PER_M_SQ kg/m2
2112 X_G_PER_DL g/dL
2130 MILLI_G_PER_DL mg/dL
2176 SEC s
2194 MILLI_SEC ms
2195 MICRO_SEC us
2208 MIN min
2240 HR h
2272 DAY d
2496 HZ Hz
2720 BEAT_PER_MIN /min
2752 PULS_PER_MIN /min
2784 RESP_PER_MIN /min
3072 X_L_PER_MIN L/min
3842 HECTO_PASCAL hPa
3843 KILO_PASCAL kPa
3872 MMHG mm[Hg]
3904 CM_H2O cm[H2O]
4256 X_VOLT V
4274 MILLI_VOLT mV
4275 MICRO_VOLT uV
4288 X_OHM Ohm
4384 KELVIN K
4416 FAHR [degF]
4722 MILLI_MOLE_PER_L mmol/L
4723 MICRO_MOLE_PER_L umol/L
6048 DEGC Cel
"""
"""Term code, reference id without `MDC_DIM_`, UCUM code."""


def _rows(table: str) -> list[list[str]]:
    return [line.split(" ") for line in table.strip().splitlines()]


def _quantities(fields: list[str]) -> tuple[Quantity, ...]:
    return tuple(QUANTITIES[field] for field in fields)


TERMS: Final[dict[int, Term]] = {
    code: Term(code, f"MDC_{reference}", _quantities(fields))
    for number, reference, *fields in _rows(_TERMS)
    for code in (PARTITION_SCADA * _PARTITION + int(number),)
}
"""By context-free code."""
_BY_REFERENCE: Final = {term.reference: term for term in TERMS.values()}
LOINC: Final[dict[str, Term]] = {code: Term(0, "", _quantities(fields)) for code, *fields in _rows(_LOINC)}
"""By LOINC code; what is given no MDC code has neither code nor reference."""
UNIT_TERMS: Final[dict[int, Unit]] = {
    PARTITION_DIM * _PARTITION + int(number): UNITS[code] for number, _, code in _rows(_DIMENSIONS)
}
"""By context-free code."""
_UNIT_REFERENCES: Final[dict[str, Unit]] = {
    f"MDC_DIM_{name}": UNITS[code]
    for _, reference, code in _rows(_DIMENSIONS)
    for name in (reference, reference.removeprefix("X_"))
}

_MDC: Final = frozenset({"MDC", "urn:iso:std:iso:11073:10101", "urn:oid:2.16.840.1.113883.6.24"})
_LN: Final = frozenset({"LN", "LOINC", "http://loinc.org", "urn:oid:2.16.840.1.113883.6.1"})


def system_of(name: str) -> str:
    """`MDC` or `LN` for the names that messages give these coding systems, and other names as they are."""
    return (
        "MDC" if name in _MDC or name.startswith("urn:oid:1.2.840.10004.1.1.1.0.0.1") else "LN" if name in _LN else name
    )


def term_of(code: str, system: str) -> Term | None:
    """What a code stands for.

    Args:
        code: a number or reference id of MDC, or a LOINC code, as sent.
        system: as sent. Without one only a reference id is understood: it says itself what it is.

    Returns:
        None for a code that is not in the vocabulary.
    """
    match system_of(system):
        case "MDC" if code.isascii() and code.isdecimal() and len(code) <= len(str(0xFFFFFFFF)):
            number = int(code)
            return TERMS.get(number if number >= _PARTITION else PARTITION_SCADA * _PARTITION + number)
        case "MDC" | "":
            return _BY_REFERENCE.get(code)
        case "LN":
            return LOINC.get(code)
        case _:
            return None


def contradicted(code: str, system: str, others: Iterable[tuple[str, str]]) -> bool:
    """Whether another code that came with the same value, with its system, is of another quantity.

    What is not in the vocabulary contradicts nothing.
    """
    term = term_of(code, system)
    if term is None:
        return False
    return any(
        not any(agree(one.field, its.field) for one in term.quantities for its in known.quantities)
        for known in (term_of(*other) for other in others)
        if known is not None
    )


def units_contradict(one: str, other: str) -> bool:
    """Whether two texts, as sent in the place of a unit, are of different units; an unknown one is of any."""
    first, second = (meanings(text) | {unit for unit in (unit_term(text),) if unit} for text in (one, other))
    return bool(first) and bool(second) and first.isdisjoint(second)


def unit_term(text: str) -> Unit | None:
    """The unit of an MDC code (context-free or term alone) or reference id, as sent in the place of a unit."""
    if text.isascii() and text.isdecimal() and 1 < len(text) <= len(str(0xFFFFFFFF)):
        number = int(text)
        return UNIT_TERMS.get(number if number >= _PARTITION else PARTITION_DIM * _PARTITION + number)
    return _UNIT_REFERENCES.get(text)


def is_unit_code(text: str) -> bool:
    """Whether a text is a context-free code of the partition of dimensions, or a reference id in it."""
    if text.isascii() and text.isdecimal() and len(text) <= len(str(0xFFFFFFFF)):
        return int(text) >> 16 == PARTITION_DIM
    return text.startswith("MDC_DIM_")
