"""Does what a fault says to a running stack, and undoes it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from xmlrpc.client import Fault as Refusal

import httpx
import msgspec
from msgspec import Struct

from cli.supervise import full_name
from sim.faults import Faults
from tests.chaos.faults import Fault, Means
from tests.chaos.market import Feed
from tests.chaos.network import Network
from tests.integration.stack import System

NORMAL = msgspec.to_builtins(Faults())
COUNTING = {name for name, kind in Faults.__annotations__.items() if kind == "int"}  # switches that are used up
ASK_SECONDS = 1.0
TRIES_SECONDS = 30.0  # a venue that others have killed or paused is back by then
AGAIN_SECONDS = 0.1


class Blow(Struct, frozen=True):
    """A fault that is over. `over` is in monotonic seconds; `struck` is False where nothing met it: an answer that was
    to be lost, and nobody asked."""

    fault: Fault
    over: float
    struck: bool = True


class Saboteur:
    """`feed` is None where the market is synthetic."""

    def __init__(self, system: System, network: Network, feed: Feed | None) -> None:
        self._system = system
        self._network = network
        self._feed = feed
        self._switched: dict[str, int] = {}  # how many faults of the bout hold a switch

    async def strike(self, fault: Fault) -> Blow:
        """To its end. Raises StackFailed where supervisord is gone."""
        await asyncio.sleep(fault.after)
        struck = True
        match fault.means:
            case Means.KILL:
                await self._signal(fault.targets, signal.SIGKILL)
            case Means.STOP:
                await self._stop(fault)
            case Means.PAUSE:
                pids = await self._signal(fault.targets, signal.SIGSTOP)
                try:
                    await asyncio.sleep(fault.seconds)
                finally:
                    _send(pids, signal.SIGCONT)
            case Means.CUT:
                self._network.cut(fault.targets)
                try:
                    await asyncio.sleep(fault.seconds)
                finally:
                    self._network.heal(fault.targets)
            case Means.VENUE:
                struck = await self._misbehave(fault)
            case Means.FEED:
                await self._break_feed(fault)
        return Blow(fault, time.monotonic(), struck)

    async def _signal(self, names: tuple[str, ...], number: signal.Signals) -> list[int]:
        """All at the same moment."""
        processes = await self._system.stack.supervisor.processes()
        pids = [processes[name].pid for name in names if processes[name].pid]
        _send(pids, number)
        return pids

    async def _stop(self, fault: Fault) -> None:
        supervisor = self._system.stack.supervisor
        for name in fault.targets:
            with suppress(Refusal):  # stopped already
                await supervisor.call("stopProcess", full_name(name), False)
        await asyncio.sleep(fault.seconds)
        await supervisor.restart(*fault.targets)  # waits for those that take their time

    async def _misbehave(self, fault: Fault) -> bool:
        """Another fault of the bout may hold the same switch: the last one puts it back."""
        for name in fault.switches:
            self._switched[name] = self._switched.get(name, 0) + 1
        await self._switch(fault.switches)
        await asyncio.sleep(fault.seconds)
        left = await self._switch({})
        for name in fault.switches:
            self._switched[name] -= 1
        free = {name: NORMAL[name] for name in fault.switches if not self._switched[name]}
        await self._switch(free)
        counting = [name for name in fault.switches if name in COUNTING]
        return not counting or any(left[name] != fault.switches[name] for name in counting)

    async def _switch(self, switches: dict[str, object]) -> dict[str, object]:
        """Again until the venue has heard it; gives what is in force."""
        async with httpx.AsyncClient(timeout=ASK_SECONDS) as client, asyncio.timeout(TRIES_SECONDS):
            while True:
                with suppress(httpx.HTTPError):
                    answer = await client.post(f"http://{self._system.settings.sim_url}/sim/faults", json=switches)
                    assert answer.status_code == 200, answer.text
                    found: dict[str, object] = answer.json()
                    return found
                await asyncio.sleep(AGAIN_SECONDS)

    async def _break_feed(self, fault: Fault) -> None:
        assert self._feed is not None
        venue = f"http://127.0.0.1:{self._feed.server.port}/sim/faults"
        async with httpx.AsyncClient(timeout=5) as client:
            (await client.post(venue, json=fault.switches)).raise_for_status()
            await asyncio.sleep(fault.seconds)
            normal = {name: NORMAL[name] for name in fault.switches}
            (await client.post(venue, json=normal)).raise_for_status()


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # another fault was faster
            os.kill(pid, number)
