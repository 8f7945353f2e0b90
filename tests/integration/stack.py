"""The real system for tests: processes under supervisord, real NATS, the simulated venue, own ports and folder."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import httpx

from cli.operator import connected
from cli.plan import make_plan, own_ports
from cli.stack import Stack
from libs.common import messages as m
from libs.common.bus import Delivery
from libs.common.clock import SystemClock
from libs.common.nats_bus import NatsBus
from services.execution import parse
from services.execution.auth import load_signer
from services.execution.inputs import VenueFill
from services.execution.venue import CoinbaseVenue

BUSY = {
    "PERPS_MARKET_GRANULARITY": "1s",
    "PERPS_STRATEGY_NAME": "tests.integration.restless:Restless",
    "PERPS_STRATEGY_SIGNAL_TTL_SECONDS": "5",
    "PERPS_RISK_ORDERS_PER_MINUTE_MAX": "10000",
    "PERPS_RISK_DAILY_LOSS_LIMIT": "1000000",
}


class System:
    """A running stack and an operator who looks at it."""

    def __init__(self, stack: Stack, bus: NatsBus) -> None:
        self.stack = stack
        self.bus = bus
        self.settings = stack.plan.settings

    async def pid(self, name: str) -> int:
        return (await self.stack.supervisor.processes())[name].pid

    async def kill(self, name: str) -> None:
        os.kill(await self.pid(name), signal.SIGKILL)

    async def ledger(self) -> list[Delivery]:
        reader, found = self.bus.ledger(0), []
        while page := await reader.catch_up():
            found += page
        return found

    async def fills(self) -> list[m.Fill]:
        return [item.message for item in await self.ledger() if isinstance(item.message, m.Fill)]

    async def figures(self) -> m.RiskFigures:
        """Figures that risk made after this call; the last value may be from before a restart."""
        asked = SystemClock().wall()
        async with asyncio.timeout(10):
            while True:
                for message in await self.bus.last(m.RiskFigures):
                    if isinstance(message, m.RiskFigures) and message.sent_at and message.sent_at > asked:
                        return message
                await asyncio.sleep(0.05)

    async def command(self, name: str) -> m.Reply:
        return await self.bus.request("risk", name, m.Command(reason="test"), 5)

    async def settle(self) -> None:
        """Trading halted, nothing in flight, and everybody has read the ledger."""
        assert (await self.command("halt")).ok
        async with asyncio.timeout(60):
            quiet = 0
            while quiet < 3:
                end = (await self.ledger())[-1].sequence
                replies = [
                    await self.bus.request(name, "sync", m.Command(ledger_sequence=end), 10)
                    for name in ("risk", "strategy", "execution", "risk")
                ]
                stable = end == (await self.ledger())[-1].sequence
                quiet = quiet + 1 if stable and not any(reply.busy for reply in replies) else 0

    async def venue_fills(self) -> list[VenueFill]:
        """Every fill of the account, as the venue lists it."""
        venue = self._venue()
        found: list[VenueFill] = []
        orders, cursor = [], ""
        while True:
            page, cursor = parse.parse_orders(await venue._read("/orders/historical/batch", {"limit": "250"}, cursor))
            orders += page
            if not cursor:
                break
        ids = Counter(order.client_order_id for order in orders)
        assert [key for key, count in ids.items() if count > 1] == [], "an order was doubled"
        for order in orders:
            found += (await venue.order(order.venue_order_id))[1]
        await venue.close()
        return found

    def _venue(self) -> CoinbaseVenue:
        signer = load_signer(self.settings.key_file, 60)
        return CoinbaseVenue(self.settings.venue.rest_url, self.settings.venue.user_ws_url, signer, SystemClock(), 10)

    async def venue_state(self) -> dict[str, object]:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://{self.settings.sim_url}/sim/state")
            state: dict[str, object] = answer.json()
            return state

    async def until(self, condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while not await condition():
                await asyncio.sleep(0.1)

    async def check_books(self) -> int:
        """Every fill of the venue once on our ledger and the other way round; cash and coins equal. Gives the count."""
        await self.settle()
        ours, theirs = await self.fills(), await self.venue_fills()
        assert max(Counter(fill.id for fill in ours).values(), default=1) == 1, "a fill was counted twice"
        assert {fill.id: (fill.side, fill.price, fill.size, fill.fee) for fill in ours} == {
            fill.entry_id: (fill.side, fill.price, fill.size, fill.fee) for fill in theirs
        }
        books = (await self.figures()).books
        balances = (await self.venue_state())["balances"]
        assert isinstance(balances, dict)
        for currency, balance in balances.items():
            assert books.get(currency, Decimal(0)) == Decimal(balance["available"]) + Decimal(balance["hold"]), currency
        return len(ours)


@asynccontextmanager
async def running_system(data_dir: Path, overrides: dict[str, str] | None = None) -> AsyncIterator[System]:
    """The dev profile, ready to trade; stopped in order at the end."""
    plan = make_plan("dev", {**own_ports(), "PERPS_DATA_DIR": str(data_dir), **(overrides or {})})
    async with Stack(plan) as stack:
        await stack.start_services()
        await stack.wait_ready(60)
        async with connected(plan.settings) as bus:
            yield System(stack, bus)
