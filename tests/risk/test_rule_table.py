"""No rule can be taken out of the table, turned around or bound to less without a test that fails by its name."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from msgspec.structs import replace

from libs.common.messages import Reason
from services.risk import rules
from services.risk.checks import Finding
from services.risk.rules import ALL, CHOSEN, ENTRIES, RULES, SALES, Rule
from services.risk.sizing import Context
from tests.risk.rule_rows import Row
from tests.risk.table import IDS, NAMES, ROWS, beyond, refuser, rule_of, world

DOCS = Path(__file__).parents[2] / "docs"
# Every rule that needs the product's rules or a mark refuses without them: these two say it first.
BACKED = {"product_unknown", "mark_unknown"}


def inverted(rule: Rule) -> Rule:
    @functools.wraps(rule.violated)
    def violated(c: Context) -> Finding:
        said, figures = rule.violated(c)
        return not said, figures

    return replace(rule, violated=violated)


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_without_its_rule_nothing_refuses_for_its_reason(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    name = rule_of(row)
    others = tuple(rule for rule in RULES if rule.violated.__name__ != name)
    assert len(others) == len(RULES) - 1
    monkeypatch.setattr(rules, "RULES", others)
    assert (beyond(row).reason is row.reason) == row.backed


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_with_its_rule_turned_around_what_is_within_is_refused(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    desk, name = world(row), rule_of(row)
    turned = tuple(inverted(rule) if rule.violated.__name__ == name else rule for rule in RULES)
    monkeypatch.setattr(rules, "RULES", turned)
    verdict = desk.ask(row.within)
    assert (verdict.order, refuser(verdict).rule) == (None, name)


@pytest.mark.parametrize("name", NAMES)
def test_each_rule_has_rows_of_its_own(name: str) -> None:
    own = [row for row in ROWS if rule_of(row) == name]
    assert own
    assert all(row.backed for row in own) == (name in BACKED)


BINDS = {
    "expired": ALL,
    "duplicate": CHOSEN,
    "trading_unknown": ALL,
    "halted": CHOSEN,
    "reducing": ENTRIES,
    "product_unknown": ALL,
    "not_editable": ALL,
    "invalid": ALL,
    "not_tradable": ALL,
    "account_unknown": ENTRIES,
    "drifting": ENTRIES,
    "mark_unknown": CHOSEN,
    "mark_stale": CHOSEN,
    "price_stale": ENTRIES,
    "feed_not_live": ENTRIES,
    "degraded": ENTRIES,
    "nothing_to_reduce": ALL,
    "dust": SALES,
    "too_small": ALL,
    "too_large": ALL,
    "stop_reached": CHOSEN,
    "price_off_market": CHOSEN,
    "spread_too_wide": ENTRIES,
    "slippage_too_high": ENTRIES,
    "too_many_orders": ENTRIES,
    "order_too_large": ENTRIES,
    "position_too_large": ENTRIES,
    "exposure_too_large": ENTRIES,
    "balance_too_low": ENTRIES,
    "losing": ENTRIES,
}


def test_each_rule_binds_what_the_policy_says() -> None:
    assert {rule.violated.__name__: rule.binds for rule in RULES} == BINDS


def test_each_reason_of_the_table_is_explained_in_the_documents() -> None:
    pages = [page.read_text() for page in DOCS.rglob("*.md")]
    if not any(Reason.DUPLICATE_SIGNAL in page for page in pages):
        pytest.skip("no page explains the reasons yet")
    assert [rule.reason for rule in RULES if not any(rule.reason in page for page in pages)] == []
