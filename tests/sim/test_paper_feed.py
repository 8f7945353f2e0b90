"""What the paper market reads of a public feed: recorded frames, gaps, and everything that is neither."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.feed import Beat, FeedBroken, Link, Past, Unreadable, products_of
from sim.ticks import Side, Tick
from tests.recorded import recorded

BTC = "BTC-USD"
QUOTE = {"price": "100", "best_bid": "99", "best_ask": "101", "best_bid_quantity": "2", "best_ask_quantity": "3"}


def frame(sequence: int, channel: str, *events: Any) -> bytes:
    told = {"channel": channel, "timestamp": "2026-08-12T19:27:48.098821666Z", "sequence_num": sequence}
    return json.dumps({**told, "events": events}).encode()


def ticker(sequence: int, product_id: str = BTC, **changes: str) -> bytes:
    lines = [{"type": "ticker", "product_id": product_id, **QUOTE, **changes}]
    return frame(sequence, "ticker", {"type": "update", "tickers": lines})


def trade(sequence: int, *ids: int, **changes: str) -> bytes:
    line = {"product_id": BTC, "price": "100.5", "size": "0.1", "time": "2026-08-12T19:27:48.2Z", "side": "BUY"}
    lines = [{**line, "trade_id": str(number), **changes} for number in ids]
    return frame(sequence, "market_trades", {"type": "update", "trades": lines})


def read_all(name: str) -> list[Any]:
    link = Link([BTC])
    lines = recorded(f"ws/live_transcribed/{name}").read_text().splitlines()
    return [fact for line in lines for fact in link.read(line)]


def test_recorded_trades_of_a_snapshot_are_past_and_later_ones_come_oldest_first() -> None:
    facts = read_all("ccxt_market_trades_2026-08-12.jsonl")
    past = [fact.tick for fact in facts if isinstance(fact, Past)]
    traded = [fact for fact in facts if isinstance(fact, Tick)]
    assert len(past) == 5
    assert [tick.trade_id for tick in past + traded] == sorted(tick.trade_id for tick in past + traded)
    assert (past[-1].price, past[-1].size, past[-1].side) == (Decimal("63310.25"), Decimal("0.00000043"), Side.BUY)


def test_recorded_tickers_give_quotes_at_which_nothing_is_traded() -> None:
    quotes = read_all("ccxt_ticker_2026-08-12.jsonl")
    assert (quotes[0].bid, quotes[0].ask) == (Decimal("63320.73"), Decimal("63320.74"))
    assert quotes[0].ask_size == Decimal("0.49679101")
    assert not any(quote.is_trade for quote in quotes)


def test_the_recorded_product_gives_the_rules() -> None:
    told = json.loads(recorded("rest/fastmm/product_btc_usd_2026-09-30.json").read_text())
    (product,) = products_of(json.dumps({"products": [told]}).encode(), [BTC])
    assert product.base_increment == Decimal("0.00000001")
    assert (product.price_increment, product.quote_min_size) == (Decimal("0.01"), Decimal(1))
    assert (product.status, product.trading_disabled) == ("online", False)


def test_a_trade_has_the_best_prices_that_stand_beside_it() -> None:
    link = Link([BTC])
    link.read(ticker(0))
    first, second = link.read(trade(1, 8, 7))
    assert isinstance(first, Tick)
    assert isinstance(second, Tick)
    assert (first.trade_id, first.bid, first.ask_size, second.trade_id) == (7, Decimal(99), Decimal(3), 8)


def test_a_lost_message_breaks_the_link_and_an_overtaken_one_says_nothing() -> None:
    link = Link([BTC])
    link.read(ticker(4))
    assert link.read(ticker(3, best_bid="98")) == []
    assert link.quotes[BTC].bid == 99
    with pytest.raises(FeedBroken, match="expected number 5, got 6"):
        link.read(ticker(6))


def test_it_lacks_acknowledgements_and_prices_until_both_have_come() -> None:
    link = Link([BTC, "ETH-USD"])
    products = [BTC, "ETH-USD"]
    assert link.lacks() == "channel heartbeats of heartbeats"
    acknowledged = {"heartbeats": ["heartbeats"], "ticker": products, "market_trades": [BTC]}
    link.read(frame(0, "subscriptions", {"subscriptions": acknowledged}))
    assert link.lacks() == "channel market_trades of ETH-USD"
    link.read(frame(1, "subscriptions", {"subscriptions": {**acknowledged, "market_trades": products}}))
    link.read(ticker(2))
    assert link.lacks() == "a price of ETH-USD"
    assert link.read(frame(3, "heartbeats", {"heartbeat_counter": "7"})) == [Beat()]
    link.read(ticker(4, product_id="ETH-USD"))
    assert link.lacks() == ""


@pytest.mark.parametrize(
    "changes", [{"best_bid": ""}, {"best_bid": "102"}, {"price": "0"}, {"best_ask": "0"}, {"product_id": "XRP-USD"}]
)
def test_a_ticker_without_a_usable_quote_gives_none(changes: dict[str, str]) -> None:
    link = Link([BTC])
    assert link.read(ticker(0, **changes)) == []
    assert not link.quotes


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe",
        b"[]",
        frame(0, "ticker", {"tickers": [{}]}),
        ticker(0, price="NaN"),
        ticker(0, best_bid="1e300"),
        trade(0, 1, price="0"),
        trade(0, 1, size="-1"),
        trade(0, 1, side="UP"),
        trade(0, 1, time="yesterday"),
        b'{"channel":"ticker","sequence_num":-1,"events":[]}',
    ],
)
def test_what_cannot_be_read_is_said_to_be_so(data: bytes) -> None:
    with pytest.raises(Unreadable):
        Link([BTC]).read(data)


def test_unknown_channels_are_skipped_and_counted() -> None:
    link = Link([BTC])
    assert link.read(frame(0, "x_unannounced", {"type": "update"})) == []
    assert link.read(frame(1, "x_unannounced", [1, 2])) == []
    with pytest.raises(FeedBroken, match="authentication failure"):
        link.read(b'{"type":"error","message":"authentication failure"}')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3)
)


def mangled(words: Iterable[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(list(words)), json_values, max_size=7)


@given(
    st.sampled_from(["ticker", "market_trades", "heartbeats", "subscriptions"]),
    mangled(["type", "tickers", "trades", "subscriptions"]),
    mangled(["product_id", "price", "best_bid", "best_ask", "trade_id", "size", "time", "side"]),
    st.binary(max_size=40),
)
def test_no_message_does_more_than_be_read_or_refused(
    channel: str, event: dict[str, Any], line: dict[str, Any], noise: bytes
) -> None:
    nested = {**event, "tickers": [{**QUOTE, "product_id": BTC, **line}], "trades": [line]}
    for data in (frame(0, channel, event), frame(0, channel, nested), noise):
        with contextlib.suppress(Unreadable, FeedBroken):
            Link([BTC]).read(data)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"nonsense", "cannot be read"),
        (b'{"products":[]}', "does not list BTC-USD"),
        (b'{"products":[{"product_id":"BTC-USD"}]}', "cannot be read"),
    ],
)
def test_products_that_cannot_be_read_break_the_link(answer: bytes, says: str) -> None:
    with pytest.raises(FeedBroken, match=says):
        products_of(answer, [BTC])
