"""The operator of a world: orders, edits, cancels, halts and resumes over the bus, with a patience of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import partial
from random import Random

from libs.common import messages as m
from libs.common.errors import BusDown
from libs.common.nats_bus import NatsBus
from sim.world.checks import NEVER, Checks

WHO = "operator"
CENT = Decimal("0.01")
UNIT = Decimal("0.000001")
PATIENCE_SECONDS = 2.0
TRIES = 3
AWAY = (Decimal("0.0002"), Decimal("0.0005"), Decimal("0.01"))  # how far from the market a resting order lies


class Operator:
    """`say` is told what was asked and what came of it."""

    def __init__(self, bus: NatsBus, checks: Checks, chance: Random, say: Callable[[str], None]) -> None:
        self._bus = bus
        self._checks = checks
        self._facts = checks.facts
        self._around = checks.around
        self._chance = chance
        self._say = say
        self._made = self._named = 0
        self.unclassified: list[Decimal] = []  # what was moved by hand, in the quote currency
        self.done = False
        self._actions: tuple[tuple[int, Callable[[], Awaitable[object]]], ...] = (
            (6, self._classified),
            (14, self._enter),
            (16, self._rest),
            (8, self._leave),
            (10, self._edit),
            (2, self._cancel_all),
            (2, self._halt_for_a_while),
            (1, self._reduce_only_for_a_while),
            (1, self._flatten),
            (6, self._resume_if_need_be),
        )

    async def trade(self, over: Callable[[], bool]) -> None:
        """Until it is over; then no new orders, none left at the venue, and all that happened by hand is classified."""
        weights = [weight for weight, _ in self._actions]
        while not over():
            await asyncio.sleep(self._chance.uniform(0.5, 3))
            _, action = self._chance.choices(self._actions, weights)[0]
            await action()
        await self._until(self._classified)
        for service, command in (("risk", "halt"), ("execution", "cancel-all")):
            await self._until(partial(self._done, service, command))
        self.done = True

    async def _until(self, done: Callable[[], Awaitable[bool]]) -> None:
        """Ask again, until it is so."""
        if not await done():
            await asyncio.sleep(1)
            await self._until(done)

    async def _done(self, service: str, command: str) -> bool:
        reply = await self.command(service, command)
        return reply is not None and reply.ok

    async def ask(self, service: str, command: str, body: m.Command, tries: int = TRIES) -> m.Reply | None:
        """Ask again, with the same body, where nobody answers: who was asked may have done it all the same."""
        for _ in range(tries):
            if command == "resume":
                self._around.resume_asked = self._around.now
            try:
                reply = await self._bus.request(service, command, body, PATIENCE_SECONDS)
            except BusDown:
                continue
            self._say(f"{command} of {service}: {'done' if reply.ok else 'refused'}, {reply.detail}")
            if reply.ok:
                self._checks.on_answered(command)
            if command == "resume":
                self._around.resume_asked = NEVER
            return reply
        self._say(f"{command} of {service}: no answer")
        return None

    async def command(self, service: str, command: str, tries: int = TRIES) -> m.Reply | None:
        return await self.ask(service, command, m.Command(reason="as the simulation wants it", who=WHO), tries)

    # -- what an operator does

    async def _order(self, **fields: object) -> None:
        self._made += 1
        request = m.OrderRequest(request_id=f"request-{self._made}", **fields)  # type: ignore[arg-type]
        await self.ask("risk", "order", m.Command(order=request, reason="", who=WHO))

    def _product(self) -> tuple[str, Decimal] | None:
        """One that has a price, and its mid."""
        products = [name for name in sorted(self._facts.marks) if self._facts.mids(name)]
        if not products:
            return None
        product_id = self._chance.choice(products)
        return product_id, self._facts.mids(product_id)[-1]

    async def _enter(self) -> None:
        """With the quote currency at market, or with a limit through the market."""
        if (found := self._product()) is None:
            return
        product_id, mid = found
        value = Decimal(self._chance.randint(20, 700))
        if self._chance.random() < 0.5:
            await self._order(product_id=product_id, side=m.Side.BUY, quote_size=value)
            return
        limit = (mid * Decimal("1.005")).quantize(CENT)
        size = (value / limit).quantize(UNIT)
        await self._order(
            product_id=product_id,
            side=m.Side.BUY,
            order_type=m.OrderType.LIMIT,
            time_in_force=self._chance.choice((m.TimeInForce.IOC, m.TimeInForce.FOK)),
            quantity=size,
            limit_price=limit,
        )

    async def _rest(self) -> None:
        """A buy that waits below the market."""
        if (found := self._product()) is None:
            return
        product_id, mid = found
        limit = (mid * (1 - self._chance.choice(AWAY))).quantize(CENT)
        size = (Decimal(self._chance.randint(100, 500)) / limit).quantize(UNIT)
        await self._order(
            product_id=product_id,
            side=m.Side.BUY,
            order_type=m.OrderType.LIMIT,
            time_in_force=m.TimeInForce.GTC,
            quantity=size,
            limit_price=limit,
            post_only=self._chance.random() < 0.3,
        )

    async def _leave(self) -> None:
        """A sale that only reduces: at market, or resting above it, sometimes of more than is held."""
        if (found := self._product()) is None:
            return
        product_id, mid = found
        held = self._facts.position.get(product_id, Decimal(0))
        size = (max(held, UNIT) * Decimal(self._chance.choice(("0.5", "1", "2")))).quantize(UNIT) or UNIT
        if self._chance.random() < 0.6:
            await self._order(product_id=product_id, side=m.Side.SELL, quantity=size, reduce_only=True)
            return
        await self._order(
            product_id=product_id,
            side=m.Side.SELL,
            order_type=m.OrderType.LIMIT,
            time_in_force=m.TimeInForce.GTC,
            quantity=size,
            limit_price=(mid * (1 + self._chance.choice(AWAY))).quantize(CENT),
            reduce_only=True,
        )

    async def _edit(self) -> None:
        open_ones = [order for order in self._facts.open_orders() if order.approved and order.status]
        resting = [o.approved for o in open_ones if o.approved and o.approved.time_in_force is m.TimeInForce.GTC]
        if not resting:
            return
        old = self._chance.choice(resting)
        assert old.limit_price is not None, "what rests has a limit"
        factor = Decimal(self._chance.choice(("0.5", "0.9", "1.2", "2")))
        await self._order(
            product_id=old.product_id,
            side=old.side,
            order_type=old.order_type,
            time_in_force=old.time_in_force,
            quantity=(old.quantity * factor).quantize(UNIT) or UNIT,
            limit_price=(old.limit_price * Decimal(self._chance.choice(("0.999", "1", "1.001")))).quantize(CENT),
            reduce_only=old.reduce_only,
            edits=old.client_order_id,
        )

    async def _classified(self) -> bool:
        """Say what was moved by hand, all in one; True when nothing is left to say. Risk must have seen it first."""
        if amount := sum(self.unclassified):
            kind = m.AdjustmentKind.DEPOSIT if amount > 0 else m.AdjustmentKind.WITHDRAWAL
            name, counted = f"by-hand-{self._named}-{amount}", len(self.unclassified)
            asked = m.AdjustmentRequest(request_id=name, kind=kind, currency="USD", quantity=abs(amount))
            reply = await self.ask("risk", "adjust", m.Command(adjustment=asked, reason="moved by hand", who=WHO))
            if reply is None or not reply.ok:
                return False
            del self.unclassified[:counted]
            self._named += 1
        if not sum(self.unclassified):
            self.unclassified.clear()
            self._around.by_hand_since = None
        return not self.unclassified

    async def _cancel_all(self) -> None:
        await self.command("execution", "cancel-all", tries=1)

    async def _halt_for_a_while(self) -> None:
        await self.command("risk", "halt")
        await asyncio.sleep(self._chance.uniform(1, 6))
        await self.command("risk", "resume")

    async def _resume_if_need_be(self) -> None:
        state = self._facts.trading[-1][1] if self._facts.trading else None
        if state is None or state.state is not m.Trading.ACTIVE:
            await self.command("risk", "resume")

    async def _reduce_only_for_a_while(self) -> None:
        await self.command("risk", "reduce-only")
        await asyncio.sleep(self._chance.uniform(1, 6))
        await self.command("risk", "resume")

    async def _flatten(self) -> None:
        await self.command("risk", "flatten")
        await asyncio.sleep(self._chance.uniform(2, 8))
        await self.command("risk", "resume")
