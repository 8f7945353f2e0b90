"""`python -m services.execution`."""

from __future__ import annotations

from libs.common.errors import BadConfig
from libs.common.process import Context, Parts, main
from libs.common.settings import Settings
from services.execution.app import ExecutionApp
from services.execution.auth import load_signer
from services.execution.config import ExecutionConfig
from services.execution.core import ExecutionCore
from services.execution.metrics import ExecutionMetrics
from services.execution.venue import CoinbaseVenue


def check(settings: Settings) -> None:
    settings.section("execution", ExecutionConfig)
    key_file = settings.key_file
    if not settings.market.simulated and not key_file.is_file():
        raise BadConfig(f"profile {settings.profile} trades real money: there is no CDP key file at {key_file}")
    _ = settings.venue, settings.nats


async def build(context: Context) -> Parts:
    settings = context.settings
    config = settings.section("execution", ExecutionConfig)
    metrics = ExecutionMetrics()
    core = ExecutionCore(config)
    signer = load_signer(settings.key_file, config.jwt_seconds)
    address = settings.venue
    venue = CoinbaseVenue(address.rest_url, address.user_ws_url, signer, context.clock, config.request_timeout_seconds)
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
    metrics.read(core, lambda: venue.answers)
    return Parts(shell=app.shell, metrics=metrics, close=venue.close)


if __name__ == "__main__":
    main("execution", check, build, 9106)
