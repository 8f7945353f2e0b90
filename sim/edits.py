"""What an order holds, and when and how a resting one may be changed. Pure."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from sim.book import Book
from sim.money import ONE, ZERO, ceil_to, floor_to, is_multiple, text
from sim.orders import Kind, Order, Status, TimeInForce, Trigger, exit_price, worst_price
from sim.products import Product
from sim.ticks import Side


class EditRefusal(Struct, frozen=True):
    """Why an edit was refused: the edit reason, and the preview's where the new amounts are at fault."""

    edit: str
    preview: str = "UNKNOWN_PREVIEW_FAILURE_REASON"


def edit_refusal(order: Order, edited: Order, product: Product, book: Book, free: Decimal) -> EditRefusal | None:
    """The first objection; `free` is what the account may spend once the order's own hold is released."""
    if order.status is not Status.OPEN:
        return EditRefusal("ONLY_OPEN_ORDERS_CAN_BE_EDITED")
    if order.kind is not Kind.LIMIT or order.time_in_force is not TimeInForce.GTC:
        return EditRefusal("ONLY_LIMIT_ORDER_EDITS_SUPPORTED")
    price, size = edited.limit_price, edited.base_size
    if price is None or size is None or (price, size) == (order.limit_price, order.base_size):
        return EditRefusal("EDIT_REQUEST_EQUAL_TO_ORIGINAL_REQUEST")
    return _amounts(order, price, size, product) or _effects(edited, price, book, free)


def _amounts(order: Order, price: Decimal, size: Decimal, product: Product) -> EditRefusal | None:
    if price <= 0 or not is_multiple(price, product.price_increment):
        return EditRefusal("INVALID_EDITED_PRICE", "PREVIEW_INVALID_PRICE_PRECISION")
    if not is_multiple(size, product.base_increment):
        return EditRefusal("INVALID_EDITED_SIZE", "PREVIEW_INVALID_SIZE_PRECISION")
    if size <= order.filled_size:
        return EditRefusal("CANNOT_EDIT_TO_BELOW_FILLED_SIZE")
    if not product.base_min_size <= size <= product.base_max_size:
        return EditRefusal("INVALID_EDITED_SIZE")
    return None


def _effects(edited: Order, price: Decimal, book: Book, free: Decimal) -> EditRefusal | None:
    if edited.post_only and book.crosses(edited.side, price):
        return EditRefusal("INVALID_EDITED_PRICE", "PREVIEW_INVALID_LIMIT_PRICE_POST_ONLY")
    if edited.hold > free:
        return EditRefusal("COMMANDER_REJECTED_EDIT_ORDER", "PREVIEW_INSUFFICIENT_FUND")
    return None


def remaining_hold(order: Order, spent: Decimal = ZERO) -> Decimal:
    """What an order keeps back for its remainder, after `spent` was just paid in the quote currency."""
    if order.side is Side.SELL:
        return order.remaining
    if (price := worst_price(order)) is not None:
        return order.remaining * price * (ONE + order.hold_fee_rate)
    return max(order.hold - spent, ZERO)


def triggered_order(order: Order, step: Decimal) -> Order:
    """The order once the last price has met its stop: a bracket gives up its limit price and leaves at the market."""
    if order.kind is not Kind.BRACKET or order.stop_price is None:
        return replace(order, trigger=Trigger.DONE)
    worst = exit_price(order.side, order.stop_price)
    limit = floor_to(worst, step) if order.side is Side.BUY else ceil_to(worst, step)
    return replace(order, trigger=Trigger.DONE, limit_price=limit)


def edited_order(order: Order, price: Decimal | None, size: Decimal | None) -> Order:
    """The order as an edit would make it."""
    configuration = {
        key: {**fields, "limit_price": text(price or ZERO), "base_size": text(size or ZERO)}
        for key, fields in order.configuration.items()
    }
    edited = replace(order, limit_price=price, base_size=size, configuration=configuration)
    return replace(edited, hold=remaining_hold(edited))
