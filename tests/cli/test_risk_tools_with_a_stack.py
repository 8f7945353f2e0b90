"""`flatten`, `cancel-all`, `risk` and the adjustments as an operator types them beside a running stack."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from cli.coinbase import open_venue
from cli.supervise import Supervisor, full_name
from libs.common import messages as m
from libs.common import settings as settings_module
from tests.cli.commands import environment, running, short_folder
from tests.cli.test_tools_with_a_stack import BUY, QUIET, Desk

pytestmark = pytest.mark.integration
FOREIGN = "11111111-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with short_folder() as folder:
        env = environment(folder / "var", QUIET)
        with running("run", "--profile", "dev", env=env, words=folder / "words") as stack:
            stack.wait_for("all services ready in")
            stack.wait_for("trading is active")
            yield Desk(env)


@pytest.fixture(autouse=True)
def _active(desk: Desk) -> None:
    assert desk.types("resume --reason begin").returncode == 0


def test_a_halt_tells_what_holds_and_the_history_keeps_it(desk: Desk) -> None:
    answer = desk.types("halt --reason drill --json")
    assert (answer.returncode, answer.stderr.startswith("halt: halted since ")) == (0, True), answer.stderr
    halted = json.loads(answer.stdout)
    assert (halted["trading"], halted["reason"], halted["command"]) == ("halted", "drill", "halt")
    again = desk.shows("halt --reason another")
    assert {**again, "answer": ""} == {**halted, "answer": ""}
    refused = desk.types("reduce-only --reason drill")
    assert (refused.returncode, refused.stdout, "only resume clears a halt" in refused.stderr) == (7, "", True)
    assert desk.shows("resume --reason over")["trading"] == "active"
    newest, before, *_ = desk.shows("risk history")["history"]
    assert (newest["trading"], newest["reason"]) == ("active", "over")
    assert before == {key: halted[key] for key in before}
    assert len(desk.shows("risk history --limit 1")["history"]) == 1


def test_an_order_is_explained_by_any_of_its_ids_while_risk_and_execution_are_down(desk: Desk) -> None:
    denied = desk.types(f"{BUY} --type market --qty 5 --reason drill")
    told = json.loads(denied.stdout)
    assert f"`perps-bot risk explain {told['signal_id']}`" in denied.stderr
    placed = desk.shows(f"{BUY} --type market --qty 0.001")
    supervisor = Supervisor(Path(desk.env["PERPS_DATA_DIR"]))
    try:
        asyncio.run(_each(supervisor, "stopProcess", "risk", "execution"))
        for text in (told["signal_id"], told["client_order_id"], told["signal_id"][:8]):
            shown = desk.shows(f"risk explain {text}")
            assert (shown["signal_id"], shown["verdict"], shown["status"]) == (told["signal_id"], "denied", None)
            deciding = next(check for check in shown["checks"] if check["rule"] == shown["deciding_rule"])
            assert told["risk"] == f"{deciding['reason']}: {deciding['detail']}"
            assert deciding["outcome"] == "violated"
        for text in (placed["signal_id"], placed["client_order_id"], placed["venue_order_id"]):
            shown = desk.shows(f"risk explain {text}")
            assert (shown["signal_id"], shown["verdict"]) == (placed["signal_id"], "approved")
            assert (shown["status"], shown["filled_qty"], shown["deciding_rule"]) == ("FILLED", "0.001", None)
            assert {check["outcome"] for check in shown["checks"]} <= {"passed", "exempt"}
        for command, instead in (("halt", "make restart SERVICE=risk"), ("cancel-all", "perps-bot orders cancel-all")):
            silent = desk.types(f"{command} --reason drill")
            assert (silent.returncode, f"`{instead}`" in silent.stderr) == (5, True), silent.stderr
    finally:
        asyncio.run(_each(supervisor, "startProcess", "risk", "execution"))
    desk.until("status --json", lambda shown: all(line["ready"] for line in shown["services"]), 30)


async def _each(supervisor: Supervisor, method: str, *names: str) -> None:
    for name in names:
        await supervisor.call(method, full_name(name), True)


def test_an_unknown_id_is_one_line(desk: Desk) -> None:
    answer = desk.types(f"risk explain {m.derive_id('nobody')}")
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (7, "", 1)
    assert "the ledger has no signal and no order" in answer.stderr


def test_a_flatten_is_followed_until_all_is_sold(desk: Desk) -> None:
    low = (desk.price() * Decimal("0.99")).quantize(Decimal("0.01"))
    assert desk.shows(f"{BUY} --type market --qty 0.003")["status"] == "FILLED"
    assert desk.shows(f"{BUY} --type limit --qty 0.001 --price {low}")["status"] == "ACCEPTED"
    answer = desk.types("flatten --reason drill")
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    (row,) = found["positions"]
    assert (row["product"], row["outcome"], row["held_now"]) == ("BTC-USD", "flat", "0")
    assert Decimal(row["held_before"]) == Decimal(row["sold"]) >= Decimal("0.003")
    assert (found["trading"], bool(found["flatten"])) == ("reducing", True)
    assert "trading is reducing until `perps-bot resume --reason ...`" in answer.stderr
    assert desk.shows("orders list --open")["orders"] == []
    again = desk.types("flatten --reason drill")
    assert (again.returncode, json.loads(again.stdout)["revision"]) == (0, found["revision"])


def test_a_flatten_that_the_venue_holds_up_ends_with_9_and_goes_on_by_itself(desk: Desk) -> None:
    assert desk.shows(f"{BUY} --type market --qty 0.002")["status"] == "FILLED"
    desk.faults(html_5xx="all")
    try:
        answer = desk.types("flatten --reason drill --wait-seconds 3")
        assert answer.returncode == 9, answer.stderr
        assert "0.002 BTC-USD is left" in answer.stderr
        assert "`perps-bot flatten --reason drill --wait-seconds 3`" in answer.stderr
    finally:
        desk.faults(html_5xx="")
    assert desk.types("flatten --reason drill").returncode == 0


def test_cancel_all_goes_through_execution(desk: Desk) -> None:
    low = (desk.price() * Decimal("0.99")).quantize(Decimal("0.01"))
    assert desk.shows(f"{BUY} --type limit --qty 0.001 --price {low}")["status"] == "ACCEPTED"
    answer = desk.types("cancel-all --reason drill")
    assert answer.returncode == 0, answer.stderr
    assert (json.loads(answer.stdout)["canceled"], "trading is active: new orders" in answer.stderr) == ("1", True)


def test_a_trade_by_hand_is_classified_and_what_it_bought_given_back(desk: Desk) -> None:
    asyncio.run(_trade_by_hand(desk))
    desk.until("positions", lambda shown: bool(shown["drift"]), 60)
    answer = desk.types("account classify manual-trade --product BTC-USD --reason drill")
    assert answer.returncode == 0, answer.stderr
    counted = json.loads(answer.stdout)
    assert (counted["kind"], counted["product_id"], Decimal(counted["size"])) == (
        "manual_trade",
        "BTC-USD",
        Decimal("0.01"),
    )
    assert answer.stderr.startswith(f"request {counted['request_id']}\n")
    shown = desk.until("positions", lambda shown: shown["drift"] == {})
    assert Decimal(shown["positions"]["BTC-USD"]["quantity"]) >= Decimal("0.01")
    line = "account classify manual-trade --product BTC-USD --reason drill"
    assert desk.shows(f"{line} --request-id {counted['request_id']}")["answer"] == "counted before"
    refused = desk.types(line)
    assert (refused.returncode, "no drift" in refused.stderr) == (7, True)

    back = desk.shows("account handover --product BTC-USD --quantity -0.01 --reason drill")
    assert Decimal(back["size"]) == Decimal("-0.01")
    again = desk.shows("account handover --product BTC-USD --quantity 0.01 --reason drill")
    assert Decimal(again["size"]) == Decimal("0.01")
    too_much = desk.types("account handover --product BTC-USD --quantity 1000 --reason drill")
    assert (too_much.returncode, too_much.stdout) == (7, "")
    assert desk.types("flatten --reason drill").returncode == 0


async def _trade_by_hand(desk: Desk) -> None:
    """A market buy at the venue, past the bot."""
    mine = m.ApprovedOrder(
        client_order_id=FOREIGN,
        product_id="BTC-USD",
        side=m.Side.BUY,
        order_type=m.OrderType.MARKET,
        time_in_force=m.TimeInForce.IOC,
        quantity=Decimal("0.01"),
        limit_price=None,
        reduce_only=False,
    )
    async with open_venue(settings_module.load("dev", desk.env)) as venue:
        await venue.place(mine, lambda moment: None)
