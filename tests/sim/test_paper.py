"""Paper trading over real sockets: a second simulated venue, whose market stands still until stepped, is the feed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import websockets
from websockets.asyncio.server import ServerConnection, serve

from sim import paper as paper_module
from sim.settings import BadSettings, Settings, settings_from
from tests.ports import free_port
from tests.sim import test_paper_feed as feed_frame
from tests.sim.serving import PREFIX, Client, order_body, replay_settings, serving

BTC = "BTC-USD"
MARKET, LIMIT = "market_market_ioc", "limit_limit_gtc"
SILENT_SECONDS = 1.6  # the feed's heartbeats come every second


@pytest.fixture
async def feed(tmp_path: Path) -> AsyncIterator[Client]:
    async with serving(feed_settings(tmp_path)) as client:
        yield client


def feed_settings(folder: Path, port: int = 0, minutes: int = 5) -> Settings:
    """A feed with so many minutes of history, each of four trades."""
    (folder / "feed").mkdir()
    return replay_settings(folder / "feed", start=datetime(2025, 1, 1, 0, minutes, tzinfo=UTC), port=port)


def paper_on(
    folder: Path, address: str, products: tuple[str, ...] = (BTC,), ws_address: str = ""
) -> AbstractAsyncContextManager[Client]:
    return serving(
        Settings(
            port=0,
            data_dir=folder / "paper",
            products=products,
            feed_ws_url=f"ws://{ws_address or address}",
            feed_rest_url=f"http://{address}",
            feed_silent_seconds=SILENT_SECONDS,
        )
    )


@asynccontextmanager
async def open_paper(folder: Path, feed: Client) -> AsyncIterator[Client]:
    async with paper_on(folder, feed.address) as paper:
        await trading(paper)
        yield paper


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


async def trouble(paper: Client) -> str:
    return str((await paper.state())["trouble"])


async def trading(paper: Client) -> None:
    async def without_trouble() -> bool:
        return not await trouble(paper)

    await until(without_trouble)


async def in_trouble(paper: Client, why: str) -> None:
    async def told() -> bool:
        return why in await trouble(paper)

    await until(told)


async def best(venue: Client) -> tuple[str, str]:
    """Best bid and ask."""
    book = (await venue.get("/market/product_book", product_id=BTC))["pricebook"]
    return book["bids"][0]["price"], book["asks"][0]["price"]


async def same_prices(paper: Client, feed: Client) -> None:
    async def equal() -> bool:
        return await best(paper) == await best(feed)

    await until(equal)


async def fills(venue: Client) -> list[tuple[str, str, str]]:
    """Side, price and size of every fill, oldest first."""
    found = (await venue.get("/orders/historical/fills"))["fills"]
    return [(fill["side"], fill["price"], fill["size"]) for fill in reversed(found)]


async def volume(venue: Client) -> str:
    return str((await venue.get(f"/products/{BTC}"))["volume_24h"])


async def refused_for_now(paper: Client) -> None:
    """New orders, edits and prices: 503. The account, cancels and the time: as always."""
    order = order_body("now", "BUY", MARKET, quote_size="10")
    for method, path, body in (
        ("POST", "/orders", order),
        ("POST", "/orders/preview", order),
        ("POST", "/orders/edit", {"order_id": "x", "price": "1", "size": "1"}),
        ("GET", "/market/products", None),
        ("GET", f"/products/{BTC}/ticker", None),
        ("GET", "/best_bid_ask", None),
    ):
        assert (await paper.call(method, path, body)).status_code == 503, path
    for path in ("/accounts", "/orders/historical/batch", "/time"):
        assert (await paper.call("GET", path)).status_code == 200


async def test_orders_fill_at_the_prices_of_the_feed(tmp_path: Path, feed: Client) -> None:
    async with open_paper(tmp_path, feed) as paper:
        bought_at = (await best(feed))[1]
        await paper.order("in", "BUY", MARKET, base_size="0.1")
        await feed.step(9)
        await same_prices(paper, feed)
        sold_at = (await best(feed))[0]
        assert sold_at != bought_at
        await paper.order("out", "SELL", MARKET, base_size="0.1")
        assert await fills(paper) == [("BUY", bought_at, "0.1"), ("SELL", sold_at, "0.1")]
        assert await fills(feed) == []


async def test_a_resting_order_fills_when_the_feed_trades_at_its_price(tmp_path: Path, feed: Client) -> None:
    async with open_paper(tmp_path, feed) as paper:
        limit = str(Decimal((await best(feed))[0]) - 5)
        await paper.order("rests", "BUY", LIMIT, base_size="0.5", limit_price=limit)
        assert await fills(paper) == []
        await feed.step(4)  # a candle is walked through its low

        async def filled() -> bool:
            return await fills(paper) == [("BUY", limit, "0.5")]

        await until(filled)


async def test_trades_pass_with_their_own_ids_times_and_sizes(tmp_path: Path, feed: Client) -> None:
    async with open_paper(tmp_path, feed) as paper, paper.frames() as ours, feed.frames() as theirs:
        for frames in (ours, theirs):
            await frames.subscribe("market_trades", BTC)
            await frames.until_acknowledged("market_trades")
        await feed.step(3)
        for _ in range(3):
            assert (await ours.next("market_trades"))["events"] == (await theirs.next("market_trades"))["events"]


async def test_the_past_and_the_rules_are_those_of_the_feed(tmp_path: Path) -> None:
    """Of the past, too: a subscription begins with a hundred trades, and this feed has had more."""
    async with serving(feed_settings(tmp_path, minutes=28)) as feed, open_paper(tmp_path, feed) as paper:
        bounds = {"start": "1735689600", "end": "1735691279", "granularity": "ONE_MINUTE"}
        for access in ("/market", ""):
            for path, query in ((f"{access}/products/{BTC}/candles", bounds), (f"{access}/products/{BTC}/ticker", {})):
                told = await paper.get(path, **query)
                assert told == await feed.get(path, **query)
                assert len(next(iter(told.values()))) >= 28
        assert (await paper.http.get(f"{PREFIX}/products/{BTC}/candles", params=bounds)).status_code == 401
        assert (await paper.call("GET", f"/market/products/{BTC}/candles", granularity="X")).status_code == 400
        for name in ("base_increment", "price_increment", "base_min_size", "quote_min_size", "status"):
            assert (await paper.get(f"/products/{BTC}"))[name] == (await feed.get(f"/products/{BTC}"))[name]


async def test_trading_flags_are_followed(tmp_path: Path, feed: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_module, "PRODUCT_SECONDS", 0.05)
    async with open_paper(tmp_path, feed) as paper, paper.frames() as frames:
        await frames.subscribe("status", BTC)
        await frames.until_acknowledged("status")
        await feed.faults(product_flags={BTC: {"limit_only": True}})
        await frames.next("status")
        refusal = await paper.order("market", "BUY", MARKET, quote_size="10")
        assert refusal["error_response"]["preview_failure_reason"] == "PREVIEW_NOT_ALLOWED_BY_MARKET_STATE"


async def test_account_and_resting_orders_survive_a_restart(tmp_path: Path, feed: Client) -> None:
    limit = str(Decimal((await best(feed))[0]) - 5)
    async with open_paper(tmp_path, feed) as paper:
        await paper.order("held", "BUY", MARKET, base_size="0.1")
        await paper.order("rests", "BUY", LIMIT, base_size="0.5", limit_price=limit)
        before = await paper.state()
    async with open_paper(tmp_path, feed) as paper:
        after = await paper.state()
        assert (after["balances"], after["open_orders"]) == (before["balances"], 1)
        await feed.step(4)

        async def filled() -> bool:
            return (await fills(paper))[1:] == [("BUY", limit, "0.5")]

        await until(filled)
        assert (await paper.state())["balances"]["BTC"]["available"] == "0.6"


async def test_a_silent_feed_makes_the_venue_look_dead_until_it_speaks_again(tmp_path: Path, feed: Client) -> None:
    async with open_paper(tmp_path, feed) as paper, paper.frames() as market, paper.frames("/ws/user") as user:
        bid = (await best(feed))[0]
        resting = str(Decimal(bid) - 5)
        order = await paper.order("rests", "BUY", LIMIT, base_size="0.5", limit_price=resting)
        other = await paper.order("other", "BUY", LIMIT, base_size="0.1", limit_price=resting)
        for frames in (market, user):
            await frames.subscribe("heartbeats")
            await frames.next("heartbeats")
        await user.subscribe("user")
        await user.until_acknowledged("user")

        await feed.faults(silent_sockets=True)
        await market.closed()
        assert "says nothing" in await trouble(paper)
        await refused_for_now(paper)
        with pytest.raises(websockets.InvalidStatus):
            async with paper.frames():
                pass
        await feed.step(4)  # trades through the resting orders, and nobody here hears of it
        answer = await paper.call("POST", "/orders/batch_cancel", {"order_ids": [other["order_id"]]})
        assert answer.json()["results"][0]["success"]
        assert (await user.next("user"))["events"][0]["orders"][0]["client_order_id"] == "other"
        assert await fills(paper) == []

        await feed.faults(silent_sockets=False)
        await trading(paper)
        await user.next("heartbeats")
        async with paper.frames() as again:
            await again.subscribe("ticker", BTC)
            ticker = (await again.next("ticker"))["events"][0]["tickers"][0]
            assert (ticker["best_bid"], ticker["best_ask"]) == await best(feed)
        assert (await paper.get(f"/orders/historical/{order['order_id']}"))["order"]["status"] == "OPEN"
        assert await fills(paper) == []


async def test_no_order_meets_the_old_prices_after_its_delay(tmp_path: Path, feed: Client) -> None:
    async with open_paper(tmp_path, feed) as paper:
        old_ask = (await best(feed))[1]
        await paper.faults(pending_delay_seconds=1)
        placed = datetime.now(UTC)
        await paper.order("late", "BUY", MARKET, base_size="0.1")
        await feed.faults(silent_sockets=True, drop_sockets=1)
        await in_trouble(paper, "feed")

        async def delay_is_over() -> bool:
            return datetime.now(UTC) > placed + timedelta(seconds=1.3)

        await until(delay_is_over)
        assert await fills(paper) == []
        await feed.step(9)
        await feed.faults(silent_sockets=False)

        async def filled() -> bool:
            return await fills(paper) == [("BUY", (await best(feed))[1], "0.1")]

        await until(filled)
        assert (await best(feed))[1] != old_ask


async def test_nothing_fills_before_the_feed_has_confirmed_what_was_asked_of_it(
    tmp_path: Path, feed: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper_module, "READY_SECONDS", 0.5)
    async with open_paper(tmp_path, feed) as paper:
        await paper.order("rests", "BUY", LIMIT, base_size="0.5", limit_price="49000")

    async def unconfirmed(socket: ServerConnection) -> None:
        await socket.send(feed_frame.ticker(0, price="40000", best_bid="39999", best_ask="40001"))
        await socket.send(feed_frame.trade(1, 10**9, price="40000", size="9"))
        with contextlib.suppress(websockets.ConnectionClosed):
            for number in itertools.count(2):
                await socket.send(feed_frame.frame(number, "heartbeats", {"heartbeat_counter": number}))
                await asyncio.sleep(0.1)

    async with serve(unconfirmed, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with paper_on(tmp_path, feed.address, ws_address=f"127.0.0.1:{port}") as paper:

            async def heard() -> bool:
                return bool((await paper.state())["last_prices"].get(BTC) == "40000")

            await until(heard)
            assert await fills(paper) == []
            await in_trouble(paper, "does not give channel heartbeats")


async def test_no_heartbeat_is_ours_alone(tmp_path: Path, feed: Client) -> None:
    """Between the feed's last word and the moment when it counts as lost, nothing confirms the prices."""
    async with open_paper(tmp_path, feed) as paper, paper.frames() as frames:
        await frames.subscribe("heartbeats")
        await frames.next("heartbeats")
        await feed.faults(silent_sockets=True)
        heard: list[str | bytes] = []
        with contextlib.suppress(websockets.ConnectionClosed):
            async for frame in frames.socket:
                heard.append(frame)
        assert [json.loads(frame)["channel"] for frame in heard] in ([], ["heartbeats"])  # one may be on its way


async def test_a_gap_in_the_feed_ends_the_connection_and_the_next_one_brings_new_prices(
    tmp_path: Path, feed: Client
) -> None:
    async with open_paper(tmp_path, feed) as paper, paper.frames() as market:
        await market.subscribe("heartbeats")
        await market.next("heartbeats")
        await feed.faults(skip_sequence=1)
        await feed.step(2)
        await market.closed()
        await trading(paper)
        await same_prices(paper, feed)


async def test_a_dropped_feed_is_connected_again(tmp_path: Path, feed: Client) -> None:
    async with open_paper(tmp_path, feed) as paper:
        traded = await volume(paper)
        for _ in range(3):
            await feed.faults(drop_sockets=1)
            await in_trouble(paper, "hung up")
            await trading(paper)
        assert await volume(paper) == traded, "trades that a new connection repeats were counted again"
        await feed.faults(error_instead_of_ack=1, drop_sockets=1)
        await in_trouble(paper, "the feed says: failure to subscribe")
        await trading(paper)


async def test_the_venue_waits_for_a_feed_that_is_down_at_its_start(tmp_path: Path) -> None:
    port = free_port()
    async with paper_on(tmp_path, f"127.0.0.1:{port}") as paper:
        await in_trouble(paper, "ConnectError")
        await refused_for_now(paper)
        async with serving(feed_settings(tmp_path, port)) as feed:
            await trading(paper)
            await same_prices(paper, feed)
        await in_trouble(paper, "feed")
        await refused_for_now(paper)


async def test_a_product_that_the_feed_does_not_know_is_named(tmp_path: Path, feed: Client) -> None:
    async with paper_on(tmp_path, feed.address, products=(BTC, "SOL-USD")) as paper:
        await in_trouble(paper, "does not list SOL-USD")


async def test_the_data_directory_of_paper_trading_is_kept_apart(tmp_path: Path, feed: Client) -> None:
    async with open_paper(tmp_path, feed):
        pass
    with pytest.raises(Exception, match="belongs to paper trading"):
        async with serving(Settings(port=0, data_dir=tmp_path / "paper")):
            pass


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"PERPS_SIM_FEED_WS_URL": "ws://h", "PERPS_SIM_FEED_REST_URL": ""}, "go together"),
        ({"PERPS_SIM_FEED_WS_URL": "http://h", "PERPS_SIM_FEED_REST_URL": "http://h"}, "PERPS_SIM_FEED_WS_URL"),
        ({"PERPS_SIM_FEED_WS_URL": "wss://h", "PERPS_SIM_FEED_REST_URL": "h"}, "PERPS_SIM_FEED_REST_URL"),
    ],
)
def test_addresses_that_cannot_be_a_feed_are_refused(given: dict[str, str], says: str) -> None:
    with pytest.raises(BadSettings, match=says):
        settings_from(given)
