"""Commands to a running stack: the trading state, what rests at the venue, and restarts."""

from __future__ import annotations

import asyncio
import getpass
import time
from datetime import UTC, datetime
from typing import Protocol

from cli.errors import OutcomePending, Refused
from cli.live import READY_SECONDS, say
from cli.operator import PATIENCE_SECONDS
from cli.output import Json, show
from cli.plan import Plan
from cli.stack import Stack
from cli.tooling import Tool, run_tool
from libs.common import messages as m
from libs.common.bus import Entry
from libs.common.errors import BadConfig, BusDown, StackFailed
from libs.common.nats_bus import NatsBus
from libs.common.settings import Settings
from libs.common.shell import trading_state
from libs.common.subjects import SERVICES, STATE_BUCKET, TRADING_KEY

ANSWER_SECONDS = 10.0
RETRY_SECONDS = 0.2
AT_THE_VENUE = "`perps-bot orders cancel-all` cancels what rests at the venue itself, with no help of bus and services"
WITHOUT = {  # what is true, and what to do, while a service does not answer
    "risk": "restart it with `make restart SERVICE=risk` and ask again; without it no new order is approved, and what "
    f"rests stays: {AT_THE_VENUE}",
    "execution": f"{AT_THE_VENUE}; `make restart SERVICE=execution` restarts execution",
}


class ControlBus(Protocol):
    """The part of `libs.common.nats_bus.NatsBus` that a command needs."""

    async def request(self, service: str, command: str, body: m.Command, timeout_seconds: float) -> m.Reply: ...

    async def load(self, bucket: str, key: str) -> Entry | None: ...


def command_of(command: str, reason: str) -> m.Command:
    """Raises BadConfig without a reason."""
    if not reason.strip():
        raise BadConfig(f"{command} needs a reason: --reason 'why'")
    return m.Command(reason=reason, who=getpass.getuser())


async def ask(
    bus: ControlBus, service: str, command: str, body: m.Command, patience_seconds: float = ANSWER_SECONDS
) -> m.Reply:
    """The service's yes. Raises Refused with the reason of its no; see `answer_of`."""
    reply = await answer_of(bus, service, command, body, patience_seconds)
    if not reply.ok:
        raise Refused(f"{command} refused by {service}: {reply.detail}")
    return reply


async def answer_of(
    bus: ControlBus, service: str, command: str, body: m.Command, patience_seconds: float = ANSWER_SECONDS
) -> m.Reply:
    """Again until the service answers: it may just be starting, and asking for the same twice changes nothing.

    Raises BusDown with what to do instead.
    """
    deadline = time.monotonic() + patience_seconds
    told = False
    while True:
        try:
            return await bus.request(service, command, body, patience_seconds)
        except BusDown as error:
            if time.monotonic() > deadline:
                raise BusDown(f"{error}; {WITHOUT[service]}") from None
            if not told:
                say(f"{error}; asking again for {patience_seconds:.0f} s")
                told = True
            await asyncio.sleep(RETRY_SECONDS)


def bus_of(tool: Tool) -> NatsBus:
    """Raises BusDown with the one thing that can be done without a bus."""
    try:
        return tool.need_bus()
    except BusDown as error:
        raise BusDown(f"{error}; {AT_THE_VENUE}") from None


async def state_now(bus: ControlBus) -> m.TradingState:
    """As it is stored. Raises BusDown."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return trading_state(await bus.load(STATE_BUCKET, TRADING_KEY), datetime.now(UTC))
    except TimeoutError:
        raise BusDown("the bus does not tell the trading state: `perps-bot status` asks again") from None


def state_row(state: m.TradingState) -> Json:
    """What holds, as it is stored; `flatten` is the closing of all positions that is in force with it."""
    return {
        "trading": state.state,
        "reason": state.reason,
        "who": state.who,
        "since": state.since,
        "revision": state.revision,
        "flatten": state.flatten,
    }


async def change(bus: ControlBus, command: str, body: m.Command) -> Json:
    """Have risk change the trading state; what holds then, which need not be what was asked for. See `ask`."""
    reply = await ask(bus, "risk", command, body)
    return {"command": command, "answer": reply.detail, **state_row(await state_now(bus))}


async def switch(settings: Settings, command: str, reason: str, as_json: bool) -> int:
    """`perps-bot halt`, `reduce-only`, `resume`."""

    async def work(tool: Tool) -> None:
        body = command_of(command, reason)
        result = await change(bus_of(tool), command, body)
        say(f"{command}: {result['answer'] or 'done'}")
        show(result, as_json)

    return await run_tool(command, settings, work, PATIENCE_SECONDS)


async def sweep(bus: ControlBus, body: m.Command) -> tuple[Json, m.Reply]:
    """Have execution cancel everything. Raises Refused where it does not even try; see `answer_of`."""
    reply = await answer_of(bus, "execution", "cancel-all", body)
    if not reply.ok and not reply.data:
        raise Refused(f"cancel-all refused by execution: {reply.detail}; {AT_THE_VENUE}")
    state = await state_now(bus)
    return {"command": "cancel-all", "answer": reply.detail, **reply.data, "trading": state.state}, reply


async def cancel_all(settings: Settings, reason: str, as_json: bool) -> int:
    """`perps-bot cancel-all`: by execution, over the bus. Whatever fails names the way that needs neither."""

    async def work(tool: Tool) -> None:
        body = command_of("cancel-all", reason)
        result, reply = await sweep(bus_of(tool), body)
        if result["trading"] is m.Trading.ACTIVE:
            say("trading is active: new orders may follow; `perps-bot halt --reason ...` stops them")
        show(result, as_json)
        if not reply.ok:
            raise OutcomePending(f"not everything has ended: {reply.detail}; ask again, or {AT_THE_VENUE}")
        say(f"cancel-all: {reply.detail or 'done'}")

    return await run_tool("cancel-all", settings, work, PATIENCE_SECONDS)


async def restart(plan: Plan, name: str) -> int:
    """Restart one program or, as `all`, the five services; wait until everything is ready again."""
    known = (*SERVICES, "venue", "nats")
    if name not in (*known, "all"):
        raise BadConfig(f"unknown service {name!r}: there are {', '.join(known)} and all")
    stack = Stack(plan)
    if stack.supervisor.running_pid() is None:
        raise StackFailed(f"no stack runs on {plan.settings.data_dir}: start one with `perps-bot run`")
    began = time.monotonic()
    await stack.supervisor.restart(*(SERVICES if name == "all" else [name]))
    await stack.wait_ready(READY_SECONDS)
    say(f"{name} restarted, all services ready after {time.monotonic() - began:.1f} s")
    return 0
