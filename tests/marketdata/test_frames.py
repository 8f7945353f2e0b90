"""Reading frames: recorded ones, our own, broken ones. Whatever comes, the answer is a frame or a reason."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from libs.common.errors import Rejected
from services.marketdata.wire import (
    Frame,
    Heartbeat,
    Subscriptions,
    Ticker,
    Tickers,
    Trade,
    Trades,
    parse_frame,
)
from tests.properties.payloads import transcript

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "ws"
REASONS = {"not_json", "wrong_shape", "no_channel", "no_envelope", "bad_time", "bad_number"}
TICKER_FRAME = (
    b'{"channel":"ticker","timestamp":"2026-08-12T19:27:33.489674268Z","sequence_num":0,"events":[{"type":"snapshot",'
    b'"tickers":[{"type":"ticker","product_id":"BTC-USD","price":"63320.73","best_bid":"63320.73",'
    b'"best_ask":"63320.74","best_bid_quantity":"0.12636254"}]}]}'
)
TRADES_FRAME = (
    b'{"channel":"market_trades","client_id":"","timestamp":"2026-09-30T02:39:59.551901038Z","sequence_num":247,'
    b'"events":[{"type":"update","trades":[{"product_id":"ETH-USD","trade_id":"846155167","price":"2667.2",'
    b'"size":"0.84275842","time":"2026-09-30T02:39:59.4104Z","side":"SELL"}]}]}'
)
HEARTBEAT_FRAME = (
    b'{"channel":"heartbeats","timestamp":"2026-09-07T23:37:22.675755362Z","sequence_num":3,"events":[{"current_time":'
    b'"2026-09-07 23:37:22.674409 +0000 UTC m=+139651.27","heartbeat_counter":139651}]}'
)
ACK_FRAME = (
    b'{"channel":"subscriptions","timestamp":"2026-09-07T23:37:22Z","sequence_num":2,'
    b'"events":[{"subscriptions":{"heartbeats":["heartbeats"],"ticker":["BTC-USD"]}}]}'
)
OUR_FRAMES = (TICKER_FRAME, TRADES_FRAME, HEARTBEAT_FRAME, ACK_FRAME, b'{"type":"error","message":"no"}')


def envelope(channel: str, events: object, **others: object) -> bytes:
    body = {"channel": channel, "timestamp": "2026-08-12T19:27:33Z", "sequence_num": 4, "events": events} | others
    return json.dumps(body).encode()


def one_trade(**others: object) -> dict[str, object]:
    plain = {"product_id": "BTC-USD", "trade_id": "7", "price": "1", "size": "1", "time": "2026-08-12T19:27:33Z"}
    return plain | others


def reason(data: bytes | str) -> str:
    with pytest.raises(Rejected) as caught:
        parse_frame(data)
    return caught.value.reason


def test_a_ticker_frame_is_read_whole() -> None:
    assert parse_frame(TICKER_FRAME) == Frame(
        "ticker",
        datetime(2026, 8, 12, 19, 27, 33, 489674, tzinfo=UTC),
        0,
        (
            Tickers(
                (
                    Ticker(
                        "BTC-USD",
                        Decimal("63320.73"),
                        Decimal("63320.73"),
                        Decimal("63320.74"),
                        bid_size=Decimal("0.12636254"),
                    ),
                )
            ),
        ),
    )


def test_a_trades_frame_is_read_whole() -> None:
    (event,) = parse_frame(TRADES_FRAME.decode()).events
    time = datetime(2026, 9, 30, 2, 39, 59, 410400, tzinfo=UTC)
    assert event == Trades(False, (Trade(846155167, "ETH-USD", Decimal("2667.2"), Decimal("0.84275842"), time),))


def test_a_heartbeat_and_an_acknowledgement_are_read_whole() -> None:
    assert parse_frame(HEARTBEAT_FRAME).events == (Heartbeat(139651),)
    assert parse_frame(ACK_FRAME).events == (Subscriptions({"heartbeats": ("heartbeats",), "ticker": ("BTC-USD",)}),)


def test_a_heartbeat_counter_in_a_string_is_a_number_all_the_same() -> None:
    assert parse_frame(envelope("heartbeats", [{"heartbeat_counter": "12"}])).events == (Heartbeat(12),)


def test_an_error_frame_carries_its_message() -> None:
    assert parse_frame(b'{"type":"error","message":"authentication failure"}').error == "authentication failure"
    assert parse_frame(b'{"type":"error"}').error


@pytest.mark.parametrize("digits", range(10))
def test_timestamps_have_up_to_nine_fraction_digits(digits: int) -> None:
    fraction = f".{'123456789'[:digits]}" if digits else ""
    frame = parse_frame(envelope("x", [], timestamp=f"2026-08-12T19:27:33{fraction}Z"))
    assert abs(frame.timestamp.microsecond - int("123456789"[:digits].ljust(6, "0")[:6])) <= 1


def test_a_timestamp_with_an_offset_is_taken_to_utc() -> None:
    frame = parse_frame(envelope("x", [], timestamp="2026-08-12T21:27:33+02:00"))
    assert frame.timestamp.isoformat() == "2026-08-12T19:27:33+00:00"


def test_a_channel_that_we_do_not_know_is_skipped_and_keeps_its_number() -> None:
    frame = parse_frame(envelope("x_new", {"any": ["shape"]}))
    assert (frame.sequence, frame.events, frame.skipped) == (4, (), 1)


@pytest.mark.parametrize("shape", [{"trades": []}, {"trades": 5}, {}])
def test_an_event_type_that_we_do_not_know_is_skipped_whatever_its_shape(shape: dict[str, object]) -> None:
    frame = parse_frame(
        envelope("market_trades", [{"type": "auction", **shape}, {"type": "update", "trades": [one_trade()]}])
    )
    assert (len(frame.events), frame.skipped) == (1, 1)


def test_an_empty_side_of_the_book_reads_as_zero() -> None:
    event = {"type": "update", "tickers": [{"product_id": "BTC-USD", "price": "1", "best_bid": "", "best_ask": "NaN"}]}
    (tickers,) = parse_frame(envelope("ticker", [event])).events
    assert tickers == Tickers((Ticker("BTC-USD", Decimal(1), Decimal(0), Decimal(0)),))


@pytest.mark.parametrize(
    ("told", "size"),
    [("0.5", Decimal("0.5")), ("", None), ("0", None), ("-1", None), ("NaN", None), ("1e99", None), (None, None)],
)
def test_a_size_that_is_no_quantity_is_not_known_and_the_prices_still_count(
    told: str | None, size: Decimal | None
) -> None:
    line = {"product_id": "BTC-USD", "price": "1", "best_bid": "1", "best_ask": "2"}
    sizes = {"best_bid_quantity": told, "best_ask_quantity": told}
    (tickers,) = parse_frame(envelope("ticker", [{"type": "update", "tickers": [line | sizes]}])).events
    assert tickers == Tickers((Ticker("BTC-USD", Decimal(1), Decimal(1), Decimal(2), size, size),))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"<html>502</html>", "not_json"),
        (TICKER_FRAME[:-30], "not_json"),
        (b'{"channel":"x","events":' + b"[" * 100_000, "not_json"),
        (b"[1,2]", "wrong_shape"),
        (b'{"type":"l2update","product_id":"BTC-USD"}', "no_channel"),
        (b'{"channel":"ticker","events":[]}', "no_envelope"),
        (envelope("ticker", [], timestamp="2026-08-12T19:27:33"), "wrong_shape"),
        (envelope("ticker", [], timestamp="1970-01-01T00:00:00Z"), "bad_time"),
        (envelope("ticker", [], timestamp="9999-12-31T23:59:59Z"), "bad_time"),
        (envelope("ticker", [], sequence_num=-1), "wrong_shape"),
        (envelope("ticker", [{"type": "update"}]), "wrong_shape"),
        (envelope("heartbeats", [{}]), "wrong_shape"),
        (envelope("market_trades", [{"type": "update", "trades": [one_trade(trade_id="x")]}]), "wrong_shape"),
        (envelope("market_trades", [{"type": "update", "trades": [one_trade(price="")]}]), "wrong_shape"),
        (envelope("market_trades", [{"type": "update", "trades": [one_trade(price="NaN")]}]), "bad_number"),
        (envelope("market_trades", [{"type": "update", "trades": [one_trade(price="0")]}]), "bad_number"),
        (envelope("market_trades", [{"type": "update", "trades": [one_trade(price="1e999999")]}]), "bad_number"),
        (envelope("market_trades", [{"type": "update", "trades": [one_trade(size="-1")]}]), "bad_number"),
        (
            envelope("market_trades", [{"type": "update", "trades": [one_trade(time="0001-01-01T00:00:00Z")]}]),
            "bad_time",
        ),
    ],
)
def test_what_cannot_be_understood_is_rejected_with_its_reason(data: bytes, expected: str) -> None:
    assert reason(data) == expected


def test_text_that_is_no_unicode_is_rejected() -> None:
    assert reason("\ud800") == "not_json"


def test_a_frame_of_twenty_megabytes_is_read() -> None:
    levels = b",".join([b'{"side":"bid","price_level":"1","new_quantity":"1"}'] * 400_000)
    frame = parse_frame(envelope("l2_data", []).replace(b"[]", b"[" + levels + b"]"))
    assert (frame.channel, frame.skipped) == ("l2_data", 1)


# -- recorded frames


def recorded() -> Iterator[tuple[str, str]]:
    """File and text of every recorded message of the present API."""
    for path in sorted(RECORDED.rglob("*")):
        if path.suffix == ".jsonl":
            yield from ((path.name, line) for line in path.read_text().splitlines() if line)
        elif path.suffix == ".json":
            yield path.name, path.read_text()
        elif path.suffix == ".txt":
            yield from ((path.name, text) for text in transcript(path.read_text()))


needs_recordings = pytest.mark.skipif(not RECORDED.exists(), reason=f"no recorded frames at {RECORDED.name}")


@needs_recordings
def test_every_recorded_frame_is_read_or_rejected_for_its_missing_envelope() -> None:
    seen: dict[str, list[str]] = {}
    for name, text in recorded():
        try:
            frame = parse_frame(text)
            seen.setdefault(name, []).append(frame.channel)
            assert bool(frame.events) == (frame.channel in ("ticker", "market_trades", "heartbeats", "subscriptions"))
        except Rejected as error:
            seen.setdefault(name, []).append(error.reason)
    # Bare events of the user channel, kept without their envelope.
    assert seen.pop("user_channel_events_open_cancelled_2026-01-03.jsonl") == ["no_channel"] * 2
    assert not REASONS & {outcome for outcomes in seen.values() for outcome in outcomes}
    assert seen["ccxt_ticker_2026-08-12.jsonl"] == ["ticker", "subscriptions", "ticker"]
    assert seen["ccxt_market_trades_2026-08-12.jsonl"] == ["market_trades", "subscriptions", "market_trades"]
    assert seen["level2_ack_heartbeat_error_2026-09-07.jsonl"][-1] == "error"
    assert seen["Heartbeat.txt"] == ["subscriptions", "heartbeats"]
    assert sum(map(len, seen.values())) >= 32


@needs_recordings
def test_frames_of_the_feed_of_2021_are_rejected_every_one() -> None:
    lines = gzip.decompress((RECORDED / "cryptofeed_legacy" / "COINBASE_pro_ws_2021-04-17.txt.gz").read_bytes())
    frames = [line.partition(b": ")[2] for line in lines.splitlines() if b" <-" not in line and b": {" in line]
    assert len(frames) > 9_000
    assert {reason(frame) for frame in frames} == {"no_channel"}


# -- whatever comes


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300)))
@settings(max_examples=300)
def test_arbitrary_input_is_a_frame_or_a_reason(data: bytes | str) -> None:
    survives(data)


@given(st.sampled_from(OUR_FRAMES), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4))
@example(b'{"channel":"ticker","timestamp":"9999-12-31T23:59:59.9999999Z","sequence_num":0}', [])
@example(b'{"channel":"ticker","timestamp":"2026-12-31T23:59:59+99:99","sequence_num":0}', [])
@example(envelope("heartbeats", [{"heartbeat_counter": "9" * 5000}]), [])
@settings(max_examples=300)
def test_a_frame_with_changed_bytes_is_a_frame_or_a_reason(frame: bytes, changes: list[tuple[int, int]]) -> None:
    data = bytearray(frame)
    for place, value in changes:
        data[place % len(data)] = value
    survives(bytes(data))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.decimals().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("channel", "timestamp", "sequence_num", "events", "type", "message", "price", "size", "time", "best_bid")


@given(st.sampled_from(OUR_FRAMES), st.sampled_from(KEYS), json_values)
@settings(max_examples=300)
def test_a_frame_with_any_value_in_any_place_is_a_frame_or_a_reason(frame: bytes, key: str, value: object) -> None:
    survives(json.dumps(replaced(json.loads(frame), key, value)))


def replaced(body: object, key: str, value: object) -> object:
    if isinstance(body, list):
        return [replaced(item, key, value) for item in body]
    if isinstance(body, dict):
        return {name: value if name == key else replaced(item, key, value) for name, item in body.items()}
    return body


def survives(data: bytes | str) -> None:
    """Raises whatever is neither a frame nor a rejection."""
    try:
        events, outcome = parse_frame(data).events, ""
    except Rejected as error:
        events, outcome = (), error.reason
    assert outcome in REASONS | {""}
    for event in events:
        if isinstance(event, Tickers):
            assert all(number.is_finite() for t in event.tickers for number in (t.price, t.bid, t.ask))
        elif isinstance(event, Trades):
            assert all(t.price > 0 and t.size >= 0 for t in event.trades)
