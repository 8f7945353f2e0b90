"""The policy: one table of rules, read downwards; the first that is violated refuses.

Every rule is asked, also after one has refused, so that a verdict tells what each of them looked at. A rule that cannot
be evaluated refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from msgspec import Struct

from libs.common.messages import Check, CheckOutcome, Reason
from services.risk import checks as k
from services.risk.checks import Finding
from services.risk.checks import show as show
from services.risk.sizing import Context, Missing


class Purpose(Enum):
    """What an order is for. A closing is a sale that risk makes itself, for `flatten`."""

    ENTRY = 1
    EXIT = 2
    CLOSING = 3

    @classmethod
    def of(cls, c: Context) -> Purpose:
        if c.entry:
            return cls.ENTRY
        return cls.CLOSING if c.closing else cls.EXIT


class Rule(Struct, frozen=True):
    """`violated` tells whether the rule is violated, and by which figures it knows."""

    reason: Reason
    binds: frozenset[Purpose]
    violated: Callable[[Context], Finding]


ENTRIES = frozenset({Purpose.ENTRY})
SALES = frozenset({Purpose.EXIT, Purpose.CLOSING})
# A closing is the operator's way out: it goes also while trading is halted and while there is no market data.
CHOSEN = frozenset({Purpose.ENTRY, Purpose.EXIT})
ALL = frozenset(Purpose)
RULES = (
    Rule(Reason.SIGNAL_EXPIRED, ALL, k.expired),
    Rule(Reason.DUPLICATE_SIGNAL, CHOSEN, k.duplicate),
    Rule(Reason.TRADING_STATE_UNKNOWN, ALL, k.trading_unknown),
    Rule(Reason.TRADING_HALTED, CHOSEN, k.halted),
    Rule(Reason.TRADING_REDUCING, ENTRIES, k.reducing),
    Rule(Reason.PRODUCT_UNKNOWN, ALL, k.product_unknown),
    Rule(Reason.ORDER_NOT_EDITABLE, ALL, k.not_editable),
    Rule(Reason.ORDER_INVALID, ALL, k.invalid),
    Rule(Reason.PRODUCT_NOT_TRADABLE, ALL, k.not_tradable),
    # An exit needs no balance: a hung account poll must not lock a position in.
    Rule(Reason.ACCOUNT_UNKNOWN, ENTRIES, k.account_unknown),
    Rule(Reason.ACCOUNT_DRIFT, ENTRIES, k.drifting),
    Rule(Reason.MARK_UNKNOWN, CHOSEN, k.mark_unknown),
    Rule(Reason.MARK_STALE, CHOSEN, k.mark_stale),
    Rule(Reason.PRICE_STALE, ENTRIES, k.price_stale),
    Rule(Reason.FEED_NOT_LIVE, ENTRIES, k.feed_not_live),
    Rule(Reason.MARKET_DEGRADED, ENTRIES, k.degraded),
    Rule(Reason.NOTHING_TO_REDUCE, ALL, k.nothing_to_reduce),
    Rule(Reason.DUST, SALES, k.dust),
    Rule(Reason.SIZE_BELOW_MINIMUM, ALL, k.too_small),
    Rule(Reason.SIZE_ABOVE_MAXIMUM, ALL, k.too_large),
    Rule(Reason.PRICE_OFF_MARKET, CHOSEN, k.stop_reached),
    Rule(Reason.PRICE_OFF_MARKET, CHOSEN, k.price_off_market),
    Rule(Reason.SPREAD_TOO_WIDE, ENTRIES, k.spread_too_wide),
    Rule(Reason.SLIPPAGE_TOO_HIGH, ENTRIES, k.slippage_too_high),
    Rule(Reason.ORDER_RATE_ABOVE_LIMIT, ENTRIES, k.too_many_orders),
    Rule(Reason.NOTIONAL_ABOVE_LIMIT, ENTRIES, k.order_too_large),
    Rule(Reason.POSITION_ABOVE_LIMIT, ENTRIES, k.position_too_large),
    Rule(Reason.EXPOSURE_ABOVE_LIMIT, ENTRIES, k.exposure_too_large),
    Rule(Reason.BALANCE_TOO_LOW, ENTRIES, k.balance_too_low),
    Rule(Reason.DAILY_LOSS_LIMIT, ENTRIES, k.losing),
)


class Evaluation(Struct, frozen=True):
    """`reason` is that of the first rule that refuses, APPROVED when none does; `detail` its figures, or what an
    approval rests on. `checks` holds every rule."""

    reason: Reason
    detail: str
    checks: tuple[Check, ...]


def evaluate(c: Context) -> Evaluation:
    """Ask every rule."""
    purpose = Purpose.of(c)
    checks = tuple(_check(rule, c, purpose) for rule in RULES)
    for check in checks:
        if check.outcome in (CheckOutcome.VIOLATED, CheckOutcome.UNKNOWN):
            return Evaluation(check.reason, check.detail, checks)
    return Evaluation(Reason.APPROVED, _rests_on(c), checks)


def _check(rule: Rule, c: Context, purpose: Purpose) -> Check:
    name = rule.violated.__name__
    if purpose not in rule.binds:
        return Check(rule=name, reason=rule.reason, outcome=CheckOutcome.EXEMPT)
    try:
        violated, figures = rule.violated(c)
    except Missing as missing:
        return Check(rule=name, reason=missing.reason, outcome=CheckOutcome.UNKNOWN, detail=missing.detail)
    except Exception as error:  # noqa: BLE001 # a rule that breaks refuses, whatever broke it: guards fail closed
        why = f"{name}: {type(error).__name__}"
        return Check(rule=name, reason=Reason.EVALUATION_FAILED, outcome=CheckOutcome.UNKNOWN, detail=why)
    outcome = CheckOutcome.VIOLATED if violated else CheckOutcome.PASSED
    return Check(rule=name, reason=rule.reason, outcome=outcome, detail=figures)


def _rests_on(c: Context) -> str:
    if c.closing:  # it needs no mark
        return show(quantity=c.quantity, held=c.held)
    return show(quantity=c.quantity, notional=c.notional, reserved=c.reservation, mid=c.mark.mid, held=c.held)
