"""The rows of the rules about size and price, and of the caps on entries; see `rule_rows`."""

from __future__ import annotations

from msgspec.structs import replace

from libs.common.messages import Reason
from services.risk.config import MarkStaleness
from tests.risk.builders import (
    BTC,
    ETH,
    NOON,
    SECOND,
    D,
    Desk,
    account,
    config,
    guarded,
    mark,
    market,
    product,
    signal,
)
from tests.risk.rule_rows import SELL, Row, at


def lose(desk: Desk, amount: str) -> None:
    """Pay so much in fees. The halt that may follow is another guard's matter."""
    desk.bought("0.01", fee=amount)
    desk.core.switch.pending = None


# Of the order's own product a mark is not taken that old; of what else is held it may be older.
OLD_MARKS = guarded(mark_staleness=MarkStaleness(reduce=D(30), recover_seconds=10))
OLD_MARKS = replace(OLD_MARKS, mark_age_max_seconds=100)

ROWS = [
    Row(name="reduce-only buy", reason=Reason.NOTHING_TO_REDUCE, within=signal(), beyond=signal(reduce_only=True)),
    Row(
        name="nothing held",
        reason=Reason.NOTHING_TO_REDUCE,
        within=signal(side=SELL),
        beyond=signal(side=SELL, product_id=ETH),
        before=lambda desk: desk.bought("1"),
    ),
    Row(
        name="all promised to an open sell",
        reason=Reason.NOTHING_TO_REDUCE,
        within=signal(side=SELL),
        before=lambda desk: desk.bought("1"),
        spoil=lambda desk: desk.ordered(signal("first", SELL, "1")),
    ),
    Row(
        name="dust by size",
        reason=Reason.DUST,
        within=signal(side=SELL, product_id=BTC),
        beyond=signal(side=SELL, product_id=ETH),
        before=lambda desk: desk.bought("0.01").bought("0.009", product_id=ETH),
    ),
    Row(
        name="dust by value",
        reason=Reason.DUST,
        within=market(side=SELL, product_id=BTC),
        beyond=market(side=SELL, product_id=ETH),
        before=lambda desk: (
            desk.bought("0.02").bought("0.02", product_id=ETH),
            desk.feed(mark(BTC, "50"), mark(ETH, "49.99")),
        ),
    ),
    Row(
        name="dust although whole increments are missing only",
        reason=Reason.DUST,
        within=signal(side=SELL, product_id=BTC),
        beyond=signal(side=SELL, product_id=ETH),
        before=lambda desk: desk.bought("0.0109").bought("0.00999", product_id=ETH),
    ),
    Row(
        name="size below minimum",
        reason=Reason.SIZE_BELOW_MINIMUM,
        within=signal(quantity="0.01"),
        beyond=signal(quantity="0.009"),
    ),
    Row(
        name="size below minimum after flooring",
        reason=Reason.SIZE_BELOW_MINIMUM,
        within=signal(quantity="0.0109"),
        beyond=signal(quantity="0.00999999"),
    ),
    Row(
        name="exit below minimum although more is held",
        reason=Reason.SIZE_BELOW_MINIMUM,
        within=signal(side=SELL, quantity="0.01"),
        beyond=signal(side=SELL, quantity="0.009"),
        before=lambda desk: desk.bought("1"),
    ),
    Row(
        name="value below minimum",
        reason=Reason.SIZE_BELOW_MINIMUM,
        within=market(quantity="0.02"),
        beyond=market(quantity="0.019"),
        before=lambda desk: desk.feed(mark(price="50")),
    ),
    Row(
        name="no size where the venue states no minimum",
        reason=Reason.SIZE_BELOW_MINIMUM,
        within=signal(quantity="0.001"),
        beyond=signal(quantity="0.0009"),
        before=lambda desk: desk.feed(product(base_min_size=D(0), quote_min_size=D(0))),
    ),
    Row(name="negative size", reason=Reason.SIZE_BELOW_MINIMUM, within=signal(), beyond=signal(quantity="-1")),
    Row(
        name="size above maximum",
        reason=Reason.SIZE_ABOVE_MAXIMUM,
        within=signal(quantity="2"),
        beyond=signal(quantity="2.001"),
        before=lambda desk: desk.feed(product(base_max_size=D(2))),
    ),
    Row(
        name="value above maximum",
        reason=Reason.SIZE_ABOVE_MAXIMUM,
        within=signal(quantity="2"),
        beyond=signal(quantity="2.001"),
        before=lambda desk: desk.feed(product(quote_max_size=D(200))),
    ),
    Row(
        name="limit price above the mark",
        reason=Reason.PRICE_OFF_MARKET,
        rule="price_off_market",
        within=signal(limit_price=D(101)),
        beyond=signal(limit_price=D("101.01")),
    ),
    Row(
        name="limit price below the mark",
        reason=Reason.PRICE_OFF_MARKET,
        rule="price_off_market",
        within=signal(limit_price=D(99)),
        beyond=signal(limit_price=D("98.99")),
    ),
    Row(
        name="limit price of an exit",
        reason=Reason.PRICE_OFF_MARKET,
        rule="price_off_market",
        within=signal(side=SELL, limit_price=D(99)),
        beyond=signal(side=SELL, limit_price=D("98.99")),
        before=lambda desk: desk.bought("1"),
    ),
    Row(
        name="spread",
        reason=Reason.SPREAD_TOO_WIDE,
        within=signal(),
        before=lambda desk: desk.feed(mark(spread="1")),
        spoil=lambda desk: desk.feed(mark(spread="1.0001")),
    ),
    Row(
        name="slippage, more than the ask has",
        reason=Reason.SLIPPAGE_TOO_HIGH,
        within=market(quantity="1"),
        beyond=market(quantity="1.001"),
        limits=config(slippage_bps=D("0.001")),
        before=lambda desk: desk.feed(mark(ask_size=D(1))),
    ),
    Row(
        name="slippage, levels of half a spread",
        reason=Reason.SLIPPAGE_TOO_HIGH,
        within=market(quantity="6"),  # two at 100, two at 100.5, two at 101
        beyond=market(quantity="6.001"),
        limits=config(slippage_bps=D(100), spread_bps_max=D(200)),
        before=lambda desk: desk.feed(mark(price="99.5", spread="1", ask_size=D(2))),
    ),
    Row(
        name="slippage without a spread",
        reason=Reason.SLIPPAGE_TOO_HIGH,
        within=market(quantity="3"),  # one cent for two levels
        beyond=market(quantity="3.001"),
        limits=config(slippage_bps=D(1)),
        before=lambda desk: desk.feed(mark(ask_size=D(1))),
    ),
    Row(
        name="slippage, the size at the ask never told",
        reason=Reason.SLIPPAGE_TOO_HIGH,
        within=market(),
        spoil=lambda desk: desk.feed(mark(ask_size=None)),
    ),
    Row(
        name="order rate",
        reason=Reason.ORDER_RATE_ABOVE_LIMIT,
        within=signal(),
        limits=config(orders_per_minute_max=2),
        before=lambda desk: desk.ordered(signal("first")),
        spoil=lambda desk: desk.ordered(signal("second")),
    ),
    Row(
        name="order notional",
        reason=Reason.NOTIONAL_ABOVE_LIMIT,
        within=signal(quantity="10"),
        beyond=signal(quantity="10.001"),
        limits=config(order_notional_max=D(1000)),
    ),
    Row(
        name="order notional of a market order",
        reason=Reason.NOTIONAL_ABOVE_LIMIT,
        within=market(quantity="10"),
        beyond=market(quantity="10.001"),
        limits=config(order_notional_max=D(1001)),  # ten at 100 and ten bps of slippage
    ),
    Row(
        name="position",
        reason=Reason.POSITION_ABOVE_LIMIT,
        within=signal(quantity="5"),
        beyond=signal(quantity="5.001"),
        limits=config(position_notional_max=D(1000)),
        before=lambda desk: (desk.bought("3"), desk.ordered(signal("open", quantity="2"))),
    ),
    Row(
        name="position of a product with a limit of its own",
        reason=Reason.POSITION_ABOVE_LIMIT,
        within=signal(quantity="5"),
        beyond=signal(quantity="5.001"),
        limits=config(position_notional_max_by_product={BTC: D(500)}),
    ),
    Row(
        name="exposure",
        reason=Reason.EXPOSURE_ABOVE_LIMIT,
        within=signal(quantity="5"),
        beyond=signal(quantity="5.001"),
        limits=config(exposure_max=D(1000)),
        before=lambda desk: (
            desk.bought("3", product_id=ETH),
            desk.approve(signal("open", quantity="2", product_id=ETH)),
        ),
    ),
    Row(
        name="exposure as a part of equity",
        reason=Reason.EXPOSURE_ABOVE_LIMIT,
        within=signal(quantity="500"),
        beyond=signal(quantity="500.001"),
        limits=config(exposure_fraction_max=D("0.5")),
    ),
    Row(
        name="position at an old mark",
        reason=Reason.MARK_STALE,
        rule="position_too_large",
        backed=True,
        within=signal(expires_at=NOON + 60 * SECOND),
        limits=OLD_MARKS,
        before=lambda desk: (desk.bought("1"), at(desk, 30)),
        spoil=lambda desk: at(desk, 30, 1),
    ),
    Row(
        name="exposure at an old mark of another product",
        reason=Reason.MARK_STALE,
        rule="exposure_too_large",
        backed=True,
        within=signal(expires_at=NOON + 60 * SECOND),
        limits=OLD_MARKS,
        before=lambda desk: (desk.bought("1", product_id=ETH), at(desk, 30)),
        spoil=lambda desk: at(desk, 30, 1),
    ),
    Row(
        name="exposure at no mark of another product",
        reason=Reason.MARK_UNKNOWN,
        rule="exposure_too_large",
        backed=True,
        within=signal(),
        before=lambda desk: desk.bought("1", product_id=ETH),
        spoil=lambda desk: desk.core.known.marks.pop(ETH),
    ),
    Row(
        name="balance by the books",
        reason=Reason.BALANCE_TOO_LOW,
        within=signal(quantity="5"),
        beyond=signal(quantity="5.001"),
        before=lambda desk: (
            desk.feed(account({"USD": D(1000)}, at=NOON + SECOND, opening={"USD": D(1000)})),
            desk.approve(signal("open", quantity="5", product_id=ETH)),
        ),
    ),
    Row(
        name="balance of the account",
        reason=Reason.BALANCE_TOO_LOW,
        within=signal(quantity="5"),
        beyond=signal(quantity="5.001"),
        before=lambda desk: desk.feed(account({"USD": D(500)}, at=NOON + SECOND, settled=False)),
    ),
    Row(
        name="balance, fee included",
        reason=Reason.BALANCE_TOO_LOW,
        within=signal(quantity="5"),
        beyond=signal(quantity="5.001"),
        before=lambda desk: desk.feed(account({"USD": D(505)}, at=NOON + SECOND, settled=False, fee="0.01")),
    ),
    Row(
        name="daily loss, the limit reached",
        reason=Reason.DAILY_LOSS_LIMIT,
        within=signal(),
        limits=config(daily_loss_limit=D(100)),
        before=lambda desk: lose(desk, "99.99"),
        spoil=lambda desk: lose(desk, "0.01"),
    ),
    Row(
        name="daily loss, the part of the equity reached",
        reason=Reason.DAILY_LOSS_LIMIT,
        within=signal(),
        limits=config(daily_loss_limit=D(1000), daily_loss_percent_max=D("0.1")),  # of 100 000
        before=lambda desk: lose(desk, "99.99"),
        spoil=lambda desk: lose(desk, "0.01"),
    ),
]
