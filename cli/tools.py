"""The operator's tools: each opens what it needs, prints its result and says on stderr what has to be said."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime

from msgspec import Struct

from cli import account as accounts
from cli import orders as listing
from cli.cancel import Sweep, cancel_orders, judge
from cli.coinbase import open_venue
from cli.errors import VenueSilent
from cli.live import say
from cli.order_flags import OrderFlags, as_order, moment, request_of
from cli.output import jsonable, show
from cli.place import Placing, edit_of
from cli.preview import Holding, bots_holding, check, preview_order
from cli.progress import Passes
from cli.tooling import Tool
from libs.common import messages as m
from libs.common.errors import BadConfig
from libs.common.nats_bus import NatsBus
from libs.common.shell import trading_state
from libs.common.subjects import STATE_BUCKET, TRADING_KEY


class Sending(Struct, frozen=True):
    """What a request to risk needs beside the order. `repeat` is the command line that asks for the same again."""

    request_id: str
    repeat: str
    reason: str
    wait_seconds: int


async def preview(tool: Tool, flags: OrderFlags, as_json: bool) -> None:
    request = request_of(flags)

    async def held(product_id: str) -> Holding | None:
        async def ask(bus: NatsBus) -> Holding | None:
            return bots_holding(await bus.last(m.RiskFigures), await bus.last(m.Product), product_id)

        return await tool.if_bus(ask)

    async with open_venue(tool.settings) as venue:
        result, answer = await preview_order(venue, held, request)
    show(result, as_json)
    check(answer, say)


async def place(tool: Tool, flags: OrderFlags, sending: Sending, as_json: bool) -> None:
    await _through_risk(tool, request_of(flags, sending.request_id), sending, as_json)


async def edit(
    tool: Tool, order_id: str, qty: str, price: str, only_preview: bool, sending: Sending, as_json: bool
) -> None:
    async with open_venue(tool.settings) as venue:
        request, found = await edit_of(venue, order_id, qty, price, sending.request_id)
        if only_preview:
            assert request.quantity is not None
            answer = await venue.preview_edit(found.venue_order_id, as_order(request, request.quantity))
            show({"venue_order_id": found.venue_order_id, **jsonable(answer)}, as_json)
            check(answer, say)
            return
    await _through_risk(tool, request, sending, as_json)


async def _through_risk(tool: Tool, request: m.OrderRequest, sending: Sending, as_json: bool) -> None:
    if not request.request_id.strip():
        raise BadConfig("--request-id is empty: leave it out, or give the one of the request to repeat")
    body = m.Command(order=request, reason=sending.reason, who=getpass.getuser())
    placing = Placing(tool.need_bus(), body, sending.repeat)
    say(f"request {request.request_id}")
    try:
        await placing.run(sending.wait_seconds)
    finally:
        show(placing.show(), as_json)


async def cancel(tool: Tool, order_ids: list[str], wait_seconds: int, as_json: bool) -> None:
    async with open_venue(tool.settings) as venue:
        orders, silence = await cancel_orders(venue, order_ids, wait_seconds)
    show({"orders": [one.show() for one in orders]}, as_json)
    judge(orders, "" if all(one.outcome == "ended" for one in orders) else silence, say)


async def cancel_all(tool: Tool, product: str, foreign: bool, wait_seconds: int, as_json: bool) -> None:
    state = await tool.if_bus(lambda bus: bus.load(STATE_BUCKET, TRADING_KEY))
    if state and trading_state(state, datetime.now(UTC)).state is m.Trading.ACTIVE:
        say("trading is active: new orders may follow; `perps-bot halt --reason ...` stops them")
    with Passes() as passes:
        async with open_venue(tool.settings) as venue:
            sweep = Sweep(venue, product.upper(), foreign, passes.tell)
            await sweep.run(wait_seconds)
    show(sweep.show(), as_json)
    if sweep.untouched:
        say(f"{len(sweep.untouched)} open orders are not ours and were left alone: --foreign cancels those too")
    judge(sweep.orders.values(), sweep.silence, say)


async def list_orders(tool: Tool, product: str, open_only: bool, since: str, limit: int, as_json: bool) -> None:
    start = moment(since, "--since") if since else None
    if open_only and start:
        raise BadConfig("--since does not go with --open: an open order may be old")
    async with open_venue(tool.settings) as venue:
        result = await listing.list_orders(venue, product.upper(), open_only, start, limit)
    show(result, as_json)
    _say_more(result["more"], limit)


async def show_order(tool: Tool, order_id: str, as_json: bool) -> None:
    async def steps_of(client_order_id: str) -> list[m.Message] | None:
        return await tool.if_bus(lambda bus: bus.order_events(client_order_id))

    async with open_venue(tool.settings) as venue:
        result, silence = await listing.show_order(venue, steps_of, order_id)
    show(result, as_json)
    if silence:
        raise VenueSilent(f"only the ledger tells of it, the venue gave no readable answer: {silence}")


async def list_fills(tool: Tool, order: str, product: str, since: str, limit: int, as_json: bool) -> None:
    start = moment(since, "--since") if since else None
    async with open_venue(tool.settings) as venue:
        venue_order_id = (await listing.must_find(venue, order)).venue_order_id if order else ""
        result = await accounts.list_fills(venue, venue_order_id, product.upper(), start, limit)
    show(result, as_json)
    _say_more(result["more"], limit)


async def snapshot(tool: Tool, as_json: bool) -> None:
    async with open_venue(tool.settings) as venue:
        result, unavailable = await accounts.snapshot(venue)
    show(result, as_json)
    for part, why in unavailable.items():
        say(f"{part} is unavailable: {why}")


async def positions(tool: Tool, as_json: bool) -> None:
    show(await accounts.positions(tool.need_bus()), as_json)


def _say_more(more: bool, limit: int) -> None:
    if more:
        say(f"there are more than {limit}: see --limit")
