"""A recorded market through the running system, tick by tick, with an operator and a strategy who look at each tick.

What a test expects is computed here from the recorded file alone, by code that shares nothing with the system.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import httpx
from msgspec import Struct

from cli.feeder import Feeder
from cli.journal import Journal
from libs.common import messages as m
from libs.common.clock import SystemClock
from libs.common.nats_bus import NatsBus, connect
from libs.common.settings import PROFILES
from libs.common.shell import trading_state
from libs.common.subjects import STATE_BUCKET, TRADING_KEY
from tests.integration.stack import QUIET, System, running_system

BTC = "BTC-USD"
FILE = "candles/BTC-USD_5m_2025-07-01_2026-01-08.csv.gz"
BAR = timedelta(minutes=5)
LAST_MOMENT = timedelta(milliseconds=1)

# Every guard silent; a test gives steps to the one that it is about.
SILENT = {
    "daily_loss": '{ warn = "0.8", halt = 1 }',
    "drawdown": "{ halt = 1000000 }",
    "volatility": "{ sample_seconds = 300, window = 10, halt = 1000000 }",
    "mark_staleness": "{ reduce = 1000000, recover_seconds = 1 }",
    "concentration": "{ halt = 1000000 }",
    "order_errors": "{ window_seconds = 300, halt = 1000 }",
    "rejections": "{ halt = 1000000 }",
    "position_drift": "{ }",
}


class Tick(NamedTuple):
    at: datetime
    price: Decimal


def ticks_of(path: Path, start: datetime, end: datetime) -> list[Tick]:
    """The bars of a period as the venue trades them: four prices each, the low before the high in a bar that rises."""
    found = []
    first_text, last_text = (f"{moment:%Y-%m-%d %H:%M:%S}" for moment in (start, end))
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open() as lines:
        for row in csv.DictReader(lines):
            if first_text <= row["start"] < last_text:
                at = datetime.fromisoformat(row["start"]).replace(tzinfo=UTC)
                first, high, low, last = (Decimal(row[name]) for name in ("open", "high", "low", "close"))
                turns = (low, high) if last >= first else (high, low)
                times = (at, at + BAR / 4, at + BAR / 2, at + BAR - LAST_MOMENT)
                found += [Tick(*pair) for pair in zip(times, (first, *turns, last), strict=True)]
    return found


def changes(levels: Sequence[tuple[datetime, str]]) -> list[tuple[datetime, str]]:
    """When a level begins, of one level per tick."""
    return [next(group) for _, group in groupby(levels, key=lambda pair: pair[1])]


class Line(NamedTuple):
    """What a service logged, and the market time of the tick at which it did."""

    at: datetime
    event: str
    message: str


class Wall(Struct):
    """One tick, and the wall time at which it was fed."""

    at: datetime
    began: datetime


class Tape:
    """See `replaying`."""

    def __init__(
        self, system: System, venue: httpx.AsyncClient, journal: Journal, strategy: NatsBus, market: list[Tick]
    ) -> None:
        self.system = system
        self.market = market
        self.prices = dict(market)
        self.journal = journal
        self.fed: list[Wall] = []
        self._venue = venue
        self._feeder = Feeder(journal, system.bus, venue, 0)
        self._strategy = strategy
        self._asked = 0

    @property
    def now(self) -> datetime:
        return self.fed[-1].at

    @property
    def market_price(self) -> Decimal:
        """Of the last tick."""
        return self.prices[self.now]

    async def step(self) -> datetime:
        """Feed one tick; gives its time once everything that follows from it is done."""
        began = SystemClock().wall()
        answer = await self._venue.post("/sim/step", content=b'{"ticks":1}')
        told = answer.raise_for_status().json()
        assert not told["done"], "the recording is at its end"
        at = datetime.fromisoformat(told["products"][BTC])
        self.fed.append(Wall(at, began))

        def decided() -> bool:
            decision = self.journal.decisions.get(BTC)
            return decision is not None and decision.mark_at >= at

        assert await self.journal.until(decided, 20), f"no decision for the tick at {at}"
        await self.rest({fill["entry_id"] for fill in told["fills"]})
        return at

    async def until(self, at: datetime) -> None:
        """Feed up to and with the tick of this time."""
        while not self.fed or self.now < at:
            await self.step()

    async def rest(self, fills: set[str] | None = None) -> None:
        """Nothing is in flight, and everybody has read the ledger."""
        await self._feeder.settle(fills or set())

    async def order(self, side: m.Side, quantity: str, limit_price: Decimal | None = None) -> m.Reply:
        """What an operator asks for, carried out to its end: a market order, or a limit order that does not rest."""
        self._asked += 1
        request = m.OrderRequest(
            request_id=f"request {self._asked}",
            product_id=BTC,
            side=side,
            order_type=m.OrderType.MARKET if limit_price is None else m.OrderType.LIMIT,
            quantity=Decimal(quantity),
            limit_price=limit_price,
        )
        body = m.Command(reason="replay", who="tester", order=request)
        reply = await self.system.bus.request("risk", "order", body, 10)
        await self.rest()
        return reply

    async def signal(self, side: m.Side, quantity: str) -> m.Verdict:
        """What a strategy wants, and risk's answer to it."""
        self._asked += 1
        wanted = signal(f"signal {self._asked}", side, quantity, self.now)
        await self._strategy.publish(wanted)
        async with asyncio.timeout(20):
            while wanted.id not in self.journal.verdicts:
                await self.journal.read_ledger()
        await self.rest()
        return self.journal.verdicts[wanted.id]

    async def publish(self, wanted: m.Signal) -> None:
        await self._strategy.publish(wanted)
        await self._strategy.nc.flush(2)

    async def command(self, name: str, reason: str = "the test wants it") -> m.Reply:
        return await self.system.bus.request("risk", name, m.Command(reason=reason, who="tester"), 10)

    async def trading(self) -> m.TradingState:
        """As it is stored."""
        return trading_state(await self.system.bus.load(STATE_BUCKET, TRADING_KEY), self.now)

    async def figures(self) -> m.RiskFigures:
        await self.rest()
        return await self.system.figures()

    def logged(self, service: str, prefix: str) -> list[Line]:
        """The lines of a service whose event begins so, each with the tick that was fed before it."""
        found = []
        with (self.system.settings.data_dir / "logs" / f"{service}.log").open() as lines:
            for line in lines:
                told = json.loads(line) if line.startswith("{") else {}
                if str(told.get("event", "")).startswith(prefix):
                    wall = datetime.fromisoformat(told["time"])
                    at = max((tick.at for tick in self.fed if tick.began <= wall), default=m.EPOCH)
                    found.append(Line(at, told["event"], told["message"]))
        return found


def signal(name: str, side: m.Side, quantity: str, at: datetime) -> m.Signal:
    """As a strategy sends it."""
    return m.Signal(
        id=m.derive_id(name),
        at=at,
        product_id=BTC,
        strategy="by hand",
        side=side,
        order_type=m.OrderType.MARKET,
        time_in_force=m.TimeInForce.IOC,
        quantity=Decimal(quantity),
        limit_price=None,
        reduce_only=side is m.Side.SELL,
        reason="test",
        trigger=name,
        attempt=1,
        expires_at=at + timedelta(seconds=30),
    )


def profile(folder: Path, guards: Mapping[str, str]) -> Path:
    """A folder with the dev profile, whose guards are silent but for these."""
    shipped, _, _ = (PROFILES / "dev.toml").read_text().partition("[risk.guards]")
    lines = [f"{name} = {steps}" for name, steps in {**SILENT, **guards}.items()]
    made = folder / "profiles"
    made.mkdir(parents=True)
    (made / "dev.toml").write_text("\n".join([shipped, "[risk.guards]", *lines, ""]))
    return made


@asynccontextmanager
async def replaying(
    folder: Path,
    file: Path,
    start: datetime,
    end: datetime,
    *,
    guards: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> AsyncIterator[Tape]:
    """The dev profile over a recording of five-minute candles; no tick is fed yet. Nothing is traded but by hand."""
    replay = {
        **QUIET,
        "PERPS_PROFILES_DIR": str(profile(folder, guards or {})),
        "PERPS_MARKET_REPLAY": "true",
        "PERPS_MARKET_PRODUCTS": BTC,
        "PERPS_MARKET_GRANULARITY": "5m",
        "PERPS_SIM_REPLAY": str(file),
        "PERPS_SIM_FROM": start.isoformat(),
        "PERPS_SIM_TO": end.isoformat(),
        "PERPS_SIM_PRODUCT": BTC,
        "PERPS_SIM_PRODUCTS": BTC,
        "PERPS_RISK_ORDER_NOTIONAL_MAX": "1000000",
        "PERPS_RISK_POSITION_NOTIONAL_MAX": "1000000",
        "PERPS_RISK_EXPOSURE_MAX": "1000000",
        "PERPS_RISK_EXPOSURE_FRACTION_MAX": "1",
        "PERPS_RISK_DAILY_LOSS_PERCENT_MAX": "100",
    }
    async with running_system(folder, {**replay, **(overrides or {})}) as system:
        settings, clock = system.settings, SystemClock()
        journal = Journal(system.bus)
        await journal.follow(m.Decision, m.RiskFigures)
        seed = settings.identities / "strategy.nk"
        strategy = await connect(settings.nats.servers, "strategy", seed, clock, lambda error: None)
        try:
            async with httpx.AsyncClient(base_url=f"http://{settings.sim_url}", timeout=10) as venue:
                yield Tape(system, venue, journal, strategy, ticks_of(file, start, end))
        finally:
            await strategy.close()
