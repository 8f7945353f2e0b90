"""`perps-bot flatten`: ask risk to close every position, then follow its figures until all of them are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Protocol

from msgspec.structs import replace

from cli.control import ControlBus, ask, bus_of, command_of, state_now, state_row
from cli.errors import OutcomePending, Refused
from cli.journal import plain
from cli.live import say
from cli.operator import PATIENCE_SECONDS
from cli.output import Json, show
from cli.tooling import Tool, run_tool
from libs.common import messages as m
from libs.common.settings import Settings

SILENCE_SECONDS = 5.0  # risk tells its figures every second
CLOSED = ("flat", "dust")


class FlattenBus(ControlBus, Protocol):
    """What a closing needs beside."""

    async def last(self, kind: type[m.Message]) -> list[m.Message]: ...

    async def subscribe(self, kind: type[m.Message], handler: Callable[[m.Message], None]) -> None: ...


class Flattening:
    """One closing as risk tells it. `repeat` is the command line that follows the same closing again."""

    def __init__(self, bus: FlattenBus, body: m.Command, repeat: str, tell: Callable[[str], None]) -> None:
        self._bus = bus
        self._body = body
        self._repeat = repeat
        self._tell = tell
        self._news = asyncio.Event()
        self._before: dict[str, Decimal] = {}
        self._figures: m.RiskFigures | None = None  # the latest
        self.state: m.TradingState | None = None  # with the closing; None until risk has answered
        self.closing: dict[str, m.Closing] | None = None

    async def run(self, wait_seconds: float) -> None:
        """Until every position is flat or dust.

        Raises BusDown where risk does not answer, Refused where it says no or somebody calls the closing off,
        OutcomePending when the wait is over.
        """
        for figures in await self._bus.last(m.RiskFigures):
            assert isinstance(figures, m.RiskFigures)
            if figures.closing is None:  # else a part is sold already
                self._before = {product: held.quantity for product, held in figures.positions.items()}
        await self._bus.subscribe(m.RiskFigures, self._hear)
        reply = await ask(self._bus, "risk", "flatten", self._body)
        self.state = await state_now(self._bus)
        self._tell(f"flatten: {reply.detail or 'done'}")
        try:
            async with asyncio.timeout(wait_seconds):
                await self._follow()
        except TimeoutError:
            raise OutcomePending(f"after {wait_seconds:g} s {self._what_is_left()}") from None
        except asyncio.CancelledError:
            raise OutcomePending(f"interrupted, {self._what_is_left()}") from None

    async def _follow(self) -> None:
        while self.closing is None or self._left():
            self._news.clear()
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                self._tell(f"no figures of risk for {SILENCE_SECONDS:.0f} s: `make restart SERVICE=risk` restarts it")
            if self._figures is not None and self._figures.closing is None:
                await self._check_in_force()

    async def _check_in_force(self) -> None:
        """Figures may be older than the answer, or of a risk that has just started: what is stored is what holds."""
        assert self.state is not None
        before, now = self.state, await state_now(self._bus)
        if now.flatten != before.flatten:
            self.state = now
            raise Refused(
                f"the closing was called off, trading is {now.state} ({now.reason}, {now.who}): "
                f"{self._tell_left()} is left, `{self._repeat}` closes it"
            )

    def _hear(self, message: m.Message) -> None:
        assert isinstance(message, m.RiskFigures)
        self._figures = message
        if message.closing is not None and self.state is not None:
            self._tell_changes(message.closing)
            self.closing = message.closing
            self.state = replace(self.state, state=message.trading)  # a guard may halt it meanwhile
        self._news.set()

    def _tell_changes(self, closing: dict[str, m.Closing]) -> None:
        for product, now in closing.items():
            if self.closing is None or self.closing.get(product) != now:
                attempt = f", attempt {now.attempts}" if now.attempts else ""
                why = f": {now.detail}" if now.detail else ""
                self._tell(f"{product} {now.outcome}{attempt}: sold {plain(now.sold)}, held {plain(now.held)}{why}")

    def _left(self) -> dict[str, Decimal]:
        """By what risk says of the closing and, in case that leaves something out, of the positions."""
        left = {product: one.held for product, one in (self.closing or {}).items() if one.outcome not in CLOSED}
        held = self._figures.positions if self._figures else {}
        return left | {product: one.quantity for product, one in held.items() if one.quantity and not one.dust}

    def _tell_left(self) -> str:
        parts = [f"{plain(held)} {p}" if held else f"an open order of {p}" for p, held in sorted(self._left().items())]
        return ", ".join(parts) or "nothing"

    def _what_is_left(self) -> str:
        if self.closing is None:
            return f"risk has told nothing of the closing: look again with `{self._repeat}`"
        return f"{self._tell_left()} is left, and risk goes on selling by itself: look again with `{self._repeat}`"

    def show(self) -> Json:
        assert self.state is not None
        rows = [
            {
                "product": product,
                "held_before": self._before.get(product, one.held + one.sold),
                "sold": one.sold,
                "held_now": one.held,
                "outcome": one.outcome,
                "attempts": one.attempts,
                "detail": one.detail,
            }
            for product, one in (self.closing or {}).items()
        ]
        return {"command": "flatten", **state_row(self.state), "positions": None if self.closing is None else rows}


async def flatten(settings: Settings, reason: str, wait_seconds: float, repeat: str, as_json: bool) -> int:
    """`perps-bot flatten`. See `Flattening.run`."""

    async def work(tool: Tool) -> None:
        body = command_of("flatten", reason)
        one = Flattening(bus_of(tool), body, repeat, say)
        try:
            await one.run(wait_seconds)
        finally:
            if one.state is not None:
                show(one.show(), as_json)
                if one.state.state is not m.Trading.ACTIVE:
                    say(f"trading is {one.state.state} until `perps-bot resume --reason ...`")
        say("every position is closed" if one.closing else "nothing was held")

    return await run_tool("flatten", settings, work, PATIENCE_SECONDS)
