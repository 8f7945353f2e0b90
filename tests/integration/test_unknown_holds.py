"""An order whose answer was lost, at a venue that answers no question for a minute: it stays UNKNOWN, and reserved."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from pathlib import Path

import pytest

from libs.common import messages as m
from tests.cli.commands import short_folder
from tests.integration.lab import Cell, Kind, Lab, open_lab
from tests.integration.stack import QUIET, running_system

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
DARK_SECONDS = 60.0


async def test_an_order_of_unknown_outcome_stays_unknown_and_reserved_until_the_venue_answers() -> None:
    """Side by side: once undisturbed, once with execution killed in the middle."""
    with short_folder() as one, short_folder() as other:
        await asyncio.gather(in_the_dark(one, kill=False), in_the_dark(other, kill=True))


async def in_the_dark(folder: Path, *, kill: bool) -> None:
    async with running_system(folder, QUIET) as system, open_lab(system) as lab:
        cells = [
            Cell("dark", Kind.MARKET, "BTC-USD", Decimal("0.004"), orders=[]),
            Cell("dark", Kind.LIMIT, "ETH-USD", Decimal("0.1"), orders=[]),
        ]
        assert (await system.figures()).reserved == 0
        began = time.monotonic()
        async with lab.fault(accept_then_drop=2, html_5xx="reads", user_drop=99):
            await lab.send(*cells)
            await lab.reached(cells, m.OrderStatus.UNKNOWN)
            reserved = await _promised(lab, cells)
            killed = False
            while (dark := time.monotonic() - began) < DARK_SECONDS:
                assert [lab.watch.status(cell.orders[0]) for cell in cells] == [m.OrderStatus.UNKNOWN] * 2, dark
                assert (await system.figures()).reserved == reserved > 0, dark
                if kill and not killed and dark > DARK_SECONDS / 2:
                    before = await system.pid("execution")
                    await system.kill("execution")
                    killed = True
            assert killed is kill
            assert not kill or await system.pid("execution") not in (0, before)
        await lab.reached(cells, m.OrderStatus.FILLED)
        await lab.healthy()
        assert (await system.figures()).reserved == 0
        assert await system.check_books() == len({fill.id for fill in await system.fills()}) >= 2


async def _promised(lab: Lab, cells: list[Cell]) -> Decimal:
    """What risk set aside for the orders when it approved them."""
    verdicts = [item.message for item in await lab.system.ledger() if isinstance(item.message, m.Verdict)]
    orders = [cell.orders[0] for cell in cells]
    return sum((v.reserved for v in verdicts if v.order and v.order.client_order_id in orders), Decimal(0))
