"""kill -9 of every part, one after the other, under load, on real processes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from libs.common import messages as m
from tests.integration.stack import BUSY, System, running_system

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
VICTIMS = ("marketdata", "strategy", "risk", "execution", "exporter", "venue", "nats")


async def wait_for_fills(system: System, more: int, seconds: float = 40) -> None:
    known = len(await system.fills())

    async def enough() -> bool:
        return len(await system.fills()) >= known + more

    await system.until(enough, seconds)


async def test_no_fill_is_lost_or_doubled_and_no_order_doubled_whoever_is_killed(tmp_path: Path) -> None:
    recovery: dict[str, float] = {}
    async with running_system(tmp_path, BUSY) as system:
        await wait_for_fills(system, 4)
        for victim in VICTIMS:
            before = await system.pid(victim)
            await system.kill(victim)
            began = time.monotonic()

            async def replaced(victim: str = victim, before: int = before) -> bool:
                return await system.pid(victim) not in (0, before)

            await system.until(replaced, 15)
            await system.stack.wait_ready(30)
            recovery[victim] = round(time.monotonic() - began, 1)
            await wait_for_fills(system, 3)
        assert await system.check_books() >= 4 + 3 * len(VICTIMS)
        orders = [item.message for item in await system.ledger() if isinstance(item.message, m.OrderEvent)]
        assert len({(event.client_order_id, event.revision) for event in orders}) == len(orders)
    print(f"seconds until ready again: {recovery}")
    assert max(recovery.values()) < 20


async def test_everything_killed_at_once_comes_back_with_its_books(tmp_path: Path) -> None:
    async with running_system(tmp_path, BUSY) as system:
        await wait_for_fills(system, 4)
        for victim in VICTIMS:
            await system.kill(victim)
        await system.stack.wait_ready(40)
        await wait_for_fills(system, 4)
        await system.check_books()


async def test_running_again_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async with running_system(tmp_path, BUSY) as system:
        await wait_for_fills(system, 4)
        assert (await system.command("halt")).ok
        await system.settle()
        before = await system.figures()
        known = len(await system.fills())
    async with running_system(tmp_path, BUSY) as system:
        figures = await system.figures()
        assert (figures.books, figures.fees, figures.realized_pnl) == (before.books, before.fees, before.realized_pnl)
        assert figures.trading is m.Trading.HALTED
        assert len(await system.fills()) == known
        assert (await system.command("resume")).ok
        await wait_for_fills(system, 2)
        await system.check_books()
