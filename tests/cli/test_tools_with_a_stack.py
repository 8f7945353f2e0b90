"""The operator's tools as processes beside a running stack: what goes through risk, and what the bus adds."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.cli.commands import environment, perps_bot, running, short_folder

pytestmark = pytest.mark.integration

QUIET = {"PERPS_STRATEGY_NAME": "tests.cli.quiet:Quiet", "PERPS_STRATEGY_TRAILING_STOP_PERCENT": "50"}
BUY = "orders place --symbol BTC-USD --side buy"


class Desk:
    """An operator beside one stack."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env

    def types(self, line: str) -> subprocess.CompletedProcess[str]:
        return perps_bot(*line.split(), env=self.env)

    def shows(self, line: str) -> Any:
        answer = self.types(line)
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    def until(self, line: str, condition: Callable[[Any], bool], seconds: float = 15) -> Any:
        """Ask again: figures are told once a second."""
        deadline = time.monotonic() + seconds
        while not condition(shown := self.shows(line)):
            assert time.monotonic() < deadline, shown
        return shown

    def faults(self, **switches: object) -> None:
        body = json.dumps(switches).encode()
        request = Request(f"http://127.0.0.1:{self.env['PERPS_SIM_PORT']}/sim/faults", body)
        with urlopen(request) as answer:
            assert answer.status == 200

    def metric(self, name: str) -> float:
        with urlopen(f"http://127.0.0.1:{self.env['PERPS_EXPORTER_PORT']}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(name + " "))

    def price(self) -> Decimal:
        """About where the market is."""
        address = f"http://127.0.0.1:{self.env['PERPS_SIM_PORT']}/api/v3/brokerage/market/products/BTC-USD"
        with urlopen(address) as answer:
            return Decimal(json.load(answer)["price"])


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with short_folder() as folder:
        env = environment(folder / "var", QUIET)
        with running("run", "--profile", "dev", env=env, words=folder / "words") as stack:
            stack.wait_for("all services ready in")
            stack.wait_for("trading is active")
            yield Desk(env)


def test_an_order_goes_through_risk_to_its_end_and_the_books_follow(desk: Desk) -> None:
    answer = desk.types(f"{BUY} --type market --qty 0.002 --reason drill")
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr.startswith("request ")
    placed = json.loads(answer.stdout)
    assert (placed["status"], placed["filled_qty"], placed["request_id"] in answer.stderr) == ("FILLED", "0.002", True)

    shown = desk.shows(f"orders show {placed['client_order_id']}")
    assert (shown["order"]["ours"], shown["order"]["venue_order_id"]) == (True, placed["venue_order_id"])
    assert (shown["filled_qty"], shown["fees"]) == ("0.002", placed["fees"])
    assert shown["steps"][0]["status"] == "SUBMITTING"
    assert shown["steps"][-1]["status"] == "FILLED"

    def held(shown: Any) -> bool:
        return "BTC-USD" in shown["positions"] and Decimal(shown["positions"]["BTC-USD"]["quantity"]) >= Decimal(
            "0.002"
        )

    held_now = desk.until("positions", held)["positions"]["BTC-USD"]
    assert (held_now["avg_price"] is not None, Decimal(held_now["fees"]) > 0) == (True, True)

    reduced = desk.shows(
        "--profile dev --preview-order --order-symbol BTC-USD --order-side sell --order-type market "
        "--order-qty 5 --order-reduce-only"
    )
    assert (reduced["reduce_only"]["source"], reduced["reduce_only"]["requested_quantity"]) == ("bot", "5")
    assert reduced["reduce_only"]["previewed_quantity"] == held_now["quantity"]


def test_the_same_request_is_the_same_order(desk: Desk) -> None:
    line = f"{BUY} --type market --qty 0.001 --request-id drill-1"
    first, second = desk.shows(line), desk.shows(line)
    assert (first["client_order_id"], first["venue_order_id"]) == (second["client_order_id"], second["venue_order_id"])
    orders = desk.shows("orders list")["orders"]
    assert sum(order["client_order_id"] == first["client_order_id"] for order in orders) == 1


def test_a_resting_order_is_edited_and_cancelled(desk: Desk) -> None:
    low = (desk.price() * Decimal("0.99")).quantize(Decimal("0.01"))
    placed = desk.shows(f"{BUY} --type limit --qty 0.001 --price {low}")
    assert placed["status"] == "ACCEPTED"
    name = placed["client_order_id"]
    preview = desk.shows(f"orders edit {name} --qty 0.0015 --preview")
    assert (preview["errors"], preview["base_size"]) == ([], "0.0015")
    edited = desk.shows(f"orders edit {name} --qty 0.0015")
    assert (edited["quantity"], Decimal(edited["limit_price"])) == ("0.0015", low)
    shown = desk.shows(f"orders show {name}")
    assert shown["order"]["quantity"] == "0.0015"
    assert "PENDING_UPDATE" in [step["status"] for step in shown["steps"]]
    done = desk.shows(f"orders cancel {name}")
    assert [row["outcome"] for row in done["orders"]] == ["ended"]
    late = desk.types(f"orders edit {name} --qty 0.0016")
    assert (late.returncode, "has ended" in late.stderr) == (7, True)


def test_what_risk_denies_ends_with_7_its_reason_and_counts_as_a_tooling_error(desk: Desk) -> None:
    before = desk.metric("perps_bot_order_tooling_errors_total")
    answer = desk.types(f"{BUY} --type market --qty 5")
    assert (answer.returncode, "denied by risk: " in answer.stderr) == (7, True), answer.stderr
    assert json.loads(answer.stdout)["status"] is None
    mistyped = desk.types("orders place --symbol BTC-USD --side buy --type market --qty five")
    assert (mistyped.returncode, mistyped.stdout) == (2, "")
    deadline = time.monotonic() + 10
    while desk.metric("perps_bot_order_tooling_errors_total") < before + 2:
        assert time.monotonic() < deadline


def test_an_unknown_outcome_ends_with_9_and_the_order_can_be_looked_up(desk: Desk) -> None:
    desk.faults(accept_then_drop=1, html_5xx="reads")
    try:
        answer = desk.types(f"{BUY} --type market --qty 0.001 --wait-seconds 3")
        assert answer.returncode == 9, answer.stderr
        name = json.loads(answer.stdout)["client_order_id"]
        assert f"perps-bot orders show {name}" in answer.stderr
        shown = desk.types(f"orders show {name}")
        assert shown.returncode == 8
        # The user channel may have told by now that there is such an order, not yet what came of it.
        assert json.loads(shown.stdout)["steps"][-1]["status"] in ("UNKNOWN", "ACCEPTED")
    finally:
        desk.faults(html_5xx="")
    desk.until(f"orders show {name}", lambda shown: shown["steps"][-1]["status"] == "FILLED", 30)


def test_cancel_all_warns_while_trading_is_active(desk: Desk) -> None:
    low = (desk.price() * Decimal("0.99")).quantize(Decimal("0.01"))
    for _ in range(2):
        assert desk.shows(f"{BUY} --type limit --qty 0.001 --price {low}")["status"] == "ACCEPTED"
    answer = desk.types("orders cancel-all")
    assert answer.returncode == 0, answer.stderr
    assert [row["outcome"] for row in json.loads(answer.stdout)["orders"]] == ["ended", "ended"]
    assert "trading is active: new orders may follow" in answer.stderr
    assert desk.shows("orders list --open")["orders"] == []
