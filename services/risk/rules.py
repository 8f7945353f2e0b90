"""The policy: one table of rules, read downwards; the first that is violated refuses.

A rule says in its first line what it refuses, and by `>`/`>=` on which side of the threshold it stands. It returns the
figures that violate it, or nothing. A rule that cannot be evaluated refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from msgspec import Struct

from libs.common.messages import Check, Feed, OrderStatus, OrderType, Reason, Side, StopDirection, TimeInForce, Trading
from services.risk.books import ZERO
from services.risk.config import BPS
from services.risk.kinds import misfit
from services.risk.sizing import Context, Missing, need

FUTURE_MAX_SECONDS = 1
EDITABLE = (OrderStatus.ACCEPTED, OrderStatus.PARTIALLY_FILLED)


def show(**values: Decimal | int | str) -> str:
    return " ".join(f"{k}={v.normalize():f}" if isinstance(v, Decimal) else f"{k}={v}" for k, v in values.items())


# -- the signal and the state of trading


def expired(c: Context) -> str:
    """now > expires_at."""
    late = c.now > c.signal.expires_at
    return show(expired_at=c.signal.expires_at.isoformat(), now=c.now.isoformat()) if late else ""


def trading_unknown(c: Context) -> str:
    """No trading state has been read yet."""
    need(c.trading, Reason.TRADING_STATE_UNKNOWN, "the trading state has not been read")
    return ""


def halted(c: Context) -> str:
    """Halted: nothing new at all."""
    return "trading is halted" if c.trading is Trading.HALTED else ""


def reducing(c: Context) -> str:
    """Reducing: no entries."""
    return "trading is reduce-only" if c.trading is Trading.REDUCING else ""


# -- the product


def product_unknown(c: Context) -> str:
    """The venue's rules for it have not been seen, or it is not ours to trade."""
    _ = c.product
    return ""


def not_tradable(c: Context) -> str:
    """A flag of the venue forbids this kind of order."""
    return ", ".join(c.product.forbids(c.signal.order_type, c.signal.time_in_force, c.post_only))


# -- what is asked for


def not_editable(c: Context) -> str:
    """An edit of anything but an open order of ours (accepted, limit, good till cancelled: the venue edits no other)
    of that product and side, with no other edit under way; or its quantity <= what is filled."""
    if not c.signal.edits:
        return ""
    if c.editing is None:
        return f"no open order of ours: {c.signal.edits}"
    order, status, edit_id = c.editing.order, c.editing.status, c.editing.edit_id
    wrong = {
        f"status={status or 'APPROVED'}": status not in EDITABLE,
        f"order_type={order.order_type}": order.order_type is not OrderType.LIMIT,
        f"time_in_force={order.time_in_force}": order.time_in_force is not TimeInForce.GTC,
        f"product={order.product_id}": order.product_id != c.signal.product_id,
        f"side={order.side}": order.side is not c.signal.side,
        f"edit_under_way={edit_id}": edit_id,
    }
    reason = next((reason for reason, holds in wrong.items() if holds), "")
    return reason or ("" if c.quantity > c.filled else show(quantity=c.quantity, filled=c.filled))


def invalid(c: Context) -> str:
    """Fields that do not belong together, or an end time <= now."""
    return misfit(c.signal, c.now)


# -- what we know of the account and the market


def account_unknown(c: Context) -> str:
    """No account snapshot, or its age > account_age_max_seconds."""
    age = (c.now - c.account.at).total_seconds()
    limit = c.config.account_age_max_seconds
    return "" if age <= limit else show(age_seconds=f"{age:.3f}", limit=str(limit))


def drifting(c: Context) -> str:
    """The venue holds something else than our books say, or that was never compared."""
    drift = need(c.state.drift, Reason.ACCOUNT_DRIFT, "the books were not compared with the venue yet")
    return show(**{f"drift_{currency}": amount for currency, amount in drift.items()})


def mark_unknown(c: Context) -> str:
    """No mark has been seen."""
    _ = c.mark
    return ""


def mark_stale(c: Context) -> str:
    """Age of the mark > mark_age_max_seconds, or more than a second in the future: the clocks disagree."""
    age = (c.now - c.mark.at).total_seconds()
    limit = c.config.mark_age_max_seconds
    return "" if -FUTURE_MAX_SECONDS <= age <= limit else show(age_seconds=f"{age:.3f}", limit=str(limit))


def feed_not_live(c: Context) -> str:
    """The feed is anything but live."""
    feed = need(c.known.feeds.get(c.signal.product_id), Reason.FEED_NOT_LIVE, "no state of the feed")
    return "" if feed.state is Feed.LIVE else show(state=str(feed.state), reason=feed.reason)


# -- size and price


def nothing_to_reduce(c: Context) -> str:
    """A sale where held - promised to open sells <= 0, or a reduce-only buy: spot has no shorts."""
    if c.entry:
        return "spot has no short position to buy back" if c.signal.reduce_only else ""
    return show(held=c.held, selling=c.selling) if c.held - c.selling <= 0 else ""


def dust(c: Context) -> str:
    """All that could be sold is below the venue's minimum: size < base_min_size or value < quote_min_size."""
    return below_minimum(c, free=c.free)


def too_small(c: Context) -> str:
    """quantity <= 0, quantity < base_min_size, or value < quote_min_size; a size in quote currency < quote_min_size."""
    if c.quantity <= 0:
        return show(quantity=c.quantity)
    if c.quote_size is None:
        return below_minimum(c, quantity=c.quantity)
    minimum = c.product.quote_min_size
    return show(quote_size=c.quote_size, min_value=minimum) if c.quote_size < minimum else ""


def too_large(c: Context) -> str:
    """quantity > base_max_size, or notional > quote_max_size; a size in quote currency > quote_max_size."""
    too_many = above(c.product.base_max_size, quantity=c.quantity) if c.quote_size is None else ""
    return too_many or above(c.product.quote_max_size, notional=c.notional)


def stop_reached(c: Context) -> str:
    """mid >= a stop above it, mid <= a stop below it, mid >= a bracket's limit price: it would trade at once."""
    stop, limit, mid = c.stop_price, c.limit_price, c.mark.mid
    if stop is None or limit is None:
        return ""
    if c.stop_direction is StopDirection.UP:
        reached = mid >= stop
    else:
        reached = mid <= stop or (c.stop_direction is None and mid >= limit)
    return show(stop_price=stop, limit_price=limit, mid=mid) if reached else ""


def price_off_market(c: Context) -> str:
    """|limit price - mid| > price_deviation_bps_max of mid; of a stop-limit, the stop price stands in for mid. A limit
    order that rests may be as far on its own side of the market as it likes, and so may the profit of a bracket."""
    price, stop, limit = c.limit_price, c.stop_price, c.config.price_deviation_bps_max
    name, reference = ("mid", c.mark.mid) if stop is None else ("stop_price", stop)
    if price is None or c.signal.order_type is OrderType.BRACKET:
        return ""
    off = price - reference if c.entry else reference - price  # above 0: worse for us than the market
    rests = c.signal.order_type is OrderType.LIMIT and c.signal.time_in_force.rests
    if (off if rests else abs(off)) * BPS <= limit * reference:
        return ""
    return show(**{"limit_price": price, name: reference, "limit_bps": limit})


def spread_too_wide(c: Context) -> str:
    """ask - bid > spread_bps_max of mid."""
    mark = c.mark
    if (mark.ask - mark.bid) * BPS <= c.config.spread_bps_max * mark.mid:
        return ""
    return show(bid=mark.bid, ask=mark.ask, limit_bps=c.config.spread_bps_max)


# -- caps on entries


def too_many_orders(c: Context) -> str:
    """Approvals of the last minute >= orders_per_minute_max; exits are counted, and exempt."""
    approvals, limit = len(c.state.answers.recent(c.now)), c.config.orders_per_minute_max
    return show(approvals=approvals, limit=limit) if approvals >= limit else ""


def order_too_large(c: Context) -> str:
    """quantity x limit price (market: ask + slippage) > order_notional_max."""
    return above(c.config.order_notional_max, notional=c.notional)


def position_too_large(c: Context) -> str:
    """Position at the mark + open buys of it + what this one adds > the product's limit."""
    product_id = c.signal.product_id
    position, buying = abs(c.held) * c.mark.mid, c.state.reserved(product_id)
    after = position + buying + c.added
    return crowded(c, c.config.position_limit(product_id), after=after, position=position, buying=buying)


def exposure_too_large(c: Context) -> str:
    """All positions at the marks + all open buys + what this one adds > exposure_max, or > exposure_fraction_max of
    equity."""
    exposure, reserved = c.worth.exposure, c.state.reserved()
    equity = need(c.state.equity(c.known), Reason.ACCOUNT_UNKNOWN, "the opening balances are not known")
    limit = min(c.config.exposure_max, c.config.exposure_fraction_max * equity)
    return crowded(c, limit, after=exposure + reserved + c.added, exposure=exposure, reserved=reserved)


def balance_too_low(c: Context) -> str:
    """What it adds > cash by the books - open buys, or > what the venue's account has available."""
    currency, reserved = c.product.quote_currency, c.state.reserved()
    balance = c.account.balances.get(currency)
    cash = need(c.state.balances(c.known).get(currency), Reason.ACCOUNT_UNKNOWN, "the opening balances are not known")
    limit = min(cash - reserved, balance.available if balance else ZERO)
    return crowded(c, limit, cost=c.added, cash=cash, reserved=reserved)


def losing(c: Context) -> str:
    """Loss since 00:00 UTC >= daily_loss_limit."""
    loss, limit = c.worth.daily_loss, c.config.daily_loss_limit
    return show(daily_loss=loss, limit=limit) if loss >= limit else ""


def above(limit: Decimal, **values: Decimal) -> str:
    """The figures where the first of them is greater than the limit."""
    return show(**values, limit=limit) if next(iter(values.values())) > limit else ""


def crowded(c: Context, limit: Decimal, **values: Decimal) -> str:
    """The same, but for an edit that adds nothing: whatever stands above the limit, it is not what put it there."""
    return above(limit, **values) if c.added else ""


def below_minimum(c: Context, **size: Decimal) -> str:
    product, [quantity] = c.product, size.values()
    value = quantity * c.touch_price
    if quantity >= product.base_min_size and value >= product.quote_min_size:
        return ""
    return show(**size, min_size=product.base_min_size, value=value, min_value=product.quote_min_size)


class Rule(Struct, frozen=True):
    reason: Reason
    sides: frozenset[Side]
    violated: Callable[[Context], str]


BOTH = frozenset(Side)
ENTRIES = frozenset({Side.BUY})
EXITS = frozenset({Side.SELL})
RULES = (
    Rule(Reason.SIGNAL_EXPIRED, BOTH, expired),
    Rule(Reason.TRADING_STATE_UNKNOWN, BOTH, trading_unknown),
    Rule(Reason.TRADING_HALTED, BOTH, halted),
    Rule(Reason.TRADING_REDUCING, ENTRIES, reducing),
    Rule(Reason.PRODUCT_UNKNOWN, BOTH, product_unknown),
    Rule(Reason.ORDER_NOT_EDITABLE, BOTH, not_editable),
    Rule(Reason.ORDER_INVALID, BOTH, invalid),
    Rule(Reason.PRODUCT_NOT_TRADABLE, BOTH, not_tradable),
    # An exit needs no balance: a hung account poll must not lock a position in.
    Rule(Reason.ACCOUNT_UNKNOWN, ENTRIES, account_unknown),
    Rule(Reason.ACCOUNT_DRIFT, ENTRIES, drifting),
    Rule(Reason.MARK_UNKNOWN, BOTH, mark_unknown),
    Rule(Reason.MARK_STALE, BOTH, mark_stale),
    Rule(Reason.FEED_NOT_LIVE, ENTRIES, feed_not_live),
    Rule(Reason.NOTHING_TO_REDUCE, BOTH, nothing_to_reduce),
    Rule(Reason.DUST, EXITS, dust),
    Rule(Reason.SIZE_BELOW_MINIMUM, BOTH, too_small),
    Rule(Reason.SIZE_ABOVE_MAXIMUM, BOTH, too_large),
    Rule(Reason.PRICE_OFF_MARKET, BOTH, stop_reached),
    Rule(Reason.PRICE_OFF_MARKET, BOTH, price_off_market),
    Rule(Reason.SPREAD_TOO_WIDE, ENTRIES, spread_too_wide),
    Rule(Reason.ORDER_RATE_ABOVE_LIMIT, ENTRIES, too_many_orders),
    Rule(Reason.NOTIONAL_ABOVE_LIMIT, ENTRIES, order_too_large),
    Rule(Reason.POSITION_ABOVE_LIMIT, ENTRIES, position_too_large),
    Rule(Reason.EXPOSURE_ABOVE_LIMIT, ENTRIES, exposure_too_large),
    Rule(Reason.BALANCE_TOO_LOW, ENTRIES, balance_too_low),
    Rule(Reason.DAILY_LOSS_LIMIT, ENTRIES, losing),
)


class Evaluation(Struct, frozen=True):
    reason: Reason
    detail: str
    checks: tuple[Check, ...] = ()


def evaluate(c: Context) -> Evaluation:
    """The first rule that is violated, with its figures; APPROVED, with what that rests on, when there is none."""
    for rule in RULES:
        if c.signal.side not in rule.sides:
            continue
        try:
            detail = rule.violated(c)
        except Missing as missing:
            return Evaluation(missing.reason, missing.detail)
        except ArithmeticError as error:
            return Evaluation(Reason.EVALUATION_FAILED, f"{rule.violated.__name__}: {type(error).__name__}")
        if detail:
            return Evaluation(rule.reason, detail)
    rests_on = show(quantity=c.quantity, notional=c.notional, reserved=c.reservation, mid=c.mark.mid, held=c.held)
    return Evaluation(Reason.APPROVED, rests_on)
