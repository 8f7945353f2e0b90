"""What surrounds the loop: `metrics.json` and `account.json`, written again and again, and the pages on our port."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from libs.common import messages as m
from libs.common.clock import Clock, Tasks
from libs.common.shell import Inputs
from services.exporter.core import ExporterCore
from services.exporter.figures import Figures, Scope
from services.exporter.metrics import ExporterMetrics
from services.exporter.report import account_report, encode, report

log = logging.getLogger(__name__)
INPUTS = Inputs(
    kinds=(m.Mark, m.FeedState, m.Decision, m.Signal, m.Account, m.RiskFigures, m.ServiceStatus, m.Tooling),
    ledger=True,
    trading=True,
)
ACCOUNT_FILE = "account.json"
PAGE = Path(__file__).with_name("page.html")
FRESH = {"Cache-Control": "no-store"}
# The page is whole in itself; nothing that comes over the bus may make the browser load or run anything.
LOCKED = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"


class Exporter:
    """Shows the core's view. Figures are reckoned when somebody looks, so that ages are right at that moment."""

    def __init__(
        self, core: ExporterCore, scope: Scope, not_ready: Callable[[], str], clock: Clock, metrics: ExporterMetrics
    ) -> None:
        self._core = core
        self._scope = scope
        self._not_ready = not_ready
        self._clock = clock
        self._metrics = metrics
        self._page = PAGE.read_text("utf-8")
        self._writing_failed = False

    def look(self) -> Figures:
        return Figures(self._core, self._scope, self._clock.wall(), self._clock.market(), not self._not_ready())

    def document(self) -> bytes:
        return encode(report(self.look()))

    async def page(self, request: web.Request) -> web.Response:
        headers = {**FRESH, "Content-Security-Policy": LOCKED, "X-Content-Type-Options": "nosniff"}
        return web.Response(text=self._page, content_type="text/html", headers=headers)

    async def metrics_json(self, request: web.Request) -> web.Response:
        return web.Response(body=self.document(), content_type="application/json", headers=FRESH)

    async def keep_files(self, path: Path, tasks: Tasks, interval_seconds: float) -> None:
        """Write both at every interval, changed or not: ages grow by themselves, above all when nothing else moves."""
        while True:
            await self.write(path)
            await tasks.sleep(interval_seconds)

    async def write(self, path: Path) -> None:
        """Write metrics.json there and account.json beside it. A failure is told once and counted each time; the next
        interval tries again."""
        figures = self.look()
        try:
            await asyncio.to_thread(replace, path, encode(report(figures)))
            await asyncio.to_thread(replace, path.with_name(ACCOUNT_FILE), encode(account_report(figures)))
        except OSError as error:
            self._metrics.file_writes.labels("failed").inc()
            if not self._writing_failed:
                log.error(
                    "metrics.json and account.json cannot both be written: %s",
                    error,
                    extra={"event": "exporter.metrics_file"},
                )
            self._writing_failed = True
            return
        self._metrics.file_writes.labels("ok").inc()
        if self._writing_failed:
            log.info("metrics.json and account.json are written again", extra={"event": "exporter.metrics_file"})
        self._writing_failed = False


def replace(path: Path, content: bytes) -> None:
    """Put a file in place in one step: who reads sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Our own name for it: another exporter that is just ending may still be writing.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
