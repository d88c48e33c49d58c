"""Charges as the coordinator knows them: a round counts for a site when the vote of the site's trustee is here.

The trustee's own ledger is the authority: it charges in the transaction that makes the vote, so that a vote which never
arrived is charged there and not here.
"""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Connection

from bedside.coordinator.store import contributions
from bedside.core.signing import parse_strict
from bedside.proto.v1.common_pb2 import Signed
from bedside.proto.v1.operator_pb2 import PrivacyCharge, PrivacyReport
from bedside.proto.v1.round_pb2 import Opening


def report_charges(tx: Connection, task: str = "") -> PrivacyReport:
    """Count the charged rounds by task, site and noise multiplier; of one task when it is named."""
    counted: Counter[tuple[str, str, int]] = Counter()
    for name, signed in contributions.charged_openings(tx, task):
        opening = parse_strict(Opening, parse_strict(Signed, signed).payload)
        counted[name, opening.site, opening.noise_multiplier_e6] += 1
    return PrivacyReport(
        charges=[
            PrivacyCharge(task=name, site=site, noise_multiplier_e6=multiplier_e6, rounds=rounds)
            for (name, site, multiplier_e6), rounds in sorted(counted.items())
        ]
    )
