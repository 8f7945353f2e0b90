"""`python -m services.execution`."""

from __future__ import annotations

from libs.common.process import Context, Parts, main
from libs.common.settings import Settings
from services.execution.app import ExecutionApp
from services.execution.auth import load_signer
from services.execution.budget import REQUESTS_PER_SECOND
from services.execution.config import ExecutionConfig
from services.execution.core import ExecutionCore
from services.execution.metrics import ExecutionMetrics
from services.execution.venue import CoinbaseVenue


def check(settings: Settings) -> None:
    config = settings.section("execution", ExecutionConfig)
    if not settings.market.simulated:  # the simulated venue writes its key file when it starts
        load_signer(settings.coinbase, settings.key_file, config.jwt_seconds)
    _ = settings.venue, settings.nats


async def build(context: Context) -> Parts:
    settings = context.settings
    config = settings.section("execution", ExecutionConfig)
    metrics = ExecutionMetrics()
    core = ExecutionCore(config)
    address = settings.venue
    venue = CoinbaseVenue(
        address.rest_url,
        address.user_ws_url,
        load_signer(settings.coinbase, settings.key_file, config.jwt_seconds),
        context.clock,
        config.request_timeout_seconds,
        market_ws_url=address.ws_url,
        # The venue of a replay is ours and has no limits; a budget of wall time would hold a fast replay back.
        requests_per_second=None if settings.market.replay else REQUESTS_PER_SECOND,
    )
    app = ExecutionApp(
        settings.profile,
        core,
        config,
        bus=context.bus,
        clock=context.clock,
        tasks=context.tasks,
        venue=venue,
        metrics=metrics,
    )
    metrics.read(core, venue)
    return Parts(shell=app.shell, metrics=metrics, close=venue.close)


if __name__ == "__main__":
    main("execution", check, build, 9106)
