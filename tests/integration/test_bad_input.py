"""Garbage into a running system: counted and logged, and trading goes on."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from libs.common.clock import SystemClock
from libs.common.nats_bus import connect as connect_bus
from libs.common.permissions import ACCESS
from libs.common.subjects import BY_TYPE, SERVICES, Kept, control_subject
from tests.integration.stack import BUSY, System, running_system
from tests.integration.test_crash_matrix import wait_for_fills

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
GARBAGE = (
    b"",
    b"garbage",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"{}",
    b'{"id":1}',
    b'{"id":"\xff"}',
    b'{"at":"yesterday"}',
    b"9" * 5000,
    b'{"of another version":' + b"[" * 20_000,
)


async def test_garbage_on_every_subject_and_on_the_venues_sockets_stops_nothing(tmp_path: Path) -> None:
    async with running_system(tmp_path, BUSY) as system:
        await wait_for_fills(system, 2)
        before = {name: await system.pid(name) for name in SERVICES}
        for identity in ACCESS:
            await _on_the_bus(system, identity)
        for command in ("sync", "halt", "resume", "reduce-only"):
            for data in GARBAGE:
                reply = await system.bus.nc.request(control_subject("risk", command), data, timeout=5)
                assert b'"ok":' in reply.data
        await _on_the_venue(system)
        await wait_for_fills(system, 4)
        await system.check_books()
        assert {name: await system.pid(name) for name in SERVICES} == before, "a service was restarted"
        logs = [path.read_text() for path in (tmp_path / "logs").glob("*.log")]
        assert not any("Traceback" in text for text in logs)
        assert any("bus.undecodable" in text for text in logs)
        await _counted(system.stack.plan.service("risk").reachable)


async def _on_the_bus(system: System, identity: str) -> None:
    seed = system.settings.identities / f"{identity}.nk"
    bus = await connect_bus(system.settings.nats.servers, identity, seed, SystemClock(), lambda error: None)
    for kind in ACCESS[identity].publishes:
        subject = BY_TYPE[kind].wildcard.replace("*", "BTC-USD")
        for data in GARBAGE:
            if BY_TYPE[kind].kept is Kept.LEDGER:
                await bus.js.publish(subject, data)
            else:
                await bus.nc.publish(subject, data)
    await bus.nc.flush()
    assert bus.stats.errors == 0, "every one of these subjects is permitted to its identity"
    await bus.close()


async def _on_the_venue(system: System) -> None:
    for address in (system.settings.venue.ws_url, system.settings.venue.user_ws_url):
        async with connect(address) as socket:
            for data in GARBAGE:
                with contextlib.suppress(ConnectionClosed):  # the venue may hang up on garbage
                    await socket.send(data)
    async with httpx.AsyncClient() as http:
        for data in GARBAGE:
            url = f"{system.settings.venue.rest_url}/api/v3/brokerage/orders"
            assert (await http.post(url, content=data)).status_code in (400, 401)


async def _counted(address: str) -> None:
    async with httpx.AsyncClient() as http, asyncio.timeout(5):
        lines = (await http.get(f"{address}/metrics")).text.splitlines()
    counted = [line for line in lines if line.startswith('perps_risk_bus_events_total{kind="undecodable"}')]
    assert float(counted[0].split()[-1]) > 0
