"""`python -m services.exporter`."""

from __future__ import annotations

from libs.common.process import Context, Parts, main
from libs.common.settings import Settings
from libs.common.shell import Shell
from services.exporter.app import INPUTS, Exporter
from services.exporter.config import ExporterConfig
from services.exporter.core import ExporterCore
from services.exporter.figures import Scope
from services.exporter.metrics import ExporterMetrics


def check(settings: Settings) -> ExporterConfig:
    """Every setting that the exporter uses. Raises BadConfig with one line."""
    _ = settings.market
    return settings.section("exporter", ExporterConfig)


async def build(context: Context) -> Parts:
    settings, market, clock, tasks = context.settings, context.settings.market, context.clock, context.tasks
    interval_seconds = check(settings).metrics_interval_seconds
    metrics = ExporterMetrics()
    core = ExporterCore(market.products)
    shell = Shell(
        context.service, settings.profile, core, INPUTS, bus=context.bus, clock=clock, tasks=tasks, metrics=metrics
    )
    scope = Scope(
        profile=settings.profile,
        products=market.products,
        replay=market.replay,
        simulated=market.simulated,
        started_at=clock.wall(),
    )
    exporter = Exporter(core, scope, shell.not_ready, clock, metrics)
    metrics.show(exporter.look)
    tasks.spawn(exporter.keep_files(settings.metrics_file, tasks, interval_seconds), "metrics files")
    return Parts(shell, metrics, http={"/": exporter.page, "/metrics.json": exporter.metrics_json})


if __name__ == "__main__":
    main("exporter", check, build, ExporterConfig().port)
