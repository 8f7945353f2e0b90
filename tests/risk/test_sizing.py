"""For every kind of order and any figures: never more than was asked for, always what the venue takes, and paid for."""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from libs.common import messages as m
from libs.common.messages import OrderStatus, OrderType, StopDirection, TimeInForce
from tests.risk.builders import NOON, SECOND, D, Desk, config, edit, mark, product, signal

steps = st.sampled_from([D("1E-8"), D("0.0005"), D("0.001"), D("0.01"), D("0.25"), D(1)])


def between(low: int, high: int, places: int) -> st.SearchStrategy[Decimal]:
    """Evenly spread, unlike `decimals`, most of which would be too small for the venue."""
    return st.integers(low * 10**places, high * 10**places).map(lambda n: D(n).scaleb(-places))


odd = st.one_of(between(1, 300, 8), between(0, 2, 8))
near = between(98, 102, 4).map(lambda percent: percent / 100)
fees = st.sampled_from([D(0), D("0.004"), D("0.012"), D("0.0060001")])


class World(Struct, frozen=True):
    rules: m.Product
    mark: m.Mark
    fee: Decimal

    def desk(self) -> Desk:
        """Wide limits, and a position to sell."""
        wide, plenty = config(price_deviation_bps_max=D(300), spread_bps_max=D(10_000)), {"USD": D(10**9)}
        desk = Desk(wide).open(opening=plenty, fee=str(self.fee))
        desk.feed(self.rules, self.mark)
        return desk.bought("500.123456789", price="1")


@st.composite
def worlds(draw: st.DrawFn) -> World:
    rules = product(
        base_increment=draw(steps),
        quote_increment=draw(steps),
        price_increment=draw(steps),
        base_min_size=draw(steps),
        base_max_size=draw(st.sampled_from([D(200), D(10_000)])),
        quote_min_size=draw(st.sampled_from([D("0.01"), D(1)])),
        quote_max_size=draw(st.sampled_from([D(10_000), D(1_000_000)])),
    )
    price, spread = draw(between(20, 500, 4)), draw(between(0, 1, 4))
    return World(rules, mark(price=str(price), spread=str(spread)), draw(fees))


@st.composite
def signals(draw: st.DrawFn, world: World) -> m.Signal:
    """A signal of any kind, its fields as they belong together."""
    kind, side = draw(st.sampled_from(OrderType)), draw(st.sampled_from(m.Side))
    mid, quote_size, stop_price, direction = world.mark.mid, None, None, None
    quantity = draw(odd)
    limit_price: Decimal | None = mid * draw(near)
    in_force = draw(st.sampled_from(TimeInForce))
    match kind:
        case OrderType.MARKET:
            limit_price, in_force = None, TimeInForce.IOC
            if side is m.Side.BUY and draw(st.booleans()):
                quantity, quote_size = D(0), draw(odd)
        case OrderType.STOP_LIMIT:
            stop_price = mid * draw(between(50, 150, 3)) / 100
            direction = StopDirection.UP if stop_price > mid else StopDirection.DOWN
            limit_price = stop_price * draw(near)
        case OrderType.BRACKET:
            side = m.Side.SELL
            stop_price, limit_price = mid * draw(between(50, 99, 3)) / 100, mid * draw(between(101, 200, 3)) / 100
    if kind in (OrderType.STOP_LIMIT, OrderType.BRACKET):
        in_force = draw(st.sampled_from([TimeInForce.GTC, TimeInForce.GTD]))
    return signal(
        side=side,
        quantity=str(quantity),
        order_type=kind,
        time_in_force=in_force,
        limit_price=limit_price,
        quote_size=quote_size,
        stop_price=stop_price,
        stop_direction=direction,
        post_only=kind is OrderType.LIMIT and in_force.rests and draw(st.booleans()),
        end_time=NOON + SECOND if in_force is TimeInForce.GTD else None,
    )


def taken_by_the_venue(order: m.ApprovedOrder, wanted: m.Signal, rules: m.Product) -> None:
    for price in (order.limit_price, order.stop_price):
        assert price is None or price % rules.price_increment == 0
    assert order.quantity % rules.base_increment == 0
    if order.quote_size is not None:
        assert wanted.quote_size is not None
        assert order.quote_size % rules.quote_increment == 0
        assert rules.quote_min_size <= order.quote_size <= min(wanted.quote_size, rules.quote_max_size)
    else:
        assert rules.base_min_size <= order.quantity <= min(wanted.quantity, rules.base_max_size)
    sign = 1 if wanted.side is m.Side.BUY else -1
    for asked, price in ((wanted.limit_price, order.limit_price), (wanted.stop_price, order.stop_price)):
        assert (asked is None) == (price is None)
        # No worse than asked for, and no further from it than one step.
        assert asked is None or price is None or 0 <= sign * (asked - price) < rules.price_increment


def pieces(total: Decimal, cuts: list[int]) -> list[Decimal]:
    """The total in parts of any size, to the last digit."""
    parts = []
    for cut in cuts:
        parts.append((total * cut / 100).quantize(D("1E-8")))
        total -= parts[-1]
    return [part for part in [*parts, total] if part > 0]


@settings(max_examples=300)
@given(st.data(), st.lists(st.integers(1, 99), max_size=4))
def test_an_approved_order_of_any_kind_is_what_was_asked_for_and_is_paid_for(
    data: st.DataObject, cuts: list[int]
) -> None:
    world = data.draw(worlds())
    desk, wanted = world.desk(), data.draw(signals(world))
    held = desk.figures.positions["BTC-USD"].quantity
    verdict = desk.ask(wanted)
    assume(verdict.order is not None)
    order = verdict.order
    assert order is not None
    taken_by_the_venue(order, wanted, world.rules)
    if wanted.side is m.Side.SELL:
        assert (order.quantity <= held, order.reduce_only, verdict.reserved) == (True, True, D(0))
    assert desk.figures.reserved == verdict.reserved
    # The worst that the order allows: its limit price, or the ask and the slippage, all of it as a taker.
    price = order.limit_price or world.mark.ask * D("1.001")
    whole, filled, cost = order.quantity, D(0), D(0)
    if order.quote_size is not None:
        whole = (order.quote_size / price / (1 + world.fee)).quantize(D("1E-8"), ROUND_DOWN)
        assert whole < order.quantity + world.rules.base_increment
    for number, part in enumerate(pieces(whole, cuts)):
        fee = part * price * world.fee
        desk.fill(verdict, f"fill-{number}", str(part), str(price), str(fee))
        filled, cost = filled + part, cost + part * price + fee
        if wanted.side is m.Side.BUY:
            assert desk.figures.reserved >= 0
            assert abs(desk.figures.reserved - (verdict.reserved - cost)) <= D("1E-11")
    assert order.quote_size is not None or desk.figures.reserved == 0
    desk.end(verdict, OrderStatus.FILLED, 1, str(filled))
    assert (desk.figures.reserved, desk.core.open_orders) == (D(0), 0)


@settings(max_examples=200)
@given(st.data(), odd, odd, near, st.integers(0, 100), st.sampled_from(m.Side), st.booleans())
def test_an_edit_holds_the_larger_and_what_holds_in_the_end_is_left(
    data: st.DataObject, first: Decimal, second: Decimal, price: Decimal, percent: int, side: m.Side, done: bool
) -> None:
    world = data.draw(worlds())
    desk = world.desk()
    verdict = desk.ask(signal("first", side, str(first), time_in_force=TimeInForce.GTC, limit_price=world.mark.mid))
    assume(verdict.order is not None)
    order = verdict.order
    assert order is not None
    desk.end(verdict, OrderStatus.ACCEPTED, 1)
    filled = (order.quantity * percent / 100).quantize(D("1E-8"))
    if filled:
        desk.fill(verdict, "fill", str(filled), str(order.limit_price))
    before, selling = desk.figures.reserved, desk.core.state.selling("BTC-USD")
    changed = desk.ask(edit(verdict, str(second), str(world.mark.mid * price)))
    assume(changed.order is not None)
    wanted = changed.order
    assert wanted is not None
    assert wanted.quantity % world.rules.base_increment == 0
    assert filled < wanted.quantity <= second
    meanwhile, promised = desk.figures.reserved, desk.core.state.selling("BTC-USD")
    desk.end(verdict, OrderStatus.ACCEPTED, 2, order=wanted if done else order, edit_id="edit")
    after = desk.figures.reserved, desk.core.state.selling("BTC-USD")
    if done:
        assert (max(before, after[0]), max(selling, after[1])) == (meanwhile, promised)
    else:
        assert after == (before, selling) <= (meanwhile, promised)
    if done and side is m.Side.BUY:
        assert wanted.limit_price is not None
        rest = (wanted.quantity - filled) * wanted.limit_price * (1 + world.fee)
        assert abs(after[0] - rest) <= D("1E-11")
