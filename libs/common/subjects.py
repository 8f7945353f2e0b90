"""One table: message, subject, where it is kept. The streams that keep it follow below."""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec import Struct

from libs.common import messages as m

SERVICES = ("marketdata", "strategy", "risk", "execution", "exporter")


class Kept(StrEnum):
    """Where a message stays after it was delivered."""

    NOWHERE = "core only"
    LAST = "LAST"  # last value per subject
    CANDLES = "CANDLES"  # recent window per subject
    LEDGER = "LEDGER"  # for ever, one sequence over all of it, synced before acknowledged
    AUDIT = "AUDIT"


class Route(Struct, frozen=True):
    """`subject` holds field names in braces, filled from the message."""

    type: type[m.Message]
    subject: str
    kept: Kept

    @property
    def wildcard(self) -> str:
        """The subject with every field open, for subscriptions and permissions."""
        return ".".join("*" if part.startswith("{") else part for part in self.subject.split("."))


ROUTES = (
    Route(m.Mark, "perps.mark.{product_id}", Kept.LAST),
    Route(m.Candle, "perps.candle.{product_id}.{granularity}", Kept.CANDLES),
    Route(m.FeedState, "perps.feed.{product_id}", Kept.LAST),
    Route(m.Product, "perps.product.{product_id}", Kept.LAST),
    Route(m.Decision, "perps.decision.{product_id}", Kept.NOWHERE),
    Route(m.Signal, "perps.signal.{product_id}", Kept.NOWHERE),
    Route(m.Verdict, "perps.verdict.{product_id}", Kept.LEDGER),
    Route(m.OrderEvent, "perps.order.{product_id}.{client_order_id}", Kept.LEDGER),
    Route(m.Fill, "perps.fill.{product_id}.{client_order_id}", Kept.LEDGER),
    Route(m.Baseline, "perps.baseline", Kept.LEDGER),
    Route(m.Adjustment, "perps.adjustment", Kept.LEDGER),
    Route(m.TradingState, "perps.state", Kept.NOWHERE),
    Route(m.Account, "perps.account", Kept.LAST),
    Route(m.RiskFigures, "perps.risk", Kept.LAST),
    Route(m.ServiceStatus, "perps.service.{service}", Kept.LAST),
    Route(m.Tooling, "perps.tooling", Kept.AUDIT),
    Route(m.Audit, "perps.audit.{command}", Kept.AUDIT),
)
BY_TYPE = {route.type: route for route in ROUTES}
TEMPLATES = {route.type: route.subject.replace("{", "{0.") for route in ROUTES}
BY_PREFIX = {tuple(route.subject.split(".")[:2]): route for route in ROUTES}

STATE_BUCKET = "PERPS_STATE"  # trading state, installation; history kept
SNAPSHOT_BUCKET = "PERPS_SNAPSHOT"  # each service's own state, to start from
LEASE_BUCKET = "PERPS_LEASE"  # who is the one execution
TRADING_KEY = "trading"
INSTALLATION_KEY = "installation"
OPENING_KEY = "opening"


def subject_of(message: m.Message) -> str:
    """The subject that this message is published on. KeyError for a type that never crosses the bus."""
    return TEMPLATES[type(message)].format(message)


def type_of(subject: str) -> type[m.Message] | None:
    """The type that belongs to a subject, None where no message of ours lives."""
    route = BY_PREFIX.get(tuple(subject.split(".")[:2]))
    return route.type if route and subject.count(".") == route.subject.count(".") else None


def control_subject(service: str, command: str) -> str:
    """Request-reply; no stream covers it, since a stream would answer the request itself."""
    return f"perps.control.{service}.{command}"


def decode(subject: str, data: bytes) -> m.Message:
    """The message that belongs to this subject. Raises msgspec.DecodeError for anything else."""
    kind = type_of(subject)
    if kind is None:
        raise msgspec.DecodeError(f"no message belongs to {subject}")
    message = m.read(data, kind)
    if subject_of(message) != subject:
        raise msgspec.DecodeError(f"the message names {subject_of(message)}, it came on {subject}")
    return message
