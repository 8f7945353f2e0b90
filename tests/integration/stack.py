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
from msgspec import Struct

from cli.coinbase import open_venue
from cli.operator import connected
from cli.plan import make_plan, own_ports
from cli.stack import Stack
from libs.common import messages as m
from libs.common.bus import Delivery
from libs.common.clock import SystemClock
from libs.common.nats_bus import NatsBus

BUSY = {
    "PERPS_MARKET_GRANULARITY": "1s",
    "PERPS_STRATEGY_NAME": "tests.integration.restless:Restless",
    "PERPS_STRATEGY_SIGNAL_TTL_SECONDS": "5",
    "PERPS_RISK_ORDERS_PER_MINUTE_MAX": "10000",
    "PERPS_RISK_DAILY_LOSS_LIMIT": "1000000",
}

# Nothing is traded but what the operator asks for, as often as he likes.
QUIET = {
    "PERPS_STRATEGY_NAME": "tests.integration.quiet:Quiet",
    "PERPS_STRATEGY_TRAILING_STOP_PERCENT": "99",  # it is the core's own, whatever the plug-in wants
    "PERPS_RISK_ORDERS_PER_MINUTE_MAX": "10000",
    "PERPS_RISK_DAILY_LOSS_LIMIT": "1000000",
}


class Audit(Struct, frozen=True):
    """Our books against the venue's account, at rest. Orders and fills by their ids, currencies by their names."""

    orders: dict[str, int]  # how many orders the venue has under each client order id
    fills: dict[str, str]  # client order id of each of the venue's fills
    lost: tuple[str, ...]  # fills that the venue has and we have not, or otherwise
    doubled: tuple[str, ...]  # fills that we have counted more than once
    invented: tuple[str, ...]  # fills that we have and the venue has not
    unequal: dict[str, tuple[Decimal, Decimal]]  # what we hold by our books and what the venue says, where they differ
    figures: m.RiskFigures

    @property
    def differences(self) -> list[str]:
        orders = [f"order {key} {count} times" for key, count in self.orders.items() if count > 1]
        found = {"lost": self.lost, "counted twice": self.doubled, "invented": self.invented}
        fills = [f"{what}: {', '.join(names)}" for what, names in found.items() if names]
        return orders + fills + [f"{name}: ours {o}, the venue's {v}" for name, (o, v) in self.unequal.items()]


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
        """Nothing in flight, and everybody has read the ledger."""
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

    async def faults(self, **switches: object) -> dict[str, object]:
        """Set the venue's fault switches that are named; gives all that are in force."""
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"http://{self.settings.sim_url}/sim/faults", json=switches)
            assert answer.status_code == 200, answer.text
            found: dict[str, object] = answer.json()
            return found

    async def venue_state(self) -> dict[str, object]:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://{self.settings.sim_url}/sim/state")
            state: dict[str, object] = answer.json()
            return state

    async def until(self, condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while not await condition():
                await asyncio.sleep(0.1)

    async def audit(self) -> Audit:
        """Every order and fill of the account as the venue lists them, and its balances, against ours."""
        await self.settle()
        booked = await self.fills()
        async with open_venue(self.settings) as venue:
            orders = [order async for page in venue.orders() for order in page]
            theirs = {fill.entry_id: fill async for page in venue.fills() for fill in page}
        ids = {order.venue_order_id: order.client_order_id for order in orders}
        told = {fill.id: (fill.side, fill.price, fill.size, fill.fee) for fill in booked}
        lost = {
            entry: fill
            for entry, fill in theirs.items()
            if told.get(entry) != (fill.side, fill.price, fill.size, fill.fee)
        }
        figures = await self.figures()
        balances = (await self.venue_state())["balances"]
        assert isinstance(balances, dict)
        held = {name: Decimal(balance["available"]) + Decimal(balance["hold"]) for name, balance in balances.items()}
        return Audit(
            orders=Counter(ids.values()),
            fills={entry: ids[fill.venue_order_id] for entry, fill in theirs.items()},
            lost=tuple(lost),
            doubled=tuple(entry for entry, count in Counter(fill.id for fill in booked).items() if count > 1),
            invented=tuple(told.keys() - theirs.keys()),
            unequal={
                name: (ours, amount)
                for name, amount in held.items()
                if (ours := figures.books.get(name, Decimal(0))) != amount
            },
            figures=figures,
        )

    async def check_books(self) -> int:
        """Halt, and find every fill of the venue once on our ledger and the other way round; cash and coins equal.
        Gives the count of fills."""
        assert (await self.command("halt")).ok
        audit = await self.audit()
        assert audit.differences == []
        return len(audit.fills)


@asynccontextmanager
async def running_system(data_dir: Path, overrides: dict[str, str] | None = None) -> AsyncIterator[System]:
    """The dev profile, ready to trade; stopped in order at the end."""
    plan = make_plan("dev", {**own_ports(), "PERPS_DATA_DIR": str(data_dir), **(overrides or {})})
    async with Stack(plan) as stack:
        await stack.start_services()
        await stack.wait_ready(60)
        async with connected(plan.settings) as bus:
            yield System(stack, bus)
