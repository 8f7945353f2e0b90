"""What decodes may still be nonsense. It is dropped and counted, and neither the core nor a scrape fails."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec
import pytest

from libs.common import messages as m
from libs.common.subjects import decode, subject_of
from tests.exporter.builders import (
    BTC,
    FOREIGN,
    RECOVERED,
    START,
    Rig,
    account,
    decision,
    fill,
    full_story,
    mark,
    order,
    risk,
    status,
    t,
    tooling,
    verdict,
)

NAIVE = datetime(2025, 3, 1)  # noqa: DTZ001 - what a time without its zone decodes to
NAN, SIGNALLING, ENDLESS, HUGE = Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("1E+999999")
LOST = m.Position(quantity=SIGNALLING, avg_price=None, realized_pnl=Decimal(0), fees=Decimal(0))

# The bus lets none of these through, so that the core need not look for them.
UNSOUND = [
    msgspec.structs.replace(mark(1), received_at=NAIVE),
    msgspec.structs.replace(mark(1), sent_at=NAIVE),
    msgspec.structs.replace(mark(1), mid=NAN),
    msgspec.structs.replace(decision(mark(1), 1), mark_at=NAIVE),
    msgspec.structs.replace(fill("f", 1), price=SIGNALLING),
    msgspec.structs.replace(order("a", 1, m.OrderStatus.FILLED, 1), filled_qty=NAN),
    msgspec.structs.replace(verdict("a", 1), expires_at=NAIVE),
    account(1, balances={"USD": m.Balance(available=ENDLESS, hold=Decimal(0))}),
    account(1, foreign_orders=(msgspec.structs.replace(FOREIGN, quantity=NAN),)),
    account(1, reconciled_at=NAIVE),
    risk(1, equity=SIGNALLING),
    risk(1, daily_loss=NAN),
    risk(1, positions={BTC: LOST}),
    risk(1, drift={"BTC": ENDLESS}),
    status("risk", 1, last_input_at=NAIVE),
]
GARBAGE = [
    msgspec.structs.replace(fill("f", 1), price=HUGE, size=HUGE),
    account(1, foreign_orders=(msgspec.structs.replace(FOREIGN, quantity=HUGE),)),
    risk(1, equity=HUGE),
    risk(1, drift={"BTC": 1 / HUGE}),
    risk(1, guards={m.Guard.DRAWDOWN: m.GuardFigure(level=m.GuardLevel.HALT, value=HUGE)}),
    risk(1, closing={BTC: m.Closing(held=HUGE, sold=Decimal(0), outcome="selling")}),
    status("somebody", 1),
]


@pytest.mark.parametrize("message", UNSOUND, ids=lambda message: type(message).__name__)
def test_what_is_no_number_and_no_time_does_not_get_through_the_bus(message: m.Message) -> None:
    with pytest.raises(msgspec.DecodeError, match="number that is none"):
        decode(subject_of(message), msgspec.json.encode(message))


@pytest.mark.parametrize("message", GARBAGE, ids=lambda message: type(message).__name__)
def test_garbage_is_dropped_and_counted(message: m.Message) -> None:
    rig = Rig().feed(RECOVERED).at(2)
    before = rig.document()
    assert rig.core.on_message(message, t(1)) == []
    samples = rig.scrape()
    assert samples[f"perps_exporter_dropped_total{{type={type(message).__name__}}}"] == 1
    assert rig.document() == before


def test_garbage_between_good_messages_leaves_the_figures_alone() -> None:
    clean, noisy = Rig(), Rig()
    for message in full_story():
        clean.feed(message)
        noisy.feed(message)
        for nonsense in GARBAGE:
            noisy.core.on_message(nonsense, t(9))
    assert noisy.at(10).document() == clean.at(10).document()


def test_a_message_from_the_far_future_does_not_hold_up_the_present() -> None:
    ahead = msgspec.structs.replace(mark(1), at=t(10**8))
    rig = Rig()
    for message in (ahead, mark(5), mark(6)):
        rig.core.on_message(message, t(6))
    assert rig.core.seen.marks[BTC] == mark(6)


def test_kinds_that_are_none_of_ours_are_let_pass() -> None:
    rig = Rig().feed(
        m.Installation(id="installation"), m.Audit(id="a", command="", who="", reason="", ok=True, result="")
    )
    assert "perps_exporter_dropped_total" not in rig.text()


def test_what_else_the_ledger_holds_changes_nothing() -> None:
    handover = m.Adjustment(
        id="a",
        at=t(2),
        kind=m.AdjustmentKind.HANDOVER,
        request_id="r",
        who="operator",
        reason="",
        flows={"BTC": Decimal(-1), "USD": Decimal(50000)},
        product_id=BTC,
        size=Decimal(1),
        price=Decimal(50000),
    )
    baseline = m.Baseline(id="b", at=t(2), midnight=START, prices={BTC: Decimal(50000)}, peak_equity=Decimal(1))
    rig = Rig().feed(*full_story()).at(10)
    before, kept = rig.document(), rig.core.dump()
    rig.feed(handover, handover, baseline)
    assert (rig.document(), rig.core.dump()) == (before, kept)
    assert "perps_exporter_dropped_total" not in rig.text()


def test_label_values_from_the_bus_are_escaped() -> None:
    odd = 'X"\n\\'
    rig = Rig().feed(risk(1, drift={odd: Decimal(1)}), tooling(1, ok=True)).at(2)
    assert f"perps_bot_account_drift{{currency={odd}}}" in rig.scrape()


def test_a_decision_says_whatever_it_likes_and_the_document_still_stands() -> None:
    said = '</script><script>alert("x")</script>'
    rig = Rig().feed(decision(mark(1), 1, action=said, reason=said)).at(2)
    assert rig.document()["decisions"][BTC]["reason"] == said
