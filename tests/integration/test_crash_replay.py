"""The crash of 2025-10-10, replayed through real processes with a large position.

Whether daily loss and volatility are where the guards say is computed here, from the recorded file and the venue's own
fills, tick by tick.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from math import log, sqrt

import pytest

from libs.common import messages as m
from tests.cli.commands import short_folder
from tests.integration.market_replay import FILE, LAST_MOMENT, Tape, Tick, changes, replaying
from tests.integration.test_crash_matrix import VICTIMS
from tests.recorded import recorded

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

START = datetime(2025, 10, 10, 20, 30, tzinfo=UTC)
MIDNIGHT = datetime(2025, 10, 11, tzinfo=UTC)
END = datetime(2025, 10, 11, 0, 30, tzinfo=UTC)
LIMIT = Decimal(5000)
ALARMING = Decimal("0.8")
CASH = Decimal(100_000)
WINDOW = 10
VOLATILITY = {"sample_seconds": 60, "window": WINDOW, "warn": 2.8, "reduce": 5.5, "halt": 9}
PIECE, PIECES = "0.15", 4  # about 70,000 USD


async def test_the_crash_warns_and_halts_at_the_right_ticks_and_only_a_command_ends_the_halt() -> None:
    file = recorded(FILE)
    with short_folder() as folder:
        limit = {"PERPS_RISK_DAILY_LOSS_LIMIT": str(LIMIT), "PERPS_SIM_TAKER_FEE": "0.002"}
        async with replaying(folder, file, START, END, overrides=limit) as tape:
            market = tape.market
            await buy(tape)
            expected = loss_levels(await cost(tape), [tick for tick in market if tick.at < MIDNIGHT])
            warned, halted = first(expected, "warning"), first(expected, "halt")
            assert START < warned < halted, "the limit was chosen so that both fall into the crash"
            await tape.until(before(market, warned))
            assert (await tape.figures()).guards[m.Guard.DAILY_LOSS].level is m.GuardLevel.OK
            await tape.until(warned)
            assert (await tape.figures()).guards[m.Guard.DAILY_LOSS].level is m.GuardLevel.WARNING
            await tape.until(before(market, halted))
            assert (await tape.trading()).state is m.Trading.ACTIVE
            await entries_are_taken(tape)
            await tape.until(halted)
            await entries_are_stopped(tape, since=halted)
            assert (await tape.figures()).guards[m.Guard.DAILY_LOSS].level is m.GuardLevel.HALT

            await kill_everything(tape)
            await entries_are_stopped(tape, since=halted)
            assert (await refusal(tape, "resume", "")) == "a reason is required"
            assert "daily_loss" in await refusal(tape, "resume")

            below = next(at for at, level in expected if at > halted and level == "ok")
            await tape.until(below)
            await entries_are_stopped(tape, since=halted)
            await tape.until(MIDNIGHT)
            await entries_are_stopped(tape, since=halted)
            resumed = await tape.command("resume")
            assert resumed.ok, resumed.detail
            assert (await tape.trading()).state is m.Trading.ACTIVE
            await tape.step()
            await entries_are_taken(tape)
            assert told(tape, "daily_loss", MIDNIGHT) == [(m.EPOCH, "ok"), *changes(expected)[1:]]


async def test_volatility_warns_reduces_and_halts_at_the_right_ticks() -> None:
    file = recorded(FILE)
    steps = "{ " + ", ".join(f"{name} = {value}" for name, value in VOLATILITY.items()) + " }"
    with short_folder() as folder:
        async with replaying(folder, file, START, END, guards={"volatility": steps}) as tape:
            expected = volatility_levels(tape.market)
            warned, reduced, halted = (first(expected, level) for level in ("warning", "reduce", "halt"))
            assert START < warned < reduced < halted
            await tape.until(before(tape.market, reduced))
            await entries_are_taken(tape)
            await tape.until(reduced)
            assert (await tape.trading()).state is m.Trading.REDUCING
            reply = await tape.order(m.Side.BUY, "0.001")
            assert (reply.ok, reply.data["reason"]) == (False, m.Reason.TRADING_REDUCING), reply.detail
            await tape.until(before(tape.market, halted))
            assert (await tape.trading()).state is m.Trading.REDUCING, "a calmer market does not end what a guard began"
            await tape.until(halted)
            await entries_are_stopped(tape, since=halted)
            assert "volatility" in await refusal(tape, "resume")
            known = [(at, level) for at, level in expected if at <= halted]
            assert told(tape, "volatility", END)[1:] == changes(known)[1:]


async def buy(tape: Tape) -> None:
    await tape.step()  # the feed has to be sound for a while before a product takes entries
    for _ in range(PIECES):
        await tape.step()
        reply = await tape.order(m.Side.BUY, PIECE)
        assert reply.ok, reply.detail


async def cost(tape: Tape) -> tuple[Decimal, Decimal]:
    """What the venue's account has paid, fees included, and what it has got for it."""
    balances = (await tape.system.venue_state())["balances"]
    assert isinstance(balances, dict)
    cash, coins = (Decimal(balances[name]["available"]) + Decimal(balances[name]["hold"]) for name in ("USD", "BTC"))
    return CASH - cash, coins


def loss_levels(bought: tuple[Decimal, Decimal], market: list[Tick]) -> list[tuple[datetime, str]]:
    paid, coins = bought
    assert coins == Decimal(PIECE) * PIECES
    losses = {tick.at: paid - coins * tick.price for tick in market}
    near = [loss for loss in losses.values() if min(abs(loss - LIMIT), abs(loss - LIMIT * ALARMING)) < 1]
    assert not near, f"too near to a threshold to tell: {near}"
    return [
        (at, "halt" if loss >= LIMIT else "warning" if loss >= LIMIT * ALARMING else "ok")
        for at, loss in losses.items()
    ]


def volatility_levels(market: list[Tick]) -> list[tuple[datetime, str]]:
    """Of the last returns between prices that are at least so many seconds apart, per year of seconds."""
    samples: list[Tick] = []
    levels = []
    for tick in market:
        if not samples or (tick.at - samples[-1].at).total_seconds() >= VOLATILITY["sample_seconds"]:
            samples.append(tick)
        recent = samples[-WINDOW - 1 :]
        if len(recent) > WINDOW:
            squares = sum(log(later.price / earlier.price) ** 2 for earlier, later in pairwise(recent))
            per_year = sqrt(squares / (recent[-1].at - recent[0].at).total_seconds() * 365 * 24 * 3600)
            steps = {"halt": VOLATILITY["halt"], "reduce": VOLATILITY["reduce"], "warning": VOLATILITY["warn"]}
            assert min(abs(per_year - step) for step in steps.values()) > 0.01, f"too near to a step: {per_year}"
            levels.append((tick.at, next((level for level, step in steps.items() if per_year >= step), "ok")))
    return levels


def first(levels: list[tuple[datetime, str]], wanted: str) -> datetime:
    return next(at for at, level in levels if level == wanted)


def before(market: list[Tick], at: datetime) -> datetime:
    return max(tick.at for tick in market if tick.at < at)


def told(tape: Tape, guard: str, until: datetime) -> list[tuple[datetime, str]]:
    """The levels that risk has logged, a level that a new process says again left out."""
    lines = tape.logged("risk", f"risk.guards.{guard}.")
    said = [(line.at, line.event.rpartition(".")[2]) for line in lines if line.at < until]
    return changes([(at, level) for at, level in said if level != m.GuardLevel.UNKNOWN])


async def entries_are_taken(tape: Tape) -> None:
    """Asked for is an entry that the market does not fill, so that it leaves no trace in the books."""
    price = (tape.market_price * Decimal("0.995")).quantize(Decimal("0.01"))
    reply = await tape.order(m.Side.BUY, "0.001", price)
    assert reply.ok, reply.detail


async def entries_are_stopped(tape: Tape, since: datetime) -> None:
    state = await tape.trading()
    assert state.state is m.Trading.HALTED
    assert since <= state.since < since + LAST_MOMENT  # the venue's frames are told apart by microseconds
    reply = await tape.order(m.Side.BUY, "0.001")
    assert (reply.ok, reply.data["reason"]) == (False, m.Reason.TRADING_HALTED), reply.detail
    verdict = await tape.signal(m.Side.BUY, "0.001")
    assert (verdict.order, verdict.reason) == (None, m.Reason.TRADING_HALTED), verdict.detail


async def refusal(tape: Tape, command: str, reason: str = "the test wants it") -> str:
    reply = await tape.command(command, reason)
    assert not reply.ok, f"{command} was carried out: {reply.detail}"
    return reply.detail


async def kill_everything(tape: Tape) -> None:
    """kill -9 of every process but the supervisor, at once."""
    pids = {name: await tape.system.pid(name) for name in VICTIMS}
    for victim in VICTIMS:
        await tape.system.kill(victim)

    async def replaced() -> bool:
        now = {name: await tape.system.pid(name) for name in VICTIMS}
        return all(pid not in (0, pids[name]) for name, pid in now.items())

    await tape.system.until(replaced, 20)
    await tape.system.stack.wait_ready(40)
    await tape.rest()
