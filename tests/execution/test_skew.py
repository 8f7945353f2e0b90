from __future__ import annotations

from datetime import UTC, datetime, timedelta

from services.execution.skew import Sample, Skew

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def sample(sent: float, server: float, received: float) -> Sample:
    return Sample(*(NOON + timedelta(seconds=at) for at in (sent, server, received)))


def test_the_offset_is_that_of_the_quickest_answer_and_never_ahead_of_the_venue() -> None:
    skew = Skew()
    # The venue is 30 s ahead; the second answer took 0.1 s, of which half is lost.
    skew.take([sample(0, 30.4, 0.8), sample(1, 31.05, 1.1), sample(2, 32.3, 2.9)], now=0)
    assert skew.offset == timedelta(seconds=29.95)


def test_an_answer_from_a_cache_does_not_win() -> None:
    skew = Skew()
    skew.take([sample(0, -0.9, 0.01), sample(1, 1.05, 1.1)], now=0)
    assert skew.offset == timedelta(seconds=-0.05)


def test_it_is_measured_again_in_a_while_and_sooner_when_the_venue_did_not_answer() -> None:
    skew = Skew()
    assert (skew.due(0), skew.measured) == (True, False)
    skew.take([], now=0)
    assert (skew.due(9), skew.due(10), skew.measured) == (False, True, False)
    skew.take([sample(10, 13, 10)], now=10)
    assert (skew.due(309), skew.due(310), skew.measured) == (False, True, True)
    skew.take([], now=310)
    assert (skew.offset, skew.measured) == (timedelta(seconds=3), True)
