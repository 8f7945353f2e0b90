"""One stack: NATS, the venue and the five services under a supervisord of ours; started in order, stopped in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeVar

import httpx

from cli.deaths import Deaths
from cli.nats_server import find_nats_server, provision_server, write_config
from cli.plan import Plan
from cli.supervise import Supervisor
from libs.common.clock import SystemClock
from libs.common.errors import BadConfig, PortInUse, StackFailed
from libs.common.subjects import SERVICES

LOOK_SECONDS = 0.1
T = TypeVar("T")


class NotReady(StackFailed):
    """Everything runs, and some service cannot do its work yet."""


class Stack:
    """`async with` it: inside, NATS runs and is provisioned; afterwards no process is left. Raises Stop."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.supervisor = Supervisor(plan.settings.data_dir)
        self._deaths = Deaths(self.supervisor.logs)
        self._environment: dict[str, str] = {}

    async def __aenter__(self) -> Stack:
        self.supervisor.check_socket()
        # supervisord.conf wants the name in any case; a server that somebody else runs needs no binary here.
        binary = str(find_nats_server()) if self.plan.own_nats else "nats-server"
        self._environment = {**self.plan.environment, "PERPS_NATS_SERVER": binary}
        if pid := await asyncio.to_thread(self.supervisor.running_pid):
            raise PortInUse(
                f"a stack runs already on {self.plan.settings.data_dir}: stop it with Ctrl-C there or with `kill {pid}`"
            )
        self.plan.check_ports()
        try:
            await self._start_bus()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Not to be interrupted: a second Ctrl-C must leave nothing behind either."""
        stopping = asyncio.ensure_future(self.supervisor.shutdown())
        while not stopping.done():
            try:
                await asyncio.shield(stopping)
            except asyncio.CancelledError:
                continue

    async def _start_bus(self) -> None:
        settings = self.plan.settings
        try:
            write_config(settings)
        except OSError as error:
            raise BadConfig(f"PERPS_DATA_DIR: {settings.data_dir} cannot be written: {error.strerror}") from None
        await self.supervisor.start(self._environment)
        if self.plan.own_nats:
            await self.supervisor.begin("nats")
        if self.plan.own_venue:
            await self.supervisor.begin("venue")
        clock = SystemClock(settings.market.replay)
        await self.unless_one_dies(provision_server(settings, clock))
        if self.plan.own_venue:
            # It has written execution's key file by the time that it answers.
            await self.unless_one_dies(_answers(f"http://{settings.sim_url}/sim/state"))

    async def start_services(self) -> None:
        await self.supervisor.begin(*SERVICES)

    async def wait_ready(self, timeout_seconds: float) -> float:
        """Wait until every service says ready; gives the seconds it took. Raises NotReady with each one's reason."""
        began = time.monotonic()
        reasons = dict.fromkeys(SERVICES, "not asked yet")
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.unless_one_dies(self._poll_ready(reasons))
        except TimeoutError:
            behind = "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)
            raise NotReady(f"not ready after {timeout_seconds:.0f} s: {behind}") from None
        return time.monotonic() - began

    async def _poll_ready(self, reasons: dict[str, str]) -> None:
        async with httpx.AsyncClient(timeout=2) as client:
            while True:
                for name in SERVICES:
                    reasons[name] = await why_not_ready(client, self.plan.service(name).reachable)
                if not any(reasons.values()):
                    return
                await asyncio.sleep(LOOK_SECONDS)

    async def watch(self, say: Callable[[str], None]) -> None:
        """Tell of every program that stops or starts again, for ever. Raises StackFailed when supervisord is gone."""
        known = await self.supervisor.processes()
        while True:
            await asyncio.sleep(1)
            now = await self.supervisor.processes()
            for name, process in now.items():
                if process.pid != known[name].pid:
                    say(f"{name} was started again (pid {process.pid})" if process.pid else f"{name} has stopped")
            known = now

    async def unless_one_dies(self, work: Awaitable[T], look_seconds: float = LOOK_SECONDS) -> T:
        """Do something that needs the stack; give it up with the last words of a program that keeps dying."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=look_seconds))[0]:
                await self.supervisor.processes()
                self._deaths.check()
            return task.result()
        finally:
            task.cancel()


async def _answers(address: str) -> None:
    async with httpx.AsyncClient(timeout=2) as client:
        while True:
            try:
                await client.get(address)
                return
            except httpx.HTTPError:
                await asyncio.sleep(0.05)


async def why_not_ready(client: httpx.AsyncClient, address: str) -> str:
    """Empty when the service there is able to do its work."""
    try:
        answer = await client.get(f"{address}/readyz")
        return "" if answer.status_code == 200 else str(answer.json()["reason"])
    except (httpx.HTTPError, ValueError, KeyError):
        return "does not answer"
