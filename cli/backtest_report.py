"""What a backtest leaves: its files, its JSON, its table on a terminal. Nothing in them depends on when it was made."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import structs
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from cli.output import Json, jsonable
from libs.common import messages as m
from libs.common.errors import BadConfig
from sim.backtest.figures import DEFINITIONS, Figures
from sim.backtest.page import currency_of, rows_of, value_text
from sim.backtest.result import Result, Trip
from sim.backtest.sweep import Run

AS_IS = ("profile", "strategy", "parameters", "products", "granularity", "start", "end", "opening_equity", "events")
TRIP_COLUMNS = Trip.__struct_fields__
TERMINAL_COLUMNS = ("total_return", "sharpe", "max_drawdown", "profit_factor", "trades")  # a terminal is narrow
FILL_COLUMNS = (
    "trade_time",
    "product_id",
    "side",
    "price",
    "size",
    "value",
    "fee",
    "liquidity",
    "id",
    "client_order_id",
)


def document(result: Result, figures: Figures) -> Json:
    """Machine-readable, but for its points. Money in `currency`, exact, as text; ratios and fractions as numbers."""
    closing = result.points[-1].equity if result.points else None
    found = {
        **{name: getattr(result, name) for name in AS_IS},
        "closing_equity": closing,
        "currency": currency_of(result),
        "signals": len(result.signals),
        "denials": result.denials,
        "orders": result.orders,
        "fills": len(result.fills),
        "states": [{"at": s.at, "state": s.state, "reason": s.reason} for s in result.states],
        "figures": figures,
    }
    return {name: jsonable(value) for name, value in found.items()}


def sweep_document(runs: Sequence[Run], rank: str, best: Json) -> Json:
    """Every combination, the best first, and the best in full."""
    rows = [
        {"parameters": run.parameters, "figures": jsonable(run.figures)}
        if run.figures
        else {"parameters": run.parameters, "error": run.error}
        for run in runs
    ]
    return {"rank": rank, "runs": rows, "best": best}


def with_points(found: Json, result: Result) -> Json:
    return {**found, "points": jsonable(result.points)}


def as_text(found: Json) -> str:
    return json.dumps(found, indent=1, allow_nan=False) + "\n"


def trades_csv(trips: Sequence[Trip]) -> str:
    """One line a position from flat to flat; `closed_at` is empty for one that is still open."""
    return _csv(TRIP_COLUMNS, [[getattr(trip, name) for name in TRIP_COLUMNS] for trip in trips])


def fills_csv(fills: Sequence[m.Fill]) -> str:
    rows = [{**structs.asdict(fill), "value": fill.quote_value} for fill in fills]
    return _csv(FILL_COLUMNS, [[row[name] for name in FILL_COLUMNS] for row in rows])


def _csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([jsonable(cell) for cell in row] for row in rows)
    return text.getvalue()


def check_folder(folder: Path) -> None:
    """Before anything is computed. Raises BadConfig where a folder cannot be made or written."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not place.is_dir():
        raise BadConfig(f"--out {folder} cannot be made: {place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise BadConfig(f"--out {folder} cannot be written")


def write(folder: Path, texts: Mapping[str, str]) -> None:
    """All of them or none: each is complete before it gets its name. Raises BadConfig."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".writing-", dir=folder) as scratch:
            for name, text in texts.items():
                (Path(scratch) / name).write_text(text, "utf-8")
            for name in texts:
                os.replace(Path(scratch) / name, folder / name)
    except OSError as error:
        raise BadConfig(f"{folder} cannot be written: {error.strerror}") from None


def show(result: Result, figures: Figures, console: Console) -> None:
    title = f"{result.strategy} on {', '.join(result.products)}, {result.granularity}"
    table = Table(box=SIMPLE, show_header=False, title=title, title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right", overflow="fold")
    table.add_row("From", f"{result.start:%Y-%m-%d %H:%M}")
    table.add_row("To", f"{result.end:%Y-%m-%d %H:%M}")
    for label, value, _ in rows_of(result, figures):
        table.add_row(label, value)
    console.print(table)


def show_sweep(runs: Sequence[Run], rank: str, currency: str, console: Console) -> None:
    """`runs` as they are ranked."""
    names = list(runs[0].parameters)
    columns = [rank, *(name for name in TERMINAL_COLUMNS if name != rank)]
    title = f"{len(runs)} combinations by {DEFINITIONS[rank].label}"
    table = Table(box=SIMPLE, header_style="bold", title=title, title_justify="left")
    for name in names:
        table.add_column(name)
    for name in columns:
        table.add_column(DEFINITIONS[name].label, justify="right")
    for place, run in enumerate(runs):
        values = [value_text(run.figures, name, currency) for name in columns] if run.figures else ["failed"]
        table.add_row(*(run.parameters[name] for name in names), *values, style="bold green" if place == 0 else "")
    console.print(table)
