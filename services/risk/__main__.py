"""`python -m services.risk`."""

from __future__ import annotations

from libs.common.errors import BadConfig
from libs.common.process import Context, Parts, main
from libs.common.settings import Settings
from services.risk.app import RiskShell
from services.risk.config import RiskConfig
from services.risk.core import RiskCore
from services.risk.metrics import RiskMetrics

PORT = 9105


def check(settings: Settings) -> RiskConfig:
    """Every setting that risk uses. Raises BadConfig with one line."""
    config = settings.section("risk", RiskConfig)
    # A misspelt name must not pass for a limit.
    if strangers := sorted(set(config.position_notional_max_by_product) - set(settings.market.products)):
        place = f"profile {settings.profile}, [risk]: position_notional_max_by_product"
        raise BadConfig(f"{place} names {strangers[0]}, which is not traded")
    return config.for_replay(settings.market.candle_seconds) if settings.market.replay else config


async def build(context: Context) -> Parts:
    settings, clock = context.settings, context.clock
    core = RiskCore(check(settings), settings.market.products, settings.market.quote_currency)
    metrics = RiskMetrics(core, clock)
    shell = RiskShell(settings.profile, core, bus=context.bus, clock=clock, tasks=context.tasks, metrics=metrics)
    return Parts(shell, metrics)


if __name__ == "__main__":
    main("risk", check, build, PORT)
