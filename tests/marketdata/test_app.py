"""The whole service over real sockets: what the venue does to it, and how it comes back."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from aiohttp import web

from libs.common.errors import Rejected, Retryable
from libs.common.messages import Candle, Feed, FeedState, Mark, Product, ServiceStatus
from libs.common.settings import Market
from libs.common.subjects import SNAPSHOT_BUCKET
from services.marketdata.app import App, waits
from services.marketdata.config import Config
from services.marketdata.facts import FetchCandles, FetchProduct, FetchTrades
from services.marketdata.metrics import MarketDataMetrics
from services.marketdata.venue import CoinbaseMarket, is_local
from tests.marketdata.builders import BTC, at, only
from tests.marketdata.fakes import (
    RULES,
    HandClock,
    MemoryBus,
    RecordingTasks,
    ShortLivedVenue,
    Talk,
    open_venue,
    run_service,
)

RULES_REQUEST = FetchProduct(id="rules", product_id=BTC)


async def well(talk: Talk) -> None:
    await talk.welcome()
    await talk.beat_on()


async def wait(talk: Talk) -> None:
    await talk.socket.wait_closed()


async def test_it_subscribes_to_each_channel_and_becomes_ready() -> None:
    async with open_venue(well) as venue, run_service(venue) as service:
        await service.until(lambda: not service.app.shell.not_ready())
        assert [(s["type"], s["channel"], s.get("product_ids")) for s in venue.talks[0].subscribed] == [
            ("subscribe", "heartbeats", None),
            ("subscribe", "ticker", [BTC]),
            ("subscribe", "market_trades", [BTC]),
        ]
        await service.until(lambda: only(ServiceStatus, service.bus.published))
        assert only(Product, service.bus.published)
        assert only(Mark, service.bus.published)[0].producer == "marketdata"
        assert only(ServiceStatus, service.bus.published)[-1].last_venue_at is not None
        assert service.count("frames_total", channel="heartbeats") > 0
        assert service.count("marks_total", product=BTC) > 0
        assert service.count("feed_state", product=BTC, state="live") == 1
        assert service.count("feed_state", product=BTC, state="stale") == 0
        assert 0 <= service.count("staleness_seconds", product=BTC) < 5
        assert service.count("last_frame_timestamp_seconds") == pytest.approx(time.time(), abs=5)
        assert service.count("rest_answers_total", request="product", outcome="ok") == 1


async def test_staleness_is_absent_before_the_first_mark() -> None:
    async with open_venue(wait) as venue, run_service(venue) as service:
        await service.until(lambda: venue.talks)
        assert service.metrics.registry.get_sample_value("perps_marketdata_staleness_seconds", {"product": BTC}) is None


@pytest.mark.parametrize("code", [1000, 1011])
async def test_it_connects_again_after_the_venue_closed(code: int) -> None:
    async def leave(talk: Talk) -> None:
        await talk.welcome()
        await talk.socket.close(code)

    async with open_venue(leave, leave, well) as venue, run_service(venue) as service:
        await service.until(lambda: len(venue.talks) == 3 and service.feed() == "live")
        assert service.count("reconnects_total", reason="connection_lost") == 2
        states = [state.state for state in only(FeedState, service.bus.published)]
        assert Feed.RECONNECTING in states[states.index(Feed.LIVE) :]


async def test_it_connects_again_after_a_reset() -> None:
    async def reset(talk: Talk) -> None:
        await talk.welcome()
        talk.socket.transport.abort()

    async with open_venue(reset, well) as venue, run_service(venue) as service:
        await service.until(lambda: len(venue.talks) == 2 and service.feed() == "live")


async def test_it_keeps_trying_while_nobody_listens() -> None:
    async with open_venue(well) as venue:
        address, venue.ws_url = venue.ws_url, "ws://127.0.0.1:1/ws"
        async with run_service(venue) as service:
            await service.until(lambda: service.count("reconnects_total", reason="connect_failed") >= 3)
            assert service.feed() == "reconnecting"
            assert "connect_failed" in service.app.shell.not_ready()
        assert address


async def test_a_silent_socket_is_given_up_at_once() -> None:
    """The venue does not even answer the farewell."""
    over = asyncio.Event()

    async def fall_silent(talk: Talk) -> None:
        await talk.welcome()
        talk.socket.transport.pause_reading()
        await over.wait()

    async with open_venue(fall_silent, well) as venue, run_service(venue, silent_seconds=0.2) as service:
        began = time.monotonic()
        await service.until(lambda: len(venue.talks) == 2 and service.feed() == "live")
        assert time.monotonic() - began < 2
        assert service.count("reconnects_total", reason="silent_socket") == 1
        assert service.count("reconnects_total", reason="connection_lost") == 0
        over.set()


async def test_a_frame_of_twenty_megabytes_does_not_end_the_connection() -> None:
    async def send_much(talk: Talk) -> None:
        await talk.welcome()
        await talk.send("l2_data", {"type": "snapshot", "updates": ["x" * 20_000_000]})
        await talk.beat_on()

    async with open_venue(send_much) as venue, run_service(venue) as service:
        await service.until(lambda: service.count("frames_total", channel="other") == 1)
        before = service.count("frames_total", channel="heartbeats")
        await service.until(lambda: service.count("frames_total", channel="heartbeats") > before + 3)
        assert (len(venue.talks), service.feed()) == (1, "live")
        assert service.count("events_skipped_total") == 1


async def test_garbage_is_counted_and_the_connection_goes_on() -> None:
    async def babble(talk: Talk) -> None:
        await talk.welcome()
        for junk in ("<html>", "", "[" * 50_000, b"\xff\x00", '{"type":"l2update"}'):
            await talk.socket.send(junk)
        await talk.beat_on()

    async with open_venue(babble) as venue, run_service(venue) as service:
        await service.until(lambda: service.count("frames_undecodable_total", reason="no_channel") == 1)
        assert service.count("frames_undecodable_total", reason="not_json") == 3
        assert service.count("frames_undecodable_total", reason="wrong_shape") == 1
        before = service.count("frames_total", channel="heartbeats")
        await service.until(lambda: service.count("frames_total", channel="heartbeats") > before)
        assert (len(venue.talks), service.feed()) == (1, "live")


async def test_an_undecodable_frame_of_the_sequence_shows_as_a_gap() -> None:
    async def spoil(talk: Talk) -> None:
        await talk.welcome()
        await talk.send("market_trades", {"type": "update", "trades": "none"})
        await talk.beat_on()

    async with open_venue(spoil, well) as venue, run_service(venue) as service:
        await service.until(lambda: len(venue.talks) == 2 and service.feed() == "live")
        assert service.count("sequence_gaps_total") == 1
        assert service.count("reconnects_total", reason="sequence_gap") == 1


async def test_an_error_frame_instead_of_an_acknowledgement_leads_to_a_new_connection() -> None:
    async def refuse(talk: Talk) -> None:
        await talk.socket.send('{"type":"error","message":"authentication failure"}')
        await talk.socket.wait_closed()

    async with open_venue(refuse, well) as venue, run_service(venue) as service:
        await service.until(lambda: len(venue.talks) == 2 and service.feed() == "live")
        assert service.count("reconnects_total", reason="error_frame") == 1


async def test_a_missing_acknowledgement_leads_to_a_new_connection() -> None:
    async with open_venue(wait, well) as venue, run_service(venue, ack_seconds=0.1) as service:
        await service.until(lambda: len(venue.talks) == 2 and service.feed() == "live")
        assert service.count("reconnects_total", reason="ack_missing") == 1


async def test_the_warm_up_is_read_by_rest_and_kept_for_the_next_start() -> None:
    def candles(request: web.Request) -> web.Response:
        start, end = int(request.query["start"]), int(request.query["end"])
        plain = {"low": "1", "high": "4", "open": "2", "close": "3", "volume": "5"}
        starts = range(start - start % 60, end + 1, 60)
        return web.json_response({"candles": [{"start": str(s), **plain} for s in reversed(starts)]})

    async with open_venue(well) as venue:
        venue.answers["candles"] = candles
        async with run_service(venue, warmup_candles=5) as service:
            await service.until(lambda: len(only(Candle, service.bus.published)) == 5)
            await service.until(lambda: (SNAPSHOT_BUCKET, "marketdata") in service.bus.stored)
        query = venue.requests[-1].query if venue.requests[-1].path.endswith("candles") else venue.requests[0].query
        assert query["granularity"] == "ONE_MINUTE"
        starts = [candle.start for candle in only(Candle, service.bus.published)]
        assert starts == sorted(starts)
        assert b"published" in service.bus.stored[SNAPSHOT_BUCKET, "marketdata"]


async def test_a_rest_failure_is_tried_again_a_few_times_and_then_left_to_the_core() -> None:
    async with open_venue(well) as venue:
        venue.answers[BTC] = lambda _: web.Response(status=503, text="<html>busy</html>")
        async with run_service(venue) as service:
            await service.until(
                lambda: service.count("rest_answers_total", request="product", outcome="retryable") == 4
            )
            assert "product rules unknown" in service.app.shell.not_ready()


async def test_a_refusal_is_not_tried_again() -> None:
    async with open_venue(well) as venue:
        venue.answers[BTC] = lambda _: web.Response(status=404, text='{"error":"NOT_FOUND"}')
        async with run_service(venue) as service:
            await service.until(lambda: service.count("rest_answers_total", request="product", outcome="rejected") == 1)
            await service.until(lambda: not service.app.core.busy)
            assert len([r for r in venue.requests if r.path.endswith(BTC)]) == 1


async def test_waits_grow_while_connections_do_not_last_and_shrink_after_one_that_did() -> None:
    clock, tasks = HandClock(), RecordingTasks()
    venue = ShortLivedVenue(clock, lifetimes=[None, None, 1.0, 1.0, 5.0, None, None])
    app = App(
        "test",
        Market(products=(BTC,)),
        Config(reconnect_seconds_min=1, reconnect_seconds_max=3),
        bus=MemoryBus(),
        clock=clock,
        tasks=tasks,
        venue=venue,
        jitter=lambda: 0.0,
        metrics=MarketDataMetrics(),
    )
    tasks.spawn(app.shell.run(), "shell")
    async with asyncio.timeout(5):
        await venue.used_up.wait()
    await tasks.close()
    assert tasks.waits["venue"] == [0.5, 1.0, 1.5, 1.5, 0.5, 1.0, 1.5]


# -- the REST client


async def test_rest_requests_have_the_venue_s_form() -> None:
    async with open_venue(wait) as venue:
        client = CoinbaseMarket(venue.rest_url + "/", venue.ws_url, (BTC,))
        candles = FetchCandles(id="candles", product_id=BTC, granularity="5m", start=at(0), end=at(600))
        trades = FetchTrades(id="trades", product_id=BTC, start=at(0.5), end=at(9.5))
        rules = (await client.fetch(RULES_REQUEST)).product
        assert rules is not None
        assert rules.product_id == BTC
        assert (await client.fetch(candles)).candles == ()
        assert (await client.fetch(trades)).trades == ()
        await client.close()
    noon = int(at(0).timestamp())
    base = f"/api/v3/brokerage/market/products/{BTC}"
    assert [(r.path, dict(r.query)) for r in venue.requests] == [
        (base, {}),
        (
            f"{base}/candles",
            {"start": str(noon), "end": str(noon + 599), "granularity": "FIVE_MINUTE", "limit": "350"},
        ),
        (f"{base}/ticker", {"limit": "1000", "start": str(noon), "end": str(noon + 10)}),
    ]
    assert {r.headers["cache-control"] for r in venue.requests} == {"no-cache"}
    assert not any("authorization" in r.headers for r in venue.requests)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (web.Response(status=429), Retryable),
        (web.Response(status=500), Retryable),
        (web.Response(status=503, text="<html>"), Retryable),
        (web.Response(status=400, text='{"error":"INVALID_ARGUMENT"}'), Rejected),
        (web.Response(status=401, text="Unauthorized\n"), Rejected),
        (web.Response(status=404), Rejected),
        (web.Response(status=302, headers={"Location": "/login"}), Rejected),
        (web.Response(text="<html>maintenance</html>"), Rejected),
        (web.json_response({**RULES, "product_id": "ETH-USD"}), Rejected),
    ],
)
async def test_rest_errors_are_sorted_by_what_to_do_next(answer: web.Response, error: type[Exception]) -> None:
    async with open_venue(wait) as venue:
        venue.answers[BTC] = lambda _: answer
        client = CoinbaseMarket(venue.rest_url, venue.ws_url, (BTC,))
        with pytest.raises(error):
            await client.fetch(RULES_REQUEST)
        await client.close()


async def test_a_refusal_carries_the_venue_s_own_words() -> None:
    async with open_venue(wait) as venue:
        venue.answers[BTC] = lambda _: web.Response(status=400, text='{"error":"INVALID_ARGUMENT"}')
        client = CoinbaseMarket(venue.rest_url, venue.ws_url, (BTC,))
        with pytest.raises(Rejected, match=r"http_400: .*INVALID_ARGUMENT"):
            await client.fetch(RULES_REQUEST)
        await client.close()


async def test_nobody_listening_is_retryable() -> None:
    client = CoinbaseMarket("http://127.0.0.1:1", "ws://127.0.0.1:1", (BTC,))
    with pytest.raises(Retryable):
        await client.fetch(RULES_REQUEST)
    with pytest.raises(Retryable):
        await client.connect()
    await client.close()


async def test_a_refused_upgrade_is_retryable() -> None:
    async with open_venue(wait) as venue:
        client = CoinbaseMarket(venue.rest_url, venue.rest_url.replace("http", "ws"), (BTC,))
        with pytest.raises(Retryable):
            await client.connect()
        await client.close()


def test_the_simulated_venue_is_reached_without_a_proxy() -> None:
    assert is_local("ws://127.0.0.1:9110/ws")
    assert not is_local("wss://advanced-trade-ws.coinbase.com")


def test_waits_double_up_to_the_bound_with_half_of_them_left_to_chance() -> None:
    calm, wild = waits(0.25, 30, lambda: 0.0), waits(0.25, 30, lambda: 0.999999)
    assert [next(calm) for _ in range(9)] == [0.125, 0.25, 0.5, 1, 2, 4, 8, 15, 15]
    assert [round(next(wild), 3) for _ in range(3)] == [0.25, 0.5, 1.0]
    chance = waits(0.25, 30, random.Random(7).random)
    assert all(0.125 <= next(chance) <= 30 for _ in range(100))
