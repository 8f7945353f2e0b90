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
    if strangers := config.strangers(settings.market.products):
        raise BadConfig(
            f"profile {settings.profile}, [risk]: position_notional_max_by_product names {strangers[0]}, "
            "which is not traded"
        )
    return config


async def build(context: Context) -> Parts:
    market = context.settings.market
    core = RiskCore(check(context.settings), market.products, market.quote_currency)
    metrics = RiskMetrics(core, context.clock)
    shell = RiskShell(
        context.settings.profile, core, bus=context.bus, clock=context.clock, tasks=context.tasks, metrics=metrics
    )
    return Parts(shell, metrics)


if __name__ == "__main__":
    main("risk", check, build, PORT)
