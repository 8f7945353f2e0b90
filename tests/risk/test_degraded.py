"""A product whose feed was lost takes no entries until it has been sound for long enough, and then by itself."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from libs.common import messages as m
from services.risk.config import Guards, MarkStaleness
from services.risk.guards import Watch
from services.risk.knowledge import Knowledge
from tests.risk.builders import BTC, ETH, NOON, PRODUCTS, D, feed, guarded, mark

STEPS = MarkStaleness(warn=D(10), reduce=D(30), recover_seconds=5)


class Place:
    """A watch and what risk knows, on a clock set by hand."""

    def __init__(self, steps: MarkStaleness = STEPS) -> None:
        self.config: Guards = guarded(mark_staleness=steps).guards
        self.watch, self.known, self.now = Watch(), Knowledge(PRODUCTS, "USD"), NOON

    def open(self) -> Place:
        """Live, and seen so."""
        place = self.feeds().marks()
        place.look()
        return place

    def feeds(self, state: m.Feed = m.Feed.LIVE, *products: str) -> Place:
        for product_id in products or PRODUCTS:
            self.known.learn(feed(product_id, state))
        return self

    def marks(self, *products: str, at: datetime | None = None) -> Place:
        """The venue confirms its prices, now."""
        for product_id in products or PRODUCTS:
            confirmed = mark(product_id, at=at or self.now)
            self.known.learn(confirmed)
            self.watch.on_mark(confirmed, self.config)
        return self

    def later(self, seconds: float) -> Place:
        self.now += timedelta(seconds=seconds)
        return self

    def look(self) -> dict[str, str]:
        self.watch.look(self.known, self.now, self.config)
        return {product_id: found.reason for product_id, found in self.watch.degraded.items()}

    def lost(self) -> Place:
        """Degraded by its feed, and live again with a fresh mark."""
        self.open().feeds(m.Feed.GAP, BTC).look()
        return self.feeds(m.Feed.LIVE, BTC)


# -- lost


@pytest.mark.parametrize("state", [m.Feed.STALE, m.Feed.GAP, m.Feed.RECONNECTING])
def test_a_feed_that_is_not_live_degrades_its_product_alone(state: m.Feed) -> None:
    assert Place().open().feeds(state, BTC).look() == {BTC: f"feed {state}: "}


def test_a_mark_degrades_from_the_step_on_and_not_before() -> None:
    place = Place().open().later(29.999999).marks(ETH)
    assert place.look() == {}
    assert place.later(0.000001).look() == {BTC: "no mark for 30 seconds"}


def test_a_sound_market_degrades_nothing() -> None:
    place = Place().open()
    for _ in range(100):
        assert place.later(1).marks().look() == {}


def test_what_was_never_there_was_not_lost() -> None:
    assert Place().look() == {}
    assert Place().feeds().look() == {}
    assert Place().feeds(m.Feed.RECONNECTING).marks().look() == {}, "the first connection is under way"


def test_a_fresh_start_is_sound_as_soon_as_the_feed_is_live_and_lost_when_it_is_not_any_more() -> None:
    place = Place().feeds(m.Feed.RECONNECTING).marks()
    assert place.look() == {}
    assert place.feeds().look() == {}
    assert place.feeds(m.Feed.RECONNECTING, BTC).look() == {BTC: "feed reconnecting: "}


@pytest.mark.parametrize(("gap", "degraded"), [(29.999999, False), (30, True), (20_700, True)])
def test_a_gap_between_two_marks_degrades_though_nobody_looked_into_it(gap: float, degraded: bool) -> None:
    """In a replay market time leaps over the outage: there is no moment within it."""
    place = Place().open()
    assert (BTC in place.later(gap).marks().look()) is degraded


def test_a_gap_ends_what_was_sound_before_it() -> None:
    place = Place().lost()
    place.look()
    place.later(60).marks()
    assert BTC in place.look(), "the five seconds begin with the mark after the gap"
    assert BTC not in place.later(5).marks().look()


def test_a_mark_of_the_past_is_no_gap() -> None:
    place = Place().open().later(10).marks()
    place.marks(BTC, at=NOON - timedelta(hours=1))
    assert place.later(20).marks().look() == {}


# -- found again


def test_a_product_recovers_when_it_was_sound_for_long_enough_and_not_before() -> None:
    place = Place().lost()
    assert place.look().keys() == {BTC}
    assert place.later(4.999999).marks().look().keys() == {BTC}
    assert place.later(0.000001).marks().look() == {}


def test_a_break_starts_the_time_again() -> None:
    place = Place().lost()
    place.look()
    assert place.later(4).feeds(m.Feed.STALE, BTC).marks().look() == {BTC: "feed stale: "}
    place.feeds().look()
    assert place.later(4.999999).marks().look().keys() == {BTC}
    assert place.later(0.000001).marks().look() == {}


@pytest.mark.parametrize(("age", "recovers"), [(9.999999, True), (10, False)])
def test_what_recovers_needs_a_mark_younger_than_the_warning(age: float, recovers: bool) -> None:
    place = Place().lost().later(age)
    place.look()
    place.watch.degraded[BTC].sound_since = place.watch.degraded[BTC].sound_since and NOON
    assert (BTC not in place.look()) is recovers


def test_a_mark_as_old_as_the_warning_is_a_break() -> None:
    place = Place().lost()
    place.look()
    assert place.later(10).look().keys() == {BTC}
    place.marks().look()
    assert place.later(4).marks().look().keys() == {BTC}
    assert place.later(1).marks().look() == {}


@pytest.mark.parametrize(("age", "recovers"), [(29.999999, True), (30, False)])
def test_without_a_warning_the_mark_must_be_younger_than_the_step(age: float, recovers: bool) -> None:
    place = Place(MarkStaleness(reduce=D(30), recover_seconds=5)).lost()
    place.look()
    assert (BTC not in place.later(age).look()) is recovers


def test_a_live_feed_without_a_mark_is_not_sound() -> None:
    place = Place().feeds()
    place.look()
    assert place.feeds(m.Feed.RECONNECTING).look().keys() == set(PRODUCTS)
    place.feeds().look()
    assert place.later(60).look().keys() == set(PRODUCTS)


def test_a_fresh_mark_without_a_word_of_its_feed_is_not_sound() -> None:
    place = Place().marks().later(30)
    assert place.look().keys() == set(PRODUCTS)
    place.marks().look()
    assert place.later(5).marks().look().keys() == set(PRODUCTS)
    place.feeds().look()
    assert place.later(5).marks().look() == {}


def test_a_fresh_mark_of_a_feed_that_was_never_live_is_not_sound() -> None:
    place = Place().feeds(m.Feed.RECONNECTING).marks().later(30)
    assert place.look().keys() == set(PRODUCTS)
    place.marks().look()
    assert place.later(5).marks().look().keys() == set(PRODUCTS)
    place.feeds().look()
    assert place.later(5).marks().look() == {}


def test_without_a_time_to_recover_the_first_sound_look_is_enough() -> None:
    place = Place(MarkStaleness(reduce=D(30), recover_seconds=0)).lost()
    assert place.look() == {}


def test_a_product_that_is_not_traded_any_more_is_not_degraded() -> None:
    place = Place().open().feeds(m.Feed.GAP)
    assert place.look().keys() == set(PRODUCTS)
    place.known.products = (ETH,)
    assert place.look().keys() == {ETH}


def test_after_a_restart_the_time_to_recover_begins_with_the_first_mark() -> None:
    place = Place().lost()
    place.look()
    place.known = Knowledge(PRODUCTS, "USD")
    place.later(3).look()
    assert place.watch.degraded[BTC].sound_since is None, "without a mark nothing is sound"
    place.feeds().marks().look()
    assert place.later(4.999999).marks().look().keys() == {BTC}
    assert place.later(0.000001).marks().look() == {}
