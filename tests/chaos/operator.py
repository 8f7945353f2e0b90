"""An operator who is never at rest: orders that fill, orders that rest, edits, cancellations, now and then a halt."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from decimal import ROUND_DOWN, Decimal

import httpx
from msgspec.structs import replace

from cli.coinbase import open_venue
from cli.journal import Journal
from libs.common import messages as m
from libs.common.errors import BusDown, PerpsError
from libs.common.messages import OrderStatus
from libs.common.shell import trading_state
from libs.common.subjects import STATE_BUCKET, TRADING_KEY
from tests.integration.stack import System

PAUSE_SECONDS = (0.5, 2.0)
HALT_SECONDS = (1.0, 3.0)
ASK_SECONDS = 3.0
PATIENCE_SECONDS = 30.0
AGAIN_SECONDS = 0.2
SIZES = ("0.0008", "0.002")  # in BTC
CENT = Decimal("0.01")
RESTING = (OrderStatus.ACCEPTED, OrderStatus.PARTIALLY_FILLED)


class Operator:
    """`done` counts what was asked for and answered with yes; `interventions` the trading states that nobody of us had
    asked for, each ended by a resume."""

    def __init__(self, system: System, journal: Journal, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.interventions: Counter[str] = Counter()
        self._system = system
        self._journal = journal
        self._chance = random.Random(f"operator {seed}")
        self._asked = 0

    async def run(self) -> None:
        """For ever. What a fault swallows is asked for again, or given up: the faults are no news."""
        acts: list[tuple[int, Callable[[], Awaitable[bool]]]] = [
            (5, self.buy_at_market),
            (3, self.sell_at_market),
            (4, self.buy_through),
            (8, self.buy_resting),
            (2, self.sell_resting),
            (6, self.edit),
            (3, self.cancel),
            (1, self.cancel_all),
            (2, self.halt_for_a_while),
        ]
        while True:
            act = self._chance.choices([act for _, act in acts], [weight for weight, _ in acts])[0]
            with suppress(PerpsError, TimeoutError, httpx.HTTPError):
                await self._look_at_the_switch()
                self.done[act.__name__] += await act()
            await asyncio.sleep(self._chance.uniform(*PAUSE_SECONDS))

    # -- orders

    async def buy_at_market(self) -> bool:
        return await self._order(m.Side.BUY, None)

    async def sell_at_market(self) -> bool:
        return await self._order(m.Side.SELL, None)

    async def buy_through(self) -> bool:
        return await self._order(m.Side.BUY, Decimal("1.005"))

    async def buy_resting(self) -> bool:
        return await self._order(m.Side.BUY, Decimal(self._chance.choice(("0.9985", "0.9995", "0.99"))))

    async def sell_resting(self) -> bool:
        return await self._order(m.Side.SELL, Decimal(self._chance.choice(("1.0005", "1.002", "1.01"))))

    async def edit(self) -> bool:
        """Another price for a resting order."""
        resting = [event for event in self._resting() if event.order.order_type is m.OrderType.LIMIT]
        if not resting:
            return False
        chosen = self._chance.choice(resting).order
        assert chosen.limit_price is not None
        price = (chosen.limit_price * Decimal(self._chance.choice(("0.999", "1.0002")))).quantize(CENT, ROUND_DOWN)
        request = m.OrderRequest(
            request_id=self._request_id(),
            product_id=chosen.product_id,
            side=chosen.side,
            order_type=chosen.order_type,
            limit_price=price,
            edits=chosen.client_order_id,
        )
        return await self._ask("order", m.Command(reason="chaos", who="operator", order=request))

    async def _order(self, side: m.Side, times: Decimal | None) -> bool:
        price = await self._price()
        if price is None:
            return False
        request = m.OrderRequest(
            request_id=self._request_id(),
            product_id=self._system.settings.market.products[0],
            side=side,
            order_type=m.OrderType.MARKET,
            quantity=Decimal(self._chance.choice(SIZES)),
        )
        if times is not None:
            limit = (price * times).quantize(CENT, ROUND_DOWN)
            tif = m.TimeInForce.GTC
            request = replace(request, order_type=m.OrderType.LIMIT, time_in_force=tif, limit_price=limit)
        return await self._ask("order", m.Command(reason="chaos", who="operator", order=request))

    async def _price(self) -> Decimal | None:
        marks = await self._system.bus.last(m.Mark)
        return next((mark.mid for mark in marks if isinstance(mark, m.Mark)), None)

    # -- cancellations

    async def cancel(self) -> bool:
        """At the venue, as the tool does it."""
        resting = self._resting()
        if not resting:
            return False
        async with open_venue(self._system.settings) as venue, asyncio.timeout(ASK_SECONDS):
            return not await venue.cancel([self._chance.choice(resting).venue_order_id])

    async def cancel_all(self) -> bool:
        command = m.Command(reason="chaos", who="operator")
        return (await self._system.bus.request("execution", "cancel-all", command, 10)).ok

    def _resting(self) -> list[m.OrderEvent]:
        found = [self._journal.orders[key] for key in self._journal.open_orders if key in self._journal.orders]
        return [event for event in found if event.status in RESTING and event.order.time_in_force.rests]

    # -- the switch

    async def halt_for_a_while(self) -> bool:
        if not await self.switch("halt"):
            return False
        await asyncio.sleep(self._chance.uniform(*HALT_SECONDS))
        return await self.switch("resume")

    async def switch(self, command: str) -> bool:
        """halt or resume."""
        return await self._ask(command, m.Command(reason="chaos", who="operator"))

    async def _look_at_the_switch(self) -> None:
        """Resume what a guard, or a halt of ours whose end was lost, has stopped."""
        figures = self._journal.figures
        if figures is not None and figures.trading is not m.Trading.ACTIVE:
            entry = await self._system.bus.load(STATE_BUCKET, TRADING_KEY)
            state = trading_state(entry, figures.at)
            if state.state is not m.Trading.ACTIVE:
                if state.who != "operator":
                    self.interventions[f"{state.state} by {state.who}: {state.reason}"] += 1
                await self.switch("resume")

    async def _ask(self, command: str, body: m.Command) -> bool:
        """Again until risk answers: the same request id is the same order."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    return (await self._system.bus.request("risk", command, body, ASK_SECONDS)).ok
                except BusDown:
                    await asyncio.sleep(AGAIN_SECONDS)

    def _request_id(self) -> str:
        self._asked += 1
        return f"chaos {self._asked}"
