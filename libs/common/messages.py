"""All that crosses the bus: frozen structs, JSON on the wire.

Unknown fields are ignored and new fields have defaults, so that services of two versions run side by side.
Money is Decimal (a string on the wire); times are aware UTC datetimes (RFC 3339 with Z on the wire).
`frozen` and `kw_only` are repeated on every class: msgspec does not hand `kw_only` down.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from hashlib import blake2b
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from msgspec import DecodeError, Struct, field, json
from msgspec.structs import fields

from libs.common.parts import AdjustmentRequest as AdjustmentRequest
from libs.common.parts import ApprovedOrder as ApprovedOrder
from libs.common.parts import Balance as Balance
from libs.common.parts import Check as Check
from libs.common.parts import Closing as Closing
from libs.common.parts import FeeTier as FeeTier
from libs.common.parts import ForeignOrder as ForeignOrder
from libs.common.parts import GuardFigure as GuardFigure
from libs.common.parts import OrderRequest as OrderRequest
from libs.common.parts import Permissions as Permissions
from libs.common.parts import Portfolio as Portfolio
from libs.common.parts import Position as Position
from libs.common.parts import RateLimits as RateLimits
from libs.common.words import TERMINAL as TERMINAL
from libs.common.words import AdjustmentKind as AdjustmentKind
from libs.common.words import CheckOutcome as CheckOutcome
from libs.common.words import Feed as Feed
from libs.common.words import Guard as Guard
from libs.common.words import GuardLevel as GuardLevel
from libs.common.words import OrderStatus as OrderStatus
from libs.common.words import OrderType as OrderType
from libs.common.words import Reason as Reason
from libs.common.words import Side as Side
from libs.common.words import StopDirection as StopDirection
from libs.common.words import TimeInForce as TimeInForce
from libs.common.words import Trading as Trading

DIGITS_MAX = 100  # before and after the point: more than all sums of years need
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HARMLESS = (str, bytes, int, float, Enum, NoneType)  # bool is an int
CONTAINERS = (tuple, list, dict, UnionType, Union)

T = TypeVar("T")


def derive_id(*parts: object) -> str:
    """32 hex digits that depend on nothing but the parts: the same intent always meets the same id."""
    return blake2b("\x1f".join(str(part) for part in parts).encode(), digest_size=16).hexdigest()


def client_order_id(signal_id: str) -> str:
    """The venue's id for the one order that a signal may become, in the form of a UUID."""
    raw = derive_id("order", signal_id)[:24]
    raw += _mark_of(raw)
    return f"{raw[:8]}-{raw[8:12]}-{raw[12:16]}-{raw[16:20]}-{raw[20:]}"


def is_ours(client_order_id: str) -> bool:
    """Whether a bot of this kind made the order: its id proves itself, so that no list has to be kept or asked."""
    raw = client_order_id.replace("-", "")
    return len(raw) == 32 and raw[24:] == _mark_of(raw[:24])


def _mark_of(raw: str) -> str:
    return derive_id("made by perps-bot", raw)[:8]


@cache
def figures_of(kind: type[Struct]) -> tuple[str, ...]:
    """Fields that may hold a Decimal or a datetime, deep inside or as they are: looking at all others takes longer than
    reading the message."""
    return tuple(found.name for found in fields(kind) if not _harmless(found.type))


def _harmless(declared: Any) -> bool:
    """Whether nothing of this type, and no part of it, can be a number of that kind or a time. What is not known is not
    harmless."""
    if isinstance(declared, type) and not get_args(declared):
        return issubclass(declared, HARMLESS)
    return get_origin(declared) in CONTAINERS and all(_harmless(part) for part in get_args(declared) if part is not ...)


def sound(value: object) -> bool:
    """False if a Decimal in it is not finite (JSON strings may say NaN) or no amount of this world, or a time has no
    zone. A number like 1E+20000000 is a few bytes here and megabytes in a sentence about it."""
    match value:
        case Decimal():
            if not value.is_finite():
                return False
            return max(abs(value.adjusted()), -int(value.as_tuple().exponent)) < DIGITS_MAX
        case datetime():
            return value.tzinfo is not None
        case Struct():
            return all([sound(getattr(value, name)) for name in figures_of(type(value))])
        case dict():
            return all(map(sound, value.values()))
        case tuple() | list():
            return all(map(sound, value))
    return True


def read(data: bytes, kind: type[T]) -> T:
    """What these bytes of ours hold. Raises msgspec.DecodeError for everything else: bytes that are no text, nesting
    without end, a number that is none, a time without a zone."""
    try:
        found = json.decode(data, type=kind)
    except (UnicodeDecodeError, RecursionError) as error:  # msgspec lets these through as they are
        raise DecodeError(str(error)) from None
    if not sound(found):
        raise DecodeError("a number that is none, or a time without a zone")
    return found


class Message(Struct, frozen=True, kw_only=True):
    """What every message carries.

    `at` is market time (the venue's clock) and may enter decisions; `sent_at` is wall time, stamped by the bus
    when it publishes, and serves latency figures only.
    """

    id: str
    cause: str = ""
    producer: str = ""
    at: datetime = EPOCH
    sent_at: datetime | None = None


class Mark(Message, frozen=True, kw_only=True):
    """Mark price of one product. `at` is when the venue last confirmed it; `price_time` when it last moved."""

    product_id: str
    bid: Decimal
    ask: Decimal
    last: Decimal
    mid: Decimal
    price_time: datetime
    sequence: int  # of the venue's envelope, counted per connection
    received_at: datetime  # wall time at which the frame of the price reached us
    bid_size: Decimal | None = None  # base currency at the best price, where the venue tells it
    ask_size: Decimal | None = None


class Candle(Message, frozen=True, kw_only=True):
    """A closed candle: `start` inclusive, `start + granularity` exclusive."""

    product_id: str
    granularity: str
    start: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


class FeedState(Message, frozen=True, kw_only=True):
    product_id: str
    state: Feed
    reason: str
    since: datetime


CLOSED_BY = ("is_disabled", "trading_disabled", "view_only", "cancel_only", "auction_mode")


class Product(Message, frozen=True, kw_only=True):
    """The venue's rules for one product; sizes in the base currency, funds in the quote currency."""

    product_id: str
    base_currency: str
    quote_currency: str
    base_increment: Decimal
    quote_increment: Decimal
    price_increment: Decimal
    base_min_size: Decimal
    base_max_size: Decimal
    quote_min_size: Decimal
    quote_max_size: Decimal
    status: str = "online"
    trading_disabled: bool = False
    is_disabled: bool = False
    view_only: bool = False
    cancel_only: bool = False
    limit_only: bool = False
    post_only: bool = False
    auction_mode: bool = False

    def forbids(self, order_type: OrderType, time_in_force: TimeInForce, post_only: bool) -> list[str]:
        """The venue's flags that forbid such an order now."""
        flags = [name for name in CLOSED_BY if getattr(self, name)]
        if self.status != "online":
            flags.append(f"status={self.status or 'none'}")
        if self.limit_only and order_type is OrderType.MARKET:
            flags.append("limit_only")
        if self.post_only and not post_only:
            flags.append("post_only")
        return flags


class Decision(Message, frozen=True, kw_only=True):
    """What the strategy made of one mark, also when that is nothing: a silent strategy must be visible."""

    product_id: str
    action: str  # hold, buy, close
    reason: str
    mark_at: datetime  # the mark's confirmation time (market)
    received_at: datetime  # wall time at which marketdata received the mark
    decided_at: datetime  # wall time
    signal_id: str = ""


class Signal(Message, frozen=True, kw_only=True):
    """What the strategy wants. `id` is derived from the intent; repeated until risk has answered."""

    product_id: str
    strategy: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    quantity: Decimal  # base currency, not yet quantised
    limit_price: Decimal | None
    reduce_only: bool
    reason: str
    trigger: str
    attempt: int
    expires_at: datetime
    quote_size: Decimal | None = None
    stop_price: Decimal | None = None
    stop_direction: StopDirection | None = None
    post_only: bool = False
    end_time: datetime | None = None
    edits: str = ""  # client order id of the open order that gets this quantity and limit price; empty: a new order


class Verdict(Message, frozen=True, kw_only=True):
    """Risk's one answer to a signal. Approved exactly when `order` is there. `checks` holds every rule, in order."""

    product_id: str
    signal_id: str
    reason: Reason
    detail: str
    trading_revision: int
    expires_at: datetime
    reserved: Decimal = Decimal(0)  # quote currency held against the limits until the order is terminal
    order: ApprovedOrder | None = None
    edits: bool = False  # `order` is what an open order is to become, under the same client order id
    operator: bool = False  # answers a request, whose id is remembered for ever
    flatten: str = ""  # the closing that it is a part of
    checks: tuple[Check, ...] = ()


class OrderEvent(Message, frozen=True, kw_only=True):
    """One step in the life of an order. `revision` counts the steps of this order from 1."""

    product_id: str
    client_order_id: str
    signal_id: str
    revision: int
    status: OrderStatus
    reason: str
    order: ApprovedOrder
    venue_order_id: str = ""
    filled_qty: Decimal = Decimal(0)
    filled_value: Decimal = Decimal(0)  # quote currency, without fees
    fees: Decimal = Decimal(0)  # quote currency
    edit_id: str = ""  # signal id of the edit that this step begins (PENDING_UPDATE) or ends (any other status)
    wanted: ApprovedOrder | None = None  # what the edit that is under way asks for


class Fill(Message, frozen=True, kw_only=True):
    """One execution at the venue; `id` is the venue's entry id and counts once, for ever."""

    product_id: str
    client_order_id: str
    venue_order_id: str
    trade_id: str
    side: Side
    price: Decimal
    size: Decimal  # base currency
    fee: Decimal  # quote currency
    liquidity: str  # MAKER or TAKER
    trade_time: datetime
    value: Decimal | None = None  # quote currency, where the venue tells it itself; else price x size

    @property
    def quote_value(self) -> Decimal:
        return self.price * self.size if self.value is None else self.value


class TradingState(Message, frozen=True, kw_only=True):
    """Kept in `$KV.PERPS_STATE.trading`; `revision` is the entry's revision, filled in by the reader.

    `flatten` names the closing of all positions that is in force with it: risk sells what is held until nothing is,
    and execution cancels whatever rests, exits too. `resumed_at` is when an operator last looked and resumed: what
    the guards counted before it counts no more.
    """

    state: Trading
    reason: str
    who: str
    since: datetime
    revision: int = 0
    flatten: str = ""
    resumed_at: datetime | None = None


class Baseline(Message, frozen=True, kw_only=True):
    """From what the guards measure, written by risk after 00:00 UTC: so the daily figures can be rebuilt from the
    ledger, where there are no marks."""

    midnight: datetime  # of the UTC day that it belongs to
    prices: dict[str, Decimal]  # at that midnight, of what was held
    peak_equity: Decimal | None  # quote currency
    resumed_at: datetime | None = None  # the resume since which that is the highest


class Adjustment(Message, frozen=True, kw_only=True):
    """A change of the account that no order of ours made, as an operator has classified it. Written by risk.

    `flows` change what was there before us (the opening balances), per currency; `size` (signed, base currency) at
    `price` changes our position of `product_id` like a fill without a fee.
    """

    kind: AdjustmentKind
    request_id: str
    who: str
    reason: str
    flows: dict[str, Decimal] = field(default_factory=dict)
    product_id: str = ""
    size: Decimal = Decimal(0)
    price: Decimal = Decimal(0)


class Installation(Message, frozen=True, kw_only=True):
    """Made once. `opening` is the venue's balances at the first start: positions count from there."""

    opening: dict[str, Decimal] | None = None


class Account(Message, frozen=True, kw_only=True):
    """The venue's balances. `settled` says that no order was in flight while they were read, with the ledger at
    `ledger_sequence`: only such a snapshot may be compared with the books.

    A part that could not be read is None and named in `unavailable` with its reason. The fee rates are the last known.
    """

    balances: dict[str, Balance]
    taker_fee_rate: Decimal | None
    maker_fee_rate: Decimal | None
    settled: bool
    ledger_sequence: int
    opening: dict[str, Decimal] | None = None  # the balances recorded at installation
    fee_tier: FeeTier | None = None
    permissions: Permissions | None = None
    portfolios: tuple[Portfolio, ...] | None = None
    limits: RateLimits | None = None
    unavailable: dict[str, str] = field(default_factory=dict)
    foreign_orders: tuple[ForeignOrder, ...] | None = None  # None: not listed yet
    foreign_fills: int = 0  # fills of orders that are not ours, since installation or the oldest that is remembered
    reconciled_at: datetime | None = None  # market time of the last complete comparison with the venue


class RiskFigures(Message, frozen=True, kw_only=True):
    """Quote currency throughout; None where a figure is not known."""

    daily_loss_limit: Decimal  # the smaller of the amount and the part of the day's first equity
    daily_loss: Decimal | None
    equity: Decimal | None
    exposure: Decimal | None
    reserved: Decimal
    realized_pnl: Decimal
    fees: Decimal
    unrealized_pnl: Decimal | None
    positions: dict[str, Position]
    books: dict[str, Decimal]  # what we hold per currency: opening balances + fills
    drift: dict[str, Decimal] | None  # venue minus books, per currency; {} is "none", None is "not known"
    trading: Trading
    ledger_sequence: int  # all up to it is in the figures; an adjustment of risk's own may be ahead of it
    equity_day_start: Decimal | None = None  # at 00:00 UTC, with what was paid in or out since
    equity_peak: Decimal | None = None  # since the last resume
    guards: dict[Guard, GuardFigure] = field(default_factory=dict)
    degraded: dict[str, str] = field(default_factory=dict)  # products that take no entries, and why
    closing: dict[str, Closing] | None = None  # positions of the closing in force; None: there is none


class ServiceStatus(Message, frozen=True, kw_only=True):
    """A service's heartbeat: what it last did, not merely that it lives."""

    service: str
    version: str
    pid: int
    profile: str
    started_at: datetime
    ready: bool
    not_ready_reason: str = ""
    last_input_at: datetime | None = None  # wall
    last_decision_at: datetime | None = None  # wall: last message of its own making
    last_venue_at: datetime | None = None  # wall: last answer or frame of the venue
    cycle_seconds: float | None = None  # the last message's way through this service
    errors: int = 0
    restarts: int = 0
    ledger_sequence: int = 0


class Tooling(Message, frozen=True, kw_only=True):
    """Outcome of one operator tool."""

    command: str
    ok: bool
    error: str = ""


class Audit(Message, frozen=True, kw_only=True):
    """An operator command: who asked, why, and what came of it."""

    command: str
    who: str
    reason: str
    ok: bool
    result: str


class Command(Struct, frozen=True, kw_only=True):
    """Body of `perps.control.<service>.<command>`; every part may be missing on the wire, the handler decides."""

    reason: str = ""
    who: str = "operator"
    ledger_sequence: int = 0
    order: OrderRequest | None = None
    adjustment: AdjustmentRequest | None = None


class Reply(Struct, frozen=True, kw_only=True):
    ok: bool
    detail: str = ""
    busy: bool = False
    ledger_sequence: int = 0
    data: dict[str, str] = field(default_factory=dict)


class Tick(Message, frozen=True, kw_only=True):
    """Time passes. Made by the shell, never on the wire."""


class Recovered(Message, frozen=True, kw_only=True):
    """The past has been read in full: from here on outputs count. Made by the shell, never on the wire."""
