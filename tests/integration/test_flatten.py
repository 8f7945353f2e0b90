"""Getting out with half of the system dead: a flatten that is accepted ends with nothing held, and nothing twice."""

from __future__ import annotations

import uuid
from decimal import Decimal

import pytest

from cli.supervise import full_name
from libs.common import messages as m
from tests.cli.commands import short_folder
from tests.integration.stack import QUIET, System, running_system

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
SIZES = {"BTC-USD": Decimal("0.01"), "ETH-USD": Decimal("0.3")}
HALTED = m.Trading.HALTED


async def bought(system: System, product_id: str, size: Decimal) -> None:
    order = m.OrderRequest(request_id=uuid.uuid4().hex, product_id=product_id, side=m.Side.BUY, quantity=size)
    reply = await system.bus.request("risk", "order", m.Command(reason="test", order=order), 5)
    assert reply.ok, reply.detail


async def held(system: System) -> dict[str, Decimal]:
    positions = (await system.figures()).positions
    return {product: position.quantity for product, position in positions.items() if position.quantity}


async def holding_everything(system: System) -> bool:
    return await held(system) == SIZES


async def closed(system: System) -> bool:
    closing = (await system.figures()).closing
    return closing is not None and {left.outcome for left in closing.values()} == {"flat"}


async def attempts(system: System) -> list[m.Verdict]:
    found = [item.message for item in await system.ledger() if isinstance(item.message, m.Verdict)]
    return [verdict for verdict in found if verdict.flatten]


async def test_halted_with_strategy_and_marketdata_dead_everything_is_sold_and_the_halt_stays() -> None:
    with short_folder() as folder:
        async with running_system(folder, QUIET) as system:
            for product_id, size in SIZES.items():
                await bought(system, product_id, size)
            await system.until(lambda: holding_everything(system), 20)
            assert (await system.command("halt")).ok
            for service in ("strategy", "marketdata"):
                await system.stack.supervisor.call("stopProcess", full_name(service))
            await system.faults(too_many_requests=1, accept_then_drop=1)
            reply = await system.command("flatten")
            assert reply.ok, reply.detail
            stored = await system.bus.load("PERPS_STATE", "trading")
            assert stored is not None
            assert b'"flatten":""' not in stored.value
            await system.kill("risk")
            await system.until(lambda: closed(system), 60)
            assert (await system.figures()).trading is HALTED
            signals = [verdict.signal_id for verdict in await attempts(system)]
            assert len(set(signals)) == len(signals) >= 2
            await system.stack.supervisor.begin("strategy", "marketdata")
            await system.stack.wait_ready(60)
            assert await system.check_books() >= 4
            assert await held(system) == {}


async def test_a_flatten_survives_the_death_of_execution_and_of_the_bus() -> None:
    with short_folder() as folder:
        async with running_system(folder, QUIET) as system:
            for product_id, size in SIZES.items():
                await bought(system, product_id, size)
            await system.until(lambda: holding_everything(system), 20)
            await system.kill("execution")
            reply = await system.command("flatten")
            assert reply.ok, reply.detail
            await system.kill("nats")
            await system.until(lambda: closed(system), 60)
            figures = await system.figures()
            assert figures.trading is m.Trading.REDUCING
            signals = [verdict.signal_id for verdict in await attempts(system)]
            assert len(set(signals)) == len(signals) >= 2
            assert await system.check_books() >= 4
