"""What an operator is told of a command: what holds now, or why not and what to type next."""

from __future__ import annotations

import asyncio

import pytest

from cli import control
from cli.control import ask, change, command_of, sweep
from cli.errors import Refused
from libs.common import messages as m
from libs.common.errors import BadConfig, BusDown
from tests.cli.control_fakes import DeskBus, state

BODY = m.Command(reason="drill", who="ann")
T = m.Trading


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "RETRY_SECONDS", 0.0)


@pytest.mark.parametrize("reason", ["", "  "])
def test_a_command_without_a_reason_is_refused_before_anybody_is_asked(reason: str) -> None:
    with pytest.raises(BadConfig, match="halt needs a reason: --reason 'why'"):
        command_of("halt", reason)


async def test_what_is_told_is_what_is_stored_and_not_what_was_asked_for() -> None:
    bus = DeskBus(m.Reply(ok=True, detail="reducing since noon, account_drift (risk)"))
    bus.then = lambda: bus.store(state(T.REDUCING, who="risk"))
    found = await change(bus, "resume", BODY)
    assert (found["trading"], found["who"], found["reason"], found["revision"]) == (T.REDUCING, "risk", "drill", 2)
    assert found["since"] == state().since
    assert found["answer"] == "reducing since noon, account_drift (risk)"
    assert bus.asked == [("risk", "resume", BODY)]


async def test_a_refusal_is_told_with_its_reason() -> None:
    with pytest.raises(Refused, match="resume refused by risk: daily_loss_limit: 51 of 50"):
        await change(DeskBus(m.Reply(ok=False, detail="daily_loss_limit: 51 of 50")), "resume", BODY)


async def test_a_service_that_is_just_starting_is_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    bus = DeskBus()
    bus.lost["halt"] = 3
    assert (await ask(bus, "risk", "halt", BODY, 5)).ok
    assert len(bus.asked) == 4
    assert capsys.readouterr().err == "risk does not answer halt: no responders; asking again for 5 s\n"


async def test_a_risk_that_is_down_comes_with_what_is_true_and_what_to_type() -> None:
    bus = DeskBus()
    bus.lost["halt"] = 10**9
    with pytest.raises(BusDown) as told:
        await ask(bus, "risk", "halt", BODY, 0)
    line = str(told.value)
    assert line.startswith("risk does not answer halt: ")
    assert "`make restart SERVICE=risk`" in line
    assert "no new order is approved" in line
    assert "`perps-bot orders cancel-all`" in line


async def test_an_execution_that_is_down_names_the_cancel_all_that_needs_it_not() -> None:
    bus = DeskBus()
    bus.lost["cancel-all"] = 10**9
    with pytest.raises(BusDown, match=r"execution does not answer .*`perps-bot orders cancel-all`.*venue itself"):
        await ask(bus, "execution", "cancel-all", BODY, 0)


async def test_cancel_all_tells_its_counts_and_whether_new_orders_may_follow() -> None:
    bus = DeskBus(m.Reply(ok=True, detail="2 canceled", data={"canceled": "2"}))
    bus.store(state(T.ACTIVE))
    result, reply = await sweep(bus, BODY)
    assert (result["canceled"], result["trading"], reply.ok) == ("2", T.ACTIVE, True)
    assert bus.asked == [("execution", "cancel-all", BODY)]


async def test_a_sweep_that_was_cut_short_is_no_refusal_and_one_that_never_began_is() -> None:
    cut = m.Reply(ok=False, detail="1 canceled, 1 still open: v2 OPEN", data={"canceled": "1", "open": "1"})
    assert (await sweep(DeskBus(cut), BODY))[0]["open"] == "1"
    with pytest.raises(Refused, match=r"refused by execution: .*lease.*; `perps-bot orders cancel-all`"):
        await sweep(DeskBus(m.Reply(ok=False, detail="this process does not hold the lease")), BODY)


async def test_a_bus_that_dies_after_the_answer_does_not_hold_the_operator_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.01)

    class Dying(DeskBus):
        async def load(self, bucket: str, key: str) -> None:
            await asyncio.Event().wait()

    with pytest.raises(BusDown, match="`perps-bot status`"):
        async with asyncio.timeout(5):
            await change(Dying(), "halt", BODY)
