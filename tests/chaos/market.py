"""Recorded prices at today's time: a recording, its bars made as short as a load wants them, is the public feed that
the stack's own venue trades on, as it does on paper.

A replay that is stepped would not do: its market time stands still while nothing arrives, so no mark grows old and no
approval expires however long a service is away, which is what faults by the wall clock are to show.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import gzip
import itertools
import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

from cli.plan import free_ports
from libs.common.clock import SystemClock
from sim.__main__ import build
from sim.clock import SystemClock as VenueClock
from sim.server import VenueServer
from sim.settings import Settings
from sim.store import Store
from sim.ticks import LAST_MOMENT
from tests.recorded import DATA

BTC = "BTC-USD"
FILE = DATA / "candles" / "BTC-USD_1m_2025-11-23_2026-01-08.csv.gz"
BAR = timedelta(seconds=2)
OFFSETS = (timedelta(0), BAR / 4, BAR / 2, BAR - LAST_MOMENT)  # of the four trades that a bar becomes
PAST = 350  # bars before the first that is traded
LOOK_SECONDS = 0.02


class Feed:
    """A venue of its own, whose trades are those of the recording. `name` says what is played."""

    def __init__(self, server: VenueServer, began: datetime, name: str) -> None:
        self.name = name
        self.server = server
        self._began = began
        self._stopped = False
        self._clock = SystemClock()

    @property
    def environment(self) -> dict[str, str]:
        address = f"127.0.0.1:{self.server.port}"
        return {"PERPS_SIM_FEED_WS_URL": f"ws://{address}", "PERPS_SIM_FEED_REST_URL": f"http://{address}"}

    def stop(self) -> None:
        """No price moves from here on; the feed goes on saying that it is alive."""
        self._stopped = True

    async def play(self) -> None:
        for bar in itertools.count():
            for offset in OFFSETS:
                while self._clock.wall() < self._began + bar * BAR + offset:
                    await asyncio.sleep(LOOK_SECONDS)
                if self._stopped:
                    return
                assert self.server.venue.step() is not None, "the recording is at its end"


@contextlib.asynccontextmanager
async def recorded_feed(folder: Path, minutes: float, seed: int) -> AsyncIterator[Feed]:
    """Plays from now on, for so long. Which part of the recording follows from the seed."""
    began = SystemClock().wall() + BAR
    path = folder / "recording.csv"
    first = retime(path, began, int(timedelta(minutes=minutes) / BAR), seed)
    settings = Settings(
        port=free_ports(1)[0],
        data_dir=folder,
        products=(BTC,),
        replay=path,
        product=BTC,
        start=began,
    )
    store = Store(settings.folder)
    try:
        exchange, market, position = build(settings, store)
        async with VenueServer(exchange, store, VenueClock(), settings, market, position) as server:
            feed = Feed(server, began, f"{FILE.name} from {first}, a minute in {BAR.seconds} s")
            playing = asyncio.create_task(feed.play())
            try:
                yield feed
            finally:
                playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)
    finally:
        store.close()


def retime(path: Path, began: datetime, bars: int, seed: int) -> str:
    """Write that many bars of the recording, and those before them, at new times; gives the old time of the first."""
    with gzip.open(FILE, "rt", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    first = random.Random(seed).randrange(PAST, len(rows) - bars)
    chosen = rows[first - PAST : first + bars]
    path.parent.mkdir(parents=True)
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, chosen[0].keys())
        writer.writeheader()
        for number, row in enumerate(chosen, start=-PAST):
            writer.writerow({**row, "start": (began + number * BAR).isoformat()})
    return rows[first]["start"]
