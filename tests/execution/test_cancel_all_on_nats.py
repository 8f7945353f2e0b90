"""cancel-all as an operator with nothing but `nats req` sends it, to an execution that is alone on the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from libs.common import messages as m
from libs.common.clock import AsyncioTasks, SystemClock
from libs.common.nats_bus import NatsBus
from services.execution.app import ExecutionApp
from services.execution.config import ExecutionConfig
from services.execution.core import ExecutionCore
from services.execution.metrics import ExecutionMetrics
from tests.conftest import NatsServer
from tests.execution.test_cancel_all import Book, order

pytestmark = pytest.mark.integration
SUBJECT = "perps.control.execution.cancel-all"


@asynccontextmanager
async def alone(server: NatsServer, venue: Book) -> AsyncIterator[NatsBus]:
    """Execution and an operator, and nobody else; gives the operator's connection."""
    bus, operator = await server.connect("execution"), await server.connect("operator")
    await bus.register("execution", "1.2.3")
    tasks, config = AsyncioTasks(lambda error: None), ExecutionConfig()
    core, metrics = ExecutionCore(config), ExecutionMetrics()
    app = ExecutionApp("dev", core, config, bus=bus, clock=SystemClock(), tasks=tasks, venue=venue, metrics=metrics)
    tasks.spawn(app.shell.run(), "shell")
    try:
        async with asyncio.timeout(20):
            while app.shell.not_ready():
                await asyncio.sleep(0.01)
        yield operator
    finally:
        await tasks.close()
        await operator.close()
        await bus.close()


async def request(operator: NatsBus, body: bytes) -> m.Reply:
    answer = await operator.nc.request(SUBJECT, body, timeout=10)
    return msgspec.json.decode(answer.data, type=m.Reply)


async def test_it_is_answered_and_kept_in_the_audit_and_a_second_request_finds_nothing(provisioned: NatsServer) -> None:
    venue = Book(order("s1"), order("x", ours=False))
    async with alone(provisioned, venue) as operator:
        reply = await request(operator, b'{"reason":"x"}')
        assert (reply.ok, reply.detail) == (True, "1 canceled, 1 not ours left alone")
        assert (await request(operator, b'{"reason":"x"}')).detail == "0 canceled, 1 not ours left alone"
        kept = [audit for audit in await operator.since(m.Audit, None) if isinstance(audit, m.Audit)]
        assert [(audit.command, audit.who, audit.ok, audit.result) for audit in kept] == [
            ("cancel-all", "operator", True, "1 canceled, 1 not ours left alone"),
            ("cancel-all", "operator", True, "0 canceled, 1 not ours left alone"),
        ]


BODIES = (b"", b"{}", b"null", b"[]", b"garbage", b'{"reason":5}', b'{"reason":"\xff"}', b'{"reason":" "}')


async def test_an_empty_or_odd_body_is_refused_in_one_line_and_touches_nothing(provisioned: NatsServer) -> None:
    venue = Book(order("s1"))
    async with alone(provisioned, venue) as operator:
        for body in BODIES:
            reply = await request(operator, body)
            assert (reply.ok, bool(reply.detail), "\n" in reply.detail) == (False, True, False), body
        assert (venue.looks, venue.canceled) == (0, [])
