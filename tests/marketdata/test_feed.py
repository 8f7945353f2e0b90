"""The connection: sequence, acknowledgements, silence, marks and their confirmation."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from libs.common.messages import Feed, FeedState, Mark, Product
from services.marketdata.facts import FetchFailed, FetchProduct, Reconnect, Trouble
from services.marketdata.wire import HEARTBEATS, MARKET_TRADES, TICKER, Frame
from tests.marketdata.builders import BTC, ETH, T0, Bench, at, live_bench, make_core, only, ticker, trade


def states(outputs: list[object]) -> list[tuple[str, Feed]]:
    return [(o.product_id, o.state) for o in outputs if isinstance(o, FeedState)]


def test_recovery_begins_with_a_connection_and_a_feed_that_is_not_live() -> None:
    out = Bench(make_core()).recover()
    assert [state.state for state in only(FeedState, out)] == [Feed.RECONNECTING]
    assert [command.trouble for command in only(Reconnect, out)] == [Trouble.START]


def test_the_feed_is_live_only_after_every_acknowledgement_and_a_price() -> None:
    bench = Bench(make_core())
    bench.recover()
    bench.connect()
    assert not only(FeedState, bench.ack(0, HEARTBEATS))
    assert not only(FeedState, bench.quote(0))
    assert not only(FeedState, bench.ack(0, HEARTBEATS, TICKER))
    out = bench.ack(0)
    assert [(state.state, state.since) for state in only(FeedState, out)] == [(Feed.LIVE, at(0))]


def test_an_acknowledgement_without_one_of_our_products_is_none() -> None:
    bench = Bench(make_core((BTC, ETH)), (BTC,))
    bench.recover()
    assert not only(FeedState, bench.subscribe(0))
    assert [c.detail for c in only(Reconnect, bench.pulse(connected=5.1))] == ["not confirmed: ticker, market_trades"]


def test_every_ticker_message_gives_one_mark_and_tells_when_the_price_last_moved() -> None:
    bench = live_bench()
    (first,) = only(Mark, bench.quote(1, ticker("99", "102", "100")))
    (second,) = only(Mark, bench.quote(2, ticker("99", "102", "100")))
    (third,) = only(Mark, bench.quote(3, ticker("99", "102", "101")))
    assert (first.bid, first.ask, first.last, first.mid) == (
        Decimal(99),
        Decimal(102),
        Decimal(100),
        Decimal("100.5"),
    )
    assert (first.at, first.price_time, first.sequence) == (at(1), at(1), 3)
    assert (second.at, second.price_time) == (at(2), at(1))
    assert (third.at, third.price_time) == (at(3), at(3))
    assert third.received_at == at(3) + timedelta(milliseconds=20)
    assert len({first.id, second.id, third.id}) == 3


def test_a_mark_tells_the_sizes_at_the_best_prices_and_a_heartbeat_keeps_them() -> None:
    bench = live_bench()
    (told,) = only(Mark, bench.quote(1, ticker(sizes=("0.5", "0.25"))))
    (confirmed,) = only(Mark, bench.heartbeat(2))
    assert (told.bid_size, told.ask_size) == (Decimal("0.5"), Decimal("0.25"))
    assert (confirmed.bid_size, confirmed.ask_size) == (told.bid_size, told.ask_size)


def test_sizes_alone_do_not_move_a_price() -> None:
    bench = live_bench()
    (first,) = only(Mark, bench.quote(1, ticker("98")))
    (second,) = only(Mark, bench.quote(2, ticker("98", sizes=("7", "8"))))
    assert (second.price_time, second.ask_size) == (first.price_time, Decimal(8))


def test_each_heartbeat_confirms_the_mark_of_every_product() -> None:
    bench = live_bench((BTC, ETH))
    out = only(Mark, bench.heartbeat(1))
    assert [(mark.product_id, mark.at, mark.price_time) for mark in out] == [(BTC, at(1), at(0)), (ETH, at(1), at(0))]
    assert [mark.received_at for mark in out] == [at(1) + timedelta(milliseconds=20)] * 2
    assert out[0].id != only(Mark, bench.heartbeat(2))[0].id


def test_a_burst_of_heartbeats_confirms_once() -> None:
    bench = live_bench()
    assert len(only(Mark, bench.heartbeat(1))) == 1
    assert not only(Mark, bench.heartbeat(1.1))
    assert len(only(Mark, bench.heartbeat(1.95))) == 1


def test_nothing_is_confirmed_before_the_subscriptions_are() -> None:
    bench = Bench(make_core())
    bench.recover()
    bench.connect()
    bench.quote(0)
    bench.ack(0, HEARTBEATS, TICKER)
    assert not only(Mark, bench.heartbeat(1))


def test_the_old_price_is_not_confirmed_on_a_new_connection() -> None:
    bench = live_bench()
    bench.lose()
    bench.connect()
    bench.ack(10)
    assert not only(Mark, bench.heartbeat(11))
    assert not only(FeedState, bench.heartbeat(12))


@pytest.mark.parametrize(
    ("bid", "ask", "last", "reason"),
    [
        ("101", "100", "100", "crossed"),
        ("0", "100", "100", "non_positive"),
        ("99", "-1", "100", "non_positive"),
        ("99", "101", "0", "non_positive"),
    ],
)
def test_a_crossed_or_empty_quote_is_dropped_and_counted(bid: str, ask: str, last: str, reason: str) -> None:
    bench = live_bench()
    assert not only(Mark, bench.quote(1, ticker(bid, ask, last)))
    assert bench.core.rejected[reason] == 1
    assert only(Mark, bench.heartbeat(2))[0].bid == Decimal(99)


def test_a_product_that_we_do_not_trade_is_ignored() -> None:
    assert not only(Mark, live_bench().quote(1, ticker(product="DOGE-USD")))


def test_a_gap_in_the_sequence_makes_every_feed_untrusted_and_the_connection_new() -> None:
    bench = live_bench((BTC, ETH))
    out = bench.raw(Frame(TICKER, at(1), bench.sequence + 1))
    assert states(list(out)) == [(BTC, Feed.GAP), (ETH, Feed.GAP)]
    assert only(FeedState, out)[0].reason == "sequence_gap: expected message 3, got 4"
    (command,) = only(Reconnect, out)
    assert (command.connection, command.trouble) == (1, Trouble.SEQUENCE_GAP)
    assert "feed gap" in bench.core.not_ready(bench.now)


def test_a_connection_that_had_a_gap_says_nothing_more() -> None:
    bench = live_bench()
    bench.quote(1, ticker())
    bench.sequence += 1
    bench.quote(2, ticker())
    assert bench.quote(3, ticker()) == []
    assert bench.heartbeat(4) == []
    assert bench.pulse(silent=60) == []


def test_frames_of_a_connection_before_are_ignored() -> None:
    bench = live_bench()
    bench.lose()
    bench.connect()
    assert bench.raw(Frame(HEARTBEATS, at(3), 99), connection=1) == []


def test_a_message_out_of_order_is_ignored_and_counted() -> None:
    bench = live_bench()
    bench.quote(1, ticker("98", "99", "98"))
    expected = bench.sequence
    assert bench.frame(2, MARKET_TRADES, sequence=1) == []
    assert bench.core.rejected["out_of_order"] == 1
    bench.sequence = expected
    assert only(Mark, bench.quote(3, ticker()))


def test_a_frame_of_an_unknown_channel_counts_in_the_sequence() -> None:
    bench = live_bench()
    bench.frame(1, "x_unannounced")
    assert only(Mark, bench.quote(2, ticker()))


def test_after_a_gap_the_new_connection_is_live_again_with_its_snapshot() -> None:
    bench = live_bench()
    bench.sequence += 1
    bench.quote(1, ticker())
    assert bench.lose() == []
    out = bench.subscribe(2)
    assert [state.state for state in only(FeedState, out)] == [Feed.LIVE]


def test_a_hole_in_the_heartbeats_is_a_gap() -> None:
    bench = live_bench()
    bench.heartbeat(1)
    out = bench.heartbeat(3, counter=bench.beat + 2)
    assert [(c.trouble, c.detail) for c in only(Reconnect, out)] == [
        (Trouble.HEARTBEAT_GAP, "expected heartbeat 102, got 103")
    ]
    assert [state.state for state in only(FeedState, out)] == [Feed.GAP]
    assert not only(Mark, out)


def test_heartbeats_that_begin_anew_are_no_gap() -> None:
    bench = live_bench()
    bench.heartbeat(1)
    assert not only(Reconnect, bench.heartbeat(2, counter=7))
    assert not only(Reconnect, bench.heartbeat(3, counter=8))


def test_a_silent_socket_is_given_up() -> None:
    bench = live_bench()
    assert not only(Reconnect, bench.pulse(silent=5.0))
    out = bench.pulse(silent=5.1)
    assert [(c.connection, c.trouble) for c in only(Reconnect, out)] == [(1, Trouble.SILENT_SOCKET)]
    assert [state.state for state in only(FeedState, out)] == [Feed.RECONNECTING]
    assert not only(Reconnect, bench.pulse(silent=5.4))


def test_a_missing_acknowledgement_ends_the_connection() -> None:
    bench = Bench(make_core())
    bench.recover()
    bench.connect()
    bench.ack(0, HEARTBEATS, TICKER)
    assert not only(Reconnect, bench.pulse(connected=4.9))
    (command,) = only(Reconnect, bench.pulse(connected=5.1))
    assert (command.trouble, command.detail) == (Trouble.ACK_MISSING, "not confirmed: market_trades")


def test_an_error_frame_instead_of_an_acknowledgement_ends_the_connection() -> None:
    bench = Bench(make_core())
    bench.recover()
    bench.connect()
    out = bench.error("authentication failure")
    assert [(c.trouble, c.detail) for c in only(Reconnect, out)] == [(Trouble.ERROR_FRAME, "authentication failure")]
    assert only(FeedState, out)[0].reason == "error_frame: authentication failure"


def test_an_error_frame_on_a_confirmed_connection_is_only_counted() -> None:
    bench = live_bench()
    assert bench.error("rate limited") == []
    assert bench.core.rejected["error_frame"] == 1
    assert only(Mark, bench.heartbeat(1))


def test_a_lost_connection_shows_until_the_next_one_is_live() -> None:
    bench = live_bench()
    out = bench.lose()
    assert [(s.state, s.reason) for s in only(FeedState, out)] == [(Feed.RECONNECTING, "connection_lost: closed")]
    since = only(FeedState, out)[0].since
    bench.now = at(5)
    again = bench.lose(0, Trouble.CONNECT_FAILED)
    assert [(s.reason, s.since) for s in only(FeedState, again)] == [("connect_failed: closed", since)]


def test_a_live_connection_without_confirmation_is_stale_until_the_next_one() -> None:
    bench = live_bench()
    assert bench.tick(10) == []
    (stale,) = only(FeedState, bench.tick(10.1))
    assert (stale.state, stale.since) == (Feed.STALE, at(10.1))
    out = bench.heartbeat(10.2)
    assert [state.state for state in only(FeedState, out)] == [Feed.LIVE]
    assert [mark.at for mark in only(Mark, out)] == [at(10.2)]


def test_a_heartbeat_from_long_ago_confirms_nothing() -> None:
    bench = live_bench()
    bench.tick(30)
    out = bench.heartbeat(15)
    assert not only(Mark, out)
    assert not only(FeedState, out)


def test_in_a_replay_leaping_market_time_makes_nothing_stale() -> None:
    bench = live_bench(replay=True)
    assert bench.tick(3600) == []


def test_feed_states_are_repeated_for_those_who_come_late() -> None:
    bench = live_bench()
    assert sum(len(only(FeedState, bench.pulse(0.25))) for _ in range(16)) == 2


def test_product_rules_are_asked_for_at_once_and_again_at_every_refresh() -> None:
    bench = Bench(make_core())
    bench.recover()
    assert len(only(FetchProduct, bench.pulse())) == 1
    assert not only(FetchProduct, bench.pulse(61))
    (published,) = only(Product, bench.give_rules())
    assert (published.product_id, published.at) == (BTC, T0)
    assert not only(FetchProduct, bench.pulse(59))
    assert len(only(FetchProduct, bench.pulse(1))) == 1
    assert len(only(Product, bench.give_rules())) == 1


def test_rules_that_could_not_be_had_are_asked_for_again() -> None:
    bench = Bench(make_core())
    bench.recover()
    (request,) = only(FetchProduct, bench.pulse())
    bench.feed(FetchFailed(id="failed", request=request, reason="HTTP 500"))
    assert not only(FetchProduct, bench.pulse(4))
    assert only(FetchProduct, bench.pulse(1.1))


def test_it_is_ready_once_feed_rules_and_warm_up_are_there_and_says_what_is_missing() -> None:
    bench = Bench(make_core((BTC, ETH)), (BTC, ETH))
    bench.recover()
    assert bench.core.not_ready(T0) == "; ".join(
        f"{product}: feed reconnecting (start), product rules unknown, warm-up unfinished" for product in (BTC, ETH)
    )
    bench.subscribe(0, trade(1, -70), trade(2, -70, product=ETH))
    assert bench.core.not_ready(T0) == f"{BTC}: product rules unknown; {ETH}: product rules unknown"
    bench.pulse()
    assert bench.core.busy
    bench.give_rules()
    assert bench.core.not_ready(T0) == ""
    assert not bench.core.busy
