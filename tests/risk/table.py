"""All rows of the rules, and how to find the rule that a row or a verdict is about."""

from __future__ import annotations

from collections import Counter

from libs.common import messages as m
from libs.common.messages import CheckOutcome
from services.risk.rules import RULES
from tests.risk.builders import Desk
from tests.risk.cap_rows import ROWS as CAP_ROWS
from tests.risk.order_rows import ROWS as ORDER_ROWS
from tests.risk.rule_rows import ROWS as RULE_ROWS
from tests.risk.rule_rows import Row

ROWS = [*RULE_ROWS, *CAP_ROWS, *ORDER_ROWS]
IDS = [row.name.replace(" ", "_") for row in ROWS]
NAMES = [rule.violated.__name__ for rule in RULES]
REFUSES = (CheckOutcome.VIOLATED, CheckOutcome.UNKNOWN)
SHARED = {reason for reason, count in Counter(rule.reason for rule in RULES).items() if count > 1}


def rule_of(row: Row) -> str:
    """The rule that the row names, or the only one that refuses with its reason."""
    assert row.rule or row.reason not in SHARED, f"{row.name}: say which rule"
    [name] = [row.rule] if row.rule else [rule.violated.__name__ for rule in RULES if rule.reason is row.reason]
    return name


def world(row: Row) -> Desk:
    desk = Desk(row.limits).open()
    row.before(desk)
    return desk


def beyond(row: Row) -> m.Verdict:
    desk = world(row)
    row.spoil(desk)
    return desk.ask(row.beyond or row.within)


def refuser(verdict: m.Verdict) -> m.Check:
    """The first check that refuses."""
    return next(check for check in verdict.checks if check.outcome in REFUSES)
