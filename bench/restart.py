"""How long a service takes to start over a ledger of 1e3, 1e5, 1e6 fills: process start until it has read its past.

A real nats-server and real processes; the snapshot is what the core makes of the same messages, taken TAIL orders
before the end, as one that was killed would have left it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec
import uvloop
from msgspec import Struct
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from bench.history import FILLS_PER_ORDER, PERIOD, PRODUCT, History, price_of, surroundings
from cli.nats_server import find_nats_server, provision_server, write_config
from cli.plan import Plan, make_plan, own_ports
from libs.common import messages as m
from libs.common.clock import SystemClock
from libs.common.nats_bus import NatsBus, connect
from libs.common.permissions import PROVISIONER
from libs.common.shell import Core, Snapshot
from libs.common.subjects import SNAPSHOT_BUCKET, Kept, subject_of
from services.execution.config import ExecutionConfig
from services.execution.core import ExecutionCore
from services.exporter.core import ExporterCore
from services.risk.__main__ import check as risk_config
from services.risk.core import RiskCore
from services.strategy.app import make_core as make_strategy_core

TAIL = 50  # orders after the snapshot: what trades between two snapshots, and a good deal more
BATCH = 1000  # messages between two acknowledgements; the server buffers 10,000 per stream
START_SECONDS = 600.0
SERVICES = ("risk", "execution", "strategy", "exporter")


class Row(Struct, frozen=True):
    """One line of the table. `seconds` of each start; `snapshot_bytes` is None where there was none."""

    service: str
    fills: int
    messages: int
    snapshot_bytes: int | None
    seconds: list[float]


class Ledger:
    """Writes the same messages to the server and to the cores."""

    def __init__(self, bus: NatsBus, plan: Plan, fills_max: int) -> None:
        settings = plan.settings
        config = risk_config(settings)
        began = datetime.now(UTC) - PERIOD * (fills_max // FILLS_PER_ORDER + 2)
        self.bus = bus
        self.orders = 0
        self.sequence = 0
        self.cores: dict[str, Core] = {
            "risk": RiskCore(config, settings.market.products, settings.market.quote_currency),
            "execution": ExecutionCore(ExecutionConfig()),
            "strategy": make_strategy_core(settings),
            "exporter": ExporterCore(settings.market.products),
        }
        self._history = History(config, began)

    async def grow(self, orders: int, progress: Progress) -> None:
        """Up to so many orders."""
        task = progress.add_task(f"writing {orders * FILLS_PER_ORDER:,} fills", total=orders - self.orders)
        waiting: list[m.Message] = []
        for left in self._history.orders(self.orders, orders):
            waiting += left
            if len(waiting) >= BATCH:
                await self._write(waiting)
                waiting.clear()
            progress.advance(task)
        if waiting:
            await self._write(waiting)
        self.orders = orders
        progress.remove_task(task)

    async def _write(self, messages: list[m.Message]) -> None:
        """The server stores in order: when the last is acknowledged, all are there."""
        for message in messages[:-1]:
            await self.bus.nc.publish(subject_of(message), msgspec.json.encode(message))
        last = messages[-1]
        acknowledged = await self.bus.js.publish(subject_of(last), msgspec.json.encode(last), timeout=30)
        self.sequence = int(acknowledged.seq)
        for message in messages:
            for core in self.cores.values():
                core.on_message(message, message.at)

    def snapshots(self) -> dict[str, bytes]:
        return {
            name: Snapshot(self.sequence, msgspec.Raw(core.dump()), datetime.now(UTC)).sealed()
            for name, core in self.cores.items()
        }


@asynccontextmanager
async def server(plan: Plan) -> AsyncIterator[NatsBus]:
    """A provisioned server of our own, and the provisioner's connection to it. It syncs once in a while only: what is
    measured is reading."""
    path = write_config(plan.settings)
    path.write_text(path.read_text().replace("sync_interval: always", "sync_interval: 1m"))
    log = (plan.settings.data_dir / "nats.log").open("wb")
    execute = partial(asyncio.create_subprocess_exec, env=plan.environment, stdout=log, stderr=log)
    process = await execute(str(find_nats_server()), "-c", str(path))
    venue = await execute(sys.executable, "-m", "sim")
    try:
        clock, settings = SystemClock(), plan.settings
        await provision_server(settings, clock)
        seed = settings.identities / f"{PROVISIONER}.nk"
        bus = await connect(settings.nats.servers, PROVISIONER, seed, clock, lambda error: None)
        yield bus
        await bus.close()
    finally:
        for child in (venue, process):
            child.terminate()
            await child.wait()
        log.close()


async def prepare(bus: NatsBus, service: str, snapshot: bytes | None, sequence: int) -> None:
    """As the last process left it: its snapshot, and its consumer where that ends."""
    subject = f"$KV.{SNAPSHOT_BUCKET}.{service}"
    if snapshot is None:
        await bus.js.publish(subject, b"", headers={"KV-Operation": "DEL"})
    else:
        await bus.store(SNAPSHOT_BUCKET, service, snapshot, None)
    await bus.js.delete_consumer(Kept.LEDGER, service)
    config = ConsumerConfig(
        durable_name=service,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=(sequence if snapshot else 0) + 1,
        ack_policy=AckPolicy.EXPLICIT,
        max_ack_pending=1000,
    )
    await bus.js.add_consumer(Kept.LEDGER, config)


async def start(plan: Plan, service: str) -> float:
    """Seconds from the start of the process until it says that it has recovered."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"services.{service}", env=plan.environment, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    said = b""
    try:
        async with asyncio.timeout(START_SECONDS):
            while line := await process.stderr.readline():
                said = line
                if json.loads(line).get("event") == "service.recovered":
                    return time.monotonic() - began
        raise SystemExit(f"{service} has ended: {said.decode()}")
    finally:
        # Execution gives back its lease when it is asked to end: the next start would wait for it.
        process.send_signal(signal.SIGTERM if service == "execution" else signal.SIGKILL)
        while await process.stderr.readline():
            pass
        await process.wait()
        await asyncio.sleep(1.2 if service == "execution" else 0)


async def measure(plan: Plan, ledger: Ledger, service: str, snapshot: bytes | None, sequence: int, repeats: int) -> Row:
    seconds = []
    for _ in range(repeats):
        await prepare(ledger.bus, service, snapshot, sequence)
        seconds.append(await start(plan, service))
    fills = ledger.orders * FILLS_PER_ORDER
    return Row(service, fills, ledger.sequence, len(snapshot) if snapshot else None, seconds)


async def run(fills: list[int], repeats: int, without_max: int, folder: Path) -> list[Row]:
    """Every stage in turn, on one ledger that grows."""
    ports = own_ports()
    plan = make_plan("dev", {**ports, "PERPS_DATA_DIR": str(folder), "PERPS_MARKET_PRODUCTS": PRODUCT})
    rows = []
    columns = (TextColumn("{task.description}"), BarColumn(24), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        async with server(plan) as bus:
            ledger = Ledger(bus, plan, max(fills))
            for message in surroundings(datetime.now(UTC), price_of(0)):
                await bus.js.publish(subject_of(message), msgspec.json.encode(message))
            for count in fills:
                orders = count // FILLS_PER_ORDER
                await ledger.grow(orders - TAIL, progress)
                snapshots, sequence = ledger.snapshots(), ledger.sequence
                await ledger.grow(orders, progress)
                plans: list[tuple[str, bytes | None, int]] = [(name, snapshots[name], repeats) for name in SERVICES]
                if count <= without_max:
                    plans += [("risk", None, min(repeats, 3))]
                task = progress.add_task(f"starting over {count:,} fills", total=len(plans))
                for name, snapshot, times in plans:
                    rows.append(await measure(plan, ledger, name, snapshot, sequence, times))
                    progress.advance(task)
                progress.remove_task(task)
    return rows


def table(rows: list[Row]) -> Table:
    """The median of the starts, and its ratio to that of the shortest ledger."""
    shown = Table(title="from the start of the process until it has read its past")
    for name in ("service", "fills", "messages", "snapshot", "median s", "min s", "max s", "ratio"):
        shown.add_column(name, justify="left" if name == "service" else "right", no_wrap=True)
    first: dict[tuple[str, bool], float] = {}
    for row in sorted(rows, key=lambda row: (row.service, row.snapshot_bytes is None, row.fills)):
        middle = median(row.seconds)
        base = first.setdefault((row.service, row.snapshot_bytes is None), middle)
        size = "none" if row.snapshot_bytes is None else f"{row.snapshot_bytes / 1024:,.0f} KiB"
        figures = (f"{middle:.2f}", f"{min(row.seconds):.2f}", f"{max(row.seconds):.2f}", f"{middle / base:.2f}")
        shown.add_row(row.service, f"{row.fills:,}", f"{row.messages:,}", size, *figures)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.restart", description=__doc__)
    parser.add_argument("--fills", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--without-max", type=int, default=100_000, help="also start without a snapshot, up to here")
    arguments = parser.parse_args()
    os.environ.setdefault("PERPS_LOG_FORMAT", "json")
    with TemporaryDirectory(prefix="perps-bench-") as folder:
        rows = uvloop.run(run(sorted(arguments.fills), arguments.repeats, arguments.without_max, Path(folder)))
    Console(width=100).print(table(rows))


if __name__ == "__main__":
    main()
