"""The metrics of all five services of a running system, as Prometheus sees them."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from libs.common.subjects import SERVICES
from tests.integration.stack import BUSY, running_system
from tests.integration.test_crash_matrix import wait_for_fills

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
PLAYBOOK = (
    "perps_bot_cycle_duration_seconds",
    "perps_bot_cycle_errors_total",
    "perps_bot_orders_submitted_total",
    "perps_bot_risk_daily_loss",
    "perps_bot_risk_daily_loss_limit",
    "perps_bot_market_data_staleness_seconds",
    "perps_bot_telemetry_account_age_seconds",
    "perps_bot_order_tooling_errors_total",
)


@asynccontextmanager
async def scraped(data_dir: Path) -> AsyncIterator[Callable[[str, str], Awaitable[str]]]:
    """After some trading: the metrics text of a service, in the form that is asked for."""
    async with running_system(data_dir, BUSY) as system, httpx.AsyncClient() as http:
        await wait_for_fills(system, 4)

        async def metrics(service: str, accept: str) -> str:
            address = system.stack.plan.service(service).reachable
            answer = await http.get(f"{address}/metrics", headers={"Accept": accept})
            assert answer.status_code == 200
            return answer.text

        yield metrics


async def test_every_metric_of_the_playbook_is_there_and_each_services_own_in_both_forms(tmp_path: Path) -> None:
    async with scraped(tmp_path) as metrics:
        for name in SERVICES:
            samples = {sample.name for family in plain(await metrics(name, "")) for sample in family.samples}
            assert [sample for sample in samples if sample.startswith(f"perps_{name}_")], name
            if name == "exporter":
                assert [metric for metric in PLAYBOOK if metric not in samples] == []
            text = await metrics(name, "application/openmetrics-text; version=1.0.0")
            assert list(openmetrics(text))  # type: ignore[no-untyped-call]


@pytest.mark.extras
async def test_promtool_finds_nothing_to_mend_in_any_services_metrics(tmp_path: Path) -> None:
    async with scraped(tmp_path) as metrics:
        for name in SERVICES:
            check = partial(subprocess.run, capture_output=True, text=True, timeout=30)
            checked = await asyncio.to_thread(check, ["promtool", "check", "metrics"], input=await metrics(name, ""))
            assert (checked.returncode, checked.stdout + checked.stderr) == (0, ""), name
