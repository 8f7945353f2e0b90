"""An order as the operator types it, checked word by word. Pure, but for the shape that Typer wants.

The same flags stand after `orders preview` and `orders place` (`--qty`) and, as the playbook has them, on `perps-bot`
itself (`--order-qty`): `with_order_flags` gives a command all of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer
from msgspec import Struct

from libs.common.errors import BadConfig
from libs.common.messages import ApprovedOrder, OrderRequest, OrderType, Side, StopDirection, TimeInForce

HELP = {
    "symbol": "Product, like BTC-USD.",
    "side": "buy or sell.",
    "type": "market, limit, stop_limit or bracket (an exit: takes the profit at the price, ends the loss at the stop).",
    "qty": "Quantity in the base currency.",
    "quote_size": "Amount of the quote currency to spend, fees included, instead of a quantity; market buys only.",
    "price": "Limit price.",
    "stop_price": "Price that triggers a stop_limit, or the stop of a bracket.",
    "stop_direction": "up or down: which way the price has to move to trigger a stop_limit; a sell's is down.",
    "tif": "gtc, gtd, ioc or fok; market orders are ioc, the others gtc unless told.",
    "end_time": "When a gtd order ends, like 2026-12-01T12:00:00Z.",
    "post_only": "Only add to the book, never take from it.",
    "reduce_only": "Sell no more than what is held.",
}
SWITCHES = ("post_only", "reduce_only")
WORDS = {  # what a kind of order takes: its times in force, the first being what is meant unless told
    OrderType.MARKET: (TimeInForce.IOC,),
    OrderType.LIMIT: (TimeInForce.GTC, TimeInForce.GTD, TimeInForce.IOC, TimeInForce.FOK),
    OrderType.STOP_LIMIT: (TimeInForce.GTC, TimeInForce.GTD),
    OrderType.BRACKET: (TimeInForce.GTC, TimeInForce.GTD),
}
TRIGGERED = (OrderType.STOP_LIMIT, OrderType.BRACKET)
T = TypeVar("T", bound=StrEnum)


class OrderFlags(Struct, frozen=True):
    """As typed; empty where nothing was. `prefix` is `--` or `--order-`, for the lines that name a flag."""

    prefix: str
    symbol: str
    side: str
    type: str
    qty: str
    quote_size: str
    price: str
    stop_price: str
    stop_direction: str
    tif: str
    end_time: str
    post_only: bool
    reduce_only: bool

    def flag(self, name: str) -> str:
        return self.prefix + name.replace("_", "-")

    @property
    def given(self) -> list[str]:
        """The flags that were typed."""
        return [self.flag(name) for name in HELP if getattr(self, name)]


def with_order_flags(prefix: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a Typer command every flag of an order; the command gets them as `order: OrderFlags`."""

    def options(command: Callable[..., None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            order = OrderFlags(prefix, *(given.pop(f"order_{name}") for name in HELP))
            command(order=order, **given)

        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.name != "order"]
        parameters = own + [_parameter(prefix, name) for name in HELP]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return options


def _parameter(prefix: str, name: str) -> inspect.Parameter:
    kind: type = bool if name in SWITCHES else str
    option = typer.Option(prefix + name.replace("_", "-"), help=HELP[name], show_default=False)
    annotation = Annotated[kind, option]  # type: ignore[valid-type]
    return inspect.Parameter(f"order_{name}", inspect.Parameter.KEYWORD_ONLY, default=kind(), annotation=annotation)


def request_of(flags: OrderFlags, request_id: str = "") -> OrderRequest:
    """Raises BadConfig with one line that names the flag."""
    order_type = _word(flags, "type", OrderType)
    side = _word(flags, "side", Side)
    request = OrderRequest(
        request_id=request_id,
        product_id=_product(flags),
        side=side,
        order_type=order_type,
        time_in_force=_time_in_force(flags, order_type),
        quantity=amount(flags.qty, flags.flag("qty")),
        quote_size=amount(flags.quote_size, flags.flag("quote_size")),
        limit_price=amount(flags.price, flags.flag("price")),
        stop_price=amount(flags.stop_price, flags.flag("stop_price")),
        stop_direction=_direction(flags, order_type, side),
        post_only=flags.post_only,
        end_time=moment(flags.end_time, flags.flag("end_time")) if flags.end_time else None,
        reduce_only=flags.reduce_only,
    )
    _check_together(flags, request)
    return request


def as_order(request: OrderRequest, quantity: Decimal) -> ApprovedOrder:
    """The order of a request, as the venue is asked what would become of it."""
    return ApprovedOrder(
        client_order_id="",
        product_id=request.product_id,
        side=request.side,
        order_type=request.order_type,
        time_in_force=request.time_in_force,
        quantity=quantity,
        limit_price=request.limit_price,
        reduce_only=request.reduce_only,
        quote_size=request.quote_size,
        stop_price=request.stop_price,
        stop_direction=request.stop_direction,
        post_only=request.post_only,
        end_time=request.end_time,
    )


def amount(text: str, flag: str) -> Decimal | None:
    """A positive number, None where nothing was typed. Raises BadConfig."""
    if not text:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise BadConfig(f"{flag} {text!r} is not a number") from None
    if not number.is_finite() or number <= 0 or number.adjusted() not in range(-20, 20):
        raise BadConfig(f"{flag} {text!r} is not an amount: it has to be above 0")
    return number


def moment(text: str, flag: str) -> datetime:
    """A time; without a zone it is UTC. Raises BadConfig."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadConfig(f"{flag} {text!r} is not a time like 2026-12-01T12:00:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _product(flags: OrderFlags) -> str:
    base, _, quote = flags.symbol.upper().partition("-")
    if not flags.symbol:
        raise BadConfig(f"{flags.flag('symbol')} is missing: the product, like BTC-USD")
    if not (base.isalnum() and quote.isalnum() and flags.symbol.isascii()):
        raise BadConfig(f"{flags.flag('symbol')} {flags.symbol!r} is not a product like BTC-USD")
    return f"{base}-{quote}"


def _word(flags: OrderFlags, name: str, kind: type[T]) -> T:
    text = getattr(flags, name)
    words = ", ".join(kind).lower()
    if not text:
        raise BadConfig(f"{flags.flag(name)} is missing: one of {words}")
    try:
        return kind(text.upper().replace("-", "_"))
    except ValueError:
        raise BadConfig(f"{flags.flag(name)} {text!r} is none of {words}") from None


def _time_in_force(flags: OrderFlags, order_type: OrderType) -> TimeInForce:
    if not flags.tif:
        return TimeInForce.GTD if flags.end_time and TimeInForce.GTD in WORDS[order_type] else WORDS[order_type][0]
    wanted = _word(flags, "tif", TimeInForce)
    if wanted not in WORDS[order_type]:
        words = ", ".join(WORDS[order_type]).lower()
        raise BadConfig(f"{flags.flag('tif')} {flags.tif!r} does not go with a {order_type.lower()} order: {words}")
    return wanted


def _direction(flags: OrderFlags, order_type: OrderType, side: Side) -> StopDirection | None:
    if flags.stop_direction:
        return _word(flags, "stop_direction", StopDirection)
    if order_type is OrderType.STOP_LIMIT:  # what a stop is for: it ends a loss
        return StopDirection.DOWN if side is Side.SELL else StopDirection.UP
    return None


def _check_together(flags: OrderFlags, request: OrderRequest) -> None:
    """Which flags belong together: the first that is too much or too few is named."""
    kind = request.order_type
    market, gtd = kind is OrderType.MARKET, request.time_in_force is TimeInForce.GTD
    spends = market and request.side is Side.BUY
    resting_limit = kind is OrderType.LIMIT and request.time_in_force.rests
    what = f"a {kind.lower()} order"
    needed = {"price": not market, "stop_price": kind in TRIGGERED, "end_time": gtd}
    allowed = {
        **needed,
        "stop_direction": kind is OrderType.STOP_LIMIT,
        "quote_size": spends,
        "post_only": resting_limit,
    }
    for name, wanted in needed.items():
        if wanted and not getattr(flags, name):
            raise BadConfig(f"{flags.flag(name)} is missing: {what if name != 'end_time' else 'a gtd order'} needs it")
    for name, taken in allowed.items():
        if getattr(flags, name) and not taken:
            does = f"{request.side.lower()} with {request.time_in_force.lower()}"
            raise BadConfig(f"{flags.flag(name)} does not go with {what}, {does}")
    if bool(flags.qty) == bool(flags.quote_size):
        or_quote = f", or {flags.flag('quote_size')}" if spends else ""
        told = "and {} exclude each other".format(flags.flag("quote_size")) if flags.qty else f"is missing{or_quote}"
        raise BadConfig(f"{flags.flag('qty')} {told}")
