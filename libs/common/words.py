"""The closed lists: sides, kinds of order, states, reasons. One word each, in every message, log line and metric."""

from __future__ import annotations

from enum import StrEnum


class Side(StrEnum):
    BUY = "BUY"
    SELL = "SELL"


class OrderType(StrEnum):
    MARKET = "MARKET"
    LIMIT = "LIMIT"
    STOP_LIMIT = "STOP_LIMIT"
    BRACKET = "BRACKET"  # an exit with two prices: the limit price takes the profit, the stop price ends the loss


class TimeInForce(StrEnum):
    IOC = "IOC"
    FOK = "FOK"
    GTC = "GTC"
    GTD = "GTD"

    @property
    def rests(self) -> bool:
        """What does not fill at once stays in the book."""
        return self in (TimeInForce.GTC, TimeInForce.GTD)


class StopDirection(StrEnum):
    """Which way the price has to move to trigger a stop."""

    UP = "UP"
    DOWN = "DOWN"


class Feed(StrEnum):
    LIVE = "live"
    STALE = "stale"
    GAP = "gap"
    RECONNECTING = "reconnecting"


class Trading(StrEnum):
    """active: all. reducing: exits and cancels. halted: cancels and the operator's flatten."""

    ACTIVE = "active"
    REDUCING = "reducing"
    HALTED = "halted"


class OrderStatus(StrEnum):
    SUBMITTING = "SUBMITTING"
    UNKNOWN = "UNKNOWN"
    ACCEPTED = "ACCEPTED"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    PENDING_UPDATE = "PENDING_UPDATE"  # an edit was sent; the venue has not said what came of it
    PENDING_CANCEL = "PENDING_CANCEL"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"  # by the venue
    DENIED = "DENIED"  # by us, before anything was sent


TERMINAL = frozenset(
    {
        OrderStatus.FILLED,
        OrderStatus.CANCELED,
        OrderStatus.EXPIRED,
        OrderStatus.REJECTED,
        OrderStatus.DENIED,
    }
)


class Guard(StrEnum):
    """What is asked all the time, order or no order: `risk.guards.<guard>.<level>` in the log."""

    DAILY_LOSS = "daily_loss"
    DRAWDOWN = "drawdown"
    VOLATILITY = "volatility"
    MARK_STALENESS = "mark_staleness"
    CONCENTRATION = "concentration"
    ORDER_ERRORS = "order_errors"
    REJECTIONS = "rejections"
    POSITION_DRIFT = "position_drift"


class GuardLevel(StrEnum):
    """What a guard says, the worst last; unknown: what it measures cannot be told."""

    OK = "ok"
    UNKNOWN = "unknown"
    WARNING = "warning"
    REDUCE = "reduce"
    HALT = "halt"


class CheckOutcome(StrEnum):
    """What one rule said of one signal."""

    PASSED = "passed"
    VIOLATED = "violated"
    UNKNOWN = "unknown"  # it could not be evaluated, which refuses
    EXEMPT = "exempt"  # it does not bind this kind of order


class AdjustmentKind(StrEnum):
    """What an operator says that a change of the account was, or is to be."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    MANUAL_TRADE = "manual_trade"  # somebody traded the bot's holdings by hand: the books trade along
    HANDOVER = "handover"  # holdings of the account become the bot's own, to be sold by it


class Reason(StrEnum):
    """Why risk or execution refused. One word in the verdict, the log, the metric label, the alert and the runbook."""

    APPROVED = "approved"
    SIGNAL_EXPIRED = "signal_expired"
    DUPLICATE_SIGNAL = "duplicate_signal"  # an order of the same side and product is still open
    TRADING_HALTED = "trading_halted"
    TRADING_REDUCING = "trading_reducing"
    TRADING_STATE_UNKNOWN = "trading_state_unknown"
    TRADING_STATE_CHANGED = "trading_state_changed"
    PRODUCT_UNKNOWN = "product_unknown"
    PRODUCT_NOT_TRADABLE = "product_not_tradable"
    MARK_UNKNOWN = "mark_unknown"
    MARK_STALE = "mark_stale"
    PRICE_STALE = "price_stale"  # confirmed, but it has not moved for too long
    FEED_NOT_LIVE = "feed_not_live"
    MARKET_DEGRADED = "market_degraded"  # the feed was lost, and has not been sound for long enough since
    SPREAD_TOO_WIDE = "spread_too_wide"
    SLIPPAGE_TOO_HIGH = "slippage_too_high"
    ACCOUNT_UNKNOWN = "account_unknown"
    ACCOUNT_DRIFT = "account_drift"
    NOTHING_TO_REDUCE = "nothing_to_reduce"
    DUST = "dust"
    SIZE_BELOW_MINIMUM = "size_below_minimum"
    SIZE_ABOVE_MAXIMUM = "size_above_maximum"
    ORDER_INVALID = "order_invalid"  # fields that do not belong together
    ORDER_NOT_EDITABLE = "order_not_editable"
    PRICE_OFF_MARKET = "price_off_market"
    NOTIONAL_ABOVE_LIMIT = "notional_above_limit"
    POSITION_ABOVE_LIMIT = "position_above_limit"
    EXPOSURE_ABOVE_LIMIT = "exposure_above_limit"
    ORDER_RATE_ABOVE_LIMIT = "order_rate_above_limit"
    BALANCE_TOO_LOW = "balance_too_low"
    DAILY_LOSS_LIMIT = "daily_loss_limit"
    EVALUATION_FAILED = "evaluation_failed"
    APPROVAL_EXPIRED = "approval_expired"
    VENUE_UNREACHABLE = "venue_unreachable"
