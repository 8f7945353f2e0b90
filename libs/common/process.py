"""How a service process starts and ends: arguments, settings, connections in a straight line, closing in reverse.

SIGTERM and SIGINT end it with 0. A body that fails ends it with one line and a distinct code, and the supervisor
starts it again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import uvloop
from msgspec import Struct

from libs.common import settings as settings_module
from libs.common.clock import AsyncioTasks, SystemClock
from libs.common.errors import PerpsError, Stop
from libs.common.nats_bus import NatsBus, connect
from libs.common.settings import Settings
from libs.common.shell import Shell
from libs.common.telemetry import VERSION, HealthServer, ServiceMetrics, start_logging
from libs.common.telemetry import Handler as HttpHandler

log = logging.getLogger(__name__)
CLOSE_SECONDS = 3


class Context(Struct, frozen=True):
    """What a service's `build` gets to work with."""

    service: str
    settings: Settings
    bus: NatsBus
    clock: SystemClock
    tasks: AsyncioTasks


class Parts(Struct, frozen=True):
    """What `build` gives back: the loop, what to close after it, and extra HTTP paths."""

    shell: Shell
    metrics: ServiceMetrics
    close: Callable[[], Awaitable[None]] | None = None
    http: dict[str, HttpHandler] = {}


Build = Callable[[Context], Awaitable[Parts]]


def main(service: str, check: Callable[[Settings], object], build: Build, port: int) -> None:
    """Entry point of `python -m services.<service>`. `check` reads every setting the service uses."""
    parser = argparse.ArgumentParser(prog=f"python -m services.{service}")
    parser.add_argument("--profile", default=os.environ.get("PERPS_PROFILE", "dev"))
    parser.add_argument("--check-config", action="store_true", help="read the settings, say so, and leave")
    arguments = parser.parse_args()
    try:
        settings = settings_module.load(arguments.profile)
        check(settings)
        settings.check_live()
        start_logging(service, settings.log.format, settings.log.level)
        if arguments.check_config:
            print(f"{service}: profile {settings.profile} is valid", file=sys.stderr)
            return
        uvloop.run(_serve(service, settings, build, port))
    except Stop as stop:
        _last_words(service, str(stop))
        sys.exit(stop.exit_code)
    except PerpsError as error:
        _last_words(service, f"{type(error).__name__}: {error}")
        sys.exit(Stop.exit_code)
    except Exception:
        log.critical("stopped by a defect", exc_info=True, extra={"event": "service.defect"})
        sys.exit(Stop.exit_code)


def _last_words(service: str, line: str) -> None:
    if logging.getLogger().handlers:
        log.critical(line, extra={"event": "service.stopped"})
    else:
        print(f"{service}: {line}", file=sys.stderr)


async def _serve(service: str, settings: Settings, build: Build, default_port: int) -> None:
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def failed(error: BaseException) -> None:
        if not ended.done():
            ended.set_exception(error)

    def stopped() -> None:
        if not ended.done():
            ended.set_result(None)

    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopped)
    clock = SystemClock(replay=settings.market.replay)
    tasks = AsyncioTasks(failed)
    async with contextlib.AsyncExitStack() as closing:
        closing.push_async_callback(tasks.close)
        bus = await connect(settings.nats.servers, service, settings.identities / f"{service}.nk", clock, failed)
        closing.push_async_callback(bus.close)
        parts = await build(Context(service, settings, bus, clock, tasks))
        parts.metrics.count_bus(bus.stats)
        if parts.close:
            closing.push_async_callback(parts.close)
        port = int(settings.tables.get(service, {}).get("port", default_port))
        host = str(settings.tables.get(service, {}).get("host", "127.0.0.1"))
        health = HealthServer(parts.metrics.registry, parts.shell.not_ready, extra=parts.http)
        await health.open(host, port, f"PERPS_{service.upper()}_PORT")
        closing.push_async_callback(health.close)
        await bus.register(service, VERSION)
        tasks.spawn(parts.shell.run(), "shell")
        log.info("started", extra={"event": "service.started", "profile": settings.profile})
        try:
            await ended
        finally:
            await tasks.close()  # first of all: nothing moves while the rest closes
        # Only after an orderly end: what failed may have left half a step in the state. Nor does a lost bus hold us.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await parts.shell.close()
    log.info("stopped", extra={"event": "service.stopped"})
