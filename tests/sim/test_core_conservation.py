"""Money is neither made nor lost, whatever is ordered and wherever the market goes."""

from __future__ import annotations

from datetime import timedelta
from decimal import Context, Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core import Exchange
from sim.money import text
from sim.orders import Kind, Liquidity, NewOrder
from sim.ticks import Side
from tests.sim.builders import at, exchange, order, tick

USD, BTC = Decimal("100000"), Decimal("2")
RATES = {Liquidity.MAKER: Decimal("0.006"), Liquidity.TAKER: Decimal("0.012")}
EXACT = Context(prec=200)  # the test's own: it must not round where the venue does

prices = st.integers(4_000_000, 6_000_000).map(lambda cents: Decimal(cents) / 100)
sizes = st.integers(1, 300_000_000).map(lambda units: Decimal(units) / 100_000_000)
sides = st.sampled_from(["BUY", "SELL"])


@st.composite
def orders(draw: st.DrawFn) -> NewOrder:
    kind = draw(
        st.sampled_from(
            [
                "market_market_ioc",
                "sor_limit_ioc",
                "limit_limit_gtc",
                "limit_limit_gtd",
                "limit_limit_fok",
                "stop_limit_stop_limit_gtc",
                "trigger_bracket_gtc",
            ]
        )
    )
    fields: dict[str, Any] = {"base_size": text(draw(sizes))}
    side = draw(sides)
    if kind == "market_market_ioc" and side == "BUY" and draw(st.booleans()):
        fields = {"quote_size": text(draw(prices))}
    if kind != "market_market_ioc":
        fields["limit_price"] = text(draw(prices))
    if kind in ("limit_limit_gtc", "limit_limit_gtd"):
        fields["post_only"] = draw(st.booleans())
    if kind == "limit_limit_gtd":
        fields["end_time"] = (at(0) + timedelta(seconds=draw(st.integers(1, 60)))).isoformat()
    if kind == "stop_limit_stop_limit_gtc":
        fields |= {"stop_price": text(draw(prices)), "stop_direction": draw(st.sampled_from(["UP", "DOWN"]))}
        fields["stop_direction"] = f"STOP_DIRECTION_STOP_{fields['stop_direction']}"
    if kind == "trigger_bracket_gtc":
        fields["stop_trigger_price"] = text(draw(prices))
    return order(side, kind, **fields)


actions = st.one_of(
    st.tuples(st.just("place"), orders()),
    st.tuples(st.just("tick"), st.tuples(prices, sizes)),
    st.tuples(st.just("cancel"), st.integers(0, 50)),
    st.tuples(st.just("edit"), st.tuples(st.integers(0, 50), prices, sizes)),
)


def act(venue: Exchange, seconds: int, action: tuple[str, Any]) -> None:
    now = at(seconds)
    ids = list(venue.orders)
    match action:
        case ("place", request):
            venue.place(request, now)
        case ("tick", (price, size)):
            venue.on_tick(tick(text(price), text(size), seconds))
        case ("cancel", number) if ids:
            venue.cancel(ids[number % len(ids)], now)
        case ("edit", (number, price, size)) if ids:
            venue.edit(ids[number % len(ids)], price, size, now)


def check(venue: Exchange) -> None:
    """Balances are the opening ones plus fills less fees; holds are those of the open orders; all to the last digit."""
    usd, btc, fees = USD, BTC, Decimal(0)
    for fill in venue.fills:
        sign = 1 if fill.side is Side.BUY else -1
        btc = EXACT.add(btc, sign * fill.size)
        usd = EXACT.subtract(usd, EXACT.multiply(sign * fill.price, fill.size))
        fees = EXACT.add(fees, fill.fee)
        assert fill.fee == EXACT.multiply(EXACT.multiply(fill.price, fill.size), RATES[fill.liquidity])
    balances = venue.balances()
    held = {"USD": Decimal(0), "BTC": Decimal(0)}
    for open_order in venue.open_orders():
        if open_order.side is Side.BUY and open_order.limit_price is not None:
            price = open_order.limit_price
            if open_order.kind is Kind.BRACKET and open_order.stop_price is not None:
                price = max(price, EXACT.multiply(open_order.stop_price, Decimal("1.05")))
            cost = EXACT.multiply(open_order.remaining, price)
            assert open_order.hold == EXACT.multiply(cost, 1 + open_order.hold_fee_rate)
        held[open_order.hold_currency] = EXACT.add(held[open_order.hold_currency], open_order.hold)
    assert EXACT.add(balances["USD"].available, balances["USD"].hold) == EXACT.subtract(usd, fees)
    assert EXACT.add(balances["BTC"].available, balances["BTC"].hold) == btc
    assert {currency: balance.hold for currency, balance in balances.items()} == held
    assert all(balance.available >= 0 and balance.hold >= 0 for balance in balances.values())
    for known in venue.orders.values():
        mine = [fill for fill in venue.fills if fill.order_id == known.order_id]
        assert known.filled_size == sum((fill.size for fill in mine), Decimal(0))
        assert known.fills == len(mine)
        assert known.remaining >= 0
        assert not (known.ended and known.hold)


@given(
    st.lists(actions, max_size=40),
    st.sampled_from([0, 2]),
    st.sampled_from(["1000", "50000"]),
    st.sampled_from([Decimal(1), Decimal("0.3")]),
)
@settings(max_examples=150, deadline=None)
def test_balances_holds_and_fees_add_up_exactly_and_nothing_goes_negative(
    history: list[tuple[str, Any]], latency_seconds: int, level_value: str, part: Decimal
) -> None:
    latency = timedelta(seconds=latency_seconds)
    venue = exchange(str(USD), str(BTC), level_value=level_value, latency=latency, take_at_most_fraction=part)
    for seconds, action in enumerate(history, start=1):
        act(venue, seconds, action)
        check(venue)


@given(st.lists(actions, max_size=25), st.integers(0, 25))
@settings(max_examples=60, deadline=None)
def test_a_restart_at_any_point_makes_no_difference(history: list[tuple[str, Any]], crash: int) -> None:
    straight, crashed = exchange(usd=str(USD), btc=str(BTC)), exchange(usd=str(USD), btc=str(BTC))
    for seconds, action in enumerate(history, start=1):
        if seconds == crash:
            again = exchange(usd=str(USD), btc=str(BTC))
            again.restore(crashed.ledger, crashed.orders.values(), crashed.fills)
            for venue in (straight, again):  # depth that was consumed is back after a restart, as after any tick
                venue.on_tick(tick("50000", seconds=seconds))
            crashed = again
        act(straight, seconds, action)
        act(crashed, seconds, action)
    assert crashed.balances() == straight.balances()
    assert crashed.orders == straight.orders
