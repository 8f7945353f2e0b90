"""The correctness matrix: every fault against a market and a limit order, on real processes and sockets.

`python -m tests.integration.matrix [PART OF A ROW'S NAME...]` prints the table, and fails when one of its lines does.
Seconds to detect run from the moment of the fault to the first thing that anybody could see; seconds to recover from
its end (a fault that strikes once ends at once) until the order has ended and everything is ready to trade.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from libs.common import messages as m
from libs.common.errors import PerpsError
from tests.integration.lab import Cell, Kind, Lab, open_lab
from tests.integration.rows import ROWS, Row
from tests.integration.stack import QUIET, Audit, System, running_system

SETTINGS = {
    **QUIET,
    "PERPS_EXECUTION_REQUEST_TIMEOUT_SECONDS": "2",
    "PERPS_MARKETDATA_PRODUCT_REFRESH_SECONDS": "1",
}
ORDERS = {Kind.MARKET: ("BTC-USD", Decimal("0.004")), Kind.LIMIT: ("ETH-USD", Decimal("0.1"))}


class Line(Struct, frozen=True):
    """One line of the table. `trouble` is empty where everything is as it has to be."""

    fault: str
    order: Kind
    ended: str
    sign: str
    doubled: int
    lost: int
    position: bool
    detected: float | None  # seconds
    recovered: float | None
    trouble: str


async def run(system: System, rows: Sequence[Row], tell: Callable[[Line], None]) -> list[Line]:
    lines = []
    async with open_lab(system) as lab:
        for row in rows:
            for line in await play(lab, row):
                lines.append(line)
                tell(line)
    return lines


async def play(lab: Lab, row: Row) -> list[Line]:
    """One row; whatever goes wrong in it is its own trouble, and the next one starts in order."""
    cells = [Cell(row.name, kind, product, size, orders=[]) for kind, (product, size) in ORDERS.items()]
    audit, troubles = None, []
    try:
        await lab.healthy()
        await lab.calm()
        await row.play(lab, cells)
        await lab.ended(cells)
        await lab.healthy()
        recovered = datetime.now(UTC)
        for cell in cells:
            await lab.send_again(cell)
        audit = await lab.system.audit()
        if audit.figures.trading is not m.Trading.ACTIVE or audit.figures.reserved:
            troubles.append(f"trading {audit.figures.trading}, {audit.figures.reserved} still reserved")
    except (AssertionError, PerpsError, TimeoutError) as error:
        troubles.append(f"{type(error).__name__}: {error}" if not isinstance(error, AssertionError) else str(error))
        recovered = datetime.now(UTC)
        await mend(lab)
    return [line(lab, row, cell, audit, recovered, troubles) for cell in cells]


async def mend(lab: Lab) -> None:
    """What a failed row may have left behind must not fail the next one."""
    await lab.clear()
    await lab.system.stack.supervisor.begin("venue")
    await lab.healthy()
    await lab.system.command("resume")


def line(lab: Lab, row: Row, cell: Cell, audit: Audit | None, recovered: datetime, troubles: Sequence[str]) -> Line:
    found = list(troubles)
    statuses = [lab.watch.status(key) for key in cell.orders]
    if not statuses or statuses[-1] is not row.ends[cell.kind]:
        found.append(f"the order ended as {statuses[-1] if statuses else 'nothing'}")
    sign = lab.watch.first(lab.struck, cell.orders)
    if sign is None and not row.quiet:
        found.append("nobody could see it")
    ours = set(cell.orders)
    doubled = sum(count - 1 for key, count in audit.orders.items() if key in ours) if audit else 0
    lost = sum(audit.fills.get(entry) in ours for entry in audit.lost) if audit else 0
    currencies = {cell.product_id.partition("-")[0], "USD"}
    equal = audit is not None and not currencies & set(audit.unequal)
    if audit:
        found += audit.differences
    return Line(
        fault=row.name,
        order=cell.kind,
        ended=", ".join(str(status) for status in statuses),
        sign=sign.what if sign else "",
        doubled=doubled,
        lost=lost,
        position=equal,
        detected=(sign.at - lab.struck).total_seconds() if sign else None,
        recovered=(recovered - lab.over).total_seconds() if audit else None,
        trouble="; ".join(found),
    )


def table(lines: Sequence[Line]) -> Table:
    found = Table(box=SIMPLE, header_style="bold")
    for name in ("fault", "order", "ended as", "first sign"):
        found.add_column(name, overflow="fold")
    for name in ("orders doubled", "fills lost", "position equal", "detected s", "recovered s"):
        found.add_column(name, justify="right", min_width=5)
    found.add_column("result", overflow="fold")
    for one in lines:
        figures = (
            str(one.doubled),
            str(one.lost),
            "yes" if one.position else "NO",
            *map(seconds, (one.detected, one.recovered)),
        )
        found.add_row(one.fault, one.order, one.ended.lower(), one.sign or "none", *figures, one.trouble or "ok")
    return found


def as_text(lines: Sequence[Line]) -> str:
    """The table for a place that is no terminal: wide enough for every column."""
    console = Console(width=200)
    with console.capture() as found:
        console.print(table(lines))
    return found.get()


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


async def main(names: Sequence[str]) -> int:
    rows = [row for row in ROWS if not names or any(name in row.name for name in names)]
    began = time.monotonic()
    logging.getLogger().addHandler(logging.NullHandler())  # a lost bus is one of the faults, and no news

    def tell(one: Line) -> None:
        said = f"{time.monotonic() - began:6.1f} s  {one.fault}, {one.order}: {one.trouble or 'ok'}"
        print(said, file=sys.stderr, flush=True)

    with TemporaryDirectory(prefix="perps-") as folder:
        async with running_system(Path(folder), SETTINGS) as system:
            lines = await run(system, rows, tell)
    if sys.stdout.isatty():
        Console().print(table(lines))
    else:
        print(as_text(lines))
    failed = [one for one in lines if one.trouble]
    print(f"{len(lines)} lines, {len(failed)} failed, {time.monotonic() - began:.0f} s")
    return 1 if failed or not lines else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
