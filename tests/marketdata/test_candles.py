"""Closed candles: exact, once, in rising order, whatever the connection does."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from libs.common.messages import Candle, Mark, Message
from services.marketdata.facts import FetchCandles, FetchFailed, FetchTrades
from tests.marketdata.builders import (
    BTC,
    ETH,
    Bench,
    at,
    live_bench,
    make_core,
    only,
    ticker,
    trade,
    venue_candle,
)


def starts(outputs: list[Message]) -> list[float]:
    """Starts of the candles, in seconds from noon."""
    return [(candle.start - at(0)).total_seconds() for candle in only(Candle, outputs)]


def test_trades_of_a_bucket_become_its_candle_when_a_later_message_comes() -> None:
    bench = live_bench()
    bench.trades(5, trade(2, 5, "100", "1"))
    bench.trades(20, trade(3, 10, "103", "2"), trade(4, 20, "98", "0.5"))
    bench.trades(59.9, trade(5, 59.9, "101", "0.25"))
    assert not only(Candle, bench.heartbeat(60))
    (candle,) = only(Candle, bench.heartbeat(61))
    assert (candle.open, candle.high, candle.low, candle.close) == tuple(map(Decimal, ("100", "103", "98", "101")))
    assert candle.volume == Decimal("3.75")
    assert (candle.start, candle.at, candle.granularity) == (at(0), at(61), "1m")
    assert not only(Candle, bench.heartbeat(62))


def test_a_candle_that_is_closed_after_an_outage_says_so_and_is_not_acted_on_as_if_it_were_fresh() -> None:
    bench = live_bench(replay=True)
    bench.trades(5, trade(2, 5, "100", "1"))
    (candle,) = only(Candle, bench.heartbeat(5 * 3600))
    assert (candle.start, candle.at) == (at(0), at(5 * 3600))


def test_the_closed_candle_goes_before_the_mark_of_the_message_that_closed_it() -> None:
    bench = live_bench(replay=True)
    bench.trades(5, trade(2, 5))
    assert [type(message) for message in bench.quote(60, ticker())] == [Candle, Mark]


def test_a_bucket_without_trades_has_no_candle() -> None:
    bench = live_bench()
    bench.trades(5, trade(2, 5))
    bench.trades(185, trade(3, 185))
    assert starts(bench.heartbeat(241)) == [180]


def test_a_late_trade_within_the_grace_still_counts() -> None:
    bench = live_bench()
    bench.trades(5, trade(2, 5))
    bench.heartbeat(60.2)
    bench.trades(60.4, trade(3, 59.99, "100", "4"))
    assert only(Candle, bench.heartbeat(60.5))[0].volume == Decimal(5)


def test_a_trade_later_than_the_grace_is_counted_and_changes_nothing() -> None:
    bench = live_bench()
    bench.trades(5, trade(2, 5))
    assert len(only(Candle, bench.heartbeat(60.5))) == 1
    assert not only(Candle, bench.trades(60.6, trade(3, 59.99)))
    assert not only(Candle, bench.heartbeat(121))
    assert bench.core.lines[BTC].candles.late == 1


def test_in_a_replay_a_bucket_closes_with_the_first_message_of_the_next() -> None:
    bench = live_bench(replay=True)
    bench.trades(5, trade(2, 5))
    assert starts(bench.trades(60, trade(3, 60))) == [0]


def test_a_trade_counts_once_however_often_it_is_sent() -> None:
    bench = live_bench()
    bench.trades(5, trade(2, 5), trade(3, 6))
    bench.trades(7, trade(2, 5), trade(3, 6), trade(4, 7))
    assert only(Candle, bench.heartbeat(61))[0].volume == Decimal(3)


def test_trades_of_one_message_are_taken_by_rising_id() -> None:
    bench = live_bench()
    bench.trades(5, trade(2, 5, "100"), trade(3, 5, "105"), trade(4, 5, "102"))
    (candle,) = only(Candle, bench.heartbeat(61))
    assert (candle.open, candle.close) == (Decimal(100), Decimal(102))


def test_products_have_their_own_candles() -> None:
    bench = live_bench((BTC, ETH))
    bench.trades(5, trade(2, 5, "100"), trade(2, 5, "3", product=ETH), trade(9, 5, product="DOGE-USD"))
    assert [(c.product_id, c.close) for c in only(Candle, bench.heartbeat(61))] == [
        (BTC, Decimal(100)),
        (ETH, Decimal(3)),
    ]


def test_a_bucket_that_the_connection_saw_in_part_is_asked_for_after_its_end() -> None:
    bench = Bench(make_core())
    bench.recover()
    bench.subscribe(30, trade(1, 25))
    bench.trades(40, trade(2, 40))
    assert not only(Candle, bench.heartbeat(61))
    assert not only(FetchCandles, bench.heartbeat(61.9))
    (request,) = only(FetchCandles, bench.heartbeat(62))
    assert (request.granularity, request.start, request.end) == ("1m", at(0), at(60))
    (candle,) = only(Candle, bench.answer_candles(request, venue_candle(0, "101", "7")))
    assert (candle.close, candle.volume, candle.start) == (Decimal(101), Decimal(7), at(0))


def test_the_venue_s_open_bucket_is_dropped_and_the_rest_is_given_oldest_first() -> None:
    bench = Bench(make_core(warmup=3))
    bench.recover()
    (request,) = only(FetchCandles, bench.subscribe(10))
    assert (request.start, request.end) == (at(-180), at(0))
    out = bench.answer_candles(request, *(venue_candle(start) for start in (0, -60, -120, -180, -240)))
    assert starts(out) == [-180, -120, -60]
    assert bench.core.not_ready(bench.now) == f"{BTC}: product rules unknown"


def test_buckets_that_the_venue_leaves_out_have_no_candle() -> None:
    bench = Bench(make_core(warmup=3))
    bench.recover()
    (request,) = only(FetchCandles, bench.subscribe(10))
    assert starts(bench.answer_candles(request, venue_candle(-60), venue_candle(-180))) == [-180, -60]


def test_a_long_warm_up_is_read_in_pages_of_what_the_venue_gives_at_once() -> None:
    bench = Bench(make_core(warmup=800))
    bench.recover()
    (request,) = only(FetchCandles, bench.subscribe(10))
    sizes, given = [], []
    pending: list[FetchCandles] = [request]
    while pending:
        page = pending.pop()
        seconds = [(page.start - at(0)).total_seconds(), (page.end - at(0)).total_seconds()]
        sizes.append((seconds[1] - seconds[0]) / 60)
        out = bench.answer_candles(page, *(venue_candle(s) for s in range(int(seconds[0]), int(seconds[1]), 60)))
        given += starts(out)
        pending = only(FetchCandles, out)
    assert sizes == [350, 350, 100]
    assert given == [-60.0 * n for n in range(800, 0, -1)]


def test_live_candles_wait_for_the_warm_up() -> None:
    bench = Bench(make_core(warmup=2))
    bench.recover()
    out = bench.subscribe(10, trade(1, -100))
    (request,) = only(FetchCandles, out)
    assert request.end == at(-60)
    bench.trades(20, trade(2, 20))
    assert not only(Candle, bench.heartbeat(61))
    assert "warm-up unfinished" in bench.core.not_ready(bench.now)
    assert bench.core.busy
    assert starts(bench.answer_candles(request, venue_candle(-120))) == [-120, 0]
    assert not bench.core.busy


def test_an_answer_to_an_older_question_is_ignored() -> None:
    bench = Bench(make_core(warmup=400))
    bench.recover()
    (first,) = only(FetchCandles, bench.subscribe(10))
    (second,) = only(FetchCandles, bench.answer_candles(first))
    assert bench.answer_candles(first, venue_candle(-60)) == []
    assert starts(bench.answer_candles(second, venue_candle(-60))) == [-60]
    assert bench.answer_candles(second, venue_candle(-60)) == []


def test_trades_for_an_older_question_are_ignored() -> None:
    bench = Bench(make_core(granularity="10s", warmup=1, replay=True))
    bench.recover()
    (first,) = only(FetchTrades, bench.subscribe(5))
    (second,) = only(FetchTrades, bench.answer_trades(first, trade(8, -3)))
    assert bench.answer_trades(first, trade(8, -3)) == []
    assert starts(bench.answer_trades(second, trade(8, -3))) == [-10]
    assert bench.answer_trades(second) == []


def test_a_refused_request_is_made_again_later() -> None:
    bench = Bench(make_core(warmup=3))
    bench.recover()
    (request,) = only(FetchCandles, bench.subscribe(10))
    bench.pulse()
    bench.feed(FetchFailed(id="failed", request=request, reason="HTTP 500"))
    assert not only(FetchCandles, bench.pulse(4.9))
    (again,) = only(FetchCandles, bench.pulse(0.2))
    assert (again.start, again.end) == (request.start, request.end)
    assert not only(FetchCandles, bench.pulse(60))


def test_a_gap_makes_the_bucket_partial_and_the_venue_s_word_is_taken() -> None:
    bench = live_bench()
    bench.trades(5, trade(2, 5))
    bench.sequence += 1
    bench.trades(10, trade(4, 10))
    bench.lose()
    bench.subscribe(20, trade(9, 15))
    assert not only(Candle, bench.heartbeat(61))
    (request,) = only(FetchCandles, bench.heartbeat(62))
    assert starts(bench.answer_candles(request, venue_candle(0))) == [0]


def test_trades_of_the_message_that_shows_a_gap_do_not_hide_the_loss() -> None:
    """Trade 3 was lost; taking trade 4 would make the next snapshot look as if it reached back far enough."""
    bench = live_bench()
    bench.trades(5, trade(2, 5))
    bench.sequence += 1
    bench.trades(10, trade(4, 10))
    bench.lose()
    bench.subscribe(20, trade(4, 10), trade(5, 15))
    bench.heartbeat(61)
    assert only(FetchCandles, bench.heartbeat(62))


def test_a_snapshot_that_reaches_back_to_the_last_trade_makes_the_bucket_whole() -> None:
    bench = live_bench()
    bench.trades(5, trade(2, 5, "100", "1"))
    bench.lose()
    bench.subscribe(20, trade(2, 5, "100", "1"), trade(3, 12, "107", "2"))
    (candle,) = only(Candle, bench.heartbeat(62))
    assert (candle.high, candle.volume) == (Decimal(107), Decimal(3))


def test_a_trade_before_the_snapshot_does_not_make_a_loss_look_whole() -> None:
    """Trade 3 was lost. Had trade 5 counted already, the snapshot would seem to reach back to it."""
    bench = live_bench()
    bench.trades(5, trade(2, 5))
    bench.lose()
    bench.connect()
    bench.trades(20, trade(5, 20))
    bench.trades(20, trade(4, 15), trade(5, 20), snapshot=True)
    bench.ack(20)
    assert not only(Candle, bench.heartbeat(61))
    assert only(FetchCandles, bench.heartbeat(62))


def test_a_snapshot_that_reaches_back_before_the_bucket_makes_it_whole() -> None:
    """Also where the connection before had seen only a part of it."""
    bench = Bench(make_core())
    bench.recover()
    bench.subscribe(30, trade(5, 25, "100", "5"))
    bench.lose()
    bench.subscribe(40, trade(3, -1, "1", "1"), trade(4, 10, "90", "2"), trade(5, 25, "100", "5"))
    (candle,) = only(Candle, bench.heartbeat(62))
    assert (candle.open, candle.volume) == (Decimal(90), Decimal(7))


def test_a_snapshot_that_begins_within_the_bucket_does_not_make_it_whole() -> None:
    bench = Bench(make_core())
    bench.recover()
    bench.subscribe(40, trade(3, 0))
    bench.heartbeat(61)
    assert only(FetchCandles, bench.heartbeat(62))


def test_without_a_snapshot_the_acknowledgement_tells_from_when_on_trades_come() -> None:
    bench = Bench(make_core())
    bench.recover()
    bench.subscribe(59)
    (request,) = only(FetchCandles, bench.trades(65, trade(2, 65)))
    assert (request.start, request.end) == (at(0), at(60))
    bench.answer_candles(request)
    assert starts(bench.heartbeat(121)) == [60]


def test_an_acknowledgement_at_the_very_start_of_a_bucket_does_not_make_it_whole() -> None:
    """A trade of the same moment may have come before the subscription."""
    bench = Bench(make_core())
    bench.recover()
    bench.subscribe(60)
    (request,) = only(FetchCandles, bench.heartbeat(122))
    assert request.end == at(120)


def test_nothing_is_closed_before_the_new_connection_has_shown_its_trades() -> None:
    """The ticker's snapshot comes first and is later than the bucket's end; the trades follow."""
    bench = live_bench()
    bench.trades(5, trade(2, 5, "100", "1"))
    bench.lose()
    bench.connect()
    assert not only(Candle, bench.quote(62, ticker()))
    out = bench.trades(62, trade(2, 5), trade(3, 50, "100", "3"), snapshot=True)
    assert [candle.volume for candle in only(Candle, out)] == [Decimal(4)]


def test_a_long_loss_is_filled_to_the_last_bucket() -> None:
    bench = live_bench()
    bench.heartbeat(61)
    bench.lose()
    out = bench.subscribe(605, trade(90, 604))
    (request,) = only(FetchCandles, out)
    assert (request.start, request.end) == (at(60), at(600))


def test_candles_below_a_minute_are_filled_from_trades_read_backwards() -> None:
    bench = Bench(make_core(granularity="10s", warmup=3, replay=True))
    bench.recover()
    (first,) = only(FetchTrades, bench.subscribe(5))
    assert (first.start, first.end) == (at(-30), at(0))
    (second,) = only(FetchTrades, bench.answer_trades(first, trade(8, -3, "108"), trade(7, -12, "107")))
    assert (second.start, second.end) == (at(-30), at(-12))
    (third,) = only(FetchTrades, bench.answer_trades(second, trade(7, -12, "107"), trade(6, -19, "106")))
    out = bench.answer_trades(third, trade(6, -19, "106"))
    assert [(c.open, c.close) for c in only(Candle, out)] == [
        (Decimal(106), Decimal(107)),
        (Decimal(108), Decimal(108)),
    ]
    assert starts(out) == [-20, -10]


def test_reading_backwards_ends_at_the_first_trade_before_the_hole() -> None:
    bench = Bench(make_core(granularity="10s", warmup=1, replay=True))
    bench.recover()
    (request,) = only(FetchTrades, bench.subscribe(5))
    out = bench.answer_trades(request, trade(8, 0, "108"), trade(7, -4, "107"), trade(6, -11, "106"))
    assert [candle.volume for candle in only(Candle, out)] == [Decimal(1)]


def test_reading_backwards_goes_on_behind_a_trade_at_the_very_start_of_the_hole() -> None:
    bench = Bench(make_core(granularity="10s", warmup=1, replay=True))
    bench.recover()
    (request,) = only(FetchTrades, bench.subscribe(5))
    (again,) = only(FetchTrades, bench.answer_trades(request, trade(8, -4), trade(7, -10)))
    out = bench.answer_trades(again, trade(7, -10), trade(6, -10))
    (last,) = only(FetchTrades, out)
    assert [c.volume for c in only(Candle, bench.answer_trades(last, trade(7, -10), trade(6, -10)))] == [Decimal(3)]


def test_candles_wait_while_the_bus_is_away() -> None:
    bench = live_bench()
    bench.trades(5, trade(2, 5))
    bench.pulse(bus=False)
    assert not only(Candle, bench.heartbeat(61))
    assert starts(bench.pulse(bus=True)) == [0]


def test_an_answer_that_comes_while_the_bus_is_away_is_asked_for_again() -> None:
    bench = Bench(make_core(warmup=1))
    bench.recover()
    (request,) = only(FetchCandles, bench.subscribe(10))
    bench.pulse(bus=False)
    assert bench.answer_candles(request, venue_candle(-60)) == []
    (again,) = only(FetchCandles, bench.pulse(bus=True))
    assert starts(bench.answer_candles(again, venue_candle(-60))) == [-60]


def test_a_restart_publishes_only_what_is_missing() -> None:
    bench = live_bench()
    bench.trades(5, trade(2, 5))
    assert starts(bench.heartbeat(61)) == [0]
    again = make_core(warmup=300)
    again.restore(bench.core.dump())
    after = Bench(again)
    after.recover()
    (request,) = only(FetchCandles, after.subscribe(190))
    assert (request.start, request.end) == (at(60), at(180))


def test_a_restart_with_another_granularity_warms_up_anew() -> None:
    bench = live_bench()
    bench.trades(5, trade(2, 5))
    bench.heartbeat(61)
    again = make_core(granularity="5m", warmup=2)
    again.restore(bench.core.dump())
    after = Bench(again)
    after.recover()
    (request,) = only(FetchCandles, after.subscribe(190))
    assert request.start == at(-600)


def test_a_snapshot_of_another_shape_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        make_core().restore(b'{"granularity":5}')


def test_a_candle_of_the_same_bucket_has_the_same_id_wherever_it_comes_from() -> None:
    live = live_bench()
    live.trades(5, trade(2, 5))
    (made,) = only(Candle, live.heartbeat(61))
    bench = Bench(make_core(warmup=1))
    bench.recover()
    (request,) = only(FetchCandles, bench.subscribe(70))
    (fetched,) = only(Candle, bench.answer_candles(request, venue_candle(0)))
    assert msgspec.structs.replace(fetched, at=made.at) == made
    assert (made.at, fetched.at) == (at(61), at(70)), "when each was known to be closed"
