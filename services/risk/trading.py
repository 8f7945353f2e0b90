"""The switch: active, reducing, halted. Who may move it where, what holds while a change is being stored, and the
guards that are asked all the time.

Only `resume` leads out of a halt. A resume is refused while the day's loss is at its limit or not known, or while the
venue holds something else than our books: the guard would step in again at once, and the operator should know why. It
is free again when the loss falls below the limit or the UTC day rolls over, and when the difference is gone.

Drift makes an active trading reduce-only, and lets it be active again when the books equal the account: that state
alone, with this reason, is risk's own to end.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from libs.common.messages import Message, Trading, TradingState, derive_id
from services.risk.rules import show


class Action(StrEnum):
    HALT = "halt"
    RESUME = "resume"
    REDUCE_ONLY = "reduce_only"


class OperatorCommand(Message, frozen=True, kw_only=True):
    """Somebody wants the trading state changed."""

    command: Action
    reason: str
    who: str


class Outcome(StrEnum):
    OK = "ok"
    WARNING = "warning"
    BREACH = "breach"
    UNKNOWN = "unknown"


class GuardOutcome(Message, frozen=True, kw_only=True):
    """A guard now comes to another result than before. From the core to its shell."""

    guard: str
    outcome: Outcome
    detail: str


STRICTNESS = (Trading.ACTIVE, Trading.REDUCING, Trading.HALTED)
TARGETS = {Action.HALT: Trading.HALTED, Action.REDUCE_ONLY: Trading.REDUCING, Action.RESUME: Trading.ACTIVE}
LOSS_REASON = "daily_loss_limit"
DRIFT_REASON = "account_drift"
DRIFT_GONE = "account_drift_gone"
RISK = "risk"
WARNING_SHARE = Decimal("0.8")


class Switch:
    """`current` is what is stored; `pending` a change that has been asked for and not come back yet, by the command
    `waiting` unless the loss guard wants it."""

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

    def refusal(
        self, command: OperatorCommand, loss: Decimal | None, limit: Decimal, drift: dict[str, Decimal] | None
    ) -> str:
        """Why the command may not be carried out; empty when it may."""
        if self.current is None:
            return "the trading state is not known yet"
        if self.pending is not None:
            return "another change is being stored, try again"
        if not command.reason.strip():
            return "a reason is required"
        if command.command is Action.REDUCE_ONLY and self.current.state is Trading.HALTED:
            return "trading is halted, and only resume clears a halt"
        if command.command is Action.RESUME and loss is None:
            return "the daily loss is not known: a mark of what is held is missing"
        if command.command is Action.RESUME and loss is not None and loss >= limit:
            return f"{LOSS_REASON}: {loss.normalize():f} of {limit.normalize():f} lost since 00:00 UTC"
        if command.command is Action.RESUME and drift and self.current.state is not Trading.HALTED:
            return f"{DRIFT_REASON}: venue less books {show(**drift)}"
        return ""

    def propose(self, cause: str, target: Trading, reason: str, who: str, now: datetime) -> TradingState:
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


def loss_guard(loss: Decimal | None, limit: Decimal) -> tuple[Outcome, str]:
    """breach: loss >= limit. warning: loss > 80 % of it."""
    if loss is None:
        return Outcome.UNKNOWN, "not known: a mark of what is held is missing"
    outcome = Outcome.BREACH if loss >= limit else Outcome.WARNING if loss > limit * WARNING_SHARE else Outcome.OK
    return outcome, show(daily_loss=loss, limit=limit)


def drift_guard(drift: dict[str, Decimal] | None) -> tuple[Outcome, str]:
    """breach: any difference. unknown: never compared."""
    if drift is None:
        return Outcome.UNKNOWN, ""
    return Outcome.BREACH if drift else Outcome.OK, show(**drift)
