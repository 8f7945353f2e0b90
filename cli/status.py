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
from rich.text import Text

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


class GuardLine(Struct, frozen=True):
    """What one guard says; a step without a figure is never taken."""

    level: m.GuardLevel
    value: str | None
    warn: str | None
    reduce: str | None
    halt: str | None
    detail: str


class ClosingLine(Struct, frozen=True):
    """How far the closing of one position is, in the base currency."""

    outcome: str
    held: str | None
    sold: str | None
    attempts: int
    detail: str


class Status(Struct, frozen=True):
    """`guards` and `degraded` are None where risk has told nothing of them; `closing` where no flatten is in force, or
    risk has yet to say how far it is."""

    profile: str | None
    trading: m.Trading
    trading_reason: str
    trading_who: str
    trading_since: datetime
    flatten: bool
    guards: dict[str, GuardLine] | None
    degraded: dict[str, str] | None
    closing: dict[str, ClosingLine] | None
    equity: str | None
    daily_loss: str | None
    daily_loss_limit: str | None
    positions: dict[str, str]
    figures_seconds: float | None  # age of risk's figures: all but the trading state rests on them
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
    guards = figures.guards if figures else {}
    closing = figures.closing if figures and trading.flatten else None
    return Status(
        profile=next((beat.profile for beat in beats.values()), None),
        trading=trading.state,
        trading_reason=trading.reason,
        trading_who=trading.who,
        trading_since=trading.since,
        flatten=bool(trading.flatten),
        guards={str(guard): _guard(figure) for guard, figure in guards.items()} or None,
        degraded=figures.degraded if figures and guards else None,
        closing=None if closing is None else {product: _closing(found) for product, found in closing.items()},
        equity=plain(figures.equity) if figures else None,
        daily_loss=plain(figures.daily_loss) if figures else None,
        daily_loss_limit=plain(figures.daily_loss_limit) if figures else None,
        positions={product: str(plain(p.quantity)) for product, p in positions.items() if p.quantity},
        figures_seconds=_since(figures.sent_at, now) if figures else None,
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


def _guard(figure: m.GuardFigure) -> GuardLine:
    steps = plain(figure.warn), plain(figure.reduce), plain(figure.halt)
    return GuardLine(figure.level, plain(figure.value), *steps, figure.detail)


def _closing(found: m.Closing) -> ClosingLine:
    return ClosingLine(found.outcome, plain(found.held), plain(found.sold), found.attempts, found.detail)


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
    table = _table("service", "up", "ready")
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
    _show_guards(found, console)
    _show_closing(found, console)
    held = ", ".join(f"{quantity} {product}" for product, quantity in found.positions.items())
    console.print(
        f"trading is {found.trading} since {found.trading_since:%Y-%m-%d %H:%M:%SZ} "
        f"({found.trading_reason}, {found.trading_who}); equity {_amount(found.equity)}, holding {held or 'nothing'}; "
        f"daily loss {_amount(found.daily_loss)} of {_amount(found.daily_loss_limit)}",
        highlight=False,
        markup=False,
    )


def _show_guards(found: Status, console: Console) -> None:
    """Those that are not ok. Old figures say so: what was ok then need not be ok now."""
    old = found.figures_seconds is not None and found.figures_seconds > UP_SECONDS
    title = f"guards (risk's figures are {age(found.figures_seconds)} old)" if old else "guards"
    if found.guards is None:
        console.print(f"{title}: not known", highlight=False)
        return
    odd = {name: guard for name, guard in found.guards.items() if guard.level is not m.GuardLevel.OK}
    console.print(f"{title}: {f'{len(odd)} of {len(found.guards)} not ok' if odd else 'all ok'}", highlight=False)
    if odd:
        table = _table("guard", "level", "value", "warns at", "reduces at", "halts at", "detail")
        for name, g in odd.items():
            steps = (amount or "-" for amount in (g.value, g.warn, g.reduce, g.halt))
            table.add_row(name, g.level, *steps, Text(g.detail))
        console.print(table)
    for product, reason in (found.degraded or {}).items():
        console.print(f"{product} takes no entries: {reason}", highlight=False, markup=False)


def _show_closing(found: Status, console: Console) -> None:
    if not found.flatten:
        return
    said = "risk has not said how far it is" if found.closing is None else "" if found.closing else "nothing is held"
    console.print(f"all positions are being closed{said and f': {said}'}", highlight=False)
    if found.closing:
        table = _table("product", "outcome", "held", "sold", "attempts", "detail")
        for product, line in found.closing.items():
            cells = (line.outcome, line.held or "-", line.sold or "-", str(line.attempts))
            table.add_row(product, *cells, Text(line.detail))
        console.print(table)


def _table(*columns: str) -> Table:
    """Only the last column may break its lines."""
    table = Table(box=SIMPLE, header_style="bold")
    for name in columns:
        table.add_column(name, no_wrap=name != columns[-1])
    return table


def _amount(value: str | None) -> str:
    return "-" if value is None else money(Decimal(value))
