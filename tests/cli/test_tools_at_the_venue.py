"""The operator's tools as processes against the simulated venue over real sockets, with no bus anywhere."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from libs.common.messages import client_order_id, is_ours
from sim.settings import Settings
from tests.cli.commands import ROOT, environment
from tests.sim.serving import Client, serving

pytestmark = pytest.mark.integration

LOW = {"base_size": "0.01", "limit_price": "1000"}
FOREIGN = "11111111-2222-3333-4444-555555555555"
PLAYBOOK = (
    "--profile spot --preview-order --order-symbol BTC-USD --order-side sell "
    "--order-type market --order-qty 0.01 --order-reduce-only"
)


class Answer:
    """A command that has ended."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.out = out.decode()
        self.err = err.decode()

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


class Operator:
    """Types commands with the spot profile, whose addresses and key file are the simulated venue's."""

    def __init__(self, venue: Client, folder: Path) -> None:
        self.venue = venue
        self.tooling = folder / "var" / "data" / "perps_bot" / "spot" / "tooling.jsonl"
        address = venue.address
        self.env = environment(
            folder / "var",
            {
                "PERPS_PROFILE": "spot",
                "PERPS_VENUE_REST_URL": f"http://{address}",
                "PERPS_VENUE_WS_URL": f"ws://{address}/ws",
                "PERPS_VENUE_USER_WS_URL": f"ws://{address}/ws/user",
                "PERPS_COINBASE_KEY_FILE": str(folder / "venue" / "sim" / "cdp_api_key.json"),
                "PERPS_EXECUTION_REQUEST_TIMEOUT_SECONDS": "2",
            },
        )

    async def __call__(self, line: str, env: Mapping[str, str] | None = None) -> Answer:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cli.main",
            *line.split(),
            cwd=ROOT,
            env={**self.env, **(env or {})},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        return Answer(process.returncode or 0, out, err)

    async def refused(self, line: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Exit code and the one line of a command that has nothing to show."""
        answer = await self(line, env)
        assert (answer.out, answer.err.count("\n")) == ("", 1), answer.err
        return answer.code, answer.err

    def outcomes(self) -> list[tuple[str, bool]]:
        """Waiting for the bus."""
        told = [json.loads(text) for text in self.tooling.read_text().splitlines()]
        return [(one["command"], one["ok"]) for one in told]

    async def buys(self, size: str) -> None:
        answer = await self.venue.order(client_order_id(f"buy {size}"), key="market_market_ioc", base_size=size)
        assert answer["success"], answer


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    async with serving(Settings(port=0, data_dir=tmp_path / "venue")) as venue:
        yield Operator(venue, tmp_path)


async def test_the_playbooks_order_preview_sells_no_more_than_is_held(operator: Operator) -> None:
    code, line = await operator.refused(PLAYBOOK)
    assert (code, "nothing_to_reduce: 0 held" in line) == (7, True)
    await operator.buys("0.004")
    answer = await operator(PLAYBOOK)
    assert answer.json["reduce_only"] == {
        "requested_quantity": "0.01",
        "held_quantity": "0.004",
        "previewed_quantity": "0.004",
        "source": "venue",
    }
    assert answer.json["order"]["side"] == "SELL"
    assert Decimal(answer.json["order_total"]) > 0
    same = await operator("orders preview --symbol BTC-USD --side sell --type market --qty 0.01 --reduce-only")
    assert set(same.json) == set(answer.json)
    assert len(await venue_orders(operator)) == 1
    assert operator.outcomes() == [("orders preview", False), ("orders preview", True), ("orders preview", True)]


async def venue_orders(operator: Operator) -> list[Any]:
    found = (await operator.venue.get("/orders/historical/batch"))["orders"]
    assert isinstance(found, list)
    return found


async def test_every_kind_of_order_can_be_previewed(operator: Operator) -> None:
    kinds = (
        "buy --type market --quote-size 100",
        "buy --type limit --qty 0.01 --price 1000 --post-only",
        "buy --type limit --qty 0.01 --price 1000 --tif gtd --end-time 2030-01-01T00:00:00Z",
        "buy --type limit --qty 0.01 --price 1000 --tif fok",
        "buy --type stop_limit --qty 0.01 --price 900000 --stop-price 800000",
    )
    for shown in await asyncio.gather(*(operator(f"orders preview --symbol BTC-USD --side {kind}") for kind in kinds)):
        assert (shown.json["errors"], shown.json["reduce_only"]) == ([], None)


async def test_a_preview_that_the_venue_would_refuse_shows_why_and_ends_with_7(operator: Operator) -> None:
    answer = await operator("orders preview --symbol BTC-USD --side buy --type market --qty 1000")
    assert answer.code == 7
    assert json.loads(answer.out)["errors"] != []
    assert "perps-bot: the venue would refuse: PREVIEW_" in answer.err


async def test_the_playbooks_account_snapshot_tells_every_part(operator: Operator) -> None:
    flat = (await operator("--profile spot --account-snapshot")).json
    words = (await operator("account snapshot --profile spot")).json
    assert set(flat) == set(words)
    assert flat["balances"]["USD"] == {"available": "100000", "hold": "0"}
    assert flat["permissions"]["can_trade"] is True
    assert flat["fee_tier"]["taker_fee_rate"] == "0.012"
    assert [portfolio["name"] for portfolio in flat["portfolios"]] == ["Default"]
    assert flat["server_time"]
    assert set(flat["unavailable"]) <= {"limits"}


async def test_orders_and_fills_are_listed_and_shown_by_either_id(operator: Operator) -> None:
    ours = client_order_id("resting")
    await operator.buys("0.01")
    resting = (await operator.venue.order(ours, **LOW))["order_id"]
    foreign = (await operator.venue.order(FOREIGN, **LOW))["order_id"]

    bought = next(order for order in await venue_orders(operator) if order["status"] == "FILLED")
    lines = (
        "orders list --limit 2",
        "orders list --open --product btc-usd",
        f"orders show {bought['client_order_id']}",
        f"orders show {foreign}",
        "fills list",
        f"fills list --order {resting}",
    )
    answers = await asyncio.gather(*map(operator, lines))
    listed, opened, shown, theirs, fills, none = (answer.json for answer in answers)
    assert [(row["venue_order_id"], row["ours"]) for row in listed["orders"]] == [(foreign, False), (resting, True)]
    assert listed["more"] is True
    assert {row["venue_order_id"] for row in opened["orders"]} == {foreign, resting}

    assert (shown["order"]["venue_order_id"], shown["steps"]) == (bought["order_id"], None)
    assert Decimal(shown["fees"]) == Decimal(bought["total_fees"])
    assert Decimal(shown["filled_value"]) == Decimal(bought["filled_value"])
    assert sum(Decimal(fill["size"]) for fill in shown["fills"]) == Decimal("0.01")
    assert theirs["order"]["ours"] is False

    assert [fill["entry_id"] for fill in fills["fills"]] == [fill["entry_id"] for fill in shown["fills"]]
    assert none == {"fills": [], "more": False}
    assert (await operator.refused("orders show nobody-has-it"))[0] == 7


async def test_cancelling_by_id_reports_each_order_and_a_refusal_ends_with_7(operator: Operator) -> None:
    await operator.venue.faults(cancel_queued=True)
    await operator.buys("0.01")
    resting = (await operator.venue.order(client_order_id("resting"), **LOW))["order_id"]
    done = (await operator(f"orders cancel {client_order_id('resting')}")).json
    assert [(row["venue_order_id"], row["outcome"], row["status_word"]) for row in done["orders"]] == [
        (resting, "ended", "CANCELLED")
    ]
    code, line = await operator.refused("orders cancel nobody-has-it")
    assert (code, "the venue has no order nobody-has-it" in line) == (7, True)


async def test_cancel_all_takes_ours_pending_ones_too_and_leaves_the_others_alone(operator: Operator) -> None:
    names = [client_order_id(f"resting {n}") for n in range(120)]
    for name in names:
        assert (await operator.venue.order(name, base_size="0.001", limit_price="1000"))["success"]
    foreign = (await operator.venue.order(FOREIGN, **LOW))["order_id"]
    await operator.venue.faults(pending_delay_seconds=3600)
    await operator.venue.order(client_order_id("pending"), **LOW)

    answer = await operator("orders cancel-all")
    assert answer.code == 0, answer.err
    done = answer.json
    assert {row["outcome"] for row in done["orders"]} == {"ended"}
    assert {row["client_order_id"] for row in done["orders"]} == {*names, client_order_id("pending")}
    assert [row["venue_order_id"] for row in done["foreign"]] == [foreign]
    assert "--foreign" in answer.err
    alive = [order for order in await venue_orders(operator) if order["status"] in ("OPEN", "PENDING")]
    assert [order["order_id"] for order in alive] == [foreign]

    more = (await operator("orders cancel-all --foreign")).json
    assert [row["venue_order_id"] for row in more["orders"]] == [foreign]
    assert (await operator("orders cancel-all")).json["orders"] == []


async def test_a_venue_that_answers_garbage_or_nothing_ends_with_8_and_a_wrong_key_with_7(operator: Operator) -> None:
    await operator.venue.faults(html_5xx="reads")
    lines = (
        "orders list",
        "fills list",
        "account snapshot",
        "orders cancel abc",
        "orders cancel-all --wait-seconds 1",
    )
    for line, answer in zip(lines, await asyncio.gather(*map(operator, lines)), strict=True):
        assert (answer.code, "503" in answer.err or "50" in answer.err) == (8, True), (line, answer.err)
    await operator.venue.faults(html_5xx="", unauthorized=1000)
    for code, said in await asyncio.gather(*map(operator.refused, ("orders list", "account snapshot"))):
        assert (code, "HTTP_401" in said) == (7, True)
    gone = {"PERPS_VENUE_REST_URL": "http://127.0.0.1:1"}
    assert (await operator.refused("fills list", gone))[0] == 8


async def test_a_rate_limit_is_waited_out(operator: Operator) -> None:
    await operator.venue.faults(too_many_requests=1)
    assert (await operator("orders list")).json == {"orders": [], "more": False}


async def test_what_needs_the_bus_says_so_and_none_is_slow_for_want_of_one(operator: Operator) -> None:
    place = "orders place --symbol BTC-USD --side buy --type market --qty 0.01"
    began = time.monotonic()
    for line in (place, "positions"):
        code, line = await operator.refused(line)
        assert (code, "no NATS server" in line) == (5, True)
    assert time.monotonic() - began < 20
    assert await venue_orders(operator) == []


def test_ids_of_ours_prove_themselves_and_others_do_not() -> None:
    assert is_ours(client_order_id("resting"))
    assert not is_ours(FOREIGN)
