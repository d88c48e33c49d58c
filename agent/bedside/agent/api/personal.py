"""The calls about what a device has for itself of its models. None of it leaves by another way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bedside.agent.personal.report import Figures, Report
from bedside.agent.personal.view import PersonalView
from bedside.proto.v1 import local_pb2

if TYPE_CHECKING:
    from bedside.agent.personal.desk import PersonalDesk


class PersonalCalls:
    """Answers by a desk of what is personal."""

    def __init__(self, desk: PersonalDesk) -> None:
        self._desk = desk

    def all(self) -> local_pb2.PersonalModelList:
        """Every model."""
        return local_pb2.PersonalModelList(models=map(personal_message, self._desk.views().values()))

    async def make(self, request: local_pb2.ModelRef) -> local_pb2.PersonalModel:
        """Make now what agent.toml wants."""
        await self._desk.make(request.name)
        return self._one(request.name)

    async def reset(self, request: local_pb2.ModelRef) -> local_pb2.PersonalModel:
        """Throw all of it away."""
        await self._desk.reset(request.name)
        return self._one(request.name)

    def _one(self, name: str) -> local_pb2.PersonalModel:
        return personal_message(self._desk.views()[name])


def personal_message(view: PersonalView) -> local_pb2.PersonalModel:
    """What is personal of a model, for the wire."""
    return local_pb2.PersonalModel(
        name=view.name,
        local=view.local,
        tuned=view.tuned,
        temperature=view.temperature,
        fine_tune=view.fine_tune,
        fit_temperature=view.fit_temperature,
        report=_report_message(view.report) if view.report is not None else None,
        sentence=view.sentence,
    )


def personal_row(message: local_pb2.PersonalModel) -> PersonalView:
    """The same from the wire."""
    return PersonalView(
        message.name,
        tuple(message.local),
        tuple(message.tuned),
        message.temperature,
        message.fine_tune,
        message.fit_temperature,
        _report_row(message.report) if message.HasField("report") else None,
        message.sentence,
    )


def _report_message(report: Report) -> local_pb2.PersonalReport:
    return local_pb2.PersonalReport(
        at_s=report.at_s,
        sentence=report.sentence,
        score=report.score,
        windows=report.windows,
        sessions=report.sessions,
        trained_windows=report.trained_windows,
        suffix=report.suffix,
        of_all=_figures_message(report.of_all),
        tuned=_figures_message(report.tuned),
        serves=_figures_message(report.serves),
        used=report.used,
    )


def _figures_message(figures: Figures | None) -> local_pb2.PersonalFigures | None:
    if figures is None:
        return None
    return local_pb2.PersonalFigures(score=figures.score, loss=figures.loss, ece=figures.ece)


def _report_row(message: local_pb2.PersonalReport) -> Report:
    return Report(
        at_s=message.at_s,
        sentence=message.sentence,
        score=message.score,
        windows=message.windows,
        sessions=message.sessions,
        trained_windows=message.trained_windows,
        suffix=message.suffix,
        of_all=_figures_row(message.of_all) if message.HasField("of_all") else None,
        tuned=_figures_row(message.tuned) if message.HasField("tuned") else None,
        serves=_figures_row(message.serves) if message.HasField("serves") else None,
        used=message.used,
    )


def _figures_row(message: local_pb2.PersonalFigures) -> Figures:
    return Figures(message.score, message.loss, message.ece if message.HasField("ece") else None)
