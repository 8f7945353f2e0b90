"""`python -m services.marketdata`"""

from __future__ import annotations

import random

from libs.common import process
from libs.common.process import Context, Parts
from libs.common.settings import Market, Settings, Venue
from services.marketdata.app import App
from services.marketdata.config import PORT, Config
from services.marketdata.metrics import MarketDataMetrics
from services.marketdata.venue import CoinbaseMarket


def check(settings: Settings) -> tuple[Market, Venue, Config]:
    """Read every setting that this service uses. Raises BadConfig."""
    return settings.market, settings.venue, settings.section("marketdata", Config)


async def build(context: Context) -> Parts:
    market, addresses, config = check(context.settings)
    venue = CoinbaseMarket(addresses.rest_url, addresses.ws_url, market.products)
    app = App(
        context.settings.profile,
        market,
        config,
        bus=context.bus,
        clock=context.clock,
        tasks=context.tasks,
        venue=venue,
        jitter=random.random,
        metrics=MarketDataMetrics(),
    )
    return Parts(app.shell, app.metrics, close=venue.close)


if __name__ == "__main__":
    process.main("marketdata", check, build, PORT)
