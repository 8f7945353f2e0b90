"""What a replay came to: one struct, shown as a table or as JSON."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from decimal import Decimal

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from cli.books import Audit
from cli.feeder import Feeder
from cli.journal import Journal, money, plain
from libs.common import messages as m


class Summary(Struct, frozen=True, kw_only=True):
    """Money in quote currency, exact, as text; `speed` is market seconds per wall second."""

    product: str
    start: datetime | None
    end: datetime | None
    ticks: int
    candles: float | None
    holds: dict[str, int]
    signals: int
    approvals: int
    denials: dict[str, int]
    orders: dict[str, int]
    fills: int
    fees: str
    realized_pnl: str
    unrealized_pnl: str | None
    equity_start: str | None
    equity_end: str | None
    positions: dict[str, str]
    books_equal: bool
    differences: list[str]
    trades: str
    duration_seconds: float
    speed: float

    def as_json(self) -> str:
        return json.dumps(msgspec.to_builtins(self), indent=2)


def summarise(product_id: str, journal: Journal, feeder: Feeder, audit: Audit, seconds: float) -> Summary:
    figures, verdicts = audit.figures, journal.verdicts.values()
    start, end = feeder.first_time, feeder.last.market_time if feeder.last else None
    ticks = feeder.last.ticks_done if feeder.last else 0
    market_seconds = (end - start).total_seconds() if start and end else 0.0
    return Summary(
        product=product_id,
        start=start,
        end=end,
        ticks=ticks,
        candles=ticks / 4 if audit.venue.candle_seconds else None,
        holds=dict(journal.reasons),
        signals=len(journal.signals | journal.verdicts.keys()),
        approvals=sum(1 for verdict in verdicts if verdict.order is not None),
        denials=dict(Counter(str(verdict.reason) for verdict in verdicts if verdict.order is None)),
        orders=dict(Counter(str(event.status) for event in journal.orders.values())),
        fills=len(journal.fills),
        fees=str(plain(figures.fees)),
        realized_pnl=str(plain(figures.realized_pnl)),
        unrealized_pnl=plain(figures.unrealized_pnl),
        equity_start=plain(journal.first_equity),
        equity_end=plain(figures.equity),
        positions={name: str(plain(p.quantity)) for name, p in figures.positions.items()},
        books_equal=not audit.differences,
        differences=[str(difference) for difference in audit.differences],
        trades=fingerprint(journal),
        duration_seconds=round(seconds, 3),
        speed=round(market_seconds / max(seconds, 0.001), 1),
    )


def fingerprint(journal: Journal) -> str:
    """The same for two replays exactly when they made the same trades, in the same order, at the same market times."""
    parts = [(f.trade_time, f.product_id, f.side, f.price, f.size, f.fee) for f in journal.fills.values()]
    return m.derive_id("trades", *("|".join(str(part) for part in trade) for trade in parts))


def show(summary: Summary, console: Console) -> None:
    table = Table(show_header=False, title=f"replay of {summary.product}")
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in _rows(summary):
        table.add_row(name, value)
    console.print(table)


def _rows(summary: Summary) -> list[tuple[str, str]]:
    made = f"{sum(summary.orders.values())} ({_counts(summary.orders)})"
    equal = "yes, to the last decimal" if summary.books_equal else "NO: " + "; ".join(summary.differences[:3])
    return [
        ("from", f"{summary.start:%Y-%m-%d %H:%M:%S}" if summary.start else "-"),
        ("to", f"{summary.end:%Y-%m-%d %H:%M:%S}" if summary.end else "-"),
        ("ticks", str(summary.ticks)),
        ("candles", "-" if summary.candles is None else f"{summary.candles:g}"),
        ("held back", _counts(summary.holds)),
        ("signals", str(summary.signals)),
        ("approved", str(summary.approvals)),
        ("denied", _counts(summary.denials)),
        ("orders", made),
        ("fills", str(summary.fills)),
        ("fees", _amount(summary.fees)),
        ("realised PnL", _amount(summary.realized_pnl)),
        ("unrealised PnL", _amount(summary.unrealized_pnl)),
        ("equity at the start", _amount(summary.equity_start)),
        ("equity at the end", _amount(summary.equity_end)),
        ("position", ", ".join(f"{quantity} {name}" for name, quantity in summary.positions.items()) or "-"),
        ("books equal the venue's", equal),
        ("duration", f"{summary.duration_seconds:,.1f} s, {summary.speed:,.0f} times market time"),
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _amount(value: str | None) -> str:
    return "-" if value is None else money(Decimal(value))
