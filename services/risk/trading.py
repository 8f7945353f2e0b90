"""The switch: active, reducing, halted. Who may move it where, and what holds while a change is being stored.

What a guard has done stays until an operator's `resume` with a reason, which is refused where the guard would step in
again at once. Out of a halt it leads no further than the guards allow. One exception: reduce-only because of a drift
ends by itself when the books equal the account.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from libs.common.messages import Guard, GuardFigure, GuardLevel, Message, Trading, TradingState, derive_id
from services.risk.guards import PER_PRODUCT, REBASED


class Action(StrEnum):
    HALT = "halt"
    RESUME = "resume"
    REDUCE_ONLY = "reduce_only"
    FLATTEN = "flatten"


class OperatorCommand(Message, frozen=True, kw_only=True):
    """Somebody wants the trading state changed."""

    command: Action
    reason: str
    who: str


class GuardOutcome(Message, frozen=True, kw_only=True):
    """A guard now comes to another result than before. From the core to its shell."""

    guard: Guard
    level: GuardLevel
    detail: str


STRICTNESS = (Trading.ACTIVE, Trading.REDUCING, Trading.HALTED)
LOSS_REASON = "daily_loss_limit"
DRIFT_REASON = "account_drift"
DRIFT_GONE = "account_drift_gone"
REASONS = {guard: str(guard) for guard in Guard} | {
    Guard.DAILY_LOSS: LOSS_REASON,
    Guard.POSITION_DRIFT: DRIFT_REASON,
}
RISK = "risk"


class Switch:
    """`current` is what is stored; `pending` a change that has been asked for and not come back yet, by the command
    `waiting` unless a guard wants it."""

    def __init__(self) -> None:
        self.current: TradingState | None = None
        self.pending: TradingState | None = None
        self.waiting: OperatorCommand | None = None

    @property
    def effective(self) -> Trading | None:
        """The stricter of what is stored and what is being stored."""
        states = [known.state for known in (self.current, self.pending) if known is not None]
        return max(states, key=STRICTNESS.index, default=None)

    @property
    def by_drift(self) -> bool:
        """Whether what is in force is what the drift guard has made of it."""
        now = self.current
        return now is not None and (now.state, now.reason, now.who) == (Trading.REDUCING, DRIFT_REASON, RISK)

    def refusal(self, command: OperatorCommand, figures: Mapping[Guard, GuardFigure]) -> str:
        """Why the command may not be carried out; empty when it may."""
        if self.current is None:
            return "the trading state is not known yet"
        if self.pending is not None:
            return "another change is being stored, try again"
        if not command.reason.strip():
            return "a reason is required"
        if command.command is Action.REDUCE_ONLY and self.current.state is Trading.HALTED:
            return "trading is halted, and only resume clears a halt"
        return self._too_early(figures) if command.command is Action.RESUME else ""

    def _too_early(self, figures: Mapping[Guard, GuardFigure]) -> str:
        """What would step in again at once."""
        loss = figures.get(Guard.DAILY_LOSS)
        if loss is None or loss.level is GuardLevel.UNKNOWN:
            return f"the daily loss is not known: {loss.detail if loss else 'no figures yet'}"
        stops = [GuardLevel.HALT]
        if self.current is not None and self.current.state is not Trading.HALTED:
            stops.append(GuardLevel.REDUCE)
        guard = first(figures, *stops, but=REBASED)
        return f"{REASONS[guard]}: {figures[guard].detail}" if guard else ""

    def propose(
        self,
        cause: str,
        target: Trading,
        reason: str,
        who: str,
        now: datetime,
        *,
        flatten: str = "",
        resumed: bool = False,
    ) -> TradingState:
        """The state to store; its revision is the one that it replaces."""
        assert self.current is not None, "a change needs a known state to replace"
        assert self.pending is None, "one change at a time"
        self.pending = TradingState(
            id=derive_id("trading", cause, target, self.current.revision),
            cause=cause,
            producer=RISK,
            at=now,
            state=target,
            reason=reason,
            who=who,
            since=now,
            revision=self.current.revision,
            flatten=flatten,
            resumed_at=now if resumed else self.current.resumed_at,
        )
        return self.pending

    def take(self, state: TradingState) -> OperatorCommand | None:
        """Take up what is stored; gives the command that had waited for it, done when it is the state's cause.

        Revisions only rise, except for 0: the stored state is gone or unreadable, and whatever is stored next counts.
        """
        if self.current is not None and 0 < state.revision <= self.current.revision:
            return None
        self.current, self.pending = state, None
        waiting, self.waiting = self.waiting, None
        return waiting


def first(
    figures: Mapping[Guard, GuardFigure], *levels: GuardLevel, but: frozenset[Guard] = frozenset()
) -> Guard | None:
    """The first guard, in the order of the table, that is at one of these levels. What a guard of single products
    reduces is not all trading."""
    for guard, figure in figures.items():
        if guard in but or (guard in PER_PRODUCT and figure.level is GuardLevel.REDUCE):
            continue
        if figure.level in levels:
            return guard
    return None
