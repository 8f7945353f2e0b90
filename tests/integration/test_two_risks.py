"""Two risk processes at once, both real, under load and one of them killed: together they never exceed a limit.

The market stands at one price, so that what is held and promised can be reckoned from the ledger alone.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from msgspec import Struct, field

from cli.plan import free_ports
from cli.stack import why_not_ready
from cli.supervise import full_name
from libs.common import messages as m
from libs.common.errors import BusDown
from tests.cli.commands import short_folder
from tests.integration.market_replay import BTC, Tape, replaying, signal

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
START = datetime(2025, 10, 1, tzinfo=UTC)
CANDLES = 3000
PRICE = Decimal(50_000)
LIMIT = Decimal(5000)
SIZE = "0.01"  # 500 USD: nine of them, with what is reserved for fees and slippage
ROUNDS = 6
REQUESTS = 30  # of an operator, per round
SIGNALS = 10  # of a strategy, per round
CONFLICT = '"event": "service.conflict"'


async def test_two_risk_processes_never_exceed_a_limit_together() -> None:
    with short_folder() as folder:
        async with two_risks(folder, "services.risk") as (tape, risks):
            killed = {1: risks[0], 4: risks[1]}
            answers = [
                answer for number in range(ROUNDS) for answer in await one_round(tape, number, killed.get(number))
            ]
            ledger = await messages(tape)
            verdicts = [message for message in ledger if isinstance(message, m.Verdict)]
            conflicts = sum(risk.log.read_text().count(CONFLICT) for risk in risks)
            print(f"{len(verdicts)} verdicts, {len(answers)} answers, {conflicts} conflicts, at most {peak(ledger)}")
            assert peak(ledger) <= LIMIT
            assert peak(ledger) > LIMIT * Decimal("0.85"), "the limit was out of reach"
            assert conflicts > 0, "the two never met"
            assert await conflicts_counted(risks) > 0
            assert max(Counter(verdict.signal_id for verdict in verdicts).values()) == 1
            reasons = Counter(verdict.reason for verdict in verdicts)
            assert reasons[m.Reason.APPROVED] >= ROUNDS
            assert reasons[m.Reason.EXPOSURE_ABOVE_LIMIT] >= ROUNDS
            assert told_truly(answers, verdicts)
            audit = await tape.system.audit()
            assert audit.differences == []
            assert max(audit.orders.values()) == 1


async def test_without_the_compare_and_set_they_exceed_it() -> None:
    """So the test above can fail."""
    with short_folder() as folder:
        async with two_risks(folder, "tests.integration.careless_risk") as (tape, _):
            for number in range(ROUNDS):
                await one_round(tape, number)
                if peak(await messages(tape)) > LIMIT:
                    break
            assert peak(await messages(tape)) > LIMIT


# -- what is expected


class Promised(Struct):
    """A buy that is not at its end."""

    reserved: Decimal
    quantity: Decimal
    filled: Decimal = Decimal(0)


class Sum(Struct):
    """What is held, at the price of the market, and what is promised to open buys."""

    held: Decimal = Decimal(0)
    promised: dict[str, Promised] = field(default_factory=dict)

    def take(self, message: m.Message) -> None:
        match message:
            case m.Verdict(order=order) if order is not None and order.side is m.Side.BUY:
                self.promised[order.client_order_id] = Promised(message.reserved, order.quantity)
            case m.Fill():
                self.held += message.size if message.side is m.Side.BUY else -message.size
                if bought := self.promised.get(message.client_order_id):
                    bought.filled += message.size
            case m.OrderEvent() if message.status in m.TERMINAL:
                self.promised.pop(message.client_order_id, None)

    @property
    def total(self) -> Decimal:
        left = (order.reserved * (1 - order.filled / order.quantity) for order in self.promised.values())
        return self.held * PRICE + sum(left, Decimal(0))


def peak(ledger: list[m.Message]) -> Decimal:
    """The largest sum at any sequence of the ledger."""
    found, highest = Sum(), Decimal(0)
    for message in ledger:
        found.take(message)
        highest = max(highest, found.total)
    return highest


def told_truly(answers: list[m.Reply], verdicts: list[m.Verdict]) -> bool:
    """What the operator was told is what the ledger says."""
    approved = {verdict.signal_id: verdict.order is not None for verdict in verdicts}
    return all(approved[reply.data["signal_id"]] == reply.ok for reply in answers)


# -- the load


async def one_round(tape: Tape, number: int, killed: Risk | None = None) -> list[m.Reply]:
    """Many want to buy at once, and when the dust has settled somebody sells it all."""
    await tape.step()  # a fresh book, and market time that moves
    wanted = [signal(f"{number} wants {place}", m.Side.BUY, SIZE, tape.now) for place in range(SIGNALS)]
    asks = [ask(tape, f"{number} buys {place}", m.Side.BUY, SIZE) for place in range(REQUESTS)]
    answering = asyncio.gather(*asks)
    await asyncio.gather(*(tape.publish(each) for each in wanted))
    if killed is not None:
        await killed.kill()
        await killed.start()
    answers = await answering
    await all_answered(tape, [each.id for each in wanted])
    await tape.rest()
    if held := await held_at_the_venue(tape):
        answers.append(await ask(tape, f"{number} sells", m.Side.SELL, str(held)))
        await tape.rest()
    return answers


async def ask(tape: Tape, name: str, side: m.Side, quantity: str) -> m.Reply:
    """Again under the same id until somebody answers: asking twice is asking once."""
    request = m.OrderRequest(request_id=name, product_id=BTC, side=side, quantity=Decimal(quantity))
    body = m.Command(reason="load", who="tester", order=request)
    async with asyncio.timeout(60):
        while True:
            with suppress(BusDown):
                return await tape.system.bus.request("risk", "order", body, 5)


async def messages(tape: Tape) -> list[m.Message]:
    return [item.message for item in await tape.system.ledger()]


async def all_answered(tape: Tape, signal_ids: list[str]) -> None:
    async with asyncio.timeout(30):
        while not set(signal_ids) <= tape.journal.verdicts.keys():
            await tape.journal.read_ledger()
            await asyncio.sleep(0.02)


async def held_at_the_venue(tape: Tape) -> Decimal:
    balances = (await tape.system.venue_state())["balances"]
    assert isinstance(balances, dict)
    return Decimal(balances["BTC"]["available"]) if "BTC" in balances else Decimal(0)


# -- the processes


class Risk:
    """One risk process of ours, on a port of its own."""

    def __init__(self, tape: Tape, module: str, port: int, log: Path) -> None:
        self.log = log
        self._module = module
        self._environment = {**tape.system.stack.plan.environment, "PERPS_RISK_PORT": str(port)}
        self._address = f"http://127.0.0.1:{port}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Ready when it returns."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", self._module, env=self._environment, stdout=log, stderr=log
            )
        async with httpx.AsyncClient(timeout=2) as client, asyncio.timeout(30):
            while await why_not_ready(client, self._address):
                assert self._process.returncode is None, self.log.read_text().splitlines()[-1]
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """As `kill -9` does."""
        assert self._process is not None
        assert self._process.returncode is None, f"it has ended by itself: {self.log.read_text().splitlines()[-1]}"
        self._process.kill()
        await self._process.wait()

    async def metric(self, name: str) -> float:
        async with httpx.AsyncClient() as client:
            lines = (await client.get(f"{self._address}/metrics")).text.splitlines()
        return float(next(line for line in lines if line.startswith(name)).split()[-1])


async def conflicts_counted(risks: list[Risk]) -> float:
    """As Prometheus sees them; a process that was killed has taken its count along."""
    return sum([await risk.metric('perps_risk_bus_events_total{kind="conflicts"}') for risk in risks])


@asynccontextmanager
async def two_risks(folder: Path, module: str) -> AsyncIterator[tuple[Tape, list[Risk]]]:
    """A stack over a market at one price, with two risk processes of ours in place of the supervised one."""
    limits = {"PERPS_RISK_EXPOSURE_MAX": str(LIMIT), "PERPS_RISK_PRICE_AGE_MAX_SECONDS": "1e9"}
    end = START + timedelta(minutes=5 * CANDLES)
    async with replaying(folder, flat_market(folder), START, end, overrides=limits) as tape:
        for _ in range(2):
            await tape.step()
        await tape.system.stack.supervisor.call("stopProcess", full_name("risk"), True)
        risks = [Risk(tape, module, port, folder / f"risk-{port}.log") for port in free_ports(2)]
        try:
            for risk in risks:
                await risk.start()
            yield tape, risks
        finally:
            for risk in risks:
                await risk.kill()


def flat_market(folder: Path) -> Path:
    """Candles at one price."""
    path = folder / "BTC-USD_flat.csv"
    starts = [START + timedelta(minutes=5 * number) for number in range(-100, CANDLES)]
    rows = [f"{start:%Y-%m-%d %H:%M:%S},{PRICE},{PRICE},{PRICE},{PRICE},100" for start in starts]
    path.write_text("\n".join(["start,open,high,low,close,volume", *rows, ""]))
    return path
