"""`perps-bot status`: every service by its own heartbeat on the bus, as a table or as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Protocol

import msgspec
from msgspec import Struct
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cli.journal import money, plain
from cli.operator import age, connected
from libs.common import messages as m
from libs.common.bus import Entry
from libs.common.settings import Settings
from libs.common.shell import trading_state
from libs.common.subjects import SERVICES, STATE_BUCKET, TRADING_KEY

UP_SECONDS = 5.0  # a service tells of itself once a second


class Line(Struct, frozen=True):
    """One service. Ages in seconds, None where there has been nothing."""

    service: str
    up: bool
    ready: bool
    reason: str
    last_input_seconds: float | None = None
    last_decision_seconds: float | None = None
    last_venue_seconds: float | None = None
    errors: int | None = None
    restarts: int | None = None
    pid: int | None = None
    up_seconds: float | None = None
    ledger_sequence: int | None = None


class Price(Struct, frozen=True):
    product: str
    mid: str
    last_mark_seconds: float | None


class Status(Struct, frozen=True):
    profile: str | None
    trading: m.Trading
    trading_reason: str
    trading_who: str
    trading_since: datetime
    equity: str | None
    daily_loss: str | None
    daily_loss_limit: str | None
    positions: dict[str, str]
    marks: list[Price]
    services: list[Line]


class Values(Protocol):
    """The part of the operator's bus that we read."""

    async def last(self, kind: type[m.Message]) -> list[m.Message]: ...

    async def load(self, bucket: str, key: str) -> Entry | None: ...


async def read_status(bus: Values, now: datetime) -> Status:
    beats = {s.service: s for s in await bus.last(m.ServiceStatus) if isinstance(s, m.ServiceStatus)}
    marks = [mark for mark in await bus.last(m.Mark) if isinstance(mark, m.Mark)]
    figures = next((f for f in await bus.last(m.RiskFigures) if isinstance(f, m.RiskFigures)), None)
    trading = trading_state(await bus.load(STATE_BUCKET, TRADING_KEY), now)
    positions = {} if figures is None else figures.positions
    return Status(
        profile=next((beat.profile for beat in beats.values()), None),
        trading=trading.state,
        trading_reason=trading.reason,
        trading_who=trading.who,
        trading_since=trading.since,
        equity=plain(figures.equity) if figures else None,
        daily_loss=plain(figures.daily_loss) if figures else None,
        daily_loss_limit=plain(figures.daily_loss_limit) if figures else None,
        positions={product: str(plain(p.quantity)) for product, p in positions.items() if p.quantity},
        marks=[Price(mark.product_id, f"{mark.mid:f}", _since(mark.sent_at, now)) for mark in marks],
        services=[_line(service, beats.get(service), now) for service in SERVICES],
    )


def _line(service: str, beat: m.ServiceStatus | None, now: datetime) -> Line:
    silence = _since(beat.sent_at, now) if beat else None
    if beat is None or silence is None or silence > UP_SECONDS:
        return Line(service, False, False, f"silent for {age(silence)}" if silence else "has not said anything")
    return Line(
        service,
        True,
        beat.ready,
        beat.not_ready_reason,
        _since(beat.last_input_at, now),
        _since(beat.last_decision_at, now),
        _since(beat.last_venue_at, now),
        beat.errors,
        beat.restarts,
        beat.pid,
        _since(beat.started_at, now),
        beat.ledger_sequence,
    )


def _since(at: datetime | None, now: datetime) -> float | None:
    return None if at is None else round(max((now - at).total_seconds(), 0), 3)


async def status(settings: Settings, as_json: bool) -> int:
    """Raises BusDown with one line when there is no bus to ask."""
    async with connected(settings) as bus:
        found = await read_status(bus, datetime.now(UTC))
    if as_json:
        print(json.dumps(msgspec.to_builtins(found), indent=2))
    else:
        show(found, Console())
    return 0


def show(found: Status, console: Console) -> None:
    table = Table(box=SIMPLE, header_style="bold")
    for name in ("service", "up", "ready"):
        table.add_column(name, no_wrap=name != "ready")
    for name in ("last input", "last decision", "last venue answer", "errors", "restarts"):
        table.add_column(name, justify="right")
    for line in found.services:
        figures = [line.last_input_seconds, line.last_decision_seconds, line.last_venue_seconds]
        counts = ["-" if count is None else str(count) for count in (line.errors, line.restarts)]
        ready = "yes" if line.ready else f"no: {line.reason}"
        table.add_row(line.service, "yes" if line.up else "no", ready, *(age(f) for f in figures), *counts)
    console.print(table)
    for mark in found.marks:
        console.print(f"{mark.product}: {mark.mid}, last mark {age(mark.last_mark_seconds)} ago", highlight=False)
    held = ", ".join(f"{quantity} {product}" for product, quantity in found.positions.items())
    console.print(
        f"trading is {found.trading} since {found.trading_since:%Y-%m-%d %H:%M:%SZ} "
        f"({found.trading_reason}, {found.trading_who}); equity {_amount(found.equity)}, holding {held or 'nothing'}; "
        f"daily loss {_amount(found.daily_loss)} of {_amount(found.daily_loss_limit)}",
        highlight=False,
    )


def _amount(value: str | None) -> str:
    return "-" if value is None else money(Decimal(value))
