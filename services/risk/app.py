"""What surrounds the loop: the trading state's store, the operator's commands, the log lines of the guards."""

from __future__ import annotations

import logging
from functools import partial

import msgspec

from libs.common import messages as m
from libs.common.bus import Bus, Delivery
from libs.common.clock import Clock, Tasks
from libs.common.errors import Conflict
from libs.common.shell import Inputs, Shell, trading_state
from libs.common.subjects import STATE_BUCKET, TRADING_KEY
from services.risk.adjust import AdjustmentAsked
from services.risk.core import RiskCore
from services.risk.metrics import RiskMetrics
from services.risk.operator import OrderAsked
from services.risk.trading import Action, GuardOutcome, OperatorCommand

log = logging.getLogger(__name__)
INPUTS = Inputs(kinds=(m.Signal, m.Mark, m.FeedState, m.Product, m.Account), ledger=True, trading=True)
LOG_LEVELS = {m.GuardLevel.OK: logging.INFO, m.GuardLevel.HALT: logging.CRITICAL}  # of the others: WARNING
Asked = OperatorCommand | OrderAsked | AdjustmentAsked


class RiskShell(Shell):
    """The shell of risk. `perps.control.risk.halt|resume|reduce-only|flatten|order|adjust` are answered when their
    result is durable: the trading state is stored, the verdict or the adjustment is in the ledger."""

    def __init__(
        self, profile: str, core: RiskCore, *, bus: Bus, clock: Clock, tasks: Tasks, metrics: RiskMetrics
    ) -> None:
        super().__init__(
            "risk",
            profile,
            core,
            INPUTS,
            bus=bus,
            clock=clock,
            tasks=tasks,
            metrics=metrics,
            perform=self.effect,
            # All products share one limit: a verdict is valid only if no other one came in between.
            # And what is handed back must not be sold by a verdict that this process has not seen.
            over={m.Verdict: "perps.verdict.>", m.Adjustment: "perps.verdict.>"},
            idle_snapshot_seconds=10,  # prices alone: of them a restart may forget the latest
        )
        self._risk = core
        self._guard_outcomes = metrics.guard_outcomes
        self._commands = 0

    async def run(self) -> None:
        """Commands that come before the past has been read wait for their turn."""
        for action in Action:
            await self.bus.serve(action.replace("_", "-"), partial(self.command, action))
        await self.bus.serve("order", self.order)
        await self.bus.serve("adjust", self.adjust)
        await super().run()

    async def command(self, action: Action, body: m.Command) -> m.Reply:
        return await self._answered(
            OperatorCommand(
                id=self._next_id(), at=self.clock.market(), command=action, reason=body.reason, who=body.who
            )
        )

    async def order(self, body: m.Command) -> m.Reply:
        """`data` holds reason and, where the request could be judged, signal_id and client_order_id."""
        return await self._answered(
            OrderAsked(id=self._next_id(), at=self.clock.market(), request=body.order, reason=body.reason, who=body.who)
        )

    async def adjust(self, body: m.Command) -> m.Reply:
        """`data` holds what was counted: adjustment_id, flow_<currency>, and of a trade product_id, size, price."""
        asked = AdjustmentAsked(
            id=self._next_id(), at=self.clock.market(), request=body.adjustment, reason=body.reason, who=body.who
        )
        return await self._answered(asked)

    def _next_id(self) -> str:
        self._commands += 1
        return m.derive_id("command", self.clock.wall(), self._commands)

    async def _answered(self, asked: Asked) -> m.Reply:
        """Ask the core, and answer once what it decided is stored."""
        await self.ask(asked)
        return self._risk.replies.pop(asked.id)

    def _apply(self, item: Delivery) -> list[m.Message]:
        self._risk.reached(item.sequence)
        return super()._apply(item)

    # -- effects

    async def effect(self, message: m.Message) -> list[m.Message]:
        """Do what the core wants done beside publishing."""
        match message:
            case m.TradingState():
                return [await self._store(message)]
            case GuardOutcome():
                self._guard_outcomes.labels(message.guard, message.level).inc()
                level = LOG_LEVELS.get(message.level, logging.WARNING)
                event = {"event": f"risk.guards.{message.guard}.{message.level}"}
                log.log(level, "%s: %s %s", message.guard, message.level, message.detail, extra=event)
            case _:
                raise AssertionError(f"no one performs {type(message).__name__}")
        return []

    async def _store(self, state: m.TradingState) -> m.TradingState:
        """Store it in place of the revision that it names, then announce it. When somebody else was faster, theirs."""
        raw = msgspec.json.encode(state)
        try:
            revision = await self.bus.store(STATE_BUCKET, TRADING_KEY, raw, state.revision)
        except Conflict as conflict:
            log.warning("trading state not stored: %s", conflict, extra={"event": "risk.trading.conflict"})
            entry = await self.bus.load(STATE_BUCKET, TRADING_KEY)
            if entry is not None or state.revision:
                return trading_state(entry, self.clock.market())
            # Nothing readable is there, yet something is: the mark of a deletion. There is nothing to lose.
            revision = await self.bus.store(STATE_BUCKET, TRADING_KEY, raw, None)
        stored = msgspec.structs.replace(state, revision=revision)
        await self.bus.publish(stored)
        level = logging.CRITICAL if stored.state is m.Trading.HALTED else logging.WARNING
        event = {"event": f"risk.trading.{stored.state}", "who": stored.who, "revision": revision}
        if stored.flatten:
            event["flatten"] = stored.flatten
        log.log(level, "trading is %s: %s (%s)", stored.state, stored.reason, stored.who, extra=event)
        return stored
