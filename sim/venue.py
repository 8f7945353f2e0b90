"""The venue behind its doors: the exchange, its market's past, its store. Every change is stored before it is told."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol

from msgspec.structs import replace

from sim.clock import Clock
from sim.core import Exchange
from sim.edits import EditRefusal
from sim.events import Event, FillMade, Ledger, OrderChanged, Placement
from sim.faults import FaultBox, flagged
from sim.history import History
from sim.market import SyntheticMarket
from sim.orders import Fill, NewOrder, Order
from sim.products import Product
from sim.replay import Replay
from sim.ticks import LAST_MOMENT, Tick

Publish = Callable[[Sequence[Event]], None]


class Keeps(Protocol):
    """What is used of `sim.store.Store`."""

    def commit(
        self,
        ledger: Ledger,
        orders: Iterable[Order],
        fills: Iterable[Fill],
        prices: Mapping[str, Decimal],
        position: int,
    ) -> None: ...
    def keep_prices(self, prices: Mapping[str, Decimal]) -> None: ...
    def note_position(self, position: int) -> None: ...


class Venue:
    """What REST, WebSocket and admin paths act on. One thread; nothing here awaits, so every change is whole.

    Without a market of its own it is moved from outside (`reopen`, `deliver`, `remember`); `trouble` then says why it
    cannot be at the moment: nothing is traded and no time passes for orders until it is empty again.
    """

    def __init__(self, exchange: Exchange, store: Keeps, clock: Clock, market: SyntheticMarket | Replay | None) -> None:
        self.exchange = exchange
        self.clock = clock
        self.market = market
        self.faults = FaultBox()
        self.histories = {product_id: History() for product_id in exchange.products}
        self.ticks_done = 0
        self.trouble = ""
        self.user_id = exchange.identity("user")
        self.portfolio_id = exchange.identity("portfolio")
        self.publish: Publish = lambda events: None
        self._listed = dict(exchange.products)
        self._store = store
        self._replayed: Iterator[Tick] = iter(())
        self._market_time: datetime | None = None

    @property
    def live(self) -> bool:
        return not isinstance(self.market, Replay)

    def wall(self) -> datetime:
        """The venue's own clock, which need not agree with ours."""
        return self.clock.wall() + timedelta(seconds=self.faults.faults.clock_skew_seconds)

    def market_time(self) -> datetime:
        """What stamps all that belongs to the market: the wall clock, or in a replay its last tick."""
        return self._market_time or self.clock.wall()

    def open_market(self, position: int) -> None:
        """Know the past before the doors open; in a replay, go on after `position` ticks."""
        if isinstance(self.market, Replay):
            self._open_replay(self.market, position)
        elif self.market is not None:
            for tick in self.market.backfill(self.clock.wall()):
                self.histories[tick.product_id].add(tick)
        for history in self.histories.values():
            if history.last is not None:
                self.exchange.prime(history.last)

    def _open_replay(self, replay: Replay, position: int) -> None:
        history = self.histories[replay.product_id]
        for tick in replay.past():
            history.add(tick)
        ticks = iter(replay)
        for tick in itertools.islice(ticks, position):
            history.add(tick)
            self.ticks_done += 1
            self._market_time = tick.at
        if (following := next(ticks, None)) is not None:
            self._market_time = self._market_time or following.at - LAST_MOMENT
            if history.last is None:
                self.exchange.prime(following)  # before the first step the market stands at its opening price
            self._replayed = itertools.chain((following,), ticks)

    def step(self) -> list[Event] | None:
        """Deliver the next recorded tick; None at the end of the data."""
        tick = next(self._replayed, None)
        if tick is None:
            return None
        self.ticks_done += 1
        self._market_time = tick.at
        events = self._tick(tick)
        self._store.note_position(self.ticks_done)
        return events

    def pump(self) -> None:
        """Live: deliver what the market has traded by now, and let time pass for orders."""
        assert not isinstance(self.market, Replay)
        now = self.clock.wall()
        for tick in self.market.due(now) if self.market else ():
            self._tick(tick)
        if not self.trouble:
            self._tell(self.exchange.advance(now))

    def reopen(self, quotes: Collection[Tick]) -> None:
        """Prices again after a time without: nothing that waited is matched against the old ones."""
        for quote in quotes:
            self.exchange.prime(quote)
        for quote in quotes:
            self._tick(quote)
        self.trouble = ""

    def deliver(self, tick: Tick) -> None:
        """Move the market."""
        self._tick(tick)

    def remember(self, tick: Tick) -> None:
        """Know a tick without trading on it."""
        self.histories[tick.product_id].add(tick)

    def list_products(self, products: Iterable[Product]) -> bool:
        """Take other rules for what is traded; whether anything changed."""
        listed = {product.product_id: product for product in products}
        if listed == self._listed:
            return False
        self._listed = listed
        self._flag()
        return True

    def keep_prices(self) -> None:
        self._store.keep_prices(self.last_prices())

    def last_prices(self) -> dict[str, Decimal]:
        return {name: history.last.price for name, history in self.histories.items() if history.last is not None}

    def place(self, request: NewOrder) -> Placement:
        placement = self.exchange.place(request, self.market_time())
        self._tell(placement.events)
        return placement

    def cancel(self, order_id: str) -> str:
        """The venue's failure reason, "" when it was cancelled."""
        reason, events = self.exchange.cancel(order_id, self.market_time())
        self._tell(events)
        return reason

    def edit(
        self, order_id: str, price: Decimal | None, size: Decimal | None, commit: bool = True
    ) -> EditRefusal | None:
        refusal, events = self.exchange.edit(order_id, price, size, self.market_time(), commit)
        self._tell(events)
        return refusal

    def switch(self, body: bytes) -> None:
        """Change the fault switches, and with them the exchange's rules and flags."""
        faults = self.faults.change(body)
        self.exchange.rules = replace(
            self.exchange.rules,
            duplicates=faults.duplicates,
            stop_limit_allowed=faults.stop_limit_allowed,
            cancel_queued=faults.cancel_queued,
            take_at_most_fraction=faults.take_at_most_fraction,
            latency=timedelta(seconds=faults.pending_delay_seconds),
        )
        self._flag()

    def _flag(self) -> None:
        flags = self.faults.faults.product_flags
        for product_id, product in self._listed.items():
            self.exchange.products[product_id] = flagged(product, flags.get(product_id))

    def _tick(self, tick: Tick) -> list[Event]:
        self.histories[tick.product_id].add(tick)
        events = self.exchange.on_tick(tick)
        self._tell(events)
        return events

    def _tell(self, events: Sequence[Event]) -> None:
        orders = {event.order.sequence: event.order for event in events if isinstance(event, OrderChanged)}
        fills = fills_of(events)
        for fill in fills:
            self.faults.hide("fills_lag_seconds", fill.entry_id, self.clock.monotonic())
        if orders:
            ledger = self.exchange.ledger
            self._store.commit(ledger, orders.values(), fills, self.last_prices(), self.ticks_done)
        if events:
            self.publish(events)


def fills_of(events: Sequence[Event]) -> list[Fill]:
    return [event.fill for event in events if isinstance(event, FillMade)]
