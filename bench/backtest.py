"""How many ticks a second the backtest takes: recorded one-minute candles, four ticks each, under the default profile.

Beside it stands what is told of nautilus_trader's engine with a Python strategy on a machine with two cores. It is no
like for like: each tick here goes through the feed's checks, the strategy, eight guards of risk and a book of twenty
levels.
"""

from __future__ import annotations

import argparse
import time
from datetime import timedelta
from pathlib import Path

from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from libs.common import settings as profiles
from sim.backtest.engine import run
from sim.replay import open_replay

FILE = Path(__file__).parents[2] / "shared" / "data" / "candles" / "BTC-USD_1m_2025-11-23_2026-01-08.csv.gz"
# The same strategy with the same work to do, whose filter lets no entry pass.
NO_ENTRY = {"volatility.min": "9", "volatility.max": "10"}
PEER_WITHOUT, PEER_WITH = 126_000, 20_000  # ticks per second


class Case(Struct, frozen=True):
    name: str
    parameters: dict[str, str]
    peer: int


class Row(Struct, frozen=True):
    """The fastest of the repeats, by the processor's time: that of the wall is others' too."""

    case: Case
    events: int
    orders: int
    wall: float
    processor: float


CASES = (Case("without orders", NO_ENTRY, PEER_WITHOUT), Case("with orders", {}, PEER_WITH))


def measure(case: Case, file: Path, days: int, progress: Progress) -> Row:
    first = next(iter(open_replay(file, None, None, None)))
    task = progress.add_task(case.name)
    began = time.process_time()
    result = run(
        profiles.load("dev", {}),
        [file],
        end=first.at + timedelta(days=days),
        parameters=case.parameters,
        progress=lambda done, total: progress.update(task, completed=done, total=total),
    )
    processor = time.process_time() - began
    progress.remove_task(task)
    return Row(case, result.events, result.orders, result.seconds, processor)


def table(rows: list[Row]) -> Table:
    shown = Table(title="the backtest's engine, dev profile, crossover")
    for name in ("", "ticks", "orders", "wall s", "CPU s", "ticks/s", "ticks/CPU s", "nautilus ticks/s", "ratio"):
        shown.add_column(name, justify="right" if name else "left", no_wrap=True)
    for row in rows:
        rate = row.events / row.processor
        times = (f"{row.wall:.2f}", f"{row.processor:.2f}", f"{row.events / row.wall:,.0f}", f"{rate:,.0f}")
        peer = (f"{row.case.peer:,}", f"{rate / row.case.peer:.3f}")
        shown.add_row(row.case.name, f"{row.events:,}", f"{row.orders:,}", *times, *peer)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.backtest", description=__doc__)
    parser.add_argument("--file", type=Path, default=FILE)
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if not arguments.file.exists():
        parser.error(f"{arguments.file} is not there: name a file of candles with --file")
    columns = (TextColumn("{task.description}"), BarColumn(24), TaskProgressColumn(), TimeRemainingColumn())
    rows = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for case in CASES:
            runs = [measure(case, arguments.file, arguments.days, progress) for _ in range(arguments.repeats)]
            rows.append(min(runs, key=lambda row: row.processor))
    Console(width=120).print(table(rows))


if __name__ == "__main__":
    main()
