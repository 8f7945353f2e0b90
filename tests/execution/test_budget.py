"""Rates and pauses as figures: time is passed in."""

from __future__ import annotations

import pytest

from services.execution.budget import PAUSE_SECONDS_MAX, Budget, Priority, backoff

READ, ORDER, CANCEL = Priority.READ, Priority.ORDER, Priority.CANCEL


def taken(budget: Budget, priority: Priority, now: float) -> int:
    """How many requests go out at once."""
    count = 0
    while budget.take(priority, now) == 0:
        count += 1
    return count


def test_reads_leave_room_for_orders_and_orders_leave_room_for_cancels() -> None:
    budget = Budget(20)
    assert [taken(budget, priority, 0) for priority in (READ, ORDER, CANCEL)] == [10, 6, 4]


def test_the_bucket_fills_with_time_and_says_how_long_to_wait() -> None:
    budget = Budget(20)
    taken(budget, CANCEL, 0)
    assert budget.take(CANCEL, 0) == pytest.approx(1 / 20)
    assert budget.take(READ, 0) == pytest.approx(11 / 20)
    assert budget.take(CANCEL, 1 / 20 + 1e-9) == 0
    assert taken(budget, CANCEL, 60) == 20  # no more than a full bucket, however long it was idle


def test_the_venue_is_believed_when_it_says_that_less_is_left() -> None:
    budget = Budget(20)
    budget.told(limit=30, remaining=2, now=0)
    assert budget.take(READ, 0) > 0
    assert budget.take(ORDER, 0) > 0
    assert taken(budget, CANCEL, 0) == 2


def test_the_venue_is_not_believed_when_it_says_that_more_is_left() -> None:
    budget = Budget(20)
    taken(budget, CANCEL, 0)
    budget.told(limit=10_000, remaining=9_000, now=0)
    assert budget.take(CANCEL, 0) > 0


def test_a_tighter_limit_makes_everything_smaller_and_starves_no_one() -> None:
    budget = Budget(20)
    budget.told(limit=4, remaining=4, now=0)
    assert taken(budget, CANCEL, 0) == 4
    assert [budget.take(READ, 1), taken(budget, CANCEL, 1)] == [0, 3]
    budget.told(limit=1, remaining=0, now=1)
    assert budget.take(READ, 2) == 0


@pytest.mark.parametrize(("told", "seconds"), [(None, 1.0), (5.0, 5.0), (86_400.0, 60.0)])
def test_a_refusal_empties_the_bucket_and_holds_reads_for_as_long_as_the_venue_says(
    told: float | None, seconds: float
) -> None:
    budget = Budget(20)
    budget.refused(told, now=100)
    assert budget.take(CANCEL, 100) == pytest.approx(1 / 20)
    assert budget.take(READ, 100) == pytest.approx(seconds)
    assert budget.take(CANCEL, 100.1) == 0
    assert budget.take(READ, 100 + seconds - 0.01) > 0
    assert budget.take(READ, 100 + seconds) == 0


def test_pauses_double_up_to_a_bound_and_are_spread_by_chance() -> None:
    assert [backoff(attempt, 1.0) for attempt in range(6)] == [0.25, 0.5, 1, 2, 4, PAUSE_SECONDS_MAX]
    assert [backoff(attempt, 0.0) for attempt in range(6)] == [0] * 6
    assert backoff(10**9, 0.5) == PAUSE_SECONDS_MAX / 2
