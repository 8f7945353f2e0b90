"""Why the venue refuses an order: a table of checks read downwards, the first that objects answers.

Names and their places follow recorded answers: what the preview step finds stands in `preview_failure_reason`, what
the exchange itself finds in `new_order_failure_reason`; `error` repeats the name unless it is known to previews only.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from msgspec import Struct

from sim.account import Account
from sim.book import Book, Depth
from sim.matching import Want, limit_base_size, take
from sim.money import ONE, ZERO, is_multiple
from sim.orders import Kind, NewOrder, StopDirection, TimeInForce, worst_price
from sim.products import Product
from sim.ticks import Side

STOPPED = frozenset({Kind.STOP_LIMIT, Kind.BRACKET})  # sources disagree on whether the venue takes these on spot

DuplicateMode = Literal["returns_existing", "refuses"]


class VenueRules(Struct, frozen=True):
    """Fees (fractions of the value) and behaviours of the venue; defaults are the tier Intro 1 of 2026."""

    taker_fee: Decimal = Decimal("0.012")
    maker_fee: Decimal = Decimal("0.006")
    depth: Depth = Depth()
    duplicates: DuplicateMode = "returns_existing"
    stop_limit_allowed: bool = True
    cancel_queued: bool = False  # report CANCEL_QUEUED before CANCELLED
    latency: timedelta = timedelta(0)  # market time from acceptance (PENDING) to the book
    take_at_most_fraction: Decimal = ONE  # of its size, that an order takes from the book as it arrives


class Refusal(Struct, frozen=True):
    """A refusal by the names that the venue uses; `exchange` and `preview` say who found it ("" = not they)."""

    exchange: str = ""
    preview: str = ""
    message: str = ""


def _both(name: str, message: str = "") -> Refusal:
    return Refusal(name, f"PREVIEW_{name}", message)


def _preview_only(name: str, message: str = "") -> Refusal:
    return Refusal("", f"PREVIEW_{name}", message)


UNSUPPORTED = _both("UNSUPPORTED_ORDER_CONFIGURATION", "Order configuration is not supported")
EMPTY_SIZE = Refusal("", "", "The order configuration was invalid")
NON_NUMERIC = _preview_only("NON_NUMERIC_ORDER_SIZE", "Order size is not a number")
UNKNOWN_PRODUCT = _both("INVALID_PRODUCT_ID", "Product not found")
INSUFFICIENT_FUND = _both("INSUFFICIENT_FUND", "Insufficient balance in source account")
SIZE_PRECISION = _both("INVALID_SIZE_PRECISION", "Too many decimals in order amount")
PRICE_PRECISION = _both("INVALID_PRICE_PRECISION", "Too many decimals in order price")
QUOTE_PRECISION = _preview_only("INVALID_QUOTE_SIZE_PRECISION", "Too many decimals in order amount")
BASE_SMALL = _preview_only("INVALID_BASE_SIZE_TOO_SMALL", "Order size is below the product's minimum")
BASE_LARGE = _preview_only("INVALID_BASE_SIZE_TOO_LARGE", "Order size is above the product's maximum")
QUOTE_SMALL = _preview_only("INVALID_QUOTE_SIZE_TOO_SMALL", "Order value is below the product's minimum")
QUOTE_LARGE = _preview_only("INVALID_QUOTE_SIZE_TOO_LARGE", "Order value is above the product's maximum")
LIMIT_PRICE = _both("INVALID_LIMIT_PRICE", "Limit price must be above zero")
POST_ONLY_CROSSES = _both("INVALID_LIMIT_PRICE_POST_ONLY", "Post only order would take")
NO_LIQUIDITY = _both("INVALID_NO_LIQUIDITY", "No liquidity")
NO_END_TIME = _both("GTD_ORDERS_MUST_HAVE_END_TIME", "GTD orders must have an end time")
END_TIME_PAST = _both("END_TIME_IS_IN_THE_PAST", "End time is in the past")
BRACKET_PRICES = _both("INVALID_BRACKET_PRICES", "Stop trigger and limit price are on the wrong sides of each other")
STOP_ABOVE = _preview_only("STOP_PRICE_ABOVE_LAST_TRADE_PRICE", "Stop price is above the last trade price")
STOP_BELOW = _preview_only("STOP_PRICE_BELOW_LAST_TRADE_PRICE", "Stop price is below the last trade price")
MARKET_STATE = _preview_only("NOT_ALLOWED_BY_MARKET_STATE", "Not allowed by the product's trading state")
TRADING_DISABLED = _both("TRADING_DISABLED", "Trading is disabled")
ENTRY_DISABLED = _both("ORDER_ENTRY_DISABLED", "Only cancels are accepted")
UNTRADABLE = _both("UNTRADABLE_PRODUCT", "Product cannot be traded")
DUPLICATE = Refusal("DUPLICATE_CLIENT_ORDER_ID", "", "Client order id was used before")


class Question(Struct, frozen=True):
    """A request with all that a check may look at."""

    order: NewOrder
    product: Product
    book: Book | None
    account: Account
    rules: VenueRules
    now: datetime


Check = Callable[[Question], Refusal | None]


def _configuration(question: Question) -> Refusal | None:
    order = question.order
    stop = order.kind in STOPPED and not question.rules.stop_limit_allowed
    quote_sell = order.kind is Kind.MARKET and order.side is Side.SELL and order.quote_size is not None
    return UNSUPPORTED if stop or quote_sell or not order.supported else None


def _amounts_present(question: Question) -> Refusal | None:
    order = question.order
    if not order.numeric:
        return NON_NUMERIC
    if (order.base_size is None) == (order.quote_size is None):
        return EMPTY_SIZE
    return EMPTY_SIZE if order.kind is not Kind.MARKET and order.limit_price is None else None


def _trading_flags(question: Question) -> Refusal | None:
    product, order = question.product, question.order
    if product.is_disabled or product.view_only or product.status == "delisted":
        return UNTRADABLE
    if product.trading_disabled or product.status == "offline":
        return TRADING_DISABLED
    if product.cancel_only:
        return ENTRY_DISABLED
    taking = order.kind is Kind.MARKET or order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)
    refused = (
        (product.limit_only and order.kind is Kind.MARKET)
        or (product.post_only and not order.post_only)
        or (product.auction_mode and taking)
    )
    return MARKET_STATE if refused else None


def _base_size(question: Question) -> Refusal | None:
    size, product = question.order.base_size, question.product
    if size is None:
        return None
    if size > 0 and not is_multiple(size, product.base_increment):
        return SIZE_PRECISION
    if size < product.base_min_size:
        return BASE_SMALL
    return BASE_LARGE if size > product.base_max_size else None


def _quote_size(question: Question) -> Refusal | None:
    size, product = question.order.quote_size, question.product
    if size is None:
        return None
    if size > 0 and not is_multiple(size, product.quote_increment):
        return QUOTE_PRECISION
    if size < product.quote_min_size:
        return QUOTE_SMALL
    return QUOTE_LARGE if size > product.quote_max_size else None


def _limit_price(question: Question) -> Refusal | None:
    order, step = question.order, question.product.price_increment
    if order.limit_price is None:
        return None
    if order.limit_price <= 0:
        return LIMIT_PRICE
    prices = (order.limit_price, order.stop_price or ZERO)
    if not all(is_multiple(price, step) for price in prices):
        return PRICE_PRECISION
    return BASE_SMALL if limit_base_size(order, question.product.base_increment) == 0 else None


def _end_time(question: Question) -> Refusal | None:
    order = question.order
    if order.time_in_force is not TimeInForce.GTD:
        return None
    if order.end_time is None:
        return NO_END_TIME
    return END_TIME_PAST if order.end_time <= question.now else None


def _liquidity(question: Question) -> Refusal | None:
    book, order = question.book, question.order
    if book is None or (order.kind is Kind.MARKET and not book.against(order.side)):
        return NO_LIQUIDITY
    return None


def _stop_price(question: Question) -> Refusal | None:
    order, book = question.order, question.book
    if order.kind not in STOPPED or book is None:
        return None
    if order.stop_price is None or order.stop_price <= 0 or order.stop_direction is None:
        return EMPTY_SIZE
    if order.kind is Kind.BRACKET and order.limit_price is not None:
        above, buying = order.stop_price - order.limit_price, order.side is Side.BUY
        if (above if buying else -above) <= 0:
            return BRACKET_PRICES
    if order.stop_direction is StopDirection.UP:
        return STOP_BELOW if order.stop_price <= book.last else None
    return STOP_ABOVE if order.stop_price >= book.last else None


def _post_only(question: Question) -> Refusal | None:
    order, book = question.order, question.book
    if not order.post_only or order.limit_price is None or book is None:
        return None
    return POST_ONLY_CROSSES if book.crosses(order.side, order.limit_price) else None


def _funds(question: Question) -> Refusal | None:
    order, product = question.order, question.product
    currency = product.quote if order.side is Side.BUY else product.base
    needed = hold_for(order, product, question.book, question.rules)
    return INSUFFICIENT_FUND if needed > question.account.available(currency) else None


CHECKS: tuple[Check, ...] = (
    _configuration,
    _amounts_present,
    _trading_flags,
    _base_size,
    _quote_size,
    _limit_price,
    _end_time,
    _liquidity,
    _stop_price,
    _post_only,
    _funds,
)


def refusal_of(question: Question) -> Refusal | None:
    """The first check that objects, if any."""
    for check in CHECKS:
        if refusal := check(question):
            return refusal
    return None


def hold_fee_rate(order: NewOrder, rules: VenueRules) -> Decimal:
    """The rate kept back for fees: a post-only order can only pay the maker's."""
    return rules.maker_fee if order.post_only else max(rules.maker_fee, rules.taker_fee)


def hold_for(order: NewOrder, product: Product, book: Book | None, rules: VenueRules) -> Decimal:
    """What an order keeps back at acceptance: base for SELL; for BUY its cost at the worst price plus fees."""
    size = limit_base_size(order, product.base_increment)
    if order.side is Side.SELL:
        return size or ZERO
    if (price := worst_price(order)) is not None:
        return (size or ZERO) * price * (ONE + hold_fee_rate(order, rules))
    if order.quote_size is not None:
        return order.quote_size
    levels = book.asks if book else []
    want = Want(Side.BUY, product.base_increment, order.base_size, None, None, rules.taker_fee)
    return take(levels, want).value * (ONE + rules.taker_fee)
