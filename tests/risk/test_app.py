"""Risk in its shell on a bus in memory: what is stored, announced, answered, logged and shown."""

from __future__ import annotations

import asyncio
import logging

import pytest
from prometheus_client import generate_latest

from libs.common import messages as m
from libs.common.clock import AsyncioTasks
from libs.common.messages import Reason, Trading
from libs.common.subjects import STATE_BUCKET, TRADING_KEY
from services.risk.app import RiskShell
from services.risk.core import RiskCore
from services.risk.metrics import RiskMetrics
from tests.risk.builders import BTC, ETH, NOON, SECOND, WIDE, D, account, config, fill, mark, signal, tick, trading
from tests.risk.fakes import HandClock, RiskBus, running

HALT = m.Command(reason="smoke", who="ann")


async def prepared() -> RiskBus:
    bus = RiskBus()
    await bus.prepare()
    return bus


def told(bus: RiskBus, kind: type[m.Message]) -> list[m.Message]:
    return [message for message in bus.published if isinstance(message, kind)]


async def test_a_signal_becomes_a_verdict_in_the_ledger_and_a_reservation() -> None:
    bus = await prepared()
    async with running(bus, WIDE, HandClock()) as shell:
        await shell.ask(signal())
        await shell.ask(signal())
        await shell.ask(tick())
    [verdict] = bus.verdicts()
    assert (verdict.reason, verdict.producer, verdict.cause) == (Reason.APPROVED, "risk", "signal")


def wanted(request_id: str, product_id: str) -> m.Command:
    order = m.OrderRequest(
        request_id=request_id,
        product_id=product_id,
        side=m.Side.BUY,
        order_type=m.OrderType.LIMIT,
        quantity=D(3),
        limit_price=D(100),
    )
    return m.Command(reason="load", order=order)


async def test_two_processes_never_spend_the_same_headroom() -> None:
    bus, clock, limits = await prepared(), HandClock(), config(exposure_max=D(1000))
    async with running(bus, limits, clock) as one, running(bus, limits, clock) as other:
        # Each on products of its own: only the one limit over both stands between them.
        for n in range(4):
            await asyncio.gather(one.order(wanted(f"btc-{n}", BTC)), other.order(wanted(f"eth-{n}", ETH)))
    verdicts = bus.verdicts()
    assert len({v.signal_id for v in verdicts}) == len(verdicts) == 8
    assert sum(v.reserved for v in verdicts) == 900


async def test_two_processes_answer_a_signal_once() -> None:
    bus, clock = await prepared(), HandClock()
    async with running(bus, WIDE, clock) as one, running(bus, WIDE, clock) as other:
        for n in range(4):
            same = signal(f"s{n}")
            await asyncio.gather(one.ask(same), other.ask(same))
    assert [v.signal_id for v in bus.verdicts()] == ["s0", "s1", "s2", "s3"]


async def test_a_restart_goes_on_from_the_snapshot_and_the_ledger() -> None:
    bus, limits = await prepared(), config(exposure_max=D(1000))
    async with running(bus, limits, HandClock()) as shell:
        await shell.ask(signal("first", quantity="6"))
    async with running(bus, limits, HandClock()) as shell:
        await shell.ask(signal("first", quantity="6"))
        await shell.ask(signal("second", quantity="6", product_id=ETH))
    assert [v.reason for v in bus.verdicts()] == [Reason.APPROVED, Reason.EXPOSURE_ABOVE_LIMIT]


async def test_the_commands_are_served_under_names_that_an_endpoint_may_have() -> None:
    bus = await prepared()
    async with running(bus, WIDE, HandClock()):
        assert set(bus.served) == {"halt", "resume", "reduce-only", "flatten", "order", "adjust", "sync"}


async def test_a_halt_is_durable_and_announced_before_it_is_answered() -> None:
    bus = await prepared()
    async with running(bus, WIDE, HandClock()) as shell:
        assert bus.trading.state is Trading.ACTIVE
        reply = await bus.served["halt"](HALT)
        assert (reply.ok, reply.detail) == (True, "halted since 2026-03-10 12:00:00 UTC, smoke (ann)")
        await shell.ask(signal())
    stored, [announced] = bus.trading, told(bus, m.TradingState)
    assert isinstance(announced, m.TradingState)
    assert (stored.state, stored.reason, stored.who) == (Trading.HALTED, "smoke", "ann")
    assert (announced.state, announced.revision, announced.producer) == (Trading.HALTED, 2, "risk")
    [audit] = told(bus, m.Audit)
    assert isinstance(audit, m.Audit)
    assert (audit.command, audit.who, audit.reason, audit.ok) == ("halt", "ann", "smoke", True)
    assert [(v.reason, v.trading_revision) for v in bus.verdicts()] == [(Reason.TRADING_HALTED, 2)]


async def test_a_refused_command_writes_nothing_and_says_why() -> None:
    bus = await prepared()
    async with running(bus, WIDE, HandClock()):
        reply = await bus.served["halt"](m.Command(reason=" "))
        assert reply == m.Reply(ok=False, detail="a reason is required")
        again = await bus.served["resume"](HALT)
        assert again == m.Reply(ok=True, detail="already active since 2026-03-10 12:00:00 UTC, test (test)")
    assert told(bus, m.TradingState) == []
    assert [audit.ok for audit in told(bus, m.Audit) if isinstance(audit, m.Audit)] == [False, True]


async def test_reduce_only_and_resume_are_stored() -> None:
    bus = await prepared()
    async with running(bus, WIDE, HandClock()):
        assert (await bus.served["reduce-only"](HALT)).ok
        states = [bus.trading.state]
        assert (await bus.served["resume"](HALT)).ok
        states.append(bus.trading.state)
    assert states == [Trading.REDUCING, Trading.ACTIVE]


async def test_a_halt_wins_over_whatever_was_stored_just_before_it() -> None:
    bus = await prepared()
    async with running(bus, WIDE, HandClock()):
        race = [trading(Trading.REDUCING)]

        def meanwhile() -> None:
            while race:
                bus.write(race.pop())

        bus.before_store = meanwhile
        assert (await bus.served["halt"](HALT)).ok
    assert bus.trading.state is Trading.HALTED


@pytest.mark.parametrize("deleted", [True, False])
async def test_a_lost_trading_state_means_halted_until_the_operator_resumes(deleted: bool) -> None:
    bus = await prepared()
    del bus.entries[STATE_BUCKET, TRADING_KEY]
    bus.deleted = deleted
    async with running(bus, WIDE, HandClock()) as shell:
        await shell.ask(signal("early"))
        assert (await bus.served["resume"](HALT)).ok
        await shell.ask(signal("late"))
    assert [v.reason for v in bus.verdicts()] == [Reason.TRADING_HALTED, Reason.APPROVED]


async def test_an_unreadable_trading_state_means_halted() -> None:
    bus = await prepared()
    await bus.store(STATE_BUCKET, TRADING_KEY, b"{", None)
    async with running(bus, WIDE, HandClock()) as shell:
        await shell.ask(signal())
    assert [v.reason for v in bus.verdicts()] == [Reason.TRADING_HALTED]


async def losing(bus: RiskBus, shell: RiskShell, price: str) -> None:
    await bus.ledger(len(bus.stored)).append(fill("1", size="10"))
    while D(10) not in [p.quantity for p in shell_figures(shell).positions.values()]:
        await asyncio.sleep(0.001)
    await shell.ask(mark(price=price))


def shell_figures(shell: RiskShell) -> m.RiskFigures:
    return shell._risk.figures(NOON)


async def test_the_daily_loss_stores_a_halt_and_logs_it_as_critical(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bus, limits = await prepared(), config(daily_loss_limit=D(100))
    async with running(bus, limits, HandClock()) as shell:
        await losing(bus, shell, "91")
        await losing(bus, shell, "90")
        reply = await bus.served["resume"](HALT)
        assert not reply.ok
    assert (bus.trading.state, bus.trading.reason, bus.trading.who) == (Trading.HALTED, "daily_loss_limit", "risk")
    events = [(vars(r)["event"], r.levelname) for r in caplog.records if ".daily_loss." in vars(r).get("event", "")]
    assert events == [
        ("risk.guards.daily_loss.ok", "INFO"),
        ("risk.guards.daily_loss.warning", "WARNING"),
        ("risk.guards.daily_loss.halt", "CRITICAL"),
    ]


async def test_the_halt_by_the_loss_survives_a_restart() -> None:
    bus, limits = await prepared(), config(daily_loss_limit=D(100))
    async with running(bus, limits, HandClock()) as shell:
        await losing(bus, shell, "90")
    await bus.publish(mark(price="100"))
    async with running(bus, limits, HandClock()) as shell:
        await shell.ask(signal())
    assert [v.reason for v in bus.verdicts()] == [Reason.TRADING_HALTED]


async def test_figures_name_the_place_in_the_ledger_that_they_hold_for() -> None:
    bus = await prepared()
    async with running(bus, WIDE, HandClock()) as shell:
        await losing(bus, shell, "100")
        while shell_figures(shell).ledger_sequence < 2:  # the fill, and the day that begins
            await asyncio.sleep(0.001)
        assert len(bus.stored) == 2
        published = told(bus, m.RiskFigures)
        assert [f.ledger_sequence for f in published if isinstance(f, m.RiskFigures)] == [1]  # with the fill, before it
    async with running(bus, WIDE, HandClock()) as shell:
        assert shell_figures(shell).ledger_sequence == len(bus.stored) == 2


def metrics(shell: RiskShell) -> dict[str, float]:
    lines = generate_latest(shell.metrics.registry).decode().splitlines()
    samples = (line.rsplit(" ", 1) for line in lines if line.startswith("perps_risk") and "_created" not in line)
    return {name: float(value) for name, value in samples}


async def test_metrics_show_figures_states_verdicts_and_guards() -> None:
    bus = await prepared()
    async with running(bus, config(order_notional_max=D(500)), HandClock()) as shell:
        await losing(bus, shell, "99")
        await shell.ask(signal("small", limit_price=D(99)))
        await shell.ask(signal("large", quantity="10", product_id=ETH))
        await shell.ask(account({"USD": D(1), "BTC": D(0)}, NOON + SECOND, settled=False))
        shown = metrics(shell)
    expected = {
        "perps_risk_daily_loss": 10,
        "perps_risk_daily_loss_limit": 1000,
        "perps_risk_exposure": 990,
        "perps_risk_reserved": 99,
        "perps_risk_equity": 99_990,
        "perps_risk_open_orders": 1,
        'perps_risk_position{product="BTC-USD"}': 10,
        'perps_risk_trading_state{state="active"}': 1,
        'perps_risk_trading_state{state="reducing"}': 0,
        'perps_risk_trading_state{state="halted"}': 0,
        'perps_risk_verdicts_total{reason="approved"}': 1,
        'perps_risk_verdicts_total{reason="notional_above_limit"}': 1,
        'perps_risk_guard_outcomes_total{guard="daily_loss",outcome="ok"}': 1,
    }
    assert {name: shown.get(name) for name in expected} == expected


async def test_a_figure_that_is_not_known_is_absent_from_the_metrics() -> None:
    bus = await prepared()
    async with running(bus, WIDE, HandClock()) as shell:
        await shell.ask(account({"USD": D(7)}, NOON + SECOND))
        assert metrics(shell)['perps_risk_drift{currency="USD"}'] == 7 - 100_000
        await losing(bus, shell, "99")
        shell._risk.known.marks.clear()
        shown = metrics(shell)
        assert {"perps_risk_daily_loss", "perps_risk_exposure", "perps_risk_equity"} & set(shown) == set()
        assert shown["perps_risk_daily_loss_limit"] == 1000


async def test_nothing_is_shown_before_the_past_has_been_read() -> None:
    core, clock = RiskCore(WIDE, (BTC,), "USD"), HandClock()
    shell = RiskShell(
        "dev",
        core,
        bus=RiskBus(),
        clock=clock,
        tasks=AsyncioTasks(lambda error: None),
        metrics=RiskMetrics(core, clock),
    )
    assert "perps_risk_daily_loss_limit" not in metrics(shell)
    assert shell.not_ready() == "recovering"
