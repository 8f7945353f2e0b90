"""What the rules ask, one function each. See `services.risk.rules` for their order and whom they bind.

A function says in its first line what it refuses, and by `>`/`>=` on which side of the threshold it stands. It gives
whether that holds and the figures that it looked at, in any case. What is not known raises `Missing`.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import ROUND_CEILING, Decimal

from libs.common.messages import Feed, OrderStatus, OrderType, Reason, StopDirection, TimeInForce, Trading
from services.risk.books import ZERO
from services.risk.config import BPS
from services.risk.kinds import misfit
from services.risk.sizing import Context, need

FUTURE_MAX_SECONDS = 1
FIGURE_LENGTH_MAX = 40  # a verdict stays in the ledger for ever
EDITABLE = (OrderStatus.ACCEPTED, OrderStatus.PARTIALLY_FILLED)

Finding = tuple[bool, str]


def show(**values: Decimal | float | str) -> str:
    return " ".join(f"{name}={_figure(value)}" for name, value in values.items())


def _figure(value: Decimal | float | str) -> str:
    """Without an exponent and without zeros at the end; rounded only where it would fill a page."""
    if isinstance(value, float):
        value = Decimal(f"{value:.6f}")
    if not isinstance(value, Decimal):
        return str(value)
    text = f"{value.normalize():f}"
    return text if len(text) <= FIGURE_LENGTH_MAX else f"{value:.12g}"


def seconds(age: timedelta) -> float:
    return age.total_seconds()


def above(limit: Decimal, **values: Decimal) -> Finding:
    """The first of the figures is greater than the limit."""
    return next(iter(values.values())) > limit, show(**values, limit=limit)


# -- the signal and the state of trading


def expired(c: Context) -> Finding:
    """now > expires_at."""
    left = c.signal.expires_at - c.now
    return left < timedelta(0), show(left_seconds=seconds(left))


def duplicate(c: Context) -> Finding:
    """A signal of the strategy while an order of the strategy, of that product and side, is still open. An edit is of
    that very order."""
    if c.operator or c.signal.edits:
        return False, "an edit" if c.signal.edits else "an operator's"
    wanted = (c.signal.product_id, c.signal.side)
    own = (key for key, o in c.state.orders.items() if (o.order.product_id, o.order.side) == wanted and not o.operator)
    found = next(own, "")
    return bool(found), show(open=found or "none")


def trading_unknown(c: Context) -> Finding:
    """No trading state has been read yet."""
    need(c.trading, Reason.TRADING_STATE_UNKNOWN, "the trading state has not been read")
    return False, _trading(c)


def halted(c: Context) -> Finding:
    """Halted: nothing new at all."""
    return c.trading is Trading.HALTED, _trading(c)


def reducing(c: Context) -> Finding:
    """Reducing: no entries."""
    return c.trading is Trading.REDUCING, _trading(c)


def _trading(c: Context) -> str:
    return show(trading=c.trading or "unknown")


# -- the product


def product_unknown(c: Context) -> Finding:
    """The venue's rules for it have not been seen, or it is not ours to trade."""
    return False, show(base_increment=c.product.base_increment, price_increment=c.product.price_increment)


def not_tradable(c: Context) -> Finding:
    """A flag of the venue forbids this kind of order."""
    flags = c.product.forbids(c.signal.order_type, c.signal.time_in_force, c.post_only)
    return bool(flags), ", ".join(flags) or show(status=c.product.status)


# -- what is asked for


def not_editable(c: Context) -> Finding:
    """An edit of anything but an open order of ours (accepted, limit, good till cancelled: the venue edits no other)
    of that product and side, with no other edit under way; or its quantity <= what is filled."""
    if not c.signal.edits:
        return False, "no edit"
    if c.editing is None:
        return True, f"no open order of ours: {c.signal.edits}"
    order, status, edit_id = c.editing.order, c.editing.status, c.editing.edit_id
    wrong = {
        f"status={status or 'APPROVED'}": status not in EDITABLE,
        f"order_type={order.order_type}": order.order_type is not OrderType.LIMIT,
        f"time_in_force={order.time_in_force}": order.time_in_force is not TimeInForce.GTC,
        f"product={order.product_id}": order.product_id != c.signal.product_id,
        f"side={order.side}": order.side is not c.signal.side,
        f"edit_under_way={edit_id}": edit_id,
    }
    if why := next((why for why, holds in wrong.items() if holds), ""):
        return True, why
    return c.quantity <= c.filled, show(quantity=c.quantity, filled=c.filled)


def invalid(c: Context) -> Finding:
    """Fields that do not belong together, or an end time <= now."""
    why = misfit(c.signal, c.now)
    return bool(why), why or f"{c.signal.order_type} {c.signal.time_in_force}"


# -- what we know of the account and the market


def account_unknown(c: Context) -> Finding:
    """No account snapshot, or its age > account_age_max_seconds."""
    age, limit = seconds(c.now - c.account.at), c.config.account_age_max_seconds
    return age > limit, show(age_seconds=age, limit=limit)


def drifting(c: Context) -> Finding:
    """The venue holds something else than our books say, or that was never compared."""
    drift = need(c.state.drift, Reason.ACCOUNT_DRIFT, "the books were not compared with the venue yet")
    return bool(drift), show(**{f"drift_{currency}": amount for currency, amount in drift.items()}) or "no drift"


def mark_unknown(c: Context) -> Finding:
    """No mark has been seen."""
    return False, show(mid=c.mark.mid)


def mark_stale(c: Context) -> Finding:
    """Age of the mark > mark_age_max_seconds, or more than a second in the future: the clocks disagree."""
    age, limit = seconds(c.now - c.mark.at), c.config.mark_age_max_seconds
    return not -FUTURE_MAX_SECONDS <= age <= limit, show(age_seconds=age, limit=limit)


def price_stale(c: Context) -> Finding:
    """Time since the price last moved > price_age_max_seconds, however often it was confirmed since."""
    age, limit = seconds(c.now - c.mark.price_time), c.config.price_age_max_seconds
    return age > limit, show(age_seconds=age, limit=limit)


def feed_not_live(c: Context) -> Finding:
    """The feed is anything but live."""
    feed = need(c.known.feeds.get(c.signal.product_id), Reason.FEED_NOT_LIVE, "no state of the feed")
    live = feed.state is Feed.LIVE
    return not live, show(feed=feed.state) if live else show(feed=feed.state, reason=feed.reason)


def degraded(c: Context) -> Finding:
    """Feed or mark were unsound, and have not been sound for long enough since."""
    found = c.state.watch.degraded.get(c.signal.product_id)
    return found is not None, found.reason if found else "sound"


# -- size and price


def nothing_to_reduce(c: Context) -> Finding:
    """A sale where held - promised to open sells <= 0, or a reduce-only buy: spot has no shorts."""
    if c.entry:
        buys_back = c.signal.reduce_only
        return buys_back, "spot has no short position to buy back" if buys_back else "opens a position"
    return c.held - c.selling <= 0, show(held=c.held, selling=c.selling)


def dust(c: Context) -> Finding:
    """All that could be sold is below the venue's minimum: size < base_min_size or value < quote_min_size."""
    return below_minimum(c, free=c.free)


def too_small(c: Context) -> Finding:
    """quantity <= 0, quantity < base_min_size, or value < quote_min_size; a size in quote currency < quote_min_size."""
    if c.quote_size is None:
        small, figures = below_minimum(c, quantity=c.quantity)
        return small or c.quantity <= 0, figures
    minimum = c.product.quote_min_size
    small = c.quantity <= 0 or c.quote_size < minimum
    return small, show(quantity=c.quantity, quote_size=c.quote_size, min_value=minimum)


def too_large(c: Context) -> Finding:
    """quantity > base_max_size, or notional > quote_max_size; a size in quote currency > quote_max_size."""
    product = c.product
    if c.quote_size is not None:
        return above(product.quote_max_size, quote_size=c.quote_size)
    large, figures = c.quantity > product.base_max_size, show(quantity=c.quantity, max_size=product.base_max_size)
    if c.without_mark:
        return large, figures
    dear = c.notional > product.quote_max_size
    return large or dear, f"{figures} {show(notional=c.notional, max_value=product.quote_max_size)}"


def stop_reached(c: Context) -> Finding:
    """mid >= a stop above it, mid <= a stop below it, mid >= a bracket's limit price: it would trade at once."""
    stop, limit = c.stop_price, c.limit_price
    if stop is None or limit is None:
        return False, "no stop price"
    mid = c.mark.mid
    if c.stop_direction is StopDirection.UP:
        reached = mid >= stop
    else:
        reached = mid <= stop or (c.stop_direction is None and mid >= limit)
    return reached, show(stop_price=stop, limit_price=limit, mid=mid)


def price_off_market(c: Context) -> Finding:
    """|limit price - mid| > price_deviation_bps_max of mid; of a stop-limit, the stop price stands in for mid. A limit
    order that rests may be as far on its own side of the market as it likes, and so may the profit of a bracket."""
    price, stop, limit = c.limit_price, c.stop_price, c.config.price_deviation_bps_max
    if price is None or c.signal.order_type is OrderType.BRACKET:
        return False, "no limit price" if price is None else "the profit of a bracket"
    name, reference = ("mid", c.mark.mid) if stop is None else ("stop_price", stop)
    off = price - reference if c.entry else reference - price  # above 0: worse for us than the market
    rests = c.signal.order_type is OrderType.LIMIT and c.signal.time_in_force.rests
    far = (off if rests else abs(off)) * BPS > limit * reference
    return far, show(**{"limit_price": price, name: reference, "limit_bps": limit})


def spread_too_wide(c: Context) -> Finding:
    """ask - bid > spread_bps_max of mid."""
    mark, limit = c.mark, c.config.spread_bps_max
    return (mark.ask - mark.bid) * BPS > limit * mark.mid, show(bid=mark.bid, ask=mark.ask, limit_bps=limit)


def slippage_too_high(c: Context) -> Finding:
    """The worst part of a market order is expected > slippage_bps above the ask.

    The marks tell the quantity at the ask and nothing of what lies behind it. So this is a model: the book goes on
    with the same quantity per half spread (no spread counts as one price increment), and the worst part costs

        ask + half spread x (quantity / ask size, rounded up, - 1)

    An order in the quote currency is taken for what it buys at the ask. A limit price bounds what it is paid by itself.
    """
    if c.limit_price is not None:
        return False, "no market order"
    mark, limit = c.mark, c.config.slippage_bps
    size = need(mark.ask_size, Reason.SLIPPAGE_TOO_HIGH, "the quantity at the ask is not known")
    quantity = c.quantity if c.quote_size is None else c.quote_size / mark.ask
    half_spread = max(mark.ask - mark.bid, c.product.price_increment) / 2
    levels = (quantity / size).to_integral_value(ROUND_CEILING)
    beyond = max(ZERO, levels - 1) * half_spread
    figures = show(ask=mark.ask, ask_size=size, worst_price=mark.ask + beyond, limit_bps=limit)
    return beyond * BPS > limit * mark.ask, figures


# -- caps on entries


def too_many_orders(c: Context) -> Finding:
    """Approvals of the last minute >= orders_per_minute_max; exits are counted, and exempt."""
    approvals, limit = len(c.state.answers.recent(c.now)), c.config.orders_per_minute_max
    return approvals >= limit, show(approvals=approvals, limit=limit)


def order_too_large(c: Context) -> Finding:
    """quantity x limit price (market: ask + slippage) > order_notional_max."""
    return above(c.config.order_notional_max, notional=c.notional)


def position_too_large(c: Context) -> Finding:
    """Position at the mark + open buys of it + what this one adds > the product's limit."""
    product_id = c.signal.product_id
    c.need_fresh_marks(product_id)
    position, buying = abs(c.held) * c.mark.mid, c.state.reserved(product_id)
    after = position + buying + c.added
    return crowded(c, c.config.position_limit(product_id), after=after, position=position, buying=buying)


def exposure_too_large(c: Context) -> Finding:
    """All positions at the marks + all open buys + what this one adds > exposure_max, or > exposure_fraction_max of
    equity."""
    exposure, reserved = c.worth.exposure, c.state.reserved()
    equity = need(c.state.equity(c.known), Reason.ACCOUNT_UNKNOWN, "the opening balances are not known")
    limit = min(c.config.exposure_max, c.config.exposure_fraction_max * equity)
    return crowded(c, limit, after=exposure + reserved + c.added, exposure=exposure, reserved=reserved)


def balance_too_low(c: Context) -> Finding:
    """What it adds > cash by the books - open buys, or > what the venue's account has available."""
    currency, reserved = c.product.quote_currency, c.state.reserved()
    balance = c.account.balances.get(currency)
    cash = need(c.state.balances(c.known).get(currency), Reason.ACCOUNT_UNKNOWN, "the opening balances are not known")
    limit = min(cash - reserved, balance.available if balance else ZERO)
    return crowded(c, limit, cost=c.added, cash=cash, reserved=reserved)


def losing(c: Context) -> Finding:
    """Loss since 00:00 UTC >= the smaller of daily_loss_limit and daily_loss_percent_max of the equity of then."""
    loss = c.worth.daily_loss
    known = c.state.daily_loss_limit(c.config, c.known)
    limit = need(known, Reason.ACCOUNT_UNKNOWN, "the opening balances are not known")
    return loss >= limit, show(daily_loss=loss, limit=limit)


def crowded(c: Context, limit: Decimal, **values: Decimal) -> Finding:
    """The first figure is above the limit, but for an edit that adds nothing: whatever stands above the limit, it is
    not what put it there."""
    over, figures = above(limit, **values)
    return over and c.added > 0, figures


def below_minimum(c: Context, **size: Decimal) -> Finding:
    product, [quantity] = c.product, size.values()
    figures = show(**size, min_size=product.base_min_size)
    if c.without_mark:
        return quantity < product.base_min_size, figures
    value = quantity * c.touch_price
    small = quantity < product.base_min_size or value < product.quote_min_size
    return small, f"{figures} {show(value=value, min_value=product.quote_min_size)}"
