"""Commands to a running stack: the trading state, and restarts."""

from __future__ import annotations

import asyncio
import getpass
import time

from cli.errors import Refused
from cli.live import READY_SECONDS, say
from cli.operator import PATIENCE_SECONDS
from cli.plan import Plan
from cli.stack import Stack
from cli.tooling import Tool, run_tool
from libs.common import messages as m
from libs.common.errors import BadConfig, BusDown, StackFailed
from libs.common.nats_bus import NatsBus
from libs.common.settings import Settings
from libs.common.subjects import SERVICES

ANSWER_SECONDS = 10.0
RETRY_SECONDS = 0.2


async def switch(settings: Settings, command: str, reason: str) -> int:
    """Ask risk to change the trading state; its outcome is recorded as well. Raises Refused with risk's reason."""

    async def work(tool: Tool) -> None:
        if not reason.strip():
            raise BadConfig(f"{command} needs a reason: --reason 'why'")
        reply = await _ask(tool.need_bus(), command, m.Command(reason=reason, who=getpass.getuser()))
        if not reply.ok:
            raise Refused(f"{command} refused: {reply.detail}")
        say(f"{command}: {reply.detail or 'done'}")

    return await run_tool(command, settings, work, PATIENCE_SECONDS)


async def _ask(bus: NatsBus, command: str, body: m.Command) -> m.Reply:
    """Again until risk answers: it may just be starting, and asking for the same twice changes nothing."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            return await bus.request("risk", command, body, ANSWER_SECONDS)
        except BusDown:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(RETRY_SECONDS)


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
