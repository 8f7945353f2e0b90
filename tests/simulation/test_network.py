"""Requests between the services' own venue code and the simulated venue: what each weather does to them, and whether
the venue acted."""

from __future__ import annotations

from datetime import timedelta

import pytest

from libs.common.errors import OutcomeUnknown, PerpsError, Rejected, Retryable
from services.marketdata.facts import FetchCandles, FetchProduct, FetchTrades
from tests.simulation.network_rig import BTC, EPOCH, TIMEOUT_SECONDS, order, rig

SEEDS = range(12)


def test_an_order_is_placed_listed_edited_and_cancelled_and_the_account_read() -> None:
    with rig(measured=False) as world:
        venue_order_id = world.place()
        [listed] = world.ask(world.client.listing(EPOCH)).orders
        assert (listed.client_order_id, listed.venue_order_id) == ("c1", venue_order_id)
        world.ask(world.client.edit(venue_order_id, order(price="91000"), lambda expires_at: None))
        world.trade("90990")
        told, fills = world.ask(world.client.order(venue_order_id))
        assert (told.status, len(fills)) == ("FILLED", 1)
        assert world.ask(world.client.cancel([venue_order_id])) == {venue_order_id: "ORDER_IS_FULLY_FILLED"}
        account = world.ask(world.client.account())
        assert account.unavailable == {}
        assert account.balances is not None
        assert account.balances["BTC"].available == fills[0].size
        with pytest.raises(Rejected, match="HTTP_404"):
            world.ask(world.client.order("unknown"))


def test_candles_trades_and_rules_of_a_product_are_fetched() -> None:
    with rig() as world:
        market = world.market(world.execution)
        start, end = EPOCH - timedelta(minutes=5), EPOCH + timedelta(minutes=1)
        candles = FetchCandles(id="c", product_id=BTC, granularity="1m", start=start, end=end)
        assert [str(candle.close) for candle in world.ask(market.fetch(candles)).candles] == ["100000"]
        trades = FetchTrades(id="t", product_id=BTC, start=start, end=end)
        assert len(world.ask(market.fetch(trades)).trades) == 1
        product = world.ask(market.fetch(FetchProduct(id="p", product_id=BTC))).product
        assert product is not None
        with pytest.raises(Rejected, match="http_404"):
            world.ask(market.fetch(FetchProduct(id="p", product_id="NO-USD")))


# Of a new order: what execution makes of it, how many requests left, and how many of them the venue acted on.
PLACING: dict[str, tuple[type[PerpsError], str, int, int]] = {
    "refuse": (Retryable, "ConnectError", 0, 0),
    "lose_request": (OutcomeUnknown, "TimeoutError|ReadError", 1, 0),
    "lose_answer": (OutcomeUnknown, "TimeoutError|ReadError|RemoteProtocolError", 1, 1),
    "error_after": (OutcomeUnknown, "500", 1, 1),
    "html_before": (OutcomeUnknown, "50[23]", 1, 0),
    "html_after": (OutcomeUnknown, "50[23]", 1, 1),
    "too_many": (Retryable, "429", 1, 0),
    "unauthorized": (Rejected, "HTTP_401", 2, 0),
    "garbage": (OutcomeUnknown, "unreadable|without an order id", 1, 1),
}


@pytest.mark.parametrize("name", PLACING)
def test_an_order_in_bad_weather_ends_as_what_is_known_of_it(name: str) -> None:
    kind, words, left, acted = PLACING[name]
    for seed in SEEDS:
        with rig(seed) as world:
            setattr(world.weather, name, 1.0)
            with pytest.raises(kind, match=words):
                world.place()
            assert (world.left(), world.acted()) == (left, acted)
            assert len(world.venue.exchange.orders) == acted


def test_the_client_s_own_patience_ends_a_request_that_nobody_answers() -> None:
    for name in ("lose_request", "lose_answer", "slow"):
        patience = set()
        for seed in SEEDS:
            with rig(seed) as world:
                setattr(world.weather, name, 1.0)
                world.weather.slow_seconds = 1000.0
                began = world.scheduler.now
                with pytest.raises(OutcomeUnknown) as caught:
                    world.place()
                if "TimeoutError" in str(caught.value):
                    patience.add(round(world.scheduler.now - began, 1))
        assert patience == {TIMEOUT_SECONDS}


LOST = "ReadTimeout|ReadError|RemoteProtocolError"


def test_what_has_no_patience_of_its_own_ends_with_that_of_its_http_client() -> None:
    with rig() as world:
        world.weather.lose_answer = 1.0
        with pytest.raises(OutcomeUnknown, match=LOST):
            world.ask(world.client.server_time())
        with pytest.raises(Retryable, match=LOST):
            world.ask(world.market(world.execution).fetch(FetchProduct(id="p", product_id=BTC)))


def test_a_late_order_acts_after_its_client_has_given_up_and_never_after_its_token_has_died() -> None:
    after, never = 0, 0
    for seed in range(40):
        with rig(seed) as world:
            world.weather.late_request = 1.0
            began = world.scheduler.now
            try:
                world.place()
            except OutcomeUnknown:
                gave_up = world.scheduler.now
                world.run(20)
                acted = [(at, expires_at) for at, path, expires_at in world.arrived if path == "/orders"]
                never += not acted
                after += any(at > gave_up for at, _ in acted)
                assert all(expires_at and EPOCH + timedelta(seconds=at) < expires_at for at, expires_at in acted)
            else:
                assert world.scheduler.now - began <= TIMEOUT_SECONDS
            assert len(world.venue.exchange.orders) == world.acted()
    assert after >= 5
    assert never >= 5


def test_the_venue_checks_tokens_by_its_own_clock() -> None:
    for skew in (-600, 600):
        with rig() as world:
            world.venue.switch(b'{"clock_skew_seconds": %d}' % skew)
            assert world.place()
            assert world.client.clock_offset_seconds == pytest.approx(skew, abs=0.1)
            assert world.left() == 2  # the first token was not of the venue's time


def test_a_duplicated_order_acts_twice_and_is_one_order() -> None:
    answered = set()
    for seed in SEEDS:
        with rig(seed) as world:
            world.weather.duplicate_request, world.weather.late_seconds = 1.0, 1.0
            began = world.scheduler.now
            assert world.place() in world.venue.exchange.orders
            answered.add(world.scheduler.now - began < 0.05)
            world.run(2)
            assert world.acted() == 2
            assert len(world.venue.exchange.orders) == 1
    assert answered == {True, False}  # with the first answer, or the second


def test_no_nonsense_counts_as_a_complete_listing() -> None:
    for seed in range(30):
        with rig(seed) as world:
            world.place()
            world.weather.garbage = 1.0
            with pytest.raises(OutcomeUnknown):
                world.ask(world.client.listing(EPOCH))
            with pytest.raises(OutcomeUnknown):
                world.ask(world.client.find("c1", BTC, EPOCH))
            parts = world.ask(world.client.account())
            assert (parts.balances, parts.permissions, parts.portfolios) == (None, None, None)


def test_a_request_that_left_before_its_process_died_still_acts() -> None:
    with rig() as world:
        world.execution.start(world.client.place(order(), lambda expires_at: None))
        while not world.left():
            world.run(0.001)
        world.execution.die()
        world.run(5)
        assert (world.acted(), len(world.venue.exchange.orders)) == (1, 1)


def test_the_venue_s_own_switches_strike_here_too() -> None:
    switched = {
        b'{"reject_before": 1}': 0,
        b'{"hang_requests": 1}': 0,
        b'{"accept_then_drop": 1}': 1,
        b'{"accept_then_hang": 1}': 1,
        b'{"accept_then_500": 1}': 1,
        b'{"answer_delay_seconds": 9}': 1,
    }
    for switch, acted in switched.items():
        with rig() as world:
            world.venue.switch(switch)
            with pytest.raises(OutcomeUnknown):
                world.place()
            assert (world.left(), world.acted()) == (1, acted)


def test_an_order_that_the_venue_lists_late_is_found_once_its_lag_is_over() -> None:
    with rig() as world:
        world.venue.switch(b'{"orders_lag_seconds": 3}')
        world.place()
        assert world.ask(world.client.find("c1", BTC, EPOCH)) is None
        world.run(3)
        assert world.ask(world.client.find("c1", BTC, EPOCH)) is not None
