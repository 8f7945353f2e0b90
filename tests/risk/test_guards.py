"""Each guard steps in exactly at its step and not before; what cannot be told is unknown and never fine."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import msgspec
import pytest

from libs.common import messages as m
from libs.common.messages import Guard, GuardLevel, OrderStatus
from services.risk.config import ERRORS_MAX, MarkStaleness, OrderErrors, PositionDrift, RiskConfig, Steps
from services.risk.guards import MEASURES, PER_PRODUCT, REBASED, Measure, Watch, figures, level, measures, steps_of
from services.risk.knowledge import Knowledge
from services.risk.state import State
from tests.risk.builders import (
    BTC,
    ETH,
    NOON,
    OPENING,
    PRODUCTS,
    SECOND,
    WIDE,
    D,
    feed,
    fill,
    guarded,
    installation,
    mark,
)

TAKEN = (OrderStatus.ACCEPTED, OrderStatus.PARTIALLY_FILLED, OrderStatus.FILLED)
LADDER = Steps(warn=D(1), reduce=D(2), halt=D(3))


class Stage:
    """What risk keeps and knows, with 100,000 USD from the start."""

    def __init__(self, opening: dict[str, Decimal] | None = OPENING) -> None:
        self.state, self.known = State(), Knowledge(PRODUCTS, "USD")
        self.known.learn(installation(opening))
        self.prices(BTC="100", ETH="100")

    def prices(self, at: datetime = NOON, **prices: str) -> Stage:
        for base, price in prices.items():
            self.known.learn(mark(f"{base}-USD", price, at))
        return self

    def bought(self, size: str, price: str = "100", product_id: str = BTC) -> Stage:
        self.state.books.book(fill(f"{product_id}-{size}-{price}", size=size, price=price, product_id=product_id))
        return self

    def forget(self, product_id: str) -> Stage:
        del self.known.marks[product_id]
        return self

    def figure(self, guard: Guard, config: RiskConfig = WIDE, now: datetime = NOON) -> m.GuardFigure:
        return figures(config, self.state, self.known, now)[guard]

    def value(self, guard: Guard, config: RiskConfig = WIDE, now: datetime = NOON) -> Decimal | None:
        return self.figure(guard, config, now).value


def order_event(status: OrderStatus, reason: str = "", at: datetime = NOON) -> m.OrderEvent:
    order = m.ApprovedOrder(
        client_order_id="order",
        product_id=BTC,
        side=m.Side.BUY,
        order_type=m.OrderType.MARKET,
        time_in_force=m.TimeInForce.IOC,
        quantity=D(1),
        limit_price=None,
        reduce_only=False,
    )
    return m.OrderEvent(
        id="event",
        at=at,
        product_id=BTC,
        client_order_id="order",
        signal_id="signal",
        revision=1,
        status=status,
        reason=reason,
        order=order,
    )


def watched(*statuses: OrderStatus | tuple[OrderStatus, str]) -> Watch:
    watch = Watch()
    for said in statuses:
        watch.on_order(order_event(*said) if isinstance(said, tuple) else order_event(said))
    return watch


# -- levels


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, GuardLevel.UNKNOWN),
        ("0", GuardLevel.OK),
        ("0.999999", GuardLevel.OK),
        ("1", GuardLevel.WARNING),
        ("1.999999", GuardLevel.WARNING),
        ("2", GuardLevel.REDUCE),
        ("2.999999", GuardLevel.REDUCE),
        ("3", GuardLevel.HALT),
        ("4", GuardLevel.HALT),
    ],
)
def test_a_step_counts_from_its_value_on(value: str | None, expected: GuardLevel) -> None:
    assert level(Measure(None if value is None else D(value)), LADDER) is expected


@pytest.mark.parametrize("missing", ["warn", "reduce", "halt"])
def test_a_step_that_is_not_given_is_never_reached(missing: str) -> None:
    below = {"warn": GuardLevel.OK, "reduce": GuardLevel.WARNING, "halt": GuardLevel.REDUCE}[missing]
    at = getattr(LADDER, missing)
    assert level(Measure(at), msgspec.structs.replace(LADDER, **{missing: None})) is below


@pytest.mark.parametrize(
    ("value", "expected"), [(None, GuardLevel.REDUCE), ("0", GuardLevel.REDUCE), ("3", GuardLevel.HALT)]
)
def test_what_is_at_least_a_reduce_may_be_worse_and_not_better(value: str | None, expected: GuardLevel) -> None:
    measure = Measure(None if value is None else D(value), at_least=GuardLevel.REDUCE)
    assert level(measure, LADDER) is expected


def test_every_guard_is_measured_in_the_order_of_the_list_and_has_its_steps() -> None:
    found = figures(WIDE, State(), Knowledge(PRODUCTS, "USD"), NOON)
    assert list(found) == list(MEASURES) == list(Guard)
    for guard, figure in found.items():
        steps = steps_of(WIDE, guard)
        assert (figure.warn, figure.reduce, figure.halt) == (steps.warn, steps.reduce, steps.halt)


def test_at_a_fresh_start_what_needs_marks_or_balances_is_unknown_and_the_rest_is_fine() -> None:
    found = figures(WIDE, State(), Knowledge(PRODUCTS, "USD"), NOON)
    known = {guard for guard, figure in found.items() if figure.level is GuardLevel.OK}
    assert known == {Guard.CONCENTRATION, Guard.ORDER_ERRORS, Guard.REJECTIONS}
    assert {figure.level for guard, figure in found.items() if guard not in known} == {GuardLevel.UNKNOWN}
    assert all(found[guard].detail for guard in found.keys() - known), "what is not known says why"


def test_a_resume_ends_what_counts_from_the_last_look() -> None:
    assert {Guard.DRAWDOWN, Guard.ORDER_ERRORS, Guard.REJECTIONS} == REBASED
    assert {Guard.MARK_STALENESS} == PER_PRODUCT


# -- daily loss


@pytest.mark.parametrize(
    ("price", "value", "expected"),
    [
        ("20.01", "0.7999", GuardLevel.OK),
        ("20", "0.8", GuardLevel.WARNING),
        ("0.00000001", "0.999999", GuardLevel.WARNING),
    ],
)
def test_daily_loss_warns_at_four_fifths_of_the_limit(price: str, value: str, expected: GuardLevel) -> None:
    figure = Stage().bought("10").prices(BTC=price).figure(Guard.DAILY_LOSS)
    assert (figure.value, figure.level) == (D(value), expected)


def test_daily_loss_halts_at_the_limit() -> None:
    figure = Stage().bought("10", "200").figure(Guard.DAILY_LOSS)
    assert (figure.value, figure.level, figure.detail) == (D(1), GuardLevel.HALT, "daily_loss=1000 limit=1000")


def test_daily_loss_is_measured_by_the_percentage_where_that_is_less() -> None:
    config = msgspec.structs.replace(WIDE, daily_loss_percent_max=D("0.5"))
    figure = Stage().bought("10", "150").figure(Guard.DAILY_LOSS, config)
    assert (figure.level, figure.detail) == (GuardLevel.HALT, "daily_loss=500 limit=500")


def test_a_gain_is_no_loss() -> None:
    assert Stage().bought("10", "50").value(Guard.DAILY_LOSS) == 0


@pytest.mark.parametrize("guard", [Guard.DAILY_LOSS, Guard.DRAWDOWN, Guard.CONCENTRATION])
def test_without_a_mark_of_what_is_held_nothing_of_worth_is_known(guard: Guard) -> None:
    stage = Stage().bought("1").bought("1", product_id=ETH).forget(ETH)
    stage.state.watch.on_equity(D(100_000))
    figure = stage.figure(guard)
    assert (figure.value, figure.level) == (None, GuardLevel.UNKNOWN)
    assert figure.detail == "a mark of what is held is missing: ETH-USD"
    assert stage.prices(ETH="100").figure(guard).value is not None


@pytest.mark.parametrize("guard", [Guard.DAILY_LOSS, Guard.DRAWDOWN, Guard.CONCENTRATION])
def test_without_the_opening_balances_no_part_of_equity_is_known(guard: Guard) -> None:
    figure = Stage(opening=None).bought("1").figure(guard)
    assert (figure.value, figure.detail) == (None, "the opening balances are not known")


# -- drawdown


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        ("90.0001", GuardLevel.OK),
        ("90", GuardLevel.WARNING),
        ("80.0001", GuardLevel.WARNING),
        ("80", GuardLevel.REDUCE),
        ("70.0001", GuardLevel.REDUCE),
        ("70", GuardLevel.HALT),
    ],
)
def test_drawdown_is_the_part_of_the_highest_equity_that_is_lost(price: str, expected: GuardLevel) -> None:
    stage = Stage().bought("1000")
    stage.state.watch.on_equity(D(100_000))
    config = guarded(drawdown=Steps(warn=D("0.1"), reduce=D("0.2"), halt=D("0.3")))
    assert stage.prices(BTC=price).figure(Guard.DRAWDOWN, config).level is expected


def test_the_peak_rises_with_equity_and_never_falls() -> None:
    watch = Watch()
    for equity, peak in [(100, 100), (90, 100), (101, 101), (100, 101)]:
        watch.on_equity(D(equity))
        assert watch.peak_equity == peak


def test_equity_above_the_peak_is_no_drawdown() -> None:
    stage = Stage()
    stage.state.watch.on_equity(D(99_000))
    assert stage.value(Guard.DRAWDOWN) == 0


@pytest.mark.parametrize("peak", [None, 0, -1])
def test_without_a_peak_above_zero_drawdown_is_unknown(peak: int | None) -> None:
    stage = Stage()
    stage.state.watch.peak_equity = None if peak is None else D(peak)
    assert stage.figure(Guard.DRAWDOWN).level is GuardLevel.UNKNOWN


def test_a_new_base_forgets_errors_and_rejections_and_sets_the_peak() -> None:
    watch = watched(OrderStatus.REJECTED, OrderStatus.UNKNOWN)
    watch.on_equity(D(100))
    watch.rebase(D(50), NOON)
    assert (watch.peak_equity, watch.errors, watch.rejections) == (D(50), [], [])
    watch.rebase(None, None)
    assert watch.peak_equity is None


def test_errors_after_the_look_of_the_operator_still_count() -> None:
    watch = Watch(errors=[NOON - SECOND, NOON, NOON + SECOND])
    watch.rebase(None, NOON)
    assert watch.errors == [NOON + SECOND]


# -- marks


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (9.999999, GuardLevel.OK),
        (10, GuardLevel.WARNING),
        (29.999999, GuardLevel.WARNING),
        (30, GuardLevel.REDUCE),
        (59.999999, GuardLevel.REDUCE),
        (60, GuardLevel.HALT),
    ],
)
def test_mark_staleness_is_the_age_of_the_oldest_mark(seconds: float, expected: GuardLevel) -> None:
    steps = MarkStaleness(warn=D(10), reduce=D(30), halt=D(60), recover_seconds=5)
    now = NOON + timedelta(seconds=seconds)
    figure = Stage().prices(now, BTC="100").figure(Guard.MARK_STALENESS, guarded(mark_staleness=steps), now)
    assert (figure.value, figure.level, figure.detail) == (D(str(seconds)), expected, ETH)


def test_a_product_without_a_mark_is_named_and_does_not_hide_the_age_of_another() -> None:
    stage = Stage().forget(ETH)
    figure = stage.figure(Guard.MARK_STALENESS, now=NOON + 7 * SECOND)
    assert (figure.value, figure.detail) == (D(7), "BTC-USD; no mark of ETH-USD")
    figure = stage.forget(BTC).figure(Guard.MARK_STALENESS)
    assert (figure.level, figure.detail) == (GuardLevel.UNKNOWN, "no mark of BTC-USD, ETH-USD")


def test_a_product_that_is_not_traded_any_more_may_be_stale() -> None:
    stage = Stage()
    stage.known.learn(mark("XRP-USD", "1", NOON - timedelta(days=9)))
    assert stage.value(Guard.MARK_STALENESS) == 0


def test_a_mark_from_the_future_is_not_older_than_nothing() -> None:
    assert Stage().value(Guard.MARK_STALENESS, now=NOON - SECOND) == 0


# -- concentration


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("299.999999", GuardLevel.OK),
        ("300", GuardLevel.WARNING),
        ("599.999999", GuardLevel.WARNING),
        ("600", GuardLevel.REDUCE),
        ("899.999999", GuardLevel.REDUCE),
        ("900", GuardLevel.HALT),
    ],
)
def test_concentration_is_the_largest_position_as_a_part_of_equity(size: str, expected: GuardLevel) -> None:
    config = guarded(concentration=Steps(warn=D("0.3"), reduce=D("0.6"), halt=D("0.9")))
    figure = Stage().bought("1", product_id=ETH).bought(size).figure(Guard.CONCENTRATION, config)
    assert figure.level is expected
    assert figure.detail.startswith("BTC-USD value=")


def test_a_short_position_counts_by_its_size() -> None:
    stage = Stage()
    stage.state.books.book(fill("sold", m.Side.SELL, size="500"))
    assert stage.value(Guard.CONCENTRATION) == D("0.5")


def test_a_position_without_equity_is_beyond_every_step() -> None:
    config = guarded(concentration=Steps(halt=D(1000)))
    for paid in ("100", "200"):
        stage = Stage({"USD": D(0)}).bought("1", paid)
        assert stage.figure(Guard.CONCENTRATION, config).level is GuardLevel.HALT
    stage = Stage({"USD": D("1E-20")}).bought("1")
    assert stage.figure(Guard.CONCENTRATION, config).level is GuardLevel.HALT


def test_nothing_held_is_no_concentration_whatever_the_equity() -> None:
    assert Stage({"USD": D(0)}).value(Guard.CONCENTRATION) == 0


# -- orders


@pytest.mark.parametrize(
    ("status", "reason", "counts"),
    [
        (OrderStatus.UNKNOWN, "timed out", True),
        (OrderStatus.REJECTED, "INSUFFICIENT_FUND", True),
        (OrderStatus.REJECTED, "never_arrived", False),  # as UNKNOWN it has counted before
        (OrderStatus.DENIED, "venue_unreachable", True),
        (OrderStatus.DENIED, "approval_expired", False),
        (OrderStatus.CANCELED, "venue_unreachable", False),
        (OrderStatus.FILLED, "", False),
    ],
)
def test_an_order_without_an_outcome_and_a_rejected_one_are_errors(
    status: OrderStatus, reason: str, counts: bool
) -> None:
    assert bool(watched((status, reason)).errors) is counts


@pytest.mark.parametrize(("errors", "expected"), [(1, GuardLevel.OK), (2, GuardLevel.WARNING), (3, GuardLevel.REDUCE)])
def test_order_errors_are_counted(errors: int, expected: GuardLevel) -> None:
    stage = Stage()
    stage.state.watch = watched(*[OrderStatus.UNKNOWN] * errors)
    config = guarded(order_errors=OrderErrors(window_seconds=300, warn=D(2), reduce=D(3), halt=D(4)))
    assert stage.figure(Guard.ORDER_ERRORS, config).level is expected
    stage.state.watch = watched(*[OrderStatus.UNKNOWN] * 4)
    assert stage.figure(Guard.ORDER_ERRORS, config).level is GuardLevel.HALT


def test_an_error_leaves_the_window_when_it_is_as_old_as_that() -> None:
    stage = Stage()
    stage.state.watch = watched(OrderStatus.UNKNOWN)
    config = guarded(order_errors=OrderErrors(window_seconds=300, halt=D(9)))
    assert stage.value(Guard.ORDER_ERRORS, config, NOON + timedelta(seconds=299.999999)) == 1
    assert stage.value(Guard.ORDER_ERRORS, config, NOON + timedelta(seconds=300)) == 0


def test_the_latest_errors_are_remembered_up_to_a_bound() -> None:
    watch = Watch()
    for second in range(ERRORS_MAX + 5):
        watch.on_order(order_event(OrderStatus.UNKNOWN, at=NOON + second * SECOND))
    assert (len(watch.errors), watch.errors[-1]) == (ERRORS_MAX, NOON + (ERRORS_MAX + 4) * SECOND)


@pytest.mark.parametrize("taken", TAKEN)
def test_rejections_in_a_row_end_with_an_order_that_the_venue_takes(taken: OrderStatus) -> None:
    no = OrderStatus.REJECTED
    assert len(watched(no, no).rejections) == 2
    assert len(watched(no, no, taken).rejections) == 0
    assert len(watched(no, no, taken, no).rejections) == 1


@pytest.mark.parametrize("status", sorted(set(OrderStatus) - {*TAKEN, OrderStatus.REJECTED}))
def test_what_says_nothing_of_the_venues_mind_leaves_the_row(status: OrderStatus) -> None:
    assert len(watched(OrderStatus.REJECTED, status, (OrderStatus.REJECTED, "never_arrived")).rejections) == 1


@pytest.mark.parametrize(
    ("rejections", "expected"), [(0, "ok"), (1, "warning"), (2, "reduce"), (3, "reduce"), (4, "halt")]
)
def test_rejections_in_a_row_are_counted(rejections: int, expected: str) -> None:
    stage = Stage()
    stage.state.watch = watched(*[OrderStatus.REJECTED] * rejections)
    config = guarded(rejections=Steps(warn=D(1), reduce=D(2), halt=D(4)))
    assert stage.figure(Guard.REJECTIONS, config).level == expected


# -- drift


def drifting(**drift: str) -> Stage:
    stage = Stage().prices(BTC="100", ETH="10")
    stage.state.drift = {currency: D(amount) for currency, amount in drift.items()}
    return stage


def test_books_that_were_never_compared_are_unknown_and_equal_ones_are_fine() -> None:
    assert Stage().figure(Guard.POSITION_DRIFT).level is GuardLevel.UNKNOWN
    figure = drifting().figure(Guard.POSITION_DRIFT)
    assert (figure.value, figure.level) == (D(0), GuardLevel.OK)


@pytest.mark.parametrize(
    ("usd", "expected"), [("0.01", GuardLevel.REDUCE), ("69.99", GuardLevel.REDUCE), ("70", GuardLevel.HALT)]
)
def test_any_drift_is_reduce_only_and_its_sum_in_the_quote_currency_halts(usd: str, expected: GuardLevel) -> None:
    config = guarded(position_drift=PositionDrift(halt=D(100)))
    figure = drifting(USD=usd, BTC="-0.2", ETH="1").figure(Guard.POSITION_DRIFT, config)
    assert (figure.value, figure.level) == (D(usd) + 30, expected)
    assert figure.detail == f"drift_USD={usd} drift_BTC=-0.2 drift_ETH=1"


def test_a_drift_without_a_price_is_reduce_only_and_what_has_one_still_halts() -> None:
    config = guarded(position_drift=PositionDrift(halt=D(100)))
    figure = drifting(BTC="1").forget(BTC).figure(Guard.POSITION_DRIFT, config)
    assert (figure.value, figure.level, figure.detail) == (None, GuardLevel.REDUCE, "drift_BTC=1 no mark of BTC")
    figure = drifting(BTC="1", USD="100").forget(BTC).figure(Guard.POSITION_DRIFT, config)
    assert (figure.value, figure.level) == (D(100), GuardLevel.HALT)


def test_a_price_in_another_currency_values_no_drift() -> None:
    stage = drifting(BTC="1").forget(BTC)
    stage.known.learn(mark("BTC-EUR", "5"))
    assert stage.value(Guard.POSITION_DRIFT) is None


# -- all of them


def test_what_is_watched_outlives_a_restart() -> None:
    watch = watched(OrderStatus.REJECTED, OrderStatus.UNKNOWN)
    watch.on_equity(D("100000.25"))
    watch.on_mark(mark(BTC, "100.5"), WIDE.guards)
    strict = guarded(mark_staleness=MarkStaleness(reduce=D(30), recover_seconds=5))
    watch.on_mark(mark(BTC, "101.5", NOON + 60 * SECOND), strict.guards)
    known = Knowledge(PRODUCTS, "USD")
    known.learn(mark(BTC, "101.5", NOON + 60 * SECOND))
    known.learn(feed(BTC))
    watch.look(known, NOON + 60 * SECOND, strict.guards)
    assert watch.degraded[BTC].sound_since
    assert msgspec.json.decode(msgspec.json.encode(watch), type=Watch) == watch
    assert all(getattr(watch, name) for name in watch.__struct_fields__), "a part was not filled"


def test_measuring_changes_nothing() -> None:
    stage = Stage().bought("1")
    before = msgspec.json.encode(stage.state)
    measures(WIDE, stage.state, stage.known, NOON)
    assert msgspec.json.encode(stage.state) == before
