"""The rows of the rules about kinds of order and about edits; see `rule_rows`."""

from __future__ import annotations

from decimal import Decimal

from msgspec.structs import replace

from libs.common import messages as m
from libs.common.messages import OrderStatus, OrderType, Reason, StopDirection, TimeInForce
from services.risk.operator import OPERATOR
from tests.risk.builders import ETH, NOON, SECOND, D, Desk, account, config, event, mark, market, product, signal
from tests.risk.rule_rows import MICRO, SELL, Row

GTC, GTD, IOC, FOK = TimeInForce.GTC, TimeInForce.GTD, TimeInForce.IOC, TimeInForce.FOK
SOON = NOON + MICRO
FIRST = m.client_order_id("first")


def stop(side: m.Side = m.Side.BUY, at: str = "101", **changes: object) -> m.Signal:
    more = {"order_type": OrderType.STOP_LIMIT, "stop_price": D(at), "limit_price": D(at), "time_in_force": GTC}
    return replace(signal(side=side), **{**more, **changes})


def bracket(limit: str = "110", at: str = "90", side: m.Side = SELL, **changes: object) -> m.Signal:
    more = {"order_type": OrderType.BRACKET, "stop_price": D(at), "limit_price": D(limit), "time_in_force": GTC}
    return replace(signal(side=side), **{**more, **changes})


def quote(size: str | Decimal = "100", **changes: object) -> m.Signal:
    return replace(market(quantity="0", quote_size=D(size)), **changes)


def holding(desk: Desk) -> Desk:
    return desk.bought("5")


def invalid(name: str, within: m.Signal, beyond: m.Signal) -> Row:
    return Row(name=name, reason=Reason.ORDER_INVALID, within=within, beyond=beyond, before=holding)


def off_market(name: str, within: m.Signal, beyond: m.Signal, rule: str = "stop_reached") -> Row:
    return Row(name=name, reason=Reason.PRICE_OFF_MARKET, rule=rule, within=within, beyond=beyond, before=holding)


LIMIT, POST = signal(time_in_force=GTC), signal(time_in_force=GTC, post_only=True)
INVALID = [
    invalid("limit without a price", LIMIT, signal(limit_price=None)),
    invalid("limit with a stop price", LIMIT, signal(stop_price=D(100))),
    invalid("limit in the quote currency", LIMIT, signal(quantity="0", quote_size=D(100))),
    invalid("limit with a stop direction", LIMIT, signal(stop_direction=StopDirection.UP)),
    invalid("market with a price", market(), market(limit_price=D(100))),
    invalid("market fill or kill", market(time_in_force=GTC), market(time_in_force=FOK)),
    invalid("market until a date", market(), market(time_in_force=GTD, end_time=SOON)),
    invalid("market post-only", market(), market(post_only=True)),
    invalid("both sizes", quote(), market(quote_size=D(100))),
    invalid("sale in the quote currency", market(side=SELL), quote(side=SELL)),
    invalid("post-only that never rests", POST, signal(time_in_force=IOC, post_only=True)),
    invalid("post-only fill or kill", signal(time_in_force=FOK), signal(time_in_force=FOK, post_only=True)),
    invalid("until a date without a date", signal(time_in_force=GTD, end_time=SOON), signal(time_in_force=GTD)),
    invalid("date without until", LIMIT, signal(time_in_force=GTC, end_time=SOON)),
    invalid(
        "date that is past",
        signal(time_in_force=GTD, end_time=SOON),
        signal(time_in_force=GTD, end_time=NOON),
    ),
    invalid("stop without a stop price", stop(), stop(stop_price=None)),
    invalid("stop without a limit price", stop(), stop(limit_price=None)),
    invalid("stop that does not rest", stop(time_in_force=GTD, end_time=SOON), stop(time_in_force=IOC)),
    invalid("stop post-only", stop(), stop(post_only=True)),
    invalid("bracket buy", bracket(), bracket(side=m.Side.BUY)),
    invalid("bracket with a direction", bracket(), bracket(stop_direction=StopDirection.DOWN)),
    invalid("bracket upside down", bracket(), bracket("90", "90")),
    invalid("bracket that does not rest", bracket(time_in_force=GTD, end_time=SOON), bracket(time_in_force=FOK)),
]

PRICES = [
    off_market("stop above", stop(at="100.01"), stop(at="100")),
    off_market(
        "buy stop below",
        stop(at="99.99", stop_direction=StopDirection.DOWN),
        stop(at="100", stop_direction=StopDirection.DOWN),
    ),
    off_market("sale stop below", stop(SELL, "99.99"), stop(SELL, "100")),
    off_market(
        "sale stop above",
        stop(SELL, "100.01", stop_direction=StopDirection.UP),
        stop(SELL, "100", stop_direction=StopDirection.UP),
    ),
    off_market("bracket stop", bracket(at="99.99"), bracket(at="100")),
    off_market("bracket profit", bracket("100.01"), bracket("100")),
    off_market(
        "limit above a stop",
        stop(at="200", limit_price=D(202)),
        stop(at="200", limit_price=D("202.01")),
        "price_off_market",
    ),
    off_market(
        "limit below a stop",
        stop(SELL, "50", limit_price=D("49.5")),
        stop(SELL, "50", limit_price=D("49.49")),
        "price_off_market",
    ),
]

SIZES = [
    Row(
        name="size in quote currency below minimum",
        reason=Reason.SIZE_BELOW_MINIMUM,
        within=quote("1.009"),
        beyond=quote("0.999"),
    ),
    Row(
        name="size in quote currency that buys nothing",
        reason=Reason.SIZE_BELOW_MINIMUM,
        within=quote("99"),  # the cheapest that may be: 99
        beyond=quote("98.99"),
        before=lambda desk: desk.feed(product(base_increment=D(1))),
    ),
    Row(
        name="size in quote currency above maximum",
        reason=Reason.SIZE_ABOVE_MAXIMUM,
        within=quote("200.009"),
        beyond=quote("200.01"),
        before=lambda desk: desk.feed(product(quote_max_size=D(200), base_max_size=D(1))),
    ),
    Row(
        name="notional of a size in quote currency",
        reason=Reason.NOTIONAL_ABOVE_LIMIT,
        within=quote("200"),
        beyond=quote("200.01"),
        limits=config(order_notional_max=D(200)),
    ),
    Row(
        name="slippage of a size in quote currency",
        reason=Reason.SLIPPAGE_TOO_HIGH,
        within=quote("300"),  # at the ask; the most that may come of it is a little more
        beyond=quote("300.01"),
        limits=config(slippage_bps=D(1)),
        before=lambda desk: desk.feed(mark(ask_size=D(1))),
    ),
    Row(
        name="exposure of a stop at its limit price",
        reason=Reason.EXPOSURE_ABOVE_LIMIT,
        within=stop(at="200", quantity=D(5)),
        beyond=stop(at="200", quantity=D("5.001")),
        limits=config(exposure_max=D(1000)),
    ),
]


def resting(desk: Desk, quantity: str = "2", **changes: object) -> m.Verdict:
    return desk.rest(replace(signal("first", quantity=quantity, time_in_force=GTC), **changes))


def edit(quantity: str = "3", **changes: object) -> m.Signal:
    return replace(signal("edit", quantity=quantity, time_in_force=GTC, edits=FIRST), **changes)


def not_editable(name: str, beyond: m.Signal | None = None, **more: object) -> Row:
    row = Row(
        name=f"edit of {name}",
        reason=Reason.ORDER_NOT_EDITABLE,
        within=edit(),
        beyond=beyond,
        before=lambda desk: (holding(desk), resting(desk)),
    )
    return replace(row, **more)


def becomes(desk: Desk, status: OrderStatus) -> object:
    order = desk.core.state.orders[FIRST].order
    verdict = next(v for v in desk.ledger if isinstance(v, m.Verdict) and v.order == order)
    return desk.fact(event(verdict, status, 2))


def also(desk: Desk, **changes: object) -> object:
    """A second order that rests, of another kind."""
    other = desk.ordered(replace(signal("other", time_in_force=GTC), **changes))
    return (holding(desk), resting(desk), desk.end(other, OrderStatus.ACCEPTED, 1))


OTHER = edit(edits=m.client_order_id(m.derive_id("installation", OPERATOR, "other")))
EDITS = [
    not_editable("what we do not know", OTHER),
    *(
        not_editable(f"what is {status}", spoil=lambda desk, status=status: becomes(desk, status))
        for status in OrderStatus
        if status not in (OrderStatus.ACCEPTED, OrderStatus.PARTIALLY_FILLED)
    ),
    not_editable("until a date", OTHER, before=lambda desk: also(desk, time_in_force=GTD, end_time=SOON)),
    not_editable(
        "a stop",
        OTHER,
        before=lambda desk: also(desk, order_type=OrderType.STOP_LIMIT, stop_price=D(101), limit_price=D(101)),
    ),
    not_editable("another product", edit(product_id=ETH)),
    not_editable("the other side", edit(side=SELL)),
    not_editable("an edit", spoil=lambda desk: desk.approve(edit("2.5", id="earlier"))),
    Row(
        name="edit down to what is filled",
        reason=Reason.ORDER_NOT_EDITABLE,
        within=edit("1.001"),
        beyond=edit("1.0009"),
        before=lambda desk: desk.fill(resting(desk), "fill", "1"),
    ),
    Row(
        name="edit into another kind",
        reason=Reason.ORDER_INVALID,
        within=edit(),
        beyond=edit(order_type=OrderType.MARKET, limit_price=D(100)),
        before=resting,
    ),
    Row(
        name="edit into another time in force",
        reason=Reason.ORDER_INVALID,
        within=edit(),
        beyond=edit(time_in_force=IOC),
        before=resting,
    ),
    Row(
        name="edit without a price",
        reason=Reason.ORDER_INVALID,
        within=edit(),
        beyond=edit(limit_price=None),
        before=resting,
    ),
    Row(
        name="balance for what an edit adds",
        reason=Reason.BALANCE_TOO_LOW,
        within=edit("7"),
        beyond=edit("7.001"),
        before=lambda desk: (
            desk.fill(resting(desk, "4"), "fill", "1"),
            desk.feed(account({"USD": D(300)}, at=NOON + SECOND, settled=False)),
        ),
    ),
    Row(
        name="exposure with what an edit adds",
        reason=Reason.EXPOSURE_ABOVE_LIMIT,
        within=edit("10"),
        beyond=edit("10.001"),
        limits=config(exposure_max=D(1000)),
        before=lambda desk: desk.fill(resting(desk, "4"), "fill", "1"),
    ),
    Row(
        name="position with what an edit adds",
        reason=Reason.POSITION_ABOVE_LIMIT,
        within=edit("10"),
        beyond=edit("10.001"),
        limits=config(position_notional_max=D(1000)),
        before=lambda desk: desk.fill(resting(desk, "4"), "fill", "1"),
    ),
    Row(
        name="notional of an edited order",
        reason=Reason.NOTIONAL_ABOVE_LIMIT,
        within=edit("10"),
        beyond=edit("10.001"),
        limits=config(order_notional_max=D(1000)),
        before=resting,
    ),
]
ROWS = [*INVALID, *PRICES, *SIZES, *EDITS]
