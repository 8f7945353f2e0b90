"""The operator's connection to the bus."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

from libs.common.clock import SystemClock
from libs.common.errors import BusDown
from libs.common.nats_bus import NatsBus, connect
from libs.common.permissions import OPERATOR
from libs.common.settings import Settings

PROBE_SECONDS = 1.0
PATIENCE_SECONDS = 15.0


@contextlib.asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[NatsBus]:
    """The bus as `operator`. Raises BusDown with one line, at once where nobody listens."""
    lost: list[BaseException] = []
    bus = await open_bus(settings, lost.append)
    try:
        yield bus
    finally:
        await bus.close()
    if lost:
        raise BusDown(str(lost[0]))


async def open_bus(
    settings: Settings, lost: Callable[[BaseException], None], patience_seconds: float = PATIENCE_SECONDS
) -> NatsBus:
    """See `connected`; `lost` is told when the connection is gone for good."""
    servers = settings.nats.servers
    if not any(await asyncio.gather(*(_listens(server) for server in servers))):
        raise BusDown(f"no NATS server at {', '.join(servers)}: start the stack with `perps-bot run`")
    seed = settings.identities / f"{OPERATOR}.nk"
    if not seed.is_file():
        raise BusDown(f"no credential for the bus at {seed}: name the stack's data directory in PERPS_DATA_DIR")
    return await connect(servers, OPERATOR, seed, SystemClock(), lost, patience_seconds)


async def _listens(server: str) -> bool:
    address = urlsplit(server if "://" in server else f"nats://{server}")
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(address.hostname, address.port or 4222)
    except (OSError, TimeoutError, ValueError):
        return False
    writer.close()
    return True


def age(seconds: float | None) -> str:
    """How long ago, for people."""
    if seconds is None:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.1f} s"
