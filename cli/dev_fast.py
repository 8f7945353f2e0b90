"""`perps-bot --dev-fast`: the whole system for one decision cycle, beside whatever else runs, and one JSON summary."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from cli.journal import Journal, plain
from cli.operator import connected
from cli.plan import Plan, make_plan, own_ports
from cli.stack import Stack
from libs.common import messages as m
from libs.common import settings as settings_module
from libs.common.errors import BadConfig, StackFailed

READY_SECONDS = 25.0
CYCLE_SECONDS = 15.0
EQUITY_SECONDS = 5.0
LOOK_SECONDS = 0.02


class Cycle(Struct, frozen=True):
    """One decision for every product, and what became of it. Durations in seconds."""

    decisions: dict[str, m.Decision]
    journal: Journal
    equity: Decimal | None
    start_seconds: float
    ready_seconds: float
    cycle_seconds: float


async def dev_fast(profile: str) -> int:
    """Raises Stop with one line when any service failed."""
    if not settings_module.load(profile).market.simulated:
        raise BadConfig(f"--dev-fast wants a simulated venue, profile {profile} trades real money")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="perps-bot-") as folder:
        plan = make_plan(profile, {**own_ports(), "PERPS_DATA_DIR": folder})
        cycle = await _run(plan)
    print(json.dumps(_summary(plan, cycle, time.monotonic() - began), indent=2))
    return 0


async def _run(plan: Plan) -> Cycle:
    began = time.monotonic()
    async with Stack(plan) as stack, connected(plan.settings) as bus:
        journal = Journal(bus)
        await journal.follow(m.Mark, m.Decision, m.RiskFigures)
        started = time.monotonic()
        await stack.start_services()
        ready_seconds = await stack.wait_ready(READY_SECONDS)
        # A decision that the strategy took while it warmed up is none.
        journal.decisions.clear()
        ready = time.monotonic()
        decisions, equity = await stack.unless_one_dies(_cycle(plan, journal))
        return Cycle(decisions, journal, equity, started - began, ready_seconds, time.monotonic() - ready)


async def _cycle(plan: Plan, journal: Journal) -> tuple[dict[str, m.Decision], Decimal | None]:
    products = plan.settings.market.products
    if not await journal.until(lambda: set(products) <= journal.decisions.keys(), CYCLE_SECONDS):
        silent = [product for product in products if product not in journal.decisions]
        raise StackFailed(f"strategy has decided nothing on {', '.join(silent)} within {CYCLE_SECONDS:.0f} s")
    decisions = {product: journal.decisions[product] for product in products}
    await _follow_signals(journal, {d.signal_id for d in decisions.values() if d.signal_id})
    if not await journal.until(lambda: journal.first_equity is not None, EQUITY_SECONDS):
        raise StackFailed(f"risk has told no equity within {EQUITY_SECONDS:.0f} s")
    return decisions, journal.equity


async def _follow_signals(journal: Journal, signals: set[str]) -> None:
    """Wait until each is denied, or its order at its end."""
    deadline = time.monotonic() + CYCLE_SECONDS
    await journal.read_ledger()
    while not all(_ended(journal, signal_id) for signal_id in signals):
        if time.monotonic() > deadline:
            raise StackFailed(f"a signal has come to no end within {CYCLE_SECONDS:.0f} s: {', '.join(signals)}")
        await asyncio.sleep(LOOK_SECONDS)
        await journal.read_ledger()


def _ended(journal: Journal, signal_id: str) -> bool:
    verdict = journal.verdicts.get(signal_id)
    if verdict is None or verdict.order is None:
        return verdict is not None
    event = journal.orders.get(verdict.order.client_order_id)
    return event is not None and event.status in m.TERMINAL


def _summary(plan: Plan, cycle: Cycle, total_seconds: float) -> dict[str, object]:
    journal = cycle.journal
    latencies = [_seconds(d.received_at, d.sent_at or d.decided_at) for d in cycle.decisions.values()]
    return {
        "ok": True,
        "profile": plan.settings.profile,
        "marks": {product: journal.marks[product] for product in plan.settings.market.products},
        "decisions": {
            product: {"action": d.action, "reason": d.reason, "signal_id": d.signal_id}
            for product, d in cycle.decisions.items()
        },
        "orders": [
            {
                "client_order_id": event.client_order_id,
                "product": event.product_id,
                "side": event.order.side,
                "quantity": plain(event.order.quantity),
                "status": event.status,
                "reason": event.reason,
            }
            for event in journal.orders.values()
        ],
        "fills": [
            {
                "product": fill.product_id,
                "side": fill.side,
                "size": plain(fill.size),
                "price": plain(fill.price),
                "fee": plain(fill.fee),
            }
            for fill in journal.fills.values()
        ],
        "equity": plain(cycle.equity),
        "seconds": {
            "start": round(cycle.start_seconds, 3),
            "ready": round(cycle.ready_seconds, 3),
            "cycle": round(cycle.cycle_seconds, 3),
            "mark_to_decision": round(max(latencies), 6),
            "total": round(total_seconds, 3),
        },
    }


def _seconds(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds()
