"""Guards that stand before many attacks."""

from __future__ import annotations

from guard_switch import Guard, Instead

from bedside.core.policy.verdict import ALLOWED
from bedside.core.securesum import messages, trustee
from bedside.core.securesum.merkle import _check_order
from bedside.core.signing import envelope, trust
from bedside.trustee import site_rules

SIGNATURE = Guard(envelope.verify, "bad-signature")
ROSTER = Guard(trust.Trust.credential, "not-on-roster")
ORDER = Guard(_check_order, "set-order")
EPHEMERAL = Guard(trustee.judge_set, "repeated-ephemeral")
TAG = Guard(trustee.judge_set, "bad-tag")
PLAN = Guard(messages._open, "other-plan")
OPENINGS = Guard(messages.open_header, "other-openings")
EXPIRY = Guard(trust._check_expiry, "-expired")
VOTES = Guard(trustee.open_votes, "votes-differ")
TRUSTED = Guard(trustee._trusted, "min-trusted")
MEMBERS = Instead(site_rules, "judge_set_members", lambda *_: ALLOWED)
DIFFERENCE = Instead(site_rules, "judge_difference", lambda *_: ALLOWED)
