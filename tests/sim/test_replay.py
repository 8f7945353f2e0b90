"""Recorded markets: every form of file, ticks that give the file back, and one clear line for what cannot be used."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.readers import BadData
from sim.replay import Replay, open_replay
from sim.ticks import Candle, Side, Tick, ticks_of

DATA = Path(__file__).parents[3] / "shared" / "data"
MARKET_FILES = sorted((*DATA.glob("candles/*"), *DATA.glob("lean/*")))
recorded = pytest.mark.skipif(not MARKET_FILES, reason=f"recorded data is absent: {DATA}")

HEADER = "start,open,high,low,close,volume\n"
THREE = HEADER + (
    "2025-01-01 00:00:00,100,110,90,105,4\n"
    "2025-01-01 00:01:00,105,106,104,104.5,0.00000003\n"
    "2025-01-01 00:02:00,104.5,104.5,104.5,104.5,0\n"
)


def file(folder: Path, text: str, name: str = "BTC-USD_1m.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def replay(path: Path, product: str | None = None, start: str | None = None, end: str | None = None) -> Replay:
    times = [datetime.fromisoformat(time).replace(tzinfo=UTC) if time else None for time in (start, end)]
    return open_replay(path, product, times[0], times[1])


def aggregated(ticks: Iterable[Tick], seconds: int) -> list[Candle]:
    """Candles as a consumer of the trades builds them."""
    found = []
    for start, group in itertools.groupby(ticks, key=lambda tick: int(tick.at.timestamp()) // seconds * seconds):
        trades = list(group)
        prices = [tick.price for tick in trades]
        volume = sum((tick.size for tick in trades), Decimal(0))
        begin = datetime.fromtimestamp(start, UTC)
        found.append(Candle(begin, prices[0], max(prices), min(prices), prices[-1], volume))
    return found


def refusal(path: Path, product: str | None = None, start: str | None = None, end: str | None = None) -> BadData:
    with pytest.raises(BadData) as caught:
        list(replay(path, product, start, end))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return caught.value


def test_a_candle_is_walked_over_its_low_first_when_it_closes_higher(tmp_path: Path) -> None:
    ticks = list(replay(file(tmp_path, THREE)))[:4]
    assert [str(tick.price) for tick in ticks] == ["100", "90", "110", "105"]
    offsets = [(tick.at - ticks[0].at).total_seconds() for tick in ticks]
    assert offsets == [0, 15, 30, 59.999]
    assert [tick.side for tick in ticks] == [Side.SELL, Side.BUY, Side.SELL, Side.BUY]


def test_a_candle_is_walked_over_its_high_first_when_it_closes_lower(tmp_path: Path) -> None:
    ticks = list(replay(file(tmp_path, THREE)))[4:8]
    assert [str(tick.price) for tick in ticks] == ["105", "106", "104", "104.5"]


def test_sizes_of_a_candles_ticks_are_above_zero_as_far_as_its_volume_goes(tmp_path: Path) -> None:
    ticks = list(replay(file(tmp_path, THREE)))
    assert [str(tick.size) for tick in ticks[4:8]] == ["1E-8", "1E-8", "1E-8", "0E-8"]
    assert all(tick.size == 0 and tick.is_trade for tick in ticks[8:])


amounts = st.integers(1, 10**15).map(lambda units: Decimal(units) / 10**8)


@given(st.lists(amounts, min_size=4, max_size=4), amounts, st.sampled_from([1, 60, 300, 3600, 86400]))
def test_any_candle_is_given_back_exactly_by_its_ticks(prices: list[Decimal], volume: Decimal, seconds: int) -> None:
    low, middle, other, high = sorted(prices)
    candle = Candle(datetime(2025, 1, 1, tzinfo=UTC), middle, high, low, other, volume)
    assert aggregated(ticks_of(candle, "BTC-USD", seconds, 1), seconds) == [candle]


@recorded
@pytest.mark.parametrize("path", MARKET_FILES, ids=lambda path: path.name)
def test_every_recorded_file_is_walked_in_strictly_rising_time(path: Path) -> None:
    found = replay(path)
    first_ticks = list(itertools.islice(found, 2000))
    assert found.product_id in ("BTC-USD", "ETH-USD")
    assert ("ETH" in path.name.upper()) == (found.product_id == "ETH-USD")
    assert all(before.at < after.at for before, after in itertools.pairwise(first_ticks))
    assert found.candle_seconds == next(
        seconds
        for name, seconds in (
            ("_1m_", 60), ("_300s_", 300), ("_5m_", 300), ("_1h_", 3600),
            ("_minute_", 60), ("_second_", 1), ("daily", 86400),
        )
        if name in path.name
    )  # fmt: skip


@recorded
@pytest.mark.parametrize(
    "name",
    [
        "candles/BTC-USD_300s_small.csv",
        "candles/ETH-USD_300s_small.csv",
        "lean/BTC-USD_second_trade_20161007.csv.gz",
        "lean/ETH-USD_minute_trade_20180404.csv.gz",
        "lean/daily_btcusd_trade.csv.gz",
    ],
)
def test_aggregating_the_ticks_of_a_recorded_file_gives_its_rows_back(name: str) -> None:
    path = DATA / name
    text = gzip.decompress(path.read_bytes()).decode() if name.endswith(".gz") else path.read_text()
    lines = [line.split(",") for line in text.splitlines()]
    names = lines.pop(0) if lines[0][-1] == "volume" else ["time", "open", "high", "low", "close", "volume"]
    wanted = [[Decimal(cells[names.index(part)]) for part in Candle._fields[1:]] for cells in lines]
    found = replay(path)
    candles = aggregated(found, found.candle_seconds or 0)
    assert [list(candle[1:]) for candle in candles] == wanted
    assert found.total_ticks == 4 * len(wanted)


@recorded
def test_a_newest_first_file_with_a_banner_is_read_in_time_order_with_its_base_volume() -> None:
    found = replay(DATA / "candles/cdd_Coinbase_BTCUSD_1h_2017-07_2019-10.csv.gz", start="2019-10-17 09:00")
    candles = aggregated(found, 3600)
    assert candles == [
        Candle(datetime(2019, 10, 17, 9, tzinfo=UTC), *map(Decimal, ("8051", "8056.83", "8021.23", "8035.88", "61.25")))
    ]
    assert len(found.history) == 500
    assert found.history[-1].close == Decimal("8051")


@recorded
def test_recorded_quotes_come_with_both_sides_and_the_smallest_trade() -> None:
    ticks = list(itertools.islice(replay(DATA / "lean/BTC-USD_minute_quote_20170903.csv.gz"), 4))
    assert (ticks[0].bid, ticks[0].ask) == (Decimal("4642.42"), Decimal("4649.95"))
    assert ticks[0].price == Decimal("4646.18")
    assert {tick.size for tick in ticks} == {Decimal("0.00000001")}


@recorded
def test_recorded_frames_are_replayed_oldest_first() -> None:
    found = replay(DATA / "ws/live_transcribed/ccxt_market_trades_2026-08-12.jsonl")
    ticks = list(found)
    assert [tick.trade_id for tick in ticks] == list(range(1069726287, 1069726294))
    assert found.candle_seconds is None
    quotes = list(replay(DATA / "ws/live_transcribed/ccxt_ticker_2026-08-12.jsonl"))
    assert [str(tick.bid) for tick in quotes] == ["63320.73", "63318.86"]


def test_the_period_takes_its_start_in_and_leaves_its_end_out(tmp_path: Path) -> None:
    found = replay(file(tmp_path, THREE), start="2025-01-01 00:01", end="2025-01-01 00:02")
    assert {tick.at.minute for tick in found} == {1}
    assert (found.total_ticks, [candle.open for candle in found.history]) == (4, [Decimal(100)])


def test_ticks_and_trade_ids_are_the_same_whatever_is_selected(tmp_path: Path) -> None:
    path = file(tmp_path, THREE)
    whole, part = list(replay(path)), replay(path, start="2025-01-01 00:01")
    assert list(part) == whole[4:]
    assert list(part.past()) == whole[:4]
    assert list(part) == whole[4:]


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("ts_ms,price,size,side,trade_id\n1735689600500,10,1,BUY,7\n1735689601000,11,2,SELL,8\n", [0.5, 1]),
        ("time,price,size\n2025-01-01T00:00:00.5Z,10,1\n2025-01-01T01:00:01+01:00,11,2\n", [0.5, 1]),
        ("timestamp,price,size\n1735689600,10,1\n1735689600,11,2\n", [0, 0.000001]),
        ("timestamp,price,size\n1735689601,11,2\n1735689600,10,1\n", [0, 1]),
    ],
)
def test_trades_are_read_in_several_ways_of_writing_time(tmp_path: Path, text: str, times: list[float]) -> None:
    ticks = list(replay(file(tmp_path, text, "BTC-USD_trades.csv.gz")))
    midnight = datetime(2025, 1, 1, tzinfo=UTC)
    assert [tick.at for tick in ticks] == [midnight + timedelta(seconds=seconds) for seconds in times]
    assert [str(tick.price) for tick in ticks] == ["10", "11"]
    assert [tick.size for tick in ticks] == [1, 2]


def test_a_symbol_column_names_the_product_and_an_argument_chooses_among_several(tmp_path: Path) -> None:
    rows = "symbol,time,price,size\nBTCUSD,1735689600,100,1\nETH/USD,1735689601,10,1\n"
    path = file(tmp_path, rows, "trades.csv")
    assert replay(path).product_id == "BTC-USD"
    chosen = replay(path, "ETH-USD")
    assert [(tick.product_id, str(tick.price)) for tick in chosen] == [("ETH-USD", "10")]


def test_a_product_that_nothing_tells_has_to_be_named(tmp_path: Path) -> None:
    path = file(tmp_path, THREE, "candles.csv")
    assert "PERPS_SIM_PRODUCT" in refusal(path).what
    assert replay(path, "LTC-USD").product_id == "LTC-USD"


def test_the_increment_of_an_unknown_product_is_that_of_its_prices(tmp_path: Path) -> None:
    assert str(replay(file(tmp_path, THREE), "PEPE-USD").product.price_increment) == "0.1"


def test_sparse_bars_are_as_long_as_the_closest_two_are_apart(tmp_path: Path) -> None:
    rows = [f"2025-01-01 00:00:{second:02},1,1,1,1,1\n" for second in (0, 1, 4, 7, 10, 13)]
    assert replay(file(tmp_path, HEADER + "".join(rows))).candle_seconds == 1


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 0, "is empty"),
        (HEADER, 1, "no data under known columns"),
        ("a,b,c\n1,2,3\n", 1, "no data under known columns: a,b,c"),
        (THREE + "2025-01-01 00:03:00,x,1,1,1,1\n", 5, "not a number: 'x'"),
        (THREE + "2025-01-01 00:03:00,NaN,1,1,1,1\n", 5, "not a usable number: 'NaN'"),
        (THREE + "2025-01-01 00:03:00,1,1,1,1,-1\n", 5, "not a usable number: '-1'"),
        (THREE + "2025-01-01 00:03:00,0,1,0,1,1\n", 5, "not a price: '0'"),
        (THREE + "2025-01-01 00:03:00,1,1\n", 5, "only 3 cells"),
        (THREE + "2025-01-01 00:03:00,2,1,1,1,1\n", 5, "high or low does not enclose open and close"),
        (THREE + "yesterday,1,1,1,1,1\n", 5, "Invalid isoformat string: 'yesterday'"),
        (THREE + "2025-01-01 00:01:00,1,1,1,1,1\n", 5, "not in time order"),
        (THREE + "2025-01-01 00:02:00,1,1,1,1,1\n", 5, "a second bar for 2025-01-01 00:02:00"),
    ],
)
def test_bad_files_are_refused_with_line_and_reason(tmp_path: Path, text: str, line: int, what: str) -> None:
    error = refusal(file(tmp_path, text))
    assert (error.line, error.what) == (line, what) or error.what.startswith(what)
    assert error.line == line


def test_rows_in_no_order_are_neither_oldest_nor_newest_first(tmp_path: Path) -> None:
    rows = [f"2025-01-01 00:{minute:02}:00,1,1,1,1,1\n" for minute in (5, 4, 9, 1, 8, 2)]
    assert refusal(file(tmp_path, HEADER + "".join(rows))).what == "neither in time order nor newest first"


def test_bars_that_overlap_are_refused(tmp_path: Path) -> None:
    rows = [f"2025-01-01 {hour:02}:00:00,1,1,1,1,1\n" for hour in range(24)]
    days = [f"2025-01-{day:02} {row[11:]}" for day in range(1, 21) for row in rows]
    days.insert(10, "2025-01-01 09:30:00,1,1,1,1,1\n")
    assert "overlap" in refusal(file(tmp_path, HEADER + "".join(days))).what


def test_an_empty_selection_is_refused(tmp_path: Path) -> None:
    assert "no data for BTC-USD in the given period" in refusal(file(tmp_path, THREE), start="2026-01-01").what
    assert "no data" in refusal(file(tmp_path, THREE), end="2024-01-01").what


def test_missing_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    rows = "".join(f"{1735689600 + second},1,1,1,1,{second}\n" for second in range(5000))
    whole = file(tmp_path, HEADER + rows, "BTC-USD_1m.csv.gz")
    cut = tmp_path / "BTC-USD_cut.csv.gz"
    cut.write_bytes(whole.read_bytes()[:-20])
    plain = file(tmp_path, THREE, "BTC-USD_plain.csv")
    misnamed = tmp_path / "BTC-USD_plain.csv.gz"
    misnamed.write_bytes(plain.read_bytes())
    binary = tmp_path / "BTC-USD_binary.csv"
    binary.write_bytes(bytes(range(128, 256)))
    assert refusal(tmp_path / "nowhere.csv").what == "no such file"
    assert "truncated" in refusal(cut).what
    assert "truncated or damaged" in refusal(misnamed).what
    assert "not text" in refusal(binary).what
    assert refusal(tmp_path).what == "Is a directory"


@pytest.mark.parametrize("line", ["{", '{"events":[{"trades":[{"price":"x"}]}]}', "[]"])
def test_a_broken_frame_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    good = '{"channel":"subscriptions","events":[{"subscriptions":{}}]}\n'
    error = refusal(file(tmp_path, good + line + "\n", "BTC-USD.jsonl"), "BTC-USD")
    assert error.line == 2
    assert error.what.startswith("not a venue frame")
