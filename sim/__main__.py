"""`python -m sim`: the simulated venue as a process, set up by PERPS_* environment variables (see `sim.settings`)."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import sqlite3
import sys
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import uvloop

from sim.auth import BadKeyFile
from sim.book import Depth
from sim.clock import SystemClock
from sim.core import Exchange
from sim.market import SyntheticMarket
from sim.products import spot_product
from sim.readers import BadData
from sim.replay import Replay, open_replay
from sim.rules import VenueRules
from sim.server import VenueServer
from sim.settings import BadSettings, Settings, settings_from
from sim.store import Store, StoreMismatch

BAD_SETTINGS, PORT_TAKEN, BAD_DATA, FAILED = 2, 3, 4, 1

log = logging.getLogger("sim")


class JsonLines(logging.Formatter):
    """One JSON object per event."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "service": "sim",
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def build(settings: Settings, store: Store) -> tuple[Exchange, SyntheticMarket | Replay | None, int]:
    """The exchange as the store left it, its market (none where a feed moves it), and how far a replay had come."""
    market: SyntheticMarket | Replay | None
    if settings.replay is not None:
        replay = open_replay(settings.replay, settings.product, settings.start, settings.end)
        installation = store.claim(
            f"replay of {settings.replay.name} {replay.product_id} {settings.start} {settings.end}"
        )
        market, products, seed = replay, [replay.product], str(settings.seed)
        stored = store.load()
    else:
        installation = store.claim("paper trading" if settings.feed_ws_url else "the live synthetic market")
        stored = store.load()
        synthetic = SyntheticMarket(settings.seed, settings.products, stored.prices)
        market = None if settings.feed_ws_url else synthetic
        products = [spot_product(product_id) for product_id in settings.products]
        seed = f"{settings.seed} {installation}"  # a wiped venue must not hand out its old ids again
    depth = Depth(half_spread_bps=settings.half_spread_bps)
    rules = VenueRules(taker_fee=settings.taker_fee, maker_fee=settings.maker_fee, depth=depth)
    exchange = Exchange(products, rules, {"USD": Decimal(settings.cash)}, seed)
    if stored.ledger is not None:
        exchange.restore(stored.ledger, stored.orders, stored.fills)
    return exchange, market, stored.position


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    store = Store(settings.folder)
    try:
        exchange, market, position = build(settings, store)
        async with VenueServer(exchange, store, SystemClock(), settings, market, position) as server:
            log.info("listening on 127.0.0.1:%d with %s", server.port, ", ".join(exchange.products))
            stopped = asyncio.ensure_future(stop.wait())
            await asyncio.wait((stopped, server.failed), return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if server.failed.done():
                server.failed.result()
            log.info("stopping")
    finally:
        store.close()


def main() -> int:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of every request
    try:
        settings = settings_from(os.environ)
        uvloop.run(run(settings))
    except (BadSettings, StoreMismatch, BadKeyFile) as error:
        return _say(str(error), BAD_SETTINGS)
    except BadData as error:
        return _say(str(error), BAD_DATA)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return _say(f"{error.filename or 'PERPS_SIM_PORT'}: {error.strerror}", BAD_SETTINGS)
        return _say(f"port {settings.port} is in use; choose another with PERPS_SIM_PORT", PORT_TAKEN)
    except sqlite3.Error as error:
        return _say(f"PERPS_DATA_DIR: the venue's store cannot be used: {error}", FAILED)
    return 0


def _say(what: str, code: int) -> int:
    print(f"sim: {what}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
