"""Messages between the core and its shell; none of them crosses the bus."""

from __future__ import annotations

from enum import StrEnum

from libs.common.messages import Message


class Action(StrEnum):
    HALT = "halt"
    RESUME = "resume"
    REDUCE_ONLY = "reduce_only"


class OperatorCommand(Message, frozen=True, kw_only=True):
    """Somebody wants the trading state changed."""

    command: Action
    reason: str
    who: str


class Answered(Message, frozen=True, kw_only=True):
    """What came of the command `cause`. Given only once the result is durable."""

    ok: bool
    detail: str


class Outcome(StrEnum):
    OK = "ok"
    WARNING = "warning"
    BREACH = "breach"
    UNKNOWN = "unknown"


class GuardOutcome(Message, frozen=True, kw_only=True):
    """A guard that runs all the time now comes to another result than before."""

    guard: str
    outcome: Outcome
    detail: str
