"""The operator's commands as raw JSON over NATS, as `nats req perps.control.risk.halt '{...}'` sends them: with the
operator's credential and nothing of ours in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from cli.supervise import Supervisor, full_name
from tests.cli.commands import environment, running, short_folder
from tests.cli.test_tools_with_a_stack import BUY, QUIET, Desk

pytestmark = pytest.mark.integration

RISK = "perps.control.risk"
CANCEL_ALL = "perps.control.execution.cancel-all"
COMMANDS = [f"{RISK}.{command}" for command in ("halt", "resume", "reduce-only", "flatten")] + [CANCEL_ALL]


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with short_folder() as folder:
        env = environment(folder / "var", QUIET)
        with running("run", "--profile", "dev", env=env, words=folder / "words") as stack:
            stack.wait_for("all services ready in")
            stack.wait_for("trading is active")
            yield Desk(env)


class Wire:
    """A NATS client with the operator's credential."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def req(self, subject: str, body: bytes | dict[str, object]) -> Any:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return json.loads((await self.client.request(subject, raw, timeout=10)).data)

    async def stored(self) -> Any:
        """The trading state as the key-value store has it now."""
        request = {"last_by_subj": "$KV.PERPS_STATE.trading"}
        found = await self.client.request("$JS.API.DIRECT.GET.KV_PERPS_STATE", json.dumps(request).encode(), timeout=5)
        return {**json.loads(found.data), "revision": int((found.headers or {})["Nats-Sequence"])}

    async def next(self, messages: asyncio.Queue[Any], condition: Any, seconds: float = 30) -> Any:
        async with asyncio.timeout(seconds):
            while not condition(found := await messages.get()):
                pass
            return found

    async def hear(self, subject: str) -> asyncio.Queue[Any]:
        found: asyncio.Queue[Any] = asyncio.Queue()

        async def take(message: Msg) -> None:
            found.put_nowait(json.loads(message.data))

        await self.client.subscribe(subject, cb=take)
        await self.client.flush()
        await self.client.flush()  # see `NatsBus._in_force`
        return found


@pytest.fixture
async def wire(desk: Desk) -> AsyncIterator[Wire]:
    """With trading active."""
    seed = Path(desk.env["PERPS_DATA_DIR"]) / "nats" / "identities" / "operator.nk"
    server = f"nats://127.0.0.1:{desk.env['PERPS_NATS_PORT']}"
    client = await nats.connect(server, nkeys_seed=str(seed), inbox_prefix=b"_INBOX_operator")
    wire = Wire(client)
    assert (await wire.req(f"{RISK}.resume", {"reason": "begin"}))["ok"]
    yield wire
    await client.close()


@pytest.mark.parametrize("subject", COMMANDS)
@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"reason":""}', b'{"reason":"  "}', b"garbage", b'{"reason":5}', b"\xff"]
)
async def test_without_a_reason_nothing_changes(wire: Wire, subject: str, body: bytes) -> None:
    before = await wire.stored()
    reply = await wire.req(subject, body)
    assert (reply["ok"], bool(reply["detail"])) == (False, True)
    assert await wire.stored() == before


async def test_a_halt_is_stored_when_it_is_answered_once_and_audited(wire: Wire) -> None:
    audits = await wire.hear("perps.audit.>")
    before = await wire.stored()
    reply = await wire.req(f"{RISK}.halt", {"reason": "drill", "who": "ann"})
    now = await wire.stored()
    assert reply["ok"], reply
    assert (now["state"], now["reason"], now["who"]) == ("halted", "drill", "ann")
    assert now["revision"] > before["revision"]
    assert (await wire.req(f"{RISK}.halt", {"reason": "again", "who": "bob"}))["ok"]
    assert await wire.stored() == now
    audit = await wire.next(audits, lambda audit: audit["command"] == "halt")
    assert (audit["who"], audit["reason"], audit["ok"]) == ("ann", "drill", True)


async def test_only_a_resume_leads_out_of_a_halt(wire: Wire) -> None:
    assert (await wire.req(f"{RISK}.halt", {"reason": "drill"}))["ok"]
    refused = await wire.req(f"{RISK}.reduce-only", {"reason": "drill"})
    assert (refused["ok"], "only resume" in refused["detail"]) == (False, True)
    assert (await wire.req(f"{RISK}.resume", {"reason": "drill"}))["ok"]
    assert (await wire.stored())["state"] == "active"


async def test_reduce_only_lets_no_entry_through(wire: Wire, desk: Desk) -> None:
    for _ in range(2):
        assert (await wire.req(f"{RISK}.reduce-only", {"reason": "drill"}))["ok"]
    assert (await wire.stored())["state"] == "reducing"
    denied = await asyncio.to_thread(desk.types, f"{BUY} --type market --qty 0.001")
    assert (denied.returncode, "trading_reducing" in denied.stderr) == (7, True)


@pytest.mark.parametrize("halted", [False, True])
async def test_a_flatten_sells_everything_and_leaves_trading_as_strict_as_it_was(
    wire: Wire, desk: Desk, halted: bool
) -> None:
    placed = await asyncio.to_thread(desk.types, f"{BUY} --type market --qty 0.002")
    assert placed.returncode == 0, placed.stderr
    if halted:
        assert (await wire.req(f"{RISK}.halt", {"reason": "drill"}))["ok"]
    figures = await wire.hear("perps.risk")
    for _ in range(2):
        assert (await wire.req(f"{RISK}.flatten", {"reason": "out", "who": "ann"}))["ok"]
    now = await wire.stored()
    assert (now["state"], bool(now["flatten"])) == ("halted" if halted else "reducing", True)
    flat = await wire.next(figures, lambda told: _all_closed(told["closing"]))
    assert Decimal(flat["positions"]["BTC-USD"]["quantity"]) == 0
    assert Decimal(flat["closing"]["BTC-USD"]["sold"]) > 0
    assert (await wire.stored())["revision"] == now["revision"]


def _all_closed(closing: Any) -> bool:
    return bool(closing) and all(one["outcome"] in ("flat", "dust") for one in closing.values())


async def test_cancel_all_ends_every_order_and_changes_no_state(wire: Wire, desk: Desk) -> None:
    low = (desk.price() * Decimal("0.99")).quantize(Decimal("0.01"))
    for _ in range(2):
        placed = await asyncio.to_thread(desk.types, f"{BUY} --type limit --qty 0.001 --price {low}")
        assert placed.returncode == 0, placed.stderr
    before = await wire.stored()
    reply = await wire.req(CANCEL_ALL, {"reason": "drill", "who": "ann"})
    assert (reply["ok"], reply["data"]["canceled"]) == (True, "2"), reply
    assert (await asyncio.to_thread(desk.shows, "orders list --open"))["orders"] == []
    assert (await wire.req(CANCEL_ALL, {"reason": "again"}))["data"]["canceled"] == "0"
    assert await wire.stored() == before


async def test_all_of_it_works_while_strategy_and_marketdata_are_down(wire: Wire, desk: Desk) -> None:
    placed = await asyncio.to_thread(desk.types, f"{BUY} --type market --qty 0.002")
    assert placed.returncode == 0, placed.stderr
    supervisor, down = Supervisor(Path(desk.env["PERPS_DATA_DIR"])), ("strategy", "marketdata")
    try:
        for name in down:
            await supervisor.call("stopProcess", full_name(name), True)
        for command in ("reduce-only", "halt", "flatten"):
            reply = await wire.req(f"{RISK}.{command}", {"reason": "drill"})
            assert reply["ok"], (command, reply)
        figures = await wire.hear("perps.risk")
        await wire.next(figures, lambda told: _all_closed(told["closing"]))
        assert (await wire.req(CANCEL_ALL, {"reason": "drill"}))["ok"]
        assert (await wire.req(f"{RISK}.resume", {"reason": "drill"}))["ok"]
    finally:
        for name in down:
            await supervisor.call("startProcess", full_name(name), True)
