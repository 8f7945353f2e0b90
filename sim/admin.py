"""Our own paths under /sim: the state of the venue, stepping a replay, the fault switches. No authentication."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web
from msgspec import Struct

from sim.errors import ApiError, invalid_argument
from sim.hub import Hub
from sim.money import ZERO, exact, text
from sim.replay import Replay
from sim.venue import Venue, fills_of
from sim.wire import Json, rfc3339


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    ticks: int = 1


class Admin:
    def __init__(self, venue: Venue, hub: Hub) -> None:
        self._venue = venue
        self._hub = hub
        self._stepping = asyncio.Lock()

    async def state(self, request: web.Request) -> web.Response:
        return _json(self._state())

    @exact
    def _state(self) -> Json:
        venue, market = self._venue, self._venue.market
        exchange = venue.exchange
        replay = market if isinstance(market, Replay) else None
        return {
            "mode": "live" if replay is None else "replay",
            "trouble": venue.trouble,
            "market_time": rfc3339(venue.market_time()),
            "done": replay is not None and venue.ticks_done >= replay.total_ticks,
            "ticks_done": venue.ticks_done,
            "ticks_total": replay.total_ticks if replay else None,
            "candle_seconds": replay.candle_seconds if replay else None,
            "products": list(exchange.products),
            "balances": {
                currency: {"available": text(balance.available), "hold": text(balance.hold)}
                for currency, balance in exchange.balances().items()
            },
            "orders": len(exchange.orders),
            "open_orders": len(exchange.open_orders()),
            "fills": len(exchange.fills),
            "last_prices": {name: text(price) for name, price in venue.last_prices().items()},
            "total_fees": text(sum((fill.fee for fill in exchange.fills), ZERO)),
            "connections": len(self._hub.connections),
        }

    async def step(self, request: web.Request) -> web.Response:
        """Deliver recorded ticks; answers once their frames were handed to the sockets. One caller at a time."""
        body = await request.read()
        try:
            wanted = msgspec.json.decode(body or b"{}", type=Step)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise invalid_argument(str(error)) from None
        if self._venue.live:
            raise invalid_argument("only a replay can be stepped")
        async with self._stepping:
            return _json(await self._step(wanted.ticks))

    async def _step(self, ticks: int) -> Json:
        venue, fills, ended = self._venue, [], False
        for delivered in range(ticks):
            events = venue.step()
            if events is None:
                ended = delivered == 0
                break
            fills += fills_of(events)
            await self._hub.flushed()
        return {
            "done": ended,
            "market_time": rfc3339(venue.market_time()),
            "ticks_done": venue.ticks_done,
            "ticks_total": venue.market.total_ticks if isinstance(venue.market, Replay) else None,
            "products": {
                name: rfc3339(history.last.at) for name, history in venue.histories.items() if history.last is not None
            },
            "fills": [
                {"entry_id": fill.entry_id, "client_order_id": fill.client_order_id, "product_id": fill.product_id}
                for fill in fills
            ],
        }

    async def faults(self, request: web.Request) -> web.Response:
        return _json(self._venue.faults.faults)

    async def change_faults(self, request: web.Request) -> web.Response:
        """Set the switches that the body names; the others stay."""
        were_half_open = self._venue.faults.faults.half_open_sockets
        try:
            self._venue.switch(await request.read())
        except msgspec.MsgspecError as error:
            raise invalid_argument(str(error)) from None
        self._hub.products_changed()
        half_open = self._venue.faults.faults.half_open_sockets
        if half_open:
            self._hub.stop_reading()
        if self._venue.faults.strikes("drop_sockets") or (were_half_open and not half_open):
            self._hub.hang_up()
        return _json(self._venue.faults.faults)


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def failed(error: ApiError) -> web.Response:
    """An error answer as it goes over the wire."""
    charset = "utf-8" if error.content_type.startswith("text/") else None
    return web.Response(status=error.status, body=error.body, content_type=error.content_type, charset=charset)
