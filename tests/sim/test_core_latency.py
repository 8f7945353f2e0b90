"""Orders that reach the book some market time after their acceptance."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from sim.orders import Status
from tests.sim.builders import at, exchange, fills_of, free, order, placed, tick

SECOND = timedelta(seconds=1)


def test_a_delayed_order_is_pending_and_holds_until_its_time_has_come() -> None:
    venue = exchange(latency=SECOND)
    pending = placed(venue, order("BUY", "market_market_ioc", base_size="0.1"))
    assert pending.status is Status.PENDING
    assert venue.balances()["USD"].hold == pending.hold > 0
    assert fills_of(venue.advance(at(0.5))) == []
    assert len(fills_of(venue.advance(at(1)))) == 1
    assert venue.orders[pending.order_id].status is Status.FILLED


def test_a_delayed_order_meets_the_market_as_it_is_then() -> None:
    venue = exchange(latency=SECOND)
    placed(venue, order("BUY", "market_market_ioc", base_size="0.1"))
    venue.on_tick(tick("60000", seconds=0.5))
    assert fills_of(venue.advance(at(1)))[0].price == Decimal("60006")


def test_a_delayed_market_buy_never_spends_more_than_there_is() -> None:
    venue = exchange(usd="5100", latency=SECOND)
    pending = placed(venue, order("BUY", "market_market_ioc", base_size="0.1"))
    venue.on_tick(tick("90000", seconds=0.5))
    venue.advance(at(1))
    done = venue.orders[pending.order_id]
    assert done.status is Status.CANCELLED
    assert 0 < done.filled_size < Decimal("0.1")
    assert 0 <= venue.balances()["USD"].available < Decimal("0.01")


def test_a_delayed_post_only_order_that_would_take_is_cancelled() -> None:
    venue = exchange(latency=SECOND)
    fields: dict[str, Any] = {"base_size": "0.1", "limit_price": "49000", "post_only": True}
    pending = placed(venue, order("BUY", "limit_limit_gtc", **fields))
    venue.on_tick(tick("48000", seconds=0.5))
    venue.advance(at(1))
    assert venue.orders[pending.order_id].status is Status.CANCELLED
    assert free(venue) == "100000"


def test_a_pending_order_can_be_cancelled() -> None:
    venue = exchange(latency=SECOND)
    pending = placed(venue, order("BUY", "market_market_ioc", base_size="0.1"))
    assert venue.cancel(pending.order_id, at(0.1))[0] == ""
    assert venue.advance(at(2)) == []
