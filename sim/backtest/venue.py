"""The exchange as marketdata and execution meet it, without sockets: their requests go in, its answers come out.

Orders and answers take the form that they have over REST, and are read by the same code: nothing is rounded, named or
refused otherwise than there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from libs.common import messages as m
from libs.common.errors import Rejected
from services.execution import inputs as i
from services.execution.answers import parse_created
from services.execution.bodies import create_body
from services.execution.parse import parse_fills, parse_order
from services.execution.permission import refusal
from services.marketdata import facts as f
from services.marketdata.wire import Event, Frame, Tickers
from sim.backtest.market import Market, ticker, told
from sim.book import Depth
from sim.core import Exchange
from sim.events import BookChanged, FillMade
from sim.events import Event as Happened
from sim.money import ZERO
from sim.orders import Fill
from sim.requests import order_of
from sim.rules import VenueRules
from sim.settings import Settings
from sim.ticks import Tick
from sim.wire import accepted_json, fill_json, order_json, refused_json

CONNECTION = 1

encode = msgspec.json.encode


class BacktestVenue:
    """`on_message` is a core's: a request in, answers out. `trading` is the stored trading state, looked at once more
    before an order leaves."""

    def __init__(self, market: Market, settings: Settings, currency: str, candle_seconds: int) -> None:
        self._market = market
        rules = VenueRules(
            taker_fee=settings.taker_fee,
            maker_fee=settings.maker_fee,
            depth=Depth(half_spread_bps=settings.half_spread_bps),
        )
        self.exchange = Exchange(market.products.values(), rules, {currency: settings.cash}, str(settings.seed))
        for tick in market.opening_ticks():
            self.exchange.prime(tick)
        self.trading: m.TradingState | None = None
        self.now = market.opens_at
        self._sequence = 0
        self._fills: defaultdict[str, list[Fill]] = defaultdict(list)
        opened = int(market.opens_at.timestamp())
        self._remember_until = market.opens_at - timedelta(seconds=opened % candle_seconds - candle_seconds)

    def step(self, tick: Tick) -> f.FrameReceived:
        """Move the market."""
        self.now = tick.at
        if tick.at < self._remember_until:
            self._market.remember(tick)
        self._keep(self.exchange.on_tick(tick))
        book = self.exchange.book(tick.product_id)
        assert book is not None, "a tick leaves a book"
        return self._frame(told(tick, book))

    def on_message(self, message: m.Message, now: datetime) -> list[m.Message]:
        match message:
            case i.Place():
                return self._place(message, now)
            case i.Query():
                return [self._order(message)]
            case i.Reconcile():
                assert not self.exchange.orders, "nothing of a backtest is older than its start"
                return [i.Reconciled(id=message.id, listing=i.Listing(orders=(), fills=()), until=message.until)]
            case f.Reconnect(trouble=f.Trouble.START):
                return self._connected()
            case f.FetchCandles() | f.FetchTrades() | f.FetchProduct():
                return [self._market.fetch(message)]
        raise AssertionError(f"a backtest does not perform {type(message).__name__}")

    # -- execution's side

    def _place(self, place: i.Place, now: datetime) -> list[m.Message]:
        key, order = place.order.client_order_id, place.order
        assert self.trading is not None, "nothing is approved without a trading state"
        if reason := refusal(place, self.trading, now):
            return [i.PlaceRefused(id=place.id, client_order_id=key, status=m.OrderStatus.DENIED, reason=reason)]
        request = order_of(encode(create_body(order)))
        placement = self.exchange.place(request, self.now)
        moved = self._keep(placement.events)
        if placement.order is not None:
            answer = accepted_json(placement.order)
        else:
            assert placement.refusal is not None, "neither refused nor accepted does not exist"
            answer = refused_json(placement.refusal, request.configuration)
        try:
            venue_order_id = parse_created(encode(answer), order)
        except Rejected as error:
            refused = m.OrderStatus.REJECTED
            return [*moved, i.PlaceRefused(id=place.id, client_order_id=key, status=refused, reason=error.reason)]
        return [*moved, i.Placed(id=place.id, client_order_id=key, venue_order_id=venue_order_id)]

    def _order(self, query: i.Query) -> i.OrderSeen:
        """The order with its fills, the newest first, as the venue lists them."""
        order = self.exchange.orders[query.venue_order_id]
        fills = [fill_json(fill, order, "", "") for fill in reversed(self._fills[order.order_id])]
        seen = parse_order(encode({"order": order_json(order, "", "")}))
        listed, _ = parse_fills(encode({"fills": fills}), order.order_id)
        return i.OrderSeen(id=query.id, client_order_id=query.client_order_id, order=seen, fills=tuple(listed))

    def account(self) -> i.AccountParts:
        """Balances and fee rates; volume and fees of 30 days, which nobody decides by, are left at zero."""
        rules, held = self.exchange.rules, self.exchange.balances()
        rates = m.FeeTier(
            pricing_tier="",
            taker_fee_rate=rules.taker_fee,
            maker_fee_rate=rules.maker_fee,
            total_volume=ZERO,
            total_fees=ZERO,
        )
        balances = {name: m.Balance(available=b.available, hold=b.hold) for name, b in held.items()}
        return i.AccountParts(balances=balances, fee_tier=rates)

    def _keep(self, events: Iterable[Happened]) -> list[m.Message]:
        """Take up what happened; gives what marketdata hears of it. (A tick's own frame is the caller's.)"""
        frames: list[m.Message] = []
        for event in events:
            match event:
                case FillMade(fill):
                    self._fills[fill.order_id].append(fill)
                case BookChanged(product_id):
                    book = self.exchange.book(product_id)
                    assert book is not None, "a book that does not exist cannot change"
                    frames.append(self._frame((Tickers((ticker(product_id, book),)),)))
        return frames

    # -- marketdata's side

    def _connected(self) -> list[m.Message]:
        """A connection, everything that it begins with, and the first second of wall time: product rules are asked for
        then."""
        names = self.exchange.products
        books = [(name, book) for name in names if (book := self.exchange.book(name)) is not None]
        pulse = f.Pulse(
            id="pulse",
            monotonic=0.0,
            connection=CONNECTION,
            connected_seconds=0.0,
            silent_seconds=0.0,
            bus_connected=True,
        )
        connected = f.Connected(id=f"connected-{CONNECTION}", connection=CONNECTION)
        return [connected, self._frame(self._market.opening(books)), pulse]

    def _frame(self, events: tuple[Event, ...]) -> f.FrameReceived:
        """Trade and price of a tick come in one frame, whose parts marketdata takes in their order."""
        self._sequence += 1
        frame = Frame("market", self.now, self._sequence, events)
        return f.FrameReceived(id="frame", at=self.now, connection=CONNECTION, frame=frame, received_at=self.now)
