"""What can go wrong on sockets: user updates that are late, doubled, out of order or missing, and dead networks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets import ConnectionClosed
from websockets.asyncio.client import connect

from tests.sim.serving import Client, Frames

MARKET = {"key": "market_market_ioc", "base_size": "0.1"}  # tells OPEN, then FILLED


@asynccontextmanager
async def user_frames(venue: Client) -> AsyncIterator[Frames]:
    async with venue.frames("/user") as frames:
        await frames.subscribe("user")
        await frames.until_acknowledged("user")
        yield frames


async def told(frames: Frames, count: int) -> list[str]:
    """Name and status of the next orders told."""
    orders = [(await frames.next("user"))["events"][0]["orders"][0] for _ in range(count)]
    return [f"{order['client_order_id']} {order['status']}" for order in orders]


@pytest.mark.parametrize(
    ("switch", "heard"),
    [
        ("user_duplicate", ["a OPEN", "a OPEN", "a FILLED"]),
        ("user_reorder", ["a FILLED", "a OPEN"]),
        ("user_drop", ["a FILLED"]),
    ],
)
async def test_an_update_can_come_twice_late_or_never_without_a_gap(
    venue: Client, switch: str, heard: list[str]
) -> None:
    async with user_frames(venue) as frames:
        await venue.faults(**{switch: 1})
        await venue.order("a", **MARKET)
        assert (await venue.faults())[switch] == 0
        await venue.order("b", **MARKET)
        assert await told(frames, len(heard) + 2) == [*heard, "b OPEN", "b FILLED"]
        assert frames.numbers == list(range(len(frames.numbers)))


async def test_a_switch_for_updates_waits_for_someone_to_hear_them(venue: Client) -> None:
    await venue.faults(user_drop=1)
    await venue.order("unheard", **MARKET)
    assert (await venue.faults())["user_drop"] == 1


async def test_updates_can_be_late_while_other_frames_are_not(venue: Client) -> None:
    async with user_frames(venue) as frames:
        await frames.subscribe("market_trades", "BTC-USD")
        await frames.until_acknowledged("market_trades")
        await venue.faults(user_delay_seconds=0.3)
        ordered_at = time.monotonic()
        await venue.order("a", **MARKET)
        await venue.step()
        assert (await frames.next())["channel"] == "market_trades"
        assert await told(frames, 2) == ["a OPEN", "a FILLED"]
        assert time.monotonic() - ordered_at >= 0.3
        await venue.faults(user_delay_seconds=600)
        await venue.order("b", **MARKET)
        await venue.faults(user_delay_seconds=0)
        await venue.order("c", **MARKET)
        assert await told(frames, 2) == ["c OPEN", "c FILLED"]
        assert frames.numbers == list(range(len(frames.numbers)))


async def test_a_half_open_socket_says_nothing_and_answers_no_ping(venue: Client) -> None:
    async with venue.frames(ping_interval=None) as frames:
        await frames.subscribe("market_trades", "BTC-USD")
        await frames.until_acknowledged("market_trades")
        await venue.faults(half_open_sockets=True)
        await venue.step()
        pong = await frames.socket.ping()
        for silent in (asyncio.shield(pong), frames.socket.recv()):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(silent, 0.2)
        with pytest.raises(TimeoutError):
            await connect(f"ws://{venue.address}/", open_timeout=0.2)
        waiting = asyncio.create_task(connect(f"ws://{venue.address}/").__aenter__())
        await venue.faults(half_open_sockets=False)
        assert await frames.closed() == 1006
        with pytest.raises(ConnectionClosed):
            await pong
        async with await waiting as socket:
            other = Frames(socket, venue.token())
            await other.subscribe("market_trades", "BTC-USD")
            await other.until_acknowledged("market_trades")


async def test_an_idle_socket_is_closed_unless_it_hears_heartbeats(venue: Client) -> None:
    await venue.faults(idle_close_seconds=1.5)
    async with venue.frames() as idle, venue.frames() as beating:
        await idle.subscribe("ticker", "BTC-USD")
        await beating.subscribe("heartbeats")
        assert await idle.closed() == 1006
        await beating.next("heartbeats")
        await beating.next("heartbeats")
        assert beating.socket.close_code is None


async def test_user_frames_can_lack_their_client_id(venue: Client) -> None:
    await venue.faults(client_id_on_user=False)
    async with venue.frames("/user") as frames:
        await frames.subscribe("user")
        assert "client_id" not in await frames.next()
        await frames.until_acknowledged("user")
        await venue.faults(client_id_on_user=True)
        await frames.subscribe("user")
        assert (await frames.next())["client_id"] == ""


async def test_a_reject_reason_can_be_spelled_as_in_the_documentation(venue: Client) -> None:
    async with user_frames(venue) as frames:
        for spelling, other in (("reject_reason", "reject_Reason"), ("reject_Reason", "reject_reason")):
            await venue.faults(reject_reason_key=spelling)
            await venue.order(spelling)
            order = (await frames.next("user"))["events"][0]["orders"][0]
            assert spelling in order
            assert other not in order
