"""The books against the venue's account, counted by hand: from the ledger's messages and the venue's own store, by code
that shares nothing with the services or their tools. The count itself is pure."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from decimal import Decimal, localcontext
from pathlib import Path

import msgspec
from msgspec import Struct

from libs.common import messages as m
from libs.common.messages import OrderStatus
from sim.events import Ledger
from sim.orders import Fill, Order

PRECISION = 100  # no sum comes near: nothing is rounded here
ZERO = Decimal(0)
NOTHING_SENT = (OrderStatus.DENIED, OrderStatus.REJECTED)
UNSETTLED = (OrderStatus.SUBMITTING, OrderStatus.UNKNOWN)


class Account(Struct, frozen=True):
    """All that the venue holds. `totals` are balances per currency, what is on hold included."""

    orders: tuple[Order, ...]
    fills: tuple[Fill, ...]
    totals: dict[str, Decimal]


class Count(Struct, frozen=True):
    """What was counted, and everything that is not as it has to be, one line each."""

    orders: int  # at the venue
    fills: int
    approvals: int
    unknown: int  # orders, or edits, that were of unknown outcome for a time
    slowest_unknown: float  # seconds until one of them was settled
    doubles: tuple[str, ...]  # orders that were made twice or approved by nobody, fills that were booked twice
    losses: tuple[str, ...]  # fills and orders that one side has and the other has not, or otherwise
    others: tuple[str, ...]  # balances, reservations, orders without an end

    @property
    def troubles(self) -> list[str]:
        return [*self.doubles, *self.losses, *self.others]


def account_at(folder: Path) -> Account:
    """Read the venue's store, behind its back."""
    with closing(sqlite3.connect(f"file:{folder / 'venue.sqlite3'}?mode=ro", uri=True)) as database:

        def bodies(query: str) -> Iterable[bytes]:
            return [body for (body,) in database.execute(query)]

        (ledger,) = bodies("SELECT body FROM state WHERE name = 'ledger'")
        return Account(
            tuple(
                msgspec.json.decode(body, type=Order) for body in bodies("SELECT body FROM orders ORDER BY sequence")
            ),
            tuple(msgspec.json.decode(body, type=Fill) for body in bodies("SELECT body FROM fills ORDER BY sequence")),
            msgspec.json.decode(ledger, type=Ledger).totals,
        )


def count(ledger: Sequence[m.Message], account: Account, opening: dict[str, Decimal], reserved: Decimal) -> Count:
    """`opening` is what the account held before the first fill, `reserved` what risk holds back, all at rest."""
    verdicts = [message for message in ledger if isinstance(message, m.Verdict)]
    approved = Counter(v.order.client_order_id for v in verdicts if v.order is not None and not v.edits)
    steps = [message for message in ledger if isinstance(message, m.OrderEvent)]
    fills = [message for message in ledger if isinstance(message, m.Fill)]
    last = {step.client_order_id: step for step in sorted(steps, key=lambda step: step.revision)}
    waits = unknowns(steps)
    with localcontext() as context:
        context.prec = PRECISION
        balances = list(_balances(fills, account, opening))
    return Count(
        orders=len(account.orders),
        fills=len(account.fills),
        approvals=approved.total(),
        unknown=len(waits),
        slowest_unknown=max(waits, default=0.0),
        doubles=(*_doubled_orders(approved, account), *_doubled_fills(fills)),
        losses=(*_lost_orders(approved, last, account), *_lost_fills(fills, account)),
        others=(*_open_orders(last, account), *balances, *_reserved(last, reserved)),
    )


def unknowns(steps: Sequence[m.OrderEvent]) -> list[float]:
    """Seconds, wall time, from each turn to UNKNOWN until the venue's word; one without an end is endless."""
    waits: list[float] = []
    since: dict[str, m.OrderEvent] = {}
    for step in steps:
        before = since.get(step.client_order_id)
        if step.status is OrderStatus.UNKNOWN:
            since.setdefault(step.client_order_id, step)
        elif before is not None and before.sent_at and step.sent_at:
            del since[step.client_order_id]
            waits.append((step.sent_at - before.sent_at).total_seconds())
    return waits + [float("inf")] * len(since)


def _doubled_orders(approved: Counter[str], account: Account) -> Iterable[str]:
    for key, times in Counter(order.client_order_id for order in account.orders).items():
        if times > 1:
            yield f"order {key} is at the venue {times} times"
        if key not in approved:
            yield f"order {key} is at the venue, and nobody approved it"
    for key, times in approved.items():
        if times > 1:
            yield f"order {key} was approved {times} times"


def _doubled_fills(fills: Sequence[m.Fill]) -> Iterable[str]:
    for key, times in Counter(fill.id for fill in fills).items():
        if times > 1:
            yield f"fill {key} was booked {times} times"


def _lost_orders(approved: Counter[str], last: dict[str, m.OrderEvent], account: Account) -> Iterable[str]:
    at_venue = {order.client_order_id for order in account.orders}
    for key in approved.keys() - last.keys():
        yield f"order {key} was approved, and nothing came of it"
    for key, step in last.items():
        if (key in at_venue) is (step.status in NOTHING_SENT):
            yield f"order {key} is {step.status} by our books and {'' if key in at_venue else 'not '}at the venue"


def _lost_fills(fills: Sequence[m.Fill], account: Account) -> Iterable[str]:
    booked = {fill.id: fill for fill in fills}
    theirs = {fill.entry_id: fill for fill in account.fills}
    for key in theirs.keys() - booked.keys():
        yield f"fill {key} of order {theirs[key].client_order_id} was lost"
    for key in booked.keys() - theirs.keys():
        yield f"fill {key} was booked, and the venue does not know it"
    for key in booked.keys() & theirs.keys():
        one, other = booked[key], theirs[key]
        told = (one.client_order_id, one.side.value, one.price, one.size, one.fee)
        if told != (other.client_order_id, other.side.value, other.price, other.size, other.fee):
            yield f"fill {key} was booked as {told}"


def _open_orders(last: dict[str, m.OrderEvent], account: Account) -> Iterable[str]:
    ended = {order.client_order_id: order.ended for order in account.orders}
    for key, step in last.items():
        if step.status in UNSETTLED:
            yield f"order {key} is still {step.status}"
        elif key in ended and ended[key] is not (step.status in m.TERMINAL):
            yield f"order {key} is {step.status} by our books and {'ended' if ended[key] else 'open'} at the venue"


def _balances(fills: Sequence[m.Fill], account: Account, opening: dict[str, Decimal]) -> Iterable[str]:
    books = defaultdict(Decimal, opening)
    for fill in {fill.id: fill for fill in fills}.values():
        base, _, quote = fill.product_id.partition("-")
        sign = 1 if fill.side is m.Side.BUY else -1
        books[base] += sign * fill.size
        books[quote] -= sign * fill.price * fill.size + fill.fee
    for currency in sorted(books.keys() | account.totals.keys()):
        ours, theirs = books[currency], account.totals.get(currency, ZERO)
        if ours != theirs:
            yield f"{currency}: ours {ours}, the venue's {theirs}"


def _reserved(last: dict[str, m.OrderEvent], reserved: Decimal) -> Iterable[str]:
    """Held back is something exactly while a buy is open."""
    buys = [key for key, step in last.items() if step.order.side is m.Side.BUY and step.status not in m.TERMINAL]
    if bool(buys) is not (reserved > 0):
        yield f"{reserved} is reserved for {len(buys)} open buys"
