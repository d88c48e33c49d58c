"""`report.html`: one page that needs nothing else, drawn from a `Result` alone."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable, Sequence
from html import escape
from string import Template
from typing import Final

from bedside.demo import svg
from bedside.demo.charts import Bar, Line, PhaseBar, accuracy_bars, accuracy_lines, histogram, phase_timeline
from bedside.demo.result import Check, Result, Scene
from bedside.service.output import human_bytes

_PAGE: Final = "report_page.html"
_COLOURS: Final = {"alone": svg.SLATE, "federated": svg.TEAL, "int8": "#4aa3b3", "pooled": svg.AMBER}


def render_report(result: Result) -> str:
    """Return the page."""
    template = Template(importlib.resources.files("bedside.demo").joinpath(_PAGE).read_text("utf-8"))
    return template.substitute(
        **_opening(result),
        **_pictures(result),
        hospitals=_hospitals(result),
        scenes="".join(_scene(scene) for scene in result.scenes),
        rounds=_rounds(result),
        figures=_figures(result),
        checks=_check_table(result.checks()),
        wearers=_wearers(result),
        footer=escape(" · ".join(f"{name} {version}" for name, version in result.versions.items())),
    )


def _opening(result: Result) -> dict[str, str]:
    failed = result.failed()
    trained = len(result.hospitals)
    return {
        "headline": "Three hospitals trained one model. The signals stayed at the bedside; only sums were opened.",
        "standfirst": escape(
            f"{result.devices} devices at {trained} hospitals learned to tell seven physiotherapy exercises apart from "
            f"smartwatch signals, in {result.rounds} rounds of one masked upload each. Everything on this page was "
            f"measured in this run, which took {result.run_seconds:.0f} s."
        ),
        "verdict": _verdict(result),
        "verdict_class": "not-held" if failed else "held",
        "facts": _facts(result),
        "held_out_windows": f"{result.held_out_windows:,}",
        "view_round": str(result.view.round_number),
        "view_contributors": str(result.view.contributors),
    }


def _verdict(result: Result) -> str:
    failed, slow = len(result.failed()), len(result.warnings())
    checks = len(result.checks()) - slow
    note = "; the run was slow" if slow else ""
    if not failed:
        return f"all {checks} checks hold{note}"
    return f"{failed} of {checks} checks {'does' if failed == 1 else 'do'} not hold{note}"


def _facts(result: Result) -> str:
    facts = (
        (f"{result.federated_accuracy:.3f}", f"federated accuracy, against {result.local_accuracy:.3f} alone"),
        (f"{result.int8_agreement:.1%}", "of windows: int8 on the device agrees with float"),
        (human_bytes(result.upload_bytes_per_round), "sent by one device in a round"),
        (f"{result.round_seconds_median:.1f} s", "median round, plan to result"),
        (f"{result.agent_rss_mb:.0f} MB", "resident memory of an agent"),
        (f"{result.trustee_rss_mb:.0f} MB", "resident memory of a trustee"),
    )
    return "".join(f'<div class="fact"><b>{value}</b><span>{escape(words)}</span></div>' for value, words in facts)


def _pictures(result: Result) -> dict[str, str]:
    view = result.view
    alone = tuple(result.local_accuracies.values())
    bars = (
        Bar("each wearer alone", result.local_accuracy, _COLOURS["alone"], alone),
        Bar("federated", result.federated_accuracy, _COLOURS["federated"]),
        Bar("federated int8", result.federated_int8_accuracy, _COLOURS["int8"]),
        Bar("all data pooled", result.pooled_accuracy, _COLOURS["pooled"]),
    )
    opened = [one for one in result.history if one.accuracy is not None]
    points = [(float(at), one.accuracy or 0.0) for at, one in enumerate(opened, start=1)]
    levels = (
        Bar("alone", result.local_accuracy, _COLOURS["alone"]),
        Bar("pooled", result.pooled_accuracy, _COLOURS["pooled"]),
    )
    return {
        "accuracy_bars": accuracy_bars(bars),
        "accuracy_lines": accuracy_lines([Line("federated", points, _COLOURS["federated"])], levels, len(opened)),
        "upload_histogram": histogram(
            view.upload, "0", f"2^{view.word_bits}", svg.SLATE, "words of one stored upload, evenly spread"
        ),
        "opened_histogram": histogram(
            view.opened,
            f"{view.opened_low:.0f} steps",
            f"{view.opened_high:+.0f} steps",
            svg.TEAL,
            "words of the opened sum, a bell around zero",
        ),
        "upload_note": escape(
            f"{sum(view.upload):,} masked words. Chi-square against uniform noise: {view.upload_z:+.1f} standard "
            "deviations. It opens only together with others, and only with the masks of all trustees."
        ),
        "opened_note": escape(
            "The same words after all masks cancelled: quantiser steps of the summed update, around zero. "
            "This, and nothing smaller, is what becomes readable."
        ),
        "timeline": phase_timeline([PhaseBar(one.number, one.phases) for one in result.history]),
    }


def _hospitals(result: Result) -> str:
    rows = [
        (
            one.site,
            _numbers(one.wearers),
            _numbers(one.held_out) or "none",
            f"{one.windows:,}",
            f"at least {one.min_trusted} devices of sites it trusts",
            str(one.answers),
            f"{one.trustee_rss_mb:.0f} MB",
        )
        for one in result.hospitals
    ]
    columns = ("hospital", "wearers training", "only inferring", "windows", "its rule", "sums opened", "trustee memory")
    return table(columns, rows, right=(3, 5, 6))


def _scene(scene: Scene) -> str:
    checks = "".join(f"<li>{_mark(check)} {escape(check.sentence)}</li>" for check in scene.checks)
    return f'<div class="scene"><h3>{escape(scene.sentence)}</h3><ul>{checks}</ul></div>'


def _rounds(result: Result) -> str:
    rows = [
        (
            str(one.number),
            "opened" if not one.reason else one.reason,
            str(one.contributors) if one.contributors else "",
            _share(one.received_accuracy),
            _share(one.accuracy),
            f"{one.seconds:.1f} s",
        )
        for one in result.history
    ]
    note = (
        '<p class="note">"On the devices" is the accuracy of the model that the round started from, on the devices\' '
        "own windows: it reached the coordinator only as a secure sum.</p>"
    )
    columns = ("round", "outcome", "devices", "on the devices", "held out", "time")
    return table(columns, rows, right=(0, 2, 3, 4, 5)) + note


def _figures(result: Result) -> str:
    rows = [
        ("model", f"{result.parameters:,} parameters, {human_bytes(result.model_bytes)} checkpoint"),
        ("bundle, fetched once", human_bytes(result.bundle_bytes)),
        ("upload of one device and round", f"{result.upload_bytes_per_round:,} bytes"),
        ("training windows", f"{result.windows:,}"),
        ("coordinator memory", f"{result.coordinator_rss_mb:.0f} MB"),
        ("agent memory (median)", f"{result.agent_rss_mb:.0f} MB"),
        ("trustee memory (median)", f"{result.trustee_rss_mb:.0f} MB"),
        ("set-up", f"{result.setup_seconds:.0f} s"),
        ("run", f"{result.run_seconds:.0f} s"),
    ]
    if result.device_accuracy is not None:
        words = f"{result.device_accuracy:.3f} over {result.device_predictions:,} predictions"
        rows.insert(0, ("held-out devices' own predictions", words))
    return table(("figure", "value"), rows)


def _check_table(checks: Sequence[Check]) -> str:
    rows = "".join(f"<tr><td>{_mark(check)}</td><td>{escape(check.sentence)}</td></tr>" for check in checks)
    return f"<table><tr><th>check</th><th></th></tr>{rows}</table>"


def _wearers(result: Result) -> str:
    where = {f"wearer-{number}": one.site for one in result.hospitals for number in one.wearers}
    rows = [(name, where.get(name, ""), f"{value:.3f}") for name, value in result.local_accuracies.items()]
    return table(("wearer", "hospital", "accuracy of a model trained on this wearer alone"), rows, right=(2,))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return an HTML table; `right` are the indexes of columns with numbers."""
    kinds = [' class="n"' if index in right else "" for index in range(len(columns))]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, columns, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _mark(check: Check) -> str:
    words, kind = ("✓ holds", "held") if check.passed else ("✗ does not hold", "not-held")
    if not check.passed and not check.required:
        words, kind = "△ slow", "slow"
    return f'<span class="mark {kind}">{words}</span>'


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
