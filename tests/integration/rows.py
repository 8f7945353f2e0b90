"""The faults of the correctness matrix, one by one: what goes wrong, and what the orders go through meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import partial

import msgspec
from msgspec import Struct, field

from cli.coinbase import open_venue
from cli.supervise import full_name
from libs.common import messages as m
from libs.common.clock import SystemClock
from libs.common.errors import OutcomeUnknown, Retryable
from libs.common.messages import OrderStatus
from libs.common.nats_bus import connect
from libs.common.subjects import INSTALLATION_KEY, SERVICES, STATE_BUCKET, TRADING_KEY
from tests.integration.lab import Cell, Kind, Lab

DEAF = {"user_drop": 99}  # the user channel does not tell of the order either: REST alone is left
# What an order takes at once: the rest of a market order ends, that of a limit order rests and fills piece by piece.
PARTS = {"take_at_most_fraction": "0.4"}
IN_FLIGHT_SECONDS = 1.5  # of market time that an order stays PENDING at the venue
PARTIAL_TRIES = 8
AWAY = Decimal("0.015")  # from the market, where nothing fills within a row

Cells = Sequence[Cell]
Play = Callable[[Lab, Cells], Awaitable[None]]


class Row(Struct, frozen=True):
    """`play` sends the orders of all cells and waits for their end. `quiet`: there is nothing that one could see.
    `ends` is how the last order of each kind has to end."""

    name: str
    play: Play
    quiet: bool = False
    ends: Mapping[Kind, OrderStatus] = field(default_factory=lambda: dict.fromkeys(Kind, OrderStatus.FILLED))


def faulty(**switches: object) -> Play:
    """Orders into a venue that misbehaves once, or in a way that does not stop them."""

    async def play(lab: Lab, cells: Cells) -> None:
        async with lab.fault(**switches):
            await lab.send(*cells)
            await lab.ended(cells)

    return play


async def each_by_itself(lab: Lab, cells: Cells, switches: dict[str, object]) -> None:
    for cell in cells:
        async with lab.fault(**switches):
            await lab.send(cell)
            await lab.ended([cell])


async def until_seen(lab: Lab, cells: Cells, switches: dict[str, object]) -> None:
    """The fault lasts until the orders are UNKNOWN."""
    async with lab.fault(**switches):
        await lab.send(*cells)
        await lab.reached(cells, OrderStatus.UNKNOWN)
    lab.end()
    await lab.ended(cells)


# -- something dies


async def killed_before_the_answer(lab: Lab, cells: Cells) -> None:
    """The venue has the orders, nobody knows it, and execution is gone."""
    known = (await lab.system.venue_state())["orders"]
    async with lab.fault(accept_then_hang=len(cells), **DEAF):
        await lab.send(*cells)

        async def taken() -> bool:
            return (await lab.system.venue_state())["orders"] == known + len(cells)  # type: ignore[operator]

        await lab.system.until(taken, 10)
        await lab.reached(cells, OrderStatus.SUBMITTING)
        await lab.kill("execution")
        await lab.ended(cells)


async def killed_in_flight(lab: Lab, cells: Cells, victim: str) -> None:
    async with lab.fault(pending_delay_seconds=IN_FLIGHT_SECONDS):
        await lab.send(*cells)
        await lab.reached(cells, OrderStatus.ACCEPTED)
        await lab.kill(victim)
        await lab.healthy()
        await lab.ended(cells)


async def bus_restarted(lab: Lab, cells: Cells) -> None:
    async with lab.fault(pending_delay_seconds=IN_FLIGHT_SECONDS):
        await lab.send(*cells)
        await lab.reached(cells, OrderStatus.ACCEPTED)
        lab.strike()
        await lab.system.stack.supervisor.restart("nats")
        await lab.healthy()
        await lab.ended(cells)


async def venue_down_at_start(lab: Lab, cells: Cells) -> None:
    """The services wait, say so, do not fall over one another, and refuse entries."""
    supervisor = lab.system.stack.supervisor
    lab.strike()
    await supervisor.call("stopProcess", full_name("venue"))
    await supervisor.restart(*SERVICES)
    waiting = ("marketdata", "execution")
    await lab.until(lambda: all(_waits(lab, name) for name in waiting), "services that say they wait")
    pids = {name: await lab.system.pid(name) for name in SERVICES}
    for cell in cells:
        await lab.blocked(cell)
    await lab.calm()
    assert {name: await lab.system.pid(name) for name in SERVICES} == pids, "a service fell over"
    await supervisor.begin("venue")
    lab.end()
    await lab.healthy()
    await lab.send(*cells)
    await lab.ended(cells)


def _waits(lab: Lab, name: str) -> bool:
    status = lab.watch.statuses.get(name)
    return status is not None and status.sent_at is not None and status.sent_at > lab.struck and not status.ready


async def corrupt_state(lab: Lab, cells: Cells) -> None:
    """Unreadable is halted, also for whoever starts then; only the operator ends it."""
    settings = lab.system.settings
    seed = settings.identities / "risk.nk"
    bus = await connect(settings.nats.servers, "risk", seed, SystemClock(), lambda error: None)
    lab.strike()
    await bus.store(STATE_BUCKET, TRADING_KEY, b"\xffneither active nor halted", None)
    await bus.close()
    await lab.told("trading halted")
    reasons = {await _refusal(lab, cell) for cell in cells}
    await lab.system.kill("risk")
    await lab.system.kill("execution")
    reasons |= {await _refusal(lab, cell) for cell in cells}
    assert reasons == {"trading_halted"}, reasons
    await lab.healthy()
    lab.end()
    assert (await lab.system.command("resume")).ok
    await lab.send(*cells)
    await lab.ended(cells)


async def _refusal(lab: Lab, cell: Cell) -> str:
    """Whatever it is, it is refused: an exit too."""
    reply = await lab.ask(lab.request(cell))
    assert not reply.ok, "approved under a corrupt trading state"
    return reply.data["reason"]


# -- the feed


async def sequence_gap(lab: Lab, cells: Cells) -> None:
    """A hole in the market feed, held open: the new connection stays silent until entries were seen to be refused."""
    async with lab.fault(skip_sequence=1):
        for _ in range(5):
            with suppress(AssertionError):
                await lab.until(lambda: m.Feed.GAP in lab.watch.feeds.values(), "a gap", 1.5)
                break
            await lab.switch(skip_sequence=1)  # the user channel has had that one
        await lab.switch(silent_sockets=True)
        reasons = {await lab.blocked(cell) for cell in cells}
        assert reasons <= {"feed_not_live", "mark_stale"}, reasons
    lab.end()
    await lab.healthy()
    await lab.send(*cells)
    await lab.ended(cells)


async def lost_sockets(lab: Lab, cells: Cells, switch: str) -> None:
    """Connected, and nothing comes: what is in flight ends all the same, what is new is refused once it is seen."""
    async with lab.fault(**{switch: True}):
        await lab.send(*cells)
        await lab.ended(cells)
        await lab.until(lambda: m.Feed.LIVE not in lab.watch.feeds.values(), "feeds that are not live", 20)
        reasons = {await lab.blocked(cell) for cell in cells}
        assert reasons <= {"feed_not_live", "mark_stale"}, reasons
    lab.end()
    await lab.healthy()


async def snapshot_replayed(lab: Lab, cells: Cells) -> None:
    """Cut off with orders in flight, and after it: each new connection tells again what is known."""
    async with lab.fault(pending_delay_seconds=IN_FLIGHT_SECONDS, **PARTS):
        await lab.send(*cells)
        await lab.reached(cells, OrderStatus.ACCEPTED)
        lab.strike()
        await lab.switch(drop_sockets=1)
        await lab.ended(cells)
        await lab.switch(drop_sockets=1)
        await lab.sign()


async def flags_changed(lab: Lab, cells: Cells) -> None:
    """limit_only: the market order is refused, the limit order goes through; afterwards both do."""
    products = [cell.product_id for cell in cells]

    def limited(wanted: bool) -> bool:
        return all(lab.watch.products[name].limit_only is wanted for name in products if name in lab.watch.products)

    async with lab.fault(product_flags={name: {"limit_only": True} for name in products}):
        await lab.until(lambda: len(lab.watch.products) >= len(products) and limited(True), "the flag on the bus")
        for cell in cells:
            if cell.kind is Kind.MARKET:
                assert await lab.blocked(cell) == "product_not_tradable"
            else:
                await lab.send(cell)
                await lab.ended([cell])
    lab.end()
    await lab.until(lambda: limited(False), "the flag gone from the bus")
    await lab.send(*cells)
    await lab.ended(cells)


# -- orders with a turn


async def partly_filled_then_canceled(lab: Lab, cells: Cells) -> None:
    """The rest of a market order ends at the venue by itself, that of a limit order rests until it is cancelled."""
    async with lab.fault(**PARTS):
        for cell in cells:
            await lab.send(cell)
            for _ in range(PARTIAL_TRIES):
                await _cancel(lab, cell)
                await lab.ended([cell])
                if lab.watch.status(cell.orders[-1]) is OrderStatus.CANCELED:
                    break
                await lab.send(cell)  # the market was faster than the cancellation


async def _cancel(lab: Lab, cell: Cell) -> None:
    """As `perps-bot orders cancel` does, again until the venue has said something."""
    key = cell.orders[-1]
    await lab.until(lambda: bool(lab.watch.venue_order_id(key)), "the venue's order id")
    async with open_venue(lab.system.settings) as venue:
        for _ in range(20):
            with suppress(Retryable, OutcomeUnknown):
                await venue.cancel([lab.watch.venue_order_id(key)])
                return
            await asyncio.sleep(0.1)
    raise AssertionError("the cancellation was lost")


async def too_many_requests(lab: Lab, cells: Cells) -> None:
    """The market order waits its turn, and the cancellation of a resting limit order gets through."""
    resting = [cell for cell in cells if cell.kind is Kind.LIMIT]
    for cell in resting:
        request = lab.request(cell)
        away = 1 - AWAY if request.side is m.Side.BUY else 1 + AWAY
        await lab.send_request(cell, msgspec.structs.replace(request, limit_price=lab.price(cell, away)))
    await lab.reached(resting, OrderStatus.ACCEPTED)
    async with lab.fault(too_many_requests=8):
        await asyncio.gather(*(_cancel(lab, cell) if cell in resting else lab.send(cell) for cell in cells))
        await lab.ended(cells)


async def id_is_taken(lab: Lab, cells: Cells, mode: str) -> None:
    """The venue has an order under the id before ours arrives, as after a request that a network sent twice. It fills
    only then: what nobody of us has asked for is a drift of the account, and means reduce-only."""
    made = await lab.system.bus.load(STATE_BUCKET, INSTALLATION_KEY)
    assert made is not None
    installation = msgspec.json.decode(made.value, type=m.Installation)
    switches = {"duplicates": mode, "pending_delay_seconds": IN_FLIGHT_SECONDS}
    async with lab.fault(**switches), open_venue(lab.system.settings) as venue:
        for cell in cells:
            request = lab.request(cell)
            assert request.quantity is not None
            order = m.ApprovedOrder(
                client_order_id=m.client_order_id(m.derive_id(installation.id, "operator", request.request_id)),
                product_id=request.product_id,
                side=request.side,
                order_type=request.order_type,
                time_in_force=request.time_in_force,
                quantity=request.quantity,
                limit_price=request.limit_price,
                reduce_only=False,
            )
            await venue.place(order, lambda expires_at: None)
            await lab.send_request(cell, request)
            assert cell.orders[-1] == order.client_order_id
        await lab.ended(cells)


REJECTED = dict.fromkeys(Kind, OrderStatus.REJECTED)
CANCELED = dict.fromkeys(Kind, OrderStatus.CANCELED)
IN_PARTS = {**CANCELED, Kind.LIMIT: OrderStatus.FILLED}
ROWS = (
    Row("timeout after accept", faulty(accept_then_hang=2, **DEAF)),
    Row("connection dropped after accept", faulty(accept_then_drop=2, **DEAF)),
    Row("500 after accept", faulty(accept_then_500=2, **DEAF)),
    Row("503 before accept", partial(until_seen, switches={"html_5xx": "orders"}), ends=REJECTED),
    Row("kill -9 between POST and answer", killed_before_the_answer),
    Row("dropped answer, order listed late", faulty(accept_then_drop=2, orders_lag_seconds=3, **DEAF)),
    Row("fills listed late", faulty(fills_lag_seconds=2, **PARTS), quiet=True, ends=IN_PARTS),
    Row("user channel: duplicates", faulty(user_duplicate=99, **PARTS), quiet=True, ends=IN_PARTS),
    Row("user channel: reordered", faulty(user_reorder=99, **PARTS), quiet=True, ends=IN_PARTS),
    Row("user channel: 2 s late", faulty(user_delay_seconds=2, **PARTS), quiet=True, ends=IN_PARTS),
    Row("user channel: nothing comes", faulty(**DEAF, **PARTS), quiet=True, ends=IN_PARTS),
    Row("snapshot replayed", snapshot_replayed, ends=IN_PARTS),
    Row("partial fill, then cancel", partly_filled_then_canceled, quiet=True, ends=CANCELED),
    Row("duplicate id returns the order", partial(id_is_taken, mode="returns_existing"), quiet=True),
    Row("duplicate id is refused", partial(id_is_taken, mode="refuses")),
    Row("burst of 429", too_many_requests, ends={**CANCELED, Kind.MARKET: OrderStatus.FILLED}),
    Row("answers slower than our patience", partial(until_seen, switches={"answer_delay_seconds": 3, **DEAF})),
    Row("401 once", partial(each_by_itself, switches={"unauthorized": 1}), quiet=True),
    Row("venue's clock 30 s ahead", faulty(clock_skew_seconds=30), quiet=True),
    Row("venue's clock 30 s behind", faulty(clock_skew_seconds=-30), quiet=True),
    Row("product flag changes", flags_changed),
    Row("gap in sequence_num", sequence_gap),
    Row("silent sockets", partial(lost_sockets, switch="silent_sockets")),
    Row("half-open sockets", partial(lost_sockets, switch="half_open_sockets")),
    *(Row(f"kill -9 of {name}", partial(killed_in_flight, victim=name)) for name in (*SERVICES, "venue", "nats")),
    Row("bus restarted", bus_restarted),
    Row("corrupt stored trading state", corrupt_state),
    Row("venue down at start", venue_down_at_start),
)
