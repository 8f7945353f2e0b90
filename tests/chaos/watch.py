"""Whether the system does its work: everything ready, marks that came after a moment, and decisions made of them."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import datetime, timedelta

import httpx

from cli.journal import Journal
from cli.stack import why_not_ready
from libs.common.clock import SystemClock
from libs.common.errors import BusDown
from libs.common.subjects import SERVICES
from tests.integration.stack import System

LOOK_SECONDS = 0.1
ASK_SECONDS = 1.0


class Watch:
    """What the bus tells is taken in for as long as `follow` runs."""

    def __init__(self, system: System, journal: Journal) -> None:
        self._system = system
        self._journal = journal
        self._clock = SystemClock()

    async def follow(self) -> None:
        while True:
            with suppress(BusDown):
                await self._journal.read_ledger()
            await asyncio.sleep(LOOK_SECONDS)

    async def works_again(self, since: float, late_seconds: float, patience_seconds: float) -> tuple[float, str]:
        """Seconds from `since` (monotonic) until all of it does its work; and, where that took longer than
        `late_seconds`, what did not then. Raises TimeoutError with what does not after `patience_seconds`."""
        late = ""
        moment = self._clock.wall() - timedelta(seconds=time.monotonic() - since)
        async with httpx.AsyncClient(timeout=ASK_SECONDS) as client:
            while True:
                lacks = await self._lacks(client, moment)
                seconds = time.monotonic() - since
                if not lacks:
                    return seconds, late
                if seconds > late_seconds:
                    late = late or lacks
                if seconds > patience_seconds:
                    raise TimeoutError(f"not at work {seconds:.0f} s after the fault: {lacks}")
                await asyncio.sleep(LOOK_SECONDS)

    async def _lacks(self, client: httpx.AsyncClient, since: datetime) -> str:
        plan = self._system.stack.plan
        reasons = await asyncio.gather(*(why_not_ready(client, plan.service(name).reachable) for name in SERVICES))
        found = [f"{name}: {reason}" for name, reason in zip(SERVICES, reasons, strict=True) if reason]
        decisions, figures = self._journal.decisions, self._journal.figures
        for product in self._system.settings.market.products:
            decision = decisions.get(product)
            if decision is None or decision.received_at <= since:
                found.append(f"no decision on a new mark of {product}")
        if figures is None or figures.sent_at is None or figures.sent_at <= since:
            found.append("no new figures of risk")
        return "; ".join(found)
