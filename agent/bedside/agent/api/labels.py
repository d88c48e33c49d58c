"""The calls about labels."""

from __future__ import annotations

from bedside.agent.api.messages import check_number, label_message, label_row
from bedside.agent.buffer.labels import Labels, WrongLabelsError
from bedside.core.ids import SessionId
from bedside.proto.v1.local_pb2 import AddLabelsRequest, Label, LabelFault, LabelList, LabelRef, ListLabelsRequest


class LabelCalls:
    """Answers beside the store's one writer."""

    def __init__(self, labels: Labels) -> None:
        self._labels = labels

    def page(self, request: ListLabelsRequest) -> LabelList:
        """The next labels of a session."""
        after = check_number(request.since_id, "label")
        return LabelList(labels=map(label_message, self._labels.page(SessionId(request.session), after)))

    def add(self, request: AddLabelsRequest) -> LabelList:
        """Store a batch, whole or not at all; who does not say where its labels come from is a program.

        The answer names those that are refused.
        """
        for message in request.labels:
            message.origin = message.origin or "api"
        try:
            added = self._labels.add([label_row(message) for message in request.labels], check_only=request.check_only)
        except WrongLabelsError as error:
            return LabelList(
                faults=[
                    LabelFault(index=one.index, code=one.code, sentence=one.sentence, remedy=one.remedy)
                    for one in error.faults
                ]
            )
        return LabelList(labels=map(label_message, added.labels), added=added.new, warnings=added.warnings)

    def withdraw(self, request: LabelRef) -> Label:
        """Mark a label as withdrawn."""
        return label_message(self._labels.withdraw(check_number(request.id, "label")))
