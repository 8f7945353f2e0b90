"""The WebSocket dialogue: snapshots, acknowledgements, numbering, errors, and what each channel tells."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tests.sim.serving import Client, Frames, replay_settings, serving

BTC = "BTC-USD"


async def subscribed(frames: Frames, *channels: str) -> None:
    for channel in channels:
        await frames.subscribe(channel, *([] if channel in ("heartbeats", "user", "status") else [BTC]))
        await frames.until_acknowledged(channel)


@pytest.mark.parametrize(
    ("channel", "received"),
    [("level2", "l2_data"), ("market_trades", "market_trades"), ("ticker", "ticker"), ("ticker_batch", "ticker_batch"),
     ("candles", "candles"), ("status", "status"), ("user", "user")],
)  # fmt: skip
async def test_a_snapshot_comes_first_and_then_the_acknowledgement(venue: Client, channel: str, received: str) -> None:
    async with venue.frames() as frames:
        await frames.subscribe(channel, BTC)
        snapshot, acknowledged = await frames.next(), await frames.next()
        assert (snapshot["channel"], snapshot["sequence_num"], snapshot["events"][0]["type"]) == (
            received,
            0,
            "snapshot",
        )
        assert (acknowledged["channel"], acknowledged["sequence_num"]) == ("subscriptions", 1)
        assert list(acknowledged["events"][0]["subscriptions"]) == [channel]


async def test_heartbeats_start_with_their_acknowledgement_and_come_every_second(venue: Client) -> None:
    async with venue.frames() as frames:
        await frames.subscribe("heartbeats")
        assert (await frames.next())["events"] == [{"subscriptions": {"heartbeats": ["heartbeats"]}}]
        beats = [(await frames.next("heartbeats"))["events"][0]["heartbeat_counter"] for _ in range(2)]
        assert beats[1] == beats[0] + 1
        assert frames.numbers == [0, 1, 2]


async def test_acknowledgements_list_all_that_is_subscribed_now(venue: Client) -> None:
    async with venue.frames() as frames:
        await subscribed(frames, "ticker", "heartbeats")
        await frames.subscribe("user")
        told = (await frames.next("subscriptions"))["events"][0]["subscriptions"]
        assert list(told) == ["ticker", "heartbeats", "user"]
        await frames.subscribe("ticker", BTC, kind="unsubscribe")
        await frames.subscribe("heartbeats", kind="unsubscribe")
        await frames.subscribe("user", kind="unsubscribe")
        left = [(await frames.next("subscriptions"))["events"][0]["subscriptions"] for _ in range(3)]
        assert [list(each) for each in left] == [["heartbeats", "user"], ["user"], []]
        assert (await venue.step())["ticks_done"] == 1


async def test_each_tick_tells_the_trade_before_the_ticker_and_numbers_everything(venue: Client) -> None:
    async with venue.frames() as frames:
        await subscribed(frames, "ticker", "level2", "market_trades", "heartbeats")
        await venue.step(2)
        kinds: list[str] = []
        prices: list[str] = []
        while len(prices) < 2:
            frame = await frames.next()
            if frame["channel"] != "heartbeats":
                kinds.append(frame["channel"])
            if frame["channel"] == "ticker":
                prices.append(frame["events"][0]["tickers"][0]["price"])
        assert kinds == ["market_trades", "l2_data", "ticker"] * 2
        assert prices == ["50005", "49995"]
        assert frames.numbers == list(range(len(frames.numbers)))


async def test_market_frames_carry_market_time(venue: Client) -> None:
    async with venue.frames() as frames:
        await subscribed(frames, "market_trades")
        await venue.step(2)
        await frames.next("market_trades")
        second = await frames.next("market_trades")
        assert second["timestamp"].startswith("2025-01-01T00:05:15")
        (trade,) = second["events"][0]["trades"]
        assert (trade["time"], trade["side"], trade["size"]) == ("2025-01-01T00:05:15Z", "BUY", "1")
        assert "client_id" not in second


async def test_trades_of_the_snapshot_are_newest_first_and_older_than_what_follows(venue: Client) -> None:
    async with venue.frames() as frames:
        await frames.subscribe("market_trades", BTC)
        ids = [int(trade["trade_id"]) for trade in (await frames.next())["events"][0]["trades"]]
        assert ids == sorted(ids, reverse=True)
        assert len(ids) == 20
        await venue.step()
        await frames.next("subscriptions")
        update = await frames.next("market_trades")
        assert int(update["events"][0]["trades"][0]["trade_id"]) == ids[0] + 1


async def test_level2_updates_turn_one_book_into_the_next(venue: Client) -> None:
    async with venue.frames() as frames:
        await frames.subscribe("level2", BTC)
        book: dict[tuple[str, str], str] = {}
        frame = await frames.next("l2_data")
        await frames.next("subscriptions")
        for _ in range(6):
            for update in frame["events"][0]["updates"]:
                book[update["side"], update["price_level"]] = update["new_quantity"]
            shown = {level: size for level, size in book.items() if size != "0"}
            told = (await venue.public("/market/product_book", product_id=BTC))["pricebook"]
            wanted = {("bid", level["price"]): level["size"] for level in told["bids"]}
            wanted |= {("offer", level["price"]): level["size"] for level in told["asks"]}
            assert shown == wanted
            await venue.step()
            frame = await frames.next("l2_data")


async def test_an_order_of_ours_thins_the_book_out_until_the_next_tick(venue: Client) -> None:
    async with venue.frames() as frames:
        await subscribed(frames, "level2", "ticker")
        await venue.order("buy", key="market_market_ioc", base_size="0.01")
        (update,) = (await frames.next("l2_data"))["events"][0]["updates"]
        assert (update["side"], update["price_level"]) == ("offer", "50014.01")
        ticker = (await frames.next("ticker"))["events"][0]["tickers"][0]
        assert ticker["best_ask_quantity"] == update["new_quantity"]


async def test_the_size_at_the_ask_is_what_an_order_gets_at_that_price(venue: Client) -> None:
    async with venue.frames() as frames:
        await frames.subscribe("ticker", BTC)
        told = (await frames.next("ticker"))["events"][0]["tickers"][0]
        placed = await venue.order("buy", key="market_market_ioc", base_size=told["best_ask_quantity"])
        answer = await venue.get(f"/orders/historical/{placed['success_response']['order_id']}")
        assert (answer["order"]["status"], answer["order"]["filled_size"]) == ("FILLED", told["best_ask_quantity"])
        assert Decimal(answer["order"]["average_filled_price"]) == Decimal(told["best_ask"])
        await frames.until_acknowledged("ticker")
        left = (await frames.next("ticker"))["events"][0]["tickers"][0]
        assert Decimal(left["best_ask"]) > Decimal(told["best_ask"])


async def test_candles_are_five_minute_buckets(venue: Client) -> None:
    async with venue.frames() as frames:
        await frames.subscribe("candles", BTC)
        snapshot = (await frames.next("candles"))["events"][0]
        assert [candle["start"] for candle in snapshot["candles"]] == ["1735689600"]
        await venue.step()
        update = (await frames.next("candles"))["events"][0]
        assert (update["type"], update["candles"][0]["start"], update["candles"][0]["product_id"]) == (
            "update",
            "1735689900",
            BTC,
        )


async def test_ticker_batch_leaves_the_best_bid_and_ask_out(venue: Client) -> None:
    async with venue.frames() as frames:
        await frames.subscribe("ticker_batch", BTC)
        ticker = (await frames.next())["events"][0]["tickers"][0]
        assert ticker["price"] == "50009"
        assert "best_bid" not in ticker


async def test_the_user_channel_tells_cumulative_state(venue: Client) -> None:
    async with venue.frames() as frames:
        await subscribed(frames, "user")
        await venue.order("mine", base_size="1.9", limit_price="50000")
        order = (await frames.next("user"))["events"][0]["orders"][0]
        assert (order["client_order_id"], order["status"], order["leaves_quantity"]) == ("mine", "OPEN", "1.9")
        refused = await venue.order("again", base_size="1", limit_price="49000")
        assert refused["success"] is False
        await venue.step(2)
        order = (await frames.next("user"))["events"][0]["orders"][0]
        assert (order["status"], order["cumulative_quantity"], order["number_of_fills"]) == ("OPEN", "1", "1")
        assert (order["avg_price"], order["total_fees"], order["reject_Reason"]) == ("50000", "300", "")
        cancel = {"order_ids": [order["order_id"]]}
        await venue.call("POST", "/orders/batch_cancel", cancel)
        frame = await frames.next("user")
        order = frame["events"][0]["orders"][0]
        assert (order["status"], order["leaves_quantity"], order["outstanding_hold_amount"]) == (
            "CANCELLED",
            "0.9",
            "0",
        )
        assert frame["client_id"] == ""


@pytest.mark.parametrize(("open_orders", "pages"), [(0, [0]), (49, [49]), (50, [50, 0]), (120, [50, 50, 20])])
async def test_open_orders_come_in_pages_of_fifty(venue: Client, open_orders: int, pages: list[int]) -> None:
    for number in range(open_orders):
        await venue.order(f"n{number}", base_size="0.001", limit_price="40000")
    async with venue.frames("/user") as frames:
        await frames.subscribe("user")
        snapshots = (await frames.until_acknowledged("user"))[:-1]
        assert [len(frame["events"][0]["orders"]) for frame in snapshots] == pages


async def test_the_user_channel_can_be_narrowed_to_products(venue: Client) -> None:
    async with venue.frames() as frames:
        await frames.subscribe("user", "ETH-USD")
        await frames.until_acknowledged("user")
        await venue.order("mine")
        await frames.subscribe("ticker", BTC)
        assert [frame["channel"] for frame in await frames.until_acknowledged("ticker")] == ["ticker", "subscriptions"]


@pytest.mark.parametrize("token", ["", "nonsense"])
async def test_the_user_channel_needs_a_token_and_public_ones_ignore_it(venue: Client, token: str) -> None:
    async with venue.frames() as frames:
        await frames.subscribe("user", token=token)
        assert await frames.next() == {"type": "error", "message": "authentication failure"}
        await frames.subscribe("ticker", BTC, token=token)
        assert (await frames.next())["sequence_num"] == 0


async def test_garbage_is_answered_with_errors_and_harms_nobody(venue: Client) -> None:
    async with venue.frames() as frames, venue.frames() as bystander:
        await subscribed(bystander, "market_trades")
        for garbage in ("{", "[]", "null", '{"type":5}', '{"type":"subscribe","product_ids":"x"}', b"\x00\xff", "\x00"):
            await frames.send(garbage)
            assert (await frames.next())["type"] == "error"
        for message in (
            {"type": "sing", "channel": "ticker"},
            {"type": "subscribe", "channel": "no such channel"},
            {"type": "subscribe", "channel": "ticker"},
            {"type": "subscribe", "channel": "ticker", "product_ids": ["NOPE-USD"]},
        ):
            await frames.send(json.dumps(message))
            assert (await frames.next())["type"] == "error"
        await venue.step()
        assert (await bystander.next("market_trades"))["events"][0]["type"] == "update"


async def test_an_unknown_channel_is_called_an_authentication_failure(venue: Client) -> None:
    async with venue.frames() as frames:
        await frames.subscribe("level9", BTC)
        assert (await frames.next())["message"] == "authentication failure"


async def test_fields_of_an_older_signature_are_ignored(venue: Client) -> None:
    async with venue.frames("/ws/v2") as frames:
        legacy = {"api_key": "k", "timestamp": "1", "signature": "s"}
        await frames.send(json.dumps({"type": "subscribe", "channel": "ticker", "product_ids": [BTC], **legacy}))
        assert (await frames.next())["channel"] == "ticker"


async def test_a_socket_that_does_not_subscribe_is_closed(tmp_path: Path) -> None:
    settings = replay_settings(tmp_path, first_subscribe_seconds=0.2)
    async with serving(settings) as client, client.frames() as idle, client.frames() as busy:
        await subscribed(busy, "ticker")
        await busy.subscribe("ticker", kind="unsubscribe")
        assert await idle.closed() == 1000
        await subscribed(busy, "ticker")


async def test_a_client_that_goes_without_a_word_is_forgotten(venue: Client) -> None:
    async with venue.frames() as frames:
        await subscribed(frames, "ticker")
        assert (await venue.state())["connections"] == 1
        frames.socket.transport.abort()
        await frames.closed()
    async with asyncio.timeout(5):
        while (await venue.state())["connections"]:
            await venue.step()


async def test_a_slow_client_is_cut_off_and_the_others_go_on(venue: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.sockets.BYTES_AT_MOST", 8 * 1024 * 1024)
    monkeypatch.setattr("sim.sockets.FLUSH_SECONDS", 0.05)
    await venue.faults(big_level2_snapshot=15_000)
    async with venue.frames(max_queue=1) as slow, venue.frames() as quick:
        await subscribed(quick, "ticker")
        for _ in range(10):  # asks for far more than a socket's buffers hold, and reads none of it
            await slow.subscribe("level2", BTC)
        async with asyncio.timeout(20):
            while (await venue.state())["connections"] > 1:
                await venue.step()
        await venue.step()
        last = (await venue.state())["last_prices"][BTC]
        while (await quick.next("ticker"))["events"][0]["tickers"][0]["price"] != last:
            pass


async def test_every_envelope_has_a_time_that_parses_and_is_trimmed(venue: Client) -> None:
    async with venue.frames() as frames:
        await subscribed(frames, "ticker")
        await venue.step(10)
        for _ in range(10):
            stamp = (await frames.next("ticker"))["timestamp"]
            assert datetime.fromisoformat(stamp).tzinfo is not None
            assert "." not in stamp or stamp[-2] != "0"
