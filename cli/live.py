"""`perps-bot run`: the stack, a few lines where to look, and a line at each fill."""

from __future__ import annotations

import sys
import time

from cli.journal import money, plain
from cli.operator import connected
from cli.plan import Plan
from cli.stack import NotReady, Stack
from libs.common import messages as m

READY_SECONDS = 60.0


def say(line: str) -> None:
    """To the person at the terminal; stdout belongs to results."""
    print(line, file=sys.stderr, flush=True)


async def live(plan: Plan) -> int:
    """Run until the operator stops it. Raises Stop with one line."""
    began = time.monotonic()
    say(f"starting profile {plan.settings.profile} on {plan.settings.data_dir}")
    async with Stack(plan) as stack, connected(plan.settings) as bus:
        _introduce(plan)
        news = News()
        await bus.subscribe(m.Fill, news.fill)
        await stack.start_services()
        await _ready(stack)
        say(f"all services ready in {time.monotonic() - began:.1f} s")
        await bus.subscribe(m.RiskFigures, news.figures)
        await stack.watch(say)
    return 0


async def _ready(stack: Stack) -> None:
    """A venue that is down at start is waited for, however long; nothing is traded meanwhile."""
    while True:
        try:
            await stack.wait_ready(READY_SECONDS)
            return
        except NotReady as behind:
            say(f"{behind}; waiting on, nothing is traded")


def _introduce(plan: Plan) -> None:
    status_page = plan.service("exporter").reachable
    say(f"  status page  {status_page}/   (metrics: {status_page}/metrics)")
    say("  in figures   perps-bot status")
    say(f"  logs         {plan.settings.data_dir / 'logs'}")
    say("  restart one  make restart SERVICE=risk")
    say("  stop all     Ctrl-C")


class News:
    """What a newcomer wants to see happen."""

    def __init__(self) -> None:
        self._fills = 0
        self._told = False

    def fill(self, message: m.Message) -> None:
        assert isinstance(message, m.Fill)
        self._fills += 1
        say(("first fill   " if self._fills == 1 else "fill         ") + describe(message))

    def figures(self, message: m.Message) -> None:
        """Once: where it begins, or goes on from."""
        assert isinstance(message, m.RiskFigures)
        if self._told or message.equity is None:
            return
        self._told = True
        held = [f"{plain(p.quantity)} {product}" for product, p in message.positions.items() if p.quantity]
        say(f"trading is {message.trading}; equity {money(message.equity)}, holding {', '.join(held) or 'nothing'}")


def describe(fill: m.Fill) -> str:
    return (
        f"{fill.trade_time:%H:%M:%S} {fill.side} {plain(fill.size)} {fill.product_id} "
        f"at {money(fill.price)}, fee {money(fill.fee, 4)}"
    )
