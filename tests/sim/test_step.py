"""A replay moves when it is stepped, and tells what came of it."""

from __future__ import annotations

from pathlib import Path

from sim.settings import Settings
from tests.sim.serving import Client, replay_settings, serving


async def test_the_market_stands_still_at_its_opening_until_it_is_stepped(tmp_path: Path) -> None:
    async with serving(replay_settings(tmp_path)) as client:
        state = await client.state()
        assert (state["mode"], state["market_time"], state["done"]) == ("replay", "2024-12-31T23:59:59.999Z", False)
        assert (state["ticks_done"], state["ticks_total"], state["candle_seconds"]) == (0, 120, 60)
        (book,) = (await client.get("/best_bid_ask"))["pricebooks"]
        assert book["bids"][0]["price"] == "49995"


async def test_a_step_tells_the_time_and_each_products_last_tick(venue: Client) -> None:
    first = await venue.step()
    assert first == {
        "done": False,
        "market_time": "2025-01-01T00:05:00Z",
        "ticks_done": 1,
        "ticks_total": 100,
        "products": {"BTC-USD": "2025-01-01T00:05:00Z"},
        "fills": [],
    }
    assert (await venue.step(3))["products"] == {"BTC-USD": "2025-01-01T00:05:59.999Z"}


async def test_a_step_tells_the_fills_of_resting_orders(venue: Client) -> None:
    await venue.order("mine", base_size="1.5", limit_price="49995")
    assert (await venue.step())["fills"] == []
    (told,) = (await venue.step())["fills"]
    (fill,) = (await venue.get("/orders/historical/fills"))["fills"]
    assert told == {"entry_id": fill["entry_id"], "client_order_id": "mine", "product_id": "BTC-USD"}
    assert (fill["size"], fill["liquidity_indicator"]) == ("1", "MAKER")
    assert (fill["commission"], fill["trade_time"]) == ("299.97", "2025-01-01T00:05:15Z")


async def test_at_the_end_of_the_data_nothing_is_delivered_and_the_end_is_told(venue: Client) -> None:
    assert (await venue.step(97))["done"] is False
    rest = await venue.step(10)
    assert (rest["done"], rest["ticks_done"]) == (False, 100)
    end = await venue.step()
    assert (end["done"], end["ticks_done"], end["products"]) == (True, 100, {"BTC-USD": "2025-01-01T00:29:59.999Z"})
    assert (await venue.state())["done"] is True


async def test_nothing_but_steps_moves_market_time(venue: Client) -> None:
    await venue.step()
    await venue.order("mine", key="market_market_ioc", base_size="0.1")
    (order,) = (await venue.get("/orders/historical/batch"))["orders"]
    assert order["created_time"] == order["last_fill_time"] == "2025-01-01T00:05:00Z"


async def test_a_step_that_is_none_is_an_invalid_argument(venue: Client) -> None:
    for body in ('{"ticks":"x"}', '{"tocks":1}', "["):
        response = await venue.http.post("/sim/step", content=body)
        assert (response.status_code, response.json()["error"]) == (400, "INVALID_ARGUMENT")
    assert (await venue.http.post("/sim/step")).json()["ticks_done"] == 1


async def test_a_live_market_moves_by_itself_and_cannot_be_stepped(tmp_path: Path) -> None:
    async with serving(Settings(port=0, data_dir=tmp_path)) as client:
        async with client.frames() as frames:
            await frames.subscribe("market_trades", "BTC-USD", "ETH-USD")
            products: set[str] = set()
            while len(products) < 2:
                event = (await frames.next("market_trades"))["events"][0]
                if event["type"] == "update":
                    products.add(event["trades"][0]["product_id"])
        assert (await client.http.post("/sim/step")).status_code == 400
        state = await client.state()
        assert (state["mode"], state["ticks_total"]) == ("live", None)
        candles = await client.public("/market/products/BTC-USD/candles", granularity="ONE_MINUTE")
        assert 30 <= len(candles["candles"]) <= 32


async def test_two_equal_runs_give_equal_answers(tmp_path: Path) -> None:
    told = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        async with serving(replay_settings(tmp_path / name)) as client:
            await client.order("mine", base_size="1", limit_price="49995")
            steps = [await client.step() for _ in range(20)]
            told.append((steps, await client.state(), await client.get("/orders/historical/fills")))
    assert told[0] == told[1]
