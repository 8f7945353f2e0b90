"""Which fields belong to which kind of order, as one table (section 2.1 of the venue's order configurations)."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from libs.common.messages import OrderType, Side, Signal, TimeInForce

IOC, FOK, GTC, GTD = TimeInForce.IOC, TimeInForce.FOK, TimeInForce.GTC, TimeInForce.GTD
FIELDS = ("quote_size", "limit_price", "stop_price", "stop_direction", "post_only", "end_time")


class Kind(Struct, frozen=True):
    """`needs` must be given and `may` may be; a GTD order needs an end time besides."""

    in_force: tuple[TimeInForce, ...]
    needs: frozenset[str] = frozenset({"limit_price"})
    may: frozenset[str] = frozenset()
    sides: frozenset[Side] = frozenset(Side)


EDIT = Kind((GTC,))
STOPPED = frozenset({"limit_price", "stop_price"})
KINDS = {
    # As GTC the venue takes a market order too, and executes it as IOC; as FOK it refuses it on spot.
    OrderType.MARKET: Kind((IOC, GTC), needs=frozenset(), may=frozenset({"quote_size"})),
    OrderType.LIMIT: Kind((IOC, FOK, GTC, GTD), may=frozenset({"post_only"})),
    OrderType.STOP_LIMIT: Kind((GTC, GTD), needs=STOPPED, may=frozenset({"stop_direction"})),
    OrderType.BRACKET: Kind((GTC, GTD), needs=STOPPED, sides=frozenset({Side.SELL})),
}


def misfit(signal: Signal, now: datetime) -> str:
    """What does not belong together in a signal, in one line; empty when all does. `now` is market time."""
    kind, in_force = EDIT if signal.edits else KINDS[signal.order_type], signal.time_in_force
    name = f"{'an edit of ' if signal.edits else ''}{signal.order_type} {in_force} {signal.side}"
    given = {field for field in FIELDS if getattr(signal, field) is not None and getattr(signal, field) is not False}
    needs = kind.needs | ({"end_time"} if in_force is GTD else set())
    may = needs | (kind.may if in_force.rests else kind.may - {"post_only"})
    missing, strange = sorted(needs - given), sorted(given - may)
    if in_force not in kind.in_force or signal.side not in kind.sides:
        return f"no such order: {name}"
    if missing or strange:
        return f"{name} " + (f"needs {missing[0]}" if missing else f"takes no {strange[0]}")
    return _contradiction(signal, name, now)


def _contradiction(signal: Signal, name: str, now: datetime) -> str:
    limit, stop = signal.limit_price, signal.stop_price
    if signal.edits and signal.order_type is not OrderType.LIMIT:
        return f"{name}: only limit orders can be edited"
    if signal.quote_size is not None and signal.side is Side.SELL:
        return f"{name} takes no quote_size"
    if signal.quote_size is not None and signal.quantity:
        return "give either quantity or quote_size"
    if signal.end_time is not None and signal.end_time <= now:
        return f"end_time is in the past: {signal.end_time.isoformat()}, now is {now.isoformat()}"
    if signal.order_type is OrderType.BRACKET and limit is not None and stop is not None and limit <= stop:
        return f"{name} needs its limit_price above its stop_price: {limit:f} and {stop:f}"
    return ""
