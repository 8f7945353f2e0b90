"""Every guard through the core: it halts exactly at its step and not before; taken out or turned round, a row fails."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from msgspec import Struct
from msgspec.structs import replace

from libs.common.messages import Guard, OrderStatus, Trading
from services.risk import guards
from services.risk.config import MarkStaleness, OrderErrors, PositionDrift, RiskConfig, Steps, Volatility
from services.risk.guards import MEASURES, Measure, Scene, steps_of
from services.risk.trading import REASONS
from tests.risk.builders import NOON, OPENING, PRODUCTS, SECOND, D, Desk, account, config, guarded, mark, signal, tick

FEW = {"USD": D(1000), "BTC": D(0), "ETH": D(0)}
RICH = config(daily_loss_limit=D(10_000))


class Row(Struct, frozen=True):
    """`reach` brings a desk to exactly the step, or to what stands just before it."""

    guard: Guard
    limits: RiskConfig
    reach: Callable[[Desk, bool], object]


def limits(**steps: Steps) -> RiskConfig:
    return replace(RICH, guards=guarded(**steps).guards)


def lose(desk: Desk, at: bool) -> None:
    desk.open().bought("10").feed(mark(price="90" if at else "90.00001"))


def fall(desk: Desk, at: bool) -> None:
    desk.open(opening=FEW).bought("2").feed(mark(price="150"))  # 1,100 at the most
    desk.feed(mark(price="95" if at else "95.01"))


def shake(desk: Desk, at: bool) -> None:
    """Ten returns; the last one makes the difference."""
    desk.open()
    for minute in range(1, 11):
        calm = minute == 10 and not at
        when, price = NOON + minute * 60 * SECOND, "101" if minute % 2 and not calm else "100.5" if calm else "100"
        desk.feed(mark(price=price, at=when), at=when)


def wait(desk: Desk, at: bool) -> None:
    desk.open().feed(tick(), at=NOON + timedelta(seconds=60 if at else 59.999999))


def concentrate(desk: Desk, at: bool) -> None:
    desk.open(opening=FEW).bought("5" if at else "4.99999")


def fail(desk: Desk, status: OrderStatus, count: int) -> None:
    desk.open()
    for number in range(count):
        verdict = desk.ask(signal(f"s{number}", product_id=PRODUCTS[number % 2]))
        if verdict.order:
            desk.end(verdict, status, 1)


def drift(desk: Desk, at: bool) -> None:
    more = D(100) if at else D("99.99")
    desk.open().feed(account({**OPENING, "USD": OPENING["USD"] + more}, NOON + SECOND))


# What ten returns of 1 % up and down, a minute each, come to in a year.
SHAKEN = Volatility(sample_seconds=60, window=10, halt=D("7.2138"))
ROWS = (
    Row(Guard.DAILY_LOSS, config(daily_loss_limit=D(100)), lose),
    Row(Guard.DRAWDOWN, limits(drawdown=Steps(halt=D("0.1"))), fall),
    Row(Guard.VOLATILITY, limits(volatility=SHAKEN), shake),
    Row(Guard.MARK_STALENESS, limits(mark_staleness=MarkStaleness(reduce=D(30), halt=D(60), recover_seconds=5)), wait),
    Row(Guard.CONCENTRATION, limits(concentration=Steps(halt=D("0.5"))), concentrate),
    Row(
        Guard.ORDER_ERRORS,
        limits(order_errors=OrderErrors(window_seconds=300, halt=D(2))),
        lambda desk, at: fail(desk, OrderStatus.UNKNOWN, 2 if at else 1),
    ),
    Row(
        Guard.REJECTIONS,
        limits(rejections=Steps(halt=D(2))),
        lambda desk, at: fail(desk, OrderStatus.REJECTED, 2 if at else 1),
    ),
    Row(Guard.POSITION_DRIFT, limits(position_drift=PositionDrift(halt=D(100))), drift),
)
each = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.guard)


def halted(row: Row, at: bool) -> list[str]:
    desk = Desk(row.limits)
    row.reach(desk, at)
    return [state.reason for state in desk.storing if state.state is Trading.HALTED]


def test_every_guard_has_a_row() -> None:
    assert [row.guard for row in ROWS] == list(Guard) == list(MEASURES)


@each
def test_a_guard_halts_exactly_at_its_step_and_not_before(row: Row) -> None:
    assert halted(row, at=True) == [REASONS[row.guard]]
    assert halted(row, at=False) == []


@each
def test_a_guard_that_is_taken_out_does_not_halt(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(guards.MEASURES, row.guard, lambda scene: Measure(Decimal(0)))
    assert halted(row, at=True) == []


@each
def test_a_guard_that_is_turned_round_halts_too_early(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, step = MEASURES[row.guard], steps_of(row.limits, row.guard).halt
    assert step is not None

    def turned(scene: Scene) -> Measure:
        found = measure(scene)
        return found if found.value is None else Measure(step + (step - found.value), found.detail)

    monkeypatch.setitem(guards.MEASURES, row.guard, turned)
    assert halted(row, at=False) == [REASONS[row.guard]]
