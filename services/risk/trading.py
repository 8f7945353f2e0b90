"""The switch: active, reducing, halted. Who may move it where, and what holds while a change is being stored.

Only `resume` leads back to active, and nothing else leads out of a halt. A resume is refused while the day's loss is
at its limit or not known: the guard would halt again at once, and the operator should know why. It is free again when
the loss falls below the limit or the UTC day rolls over.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from libs.common.messages import Trading, TradingState, derive_id
from services.risk.messages import Action, OperatorCommand

STRICTNESS = (Trading.ACTIVE, Trading.REDUCING, Trading.HALTED)
LOSS_REASON = "daily_loss_limit"
RISK = "risk"


class Ruling(Struct, frozen=True):
    """What becomes of a command: `target` where the state has to change for it, else the answer."""

    ok: bool
    detail: str
    target: Trading | None = None


def rule_on(command: OperatorCommand, state: Trading, loss: Decimal | None, limit: Decimal) -> Ruling:
    if not command.reason.strip():
        return Ruling(False, "a reason is required")
    match command.command:
        case Action.HALT:
            return _move(state, Trading.HALTED)
        case Action.REDUCE_ONLY:
            if state is Trading.HALTED:
                return Ruling(False, "trading is halted, and only resume clears a halt")
            return _move(state, Trading.REDUCING)
        case Action.RESUME:
            if loss is None:
                return Ruling(False, "the daily loss is not known: a mark of what is held is missing")
            if loss >= limit:
                return Ruling(
                    False, f"{LOSS_REASON}: {loss.normalize():f} of {limit.normalize():f} lost since 00:00 UTC"
                )
            return _move(state, Trading.ACTIVE)


def _move(state: Trading, target: Trading) -> Ruling:
    return Ruling(True, f"already {state}") if state is target else Ruling(True, "", target)


class Switch:
    """`current` is what is stored; `pending` a change that has been asked for and not come back yet."""

    def __init__(self) -> None:
        self.current: TradingState | None = None
        self.pending: TradingState | None = None
        self.waiting: OperatorCommand | None = None

    @property
    def effective(self) -> Trading | None:
        """The stricter of what is stored and what is being stored."""
        if self.current is None or self.pending is None:
            return self.current.state if self.current else None
        return max(self.current.state, self.pending.state, key=STRICTNESS.index)

    def propose(self, cause: str, target: Trading, reason: str, who: str, now: datetime) -> TradingState:
        """The state to store; its revision is the one that it replaces."""
        assert self.current is not None, "a change needs a known state to replace"
        assert self.pending is None, "one change at a time"
        revision = self.current.revision
        self.pending = TradingState(
            id=derive_id("trading", cause, target, revision),
            cause=cause,
            producer=RISK,
            at=now,
            state=target,
            reason=reason,
            who=who,
            since=now,
            revision=revision,
        )
        return self.pending

    def take(self, state: TradingState) -> OperatorCommand | None:
        """Take up what is stored; gives the command that had waited for it, done when it is the state's cause.

        Revisions only rise, except for 0: the stored state is gone or unreadable, and whatever is stored next counts.
        """
        known = self.current.revision if self.current else 0
        newer = state.revision > known or not state.revision
        if newer or self.current is None or state.revision == known:
            self.current = state
        if self.pending is None or not (newer or state.id == self.pending.id):
            return None
        self.pending, waiting, self.waiting = None, self.waiting, None
        return waiting
