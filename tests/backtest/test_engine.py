"""A recording through the cores and the matching core, judged by figures that were reckoned by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from libs.common import messages as m
from libs.common import settings as profiles
from libs.common.errors import BadConfig, BadData
from libs.common.settings import Settings
from sim.backtest.engine import run
from sim.backtest.result import Result
from tests.backtest.markets import MINUTE, START, minutes, waves
from tests.recorded import recorded

PLANNED = "tests.backtest.markets:Planned"
NO_STOP = {"strategy.trailing_stop_percent": "99"}
D = Decimal


def profile(name: str = "dev") -> Settings:
    """As it is shipped, whatever the environment says."""
    return profiles.load(name, {})


def conserved(result: Result) -> bool:
    """What the trips earned is what the account has become, to the last digit."""
    return result.points[-1].equity == result.opening_equity + sum((trip.pnl for trip in result.trips), D(0))


def test_a_round_trip_costs_spread_and_fees_to_the_last_digit(tmp_path: Path) -> None:
    file = minutes(tmp_path / "BTC-USD_tiny.csv", ["99", "100", "100", "100", "110", "110", "110"])
    result = run(profile(), [file], strategy=PLANNED, parameters={"enter": "2", "leave": "5", **NO_STOP})
    bought, sold = result.fills
    # Half the spread is a basis point, at least a cent and a whole number of cents: 100 +- 0.01, 110 +- 0.02.
    # 100 USD at 100.01 are 0.99990000 BTC; 1.2 % of what was paid or received is the fee.
    assert (bought.side, bought.price, bought.size, bought.fee) == ("BUY", D("100.01"), D("0.9999"), D("1.199999988"))
    assert (sold.side, sold.price, sold.size, sold.fee) == ("SELL", D("109.98"), D("0.9999"), D("1.319628024"))
    # A candle is closed, and acted upon, when the first tick after it comes.
    assert (bought.trade_time, sold.trade_time) == (START + 2 * MINUTE, START + 5 * MINUTE)
    (trip,) = result.trips
    assert (trip.entry_price, trip.exit_price, trip.size) == (D("100.01"), D("109.98"), D("0.9999"))
    assert (trip.opened_at, trip.closed_at) == (bought.trade_time, sold.trade_time)
    assert (trip.fees, trip.pnl) == (D("2.519628012"), D("7.449374988"))
    assert result.points[-1].equity == D("100007.449374988")
    assert (result.orders, result.denials, result.states) == (2, {}, [])
    assert [(signal.side, signal.reason) for signal in result.signals] == [
        ("BUY", "crossed_up"),
        ("SELL", "crossed_down"),
    ]


def test_what_is_held_at_the_end_is_valued_at_the_last_price(tmp_path: Path) -> None:
    file = minutes(tmp_path / "BTC-USD_tiny.csv", ["99", "100", "100", "100", "110", "110", "110"])
    result = run(profile(), [file], strategy=PLANNED, parameters={"enter": "2", **NO_STOP})
    (trip,) = result.trips
    assert (trip.closed_at, trip.exit_price) == (None, D(110))
    assert trip.pnl == D("0.9999") * 110 - D("99.999999") - D("1.199999988")
    assert [point.at for point in result.points] == [*(START + k * MINUTE for k in range(1, 7)), result.end]
    # Bought at the start of the third minute, 110 from the fifth on.
    assert [point.exposure for point in result.points] == [0, 0, *[D("99.99")] * 2, *[D("109.989")] * 3]
    assert {point.cash for point in result.points[2:]} == {D("100000") - D("101.199998988")}
    assert all(point.equity == point.cash + point.exposure for point in result.points)
    assert conserved(result)


def test_fees_and_cash_are_settings_of_the_venue(tmp_path: Path) -> None:
    file = minutes(tmp_path / "BTC-USD_tiny.csv", ["99", *["100"] * 6])
    changed = {"enter": "2", "sim.taker_fee": "0.001", "sim.cash": "5000", **NO_STOP}
    result = run(profile(), [file], strategy=PLANNED, parameters=changed)
    assert result.opening_equity == D(5000)
    assert result.fills[0].fee == D("99.999999") / 1000
    assert result.parameters == changed


def test_many_trades_conserve_money_and_two_runs_are_equal(tmp_path: Path) -> None:
    file = waves(tmp_path / "BTC-USD_waves.csv", 160)
    first, second = (run(profile(), [file]) for _ in range(2))
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)
    assert len(first.fills) >= 6
    assert conserved(first)
    assert (first.events, len(first.bars)) == (640, 159)  # the last candle has nothing after it that would close it
    assert first.orders == len(first.signals)


def test_several_products_share_one_account_and_trade_as_they_would_alone(tmp_path: Path) -> None:
    btc, eth = waves(tmp_path / "BTC-USD_waves.csv", 120), waves(tmp_path / "ETH-USD_waves.csv", 120, level=3000.0)
    both, alone = run(profile(), [btc, eth]), [run(profile(), [file]) for file in (btc, eth)]
    assert both.products == ("BTC-USD", "ETH-USD")
    assert both.events == 4 * (120 + 120)
    assert conserved(both)
    for product, single in zip(both.products, alone, strict=True):
        assert [trade(fill) for fill in both.fills if fill.product_id == product] == [trade(f) for f in single.fills]
        assert [bar for bar in both.bars if bar.product_id == product][: len(single.bars)] == single.bars
    earned = [result.points[-1].equity - result.opening_equity for result in alone]
    assert both.points[-1].equity == both.opening_equity + sum(earned, D(0))
    times = [fill.trade_time for fill in both.fills]
    assert times == sorted(times)


def test_a_product_whose_recording_begins_later_has_no_price_before(tmp_path: Path) -> None:
    btc = waves(tmp_path / "BTC-USD_waves.csv", 90)
    eth = waves(tmp_path / "ETH-USD_waves.csv", 60, level=3000.0, first=30)
    both, alone = run(profile(), [btc, eth]), run(profile(), [eth])
    assert both.start == START
    assert (alone.start, alone.bars[0].start) == (START + 30 * MINUTE, START + 30 * MINUTE)
    assert [trade(fill) for fill in both.fills if fill.product_id == "ETH-USD"] == [trade(fill) for fill in alone.fills]
    assert alone.fills
    assert [bar for bar in both.bars if bar.product_id == "ETH-USD"] == alone.bars
    assert conserved(both)


def trade(fill: m.Fill) -> tuple[object, ...]:
    return fill.trade_time, fill.side, fill.price, fill.size, fill.fee


def test_from_and_to_choose_the_period_and_what_was_before_warms_up(tmp_path: Path) -> None:
    file = waves(tmp_path / "BTC-USD_waves.csv", 160)
    start, end = START + 60 * MINUTE, START + 100 * MINUTE
    result = run(profile(), [file], start=start, end=end)
    assert (result.start, result.end) == (start, end - timedelta(milliseconds=1))
    assert result.events == 4 * 40
    assert [bar.start for bar in result.bars] == [start + k * MINUTE for k in range(39)]
    whole = run(profile(), [file])
    # Candles alone decide when to enter, so a warm start enters where the whole run does.
    entered = [fill.trade_time for fill in whole.fills if fill.side is m.Side.BUY and start < fill.trade_time < end]
    assert [fill.trade_time for fill in result.fills if fill.side is m.Side.BUY] == entered
    assert entered


def test_candles_may_be_longer_or_shorter_than_those_of_the_file(tmp_path: Path) -> None:
    file = waves(tmp_path / "BTC-USD_waves.csv", 60)
    five = run(profile(), [file], granularity="5m")
    assert [bar.start for bar in five.bars] == [START + 5 * k * MINUTE for k in range(11)]
    ten = run(profile(), [file], granularity="10s", start=START + 30 * MINUTE)
    # A minute's four ticks come at 0, 15, 30 and almost 60 seconds.
    assert [bar.start.second for bar in ten.bars[:5]] == [0, 10, 30, 50, 0]
    assert ten.bars[0].start == START + 30 * MINUTE


def crash(name: str, parameters: dict[str, str]) -> Result:
    """The day on which BTC lost a tenth within minutes, from 21:00 UTC on."""
    file = recorded("candles/BTC-USD_5m_2025-07-01_2026-01-08.csv.gz")
    start, end = datetime(2025, 10, 10, tzinfo=UTC), datetime(2025, 10, 11, tzinfo=UTC)
    return run(profile(name), [file], start=start, end=end, parameters=parameters)


def test_a_daily_loss_halts_for_good_and_nothing_follows() -> None:
    result = crash("dev", {"risk.daily_loss_limit": "10"})
    (halt,) = result.states
    assert (halt.state, halt.reason, halt.who) == (m.Trading.HALTED, "daily_loss_limit", "risk")
    before = [point for point in result.points if point.at <= halt.at][-1]
    assert result.opening_equity - before.equity < 10 <= result.opening_equity - result.points[-1].equity
    assert [fill for fill in result.fills if fill.trade_time < halt.at]
    assert not [fill for fill in result.fills if fill.trade_time > halt.at]
    assert result.denials["trading_halted"] > 0
    assert conserved(result)


def test_a_profile_for_real_money_is_halted_by_the_crash() -> None:
    result = crash("spot", {})
    assert [(state.state, state.reason) for state in result.states] == [
        (m.Trading.REDUCING, "volatility"),
        (m.Trading.HALTED, "volatility"),
    ]
    assert all(state.at.hour == 21 for state in result.states)
    assert (result.profile, result.products, result.granularity) == ("spot", ("BTC-USD",), "5m")


def test_a_guard_that_reduces_lets_the_exit_pass(tmp_path: Path) -> None:
    file = minutes(tmp_path / "BTC-USD_tiny.csv", ["99", "100", "100", "100", "90", "90", "90", "90"])
    drawdown = {"risk.guards.drawdown.warn": "0.00001", "risk.guards.drawdown.reduce": "0.00002"}
    plan = {"enter": "2", "leave": "6", **NO_STOP, **drawdown}
    result = run(profile(), [file], strategy=PLANNED, parameters=plan)
    assert [(state.state, state.reason) for state in result.states] == [(m.Trading.REDUCING, "drawdown")]
    assert [fill.side for fill in result.fills] == [m.Side.BUY, m.Side.SELL]


def test_given_parameters_hold_for_every_product_and_for_another_strategy(tmp_path: Path) -> None:
    file = waves(tmp_path / "BTC-USD_waves.csv", 160)
    # `spot` has a table of its own for BTC-USD, which what is given goes before.
    slow, fast = (run(profile("spot"), [file], parameters={"short": short, "long": "40"}) for short in ("5", "6"))
    assert [signal.id for signal in slow.signals] != [signal.id for signal in fast.signals]
    other = run(profile("spot"), [file], strategy="mean_reversion")
    assert other.strategy == "mean_reversion"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"strategy": "nobody"}, "unknown strategy"),
        ({"parameters": {"shrot": "5"}}, "shrot"),
        ({"parameters": {"short.er": "5"}}, "is no table"),
        ({"parameters": {"risk.order_notional_maximum": "5"}}, "order_notional_maximum"),
        ({"parameters": {"sim.taker_fee": "2"}}, "TAKER_FEE"),
        ({"granularity": "7m"}, "granularity"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path, given: dict[str, object], words: str) -> None:
    file = minutes(tmp_path / "BTC-USD_tiny.csv", ["100"] * 3)
    with pytest.raises(BadConfig, match=words) as refused:
        run(profile(), [file], **given)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


def test_the_same_product_in_two_files_is_refused(tmp_path: Path) -> None:
    files = [minutes(tmp_path / f"BTC-USD_{name}.csv", ["100"] * 3) for name in ("one", "two")]
    with pytest.raises(BadConfig, match="BTC-USD is in more than one file"):
        run(profile(), files)


def test_a_file_that_cannot_be_read_is_bad_data(tmp_path: Path) -> None:
    file = tmp_path / "BTC-USD_odd.csv"
    file.write_text("time,open,high,low,close,volume\n1759276800,100,90,110,100,1\n")
    with pytest.raises(BadData, match=r"low|high"):
        run(profile(), [file])
    with pytest.raises(BadData):
        run(profile(), [minutes(tmp_path / "BTC-USD_tiny.csv", ["100"])], start=START + MINUTE)


def test_progress_rises_to_all_ticks(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    run(
        profile(), [waves(tmp_path / "BTC-USD_waves.csv", 160)], progress=lambda done, total: told.append((done, total))
    )
    assert told == [(500, 640), (640, 640)]
