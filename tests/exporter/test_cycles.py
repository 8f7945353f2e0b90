from __future__ import annotations

import pytest

from libs.common import messages as m
from tests.exporter.builders import (
    ETH,
    RECOVERED,
    Rig,
    decision,
    mark,
    order,
    restarted,
    signal,
    verdict,
)

GAUGE = "perps_bot_cycle_duration_seconds"
COUNT = "perps_bot_cycle_seconds_count"


def started() -> Rig:
    return Rig().feed(RECOVERED)


def test_a_cycle_without_a_signal_ends_with_the_decision() -> None:
    first = mark(1)
    rig = started().feed(first, decision(first, 1.25)).at(100)
    assert rig.scrape()[GAUGE] == 0.25
    assert rig.scrape()[COUNT] == 1


def test_a_mark_without_a_decision_is_an_unfinished_cycle() -> None:
    rig = started().feed(mark(1))
    assert rig.at(3).scrape()[GAUGE] == 2
    assert rig.at(9).scrape()[GAUGE] == 8


def test_newer_marks_do_not_hide_that_nobody_decides() -> None:
    rig = started().feed(*(mark(second) for second in range(1, 8)))
    assert rig.at(8).scrape()[GAUGE] == 7


def test_a_decision_on_the_newest_mark_ends_the_wait_for_all_before_it() -> None:
    first, second = mark(1), mark(2)
    rig = started().feed(first, second, decision(second, 2.5)).at(100)
    assert rig.scrape()[GAUGE] == 0.5


def test_after_a_decision_on_an_older_mark_the_newest_one_is_still_waiting() -> None:
    first, second = mark(1), mark(2)
    rig = started().feed(first, second, decision(first, 2.5))
    assert rig.at(3).scrape()[GAUGE] == 1.5  # the finished one
    assert rig.at(9).scrape()[GAUGE] == 7  # the unfinished one


def test_products_wait_apart_from_each_other() -> None:
    first, other = mark(1), mark(2, ETH)
    rig = started().feed(first, other, decision(other, 2.1))
    assert rig.at(6).scrape()[GAUGE] == 5


def test_a_signalled_cycle_is_unfinished_until_the_order_is_acknowledged() -> None:
    first = mark(1)
    rig = started().feed(first, signal("s", 1.1, 30), decision(first, 1.1, "s"), verdict("s", 1.2))
    rig.feed(order("s", 1, m.OrderStatus.SUBMITTING, 1.3), order("s", 2, m.OrderStatus.UNKNOWN, 2))
    assert rig.at(8).scrape()[GAUGE] == 7
    assert rig.scrape()[COUNT] == 0
    rig.feed(order("s", 3, m.OrderStatus.ACCEPTED, 4), order("s", 4, m.OrderStatus.FILLED, 6, "0.5"))
    assert rig.scrape()[GAUGE] == 3
    assert rig.scrape()[COUNT] == 1


@pytest.mark.parametrize("status", [m.OrderStatus.REJECTED, m.OrderStatus.DENIED, m.OrderStatus.FILLED])
def test_any_settled_status_ends_a_signalled_cycle(status: m.OrderStatus) -> None:
    first = mark(1)
    rig = started().feed(first, decision(first, 1.1, "s"), verdict("s", 1.2), order("s", 1, status, 1.5))
    assert rig.at(50).scrape()[GAUGE] == 0.5


def test_a_denied_signal_ends_its_cycle_with_the_verdict() -> None:
    first = mark(1)
    rig = started().feed(first, decision(first, 1.1, "s"), verdict("s", 1.75, m.Reason.DAILY_LOSS_LIMIT))
    assert rig.at(50).scrape()[GAUGE] == 0.75


def test_an_end_that_arrives_before_its_decision_counts() -> None:
    first = mark(1)
    rig = started().feed(first, verdict("s", 1.75, m.Reason.DUST), decision(first, 1.5, "s"))
    assert rig.at(50).scrape()[GAUGE] == 0.75


def test_a_cycle_whose_end_was_heard_early_still_lasts_until_its_decision() -> None:
    first = mark(1)
    rig = started().feed(first, verdict("s", 1.25, m.Reason.DUST), decision(first, 1.5, "s"))
    assert rig.at(50).scrape()[GAUGE] == 0.5


def test_of_several_ends_that_were_heard_early_the_first_counts() -> None:
    first = mark(1)
    rig = started().feed(first, order("s", 1, m.OrderStatus.ACCEPTED, 2), order("s", 2, m.OrderStatus.FILLED, 6))
    assert rig.feed(decision(first, 1.5, "s")).at(50).scrape()[GAUGE] == 1


def test_a_cycle_is_never_negative_when_another_machine_s_clock_is_behind() -> None:
    first = mark(1)
    assert started().feed(first, decision(first, 0.5)).at(50).scrape()[GAUGE] == 0


def test_hold_decisions_meanwhile_do_not_hide_a_signalled_cycle() -> None:
    first, second = mark(1), mark(2)
    rig = started().feed(first, decision(first, 1.1, "s"), second, decision(second, 2.1))
    assert rig.at(9).scrape()[GAUGE] == 8


def test_a_decision_that_repeats_its_signal_is_a_cycle_of_its_own_and_ends_at_once() -> None:
    first, second = mark(1), mark(2)
    rig = started().feed(first, decision(first, 1.1, "s"), verdict("s", 1.2, m.Reason.DUST))
    rig.feed(second, decision(second, 2.5, "s"))
    assert rig.at(50).scrape()[GAUGE] == 0.5
    assert rig.scrape()[COUNT] == 2


def test_a_decision_delivered_twice_counts_once() -> None:
    first = mark(1)
    rig = started().feed(first, decision(first, 1.1), decision(first, 1.1), first)
    assert rig.at(50).scrape()[COUNT] == 1
    assert rig.scrape()[GAUGE] == pytest.approx(0.1)


def test_decisions_told_again_out_of_order_count_once() -> None:
    first, second = mark(1), mark(2)
    told = [decision(first, 1.1), decision(second, 2.1)]
    assert started().feed(first, second, *told, *told, *told).at(50).scrape()[COUNT] == 2


def test_a_confirmation_of_an_old_price_is_no_long_cycle() -> None:
    first, confirmed = mark(1), mark(20, received=1, sent=20)
    rig = started().feed(first, decision(first, 1.25), confirmed)
    assert rig.at(20.5).scrape()[GAUGE] == 0.5  # waiting since it was sent, not since the price came
    rig.feed(decision(confirmed, 20.5))
    assert rig.at(99).scrape()[GAUGE] == 0.25


def test_a_confirmation_that_nobody_decides_on_is_an_unfinished_cycle() -> None:
    first = mark(1)
    rig = started().feed(first, decision(first, 1.25), *(mark(n, received=1, sent=n) for n in range(2, 9)))
    assert rig.at(9).scrape()[GAUGE] == 7


def test_a_decision_that_overtakes_its_mark_leaves_nothing_waiting() -> None:
    first = mark(1)
    rig = started().feed(decision(first, 1.25), first)
    assert rig.at(50).scrape()[GAUGE] == 0.25


def test_the_last_known_marks_at_a_start_are_not_taken_for_undecided() -> None:
    rig = Rig().feed(mark(1), RECOVERED)
    assert GAUGE not in rig.at(50).scrape()
    assert rig.feed(mark(51)).at(53).scrape()[GAUGE] == 2


def test_a_signal_that_nobody_answered_is_given_up_after_it_has_expired() -> None:
    first = mark(1)
    rig = started().feed(first, signal("s", 1.1, 30), decision(first, 1.1, "s")).at(45)
    rig.tick(39)
    assert rig.scrape()[GAUGE] == 44
    rig.tick(40.1)
    assert GAUGE not in rig.scrape()
    assert rig.scrape()["perps_bot_signals_unanswered_total"] == 1


def test_an_expiry_that_is_told_late_is_heeded() -> None:
    first = mark(1)
    rig = started().feed(first, decision(first, 1.1, "s"), signal("s", 1.2, 300)).at(200).tick(200)
    assert rig.scrape()[GAUGE] == 199


def test_an_approved_signal_is_never_given_up() -> None:
    first = mark(1)
    rig = started().feed(first, signal("s", 1.1, 30), decision(first, 1.1, "s"), verdict("s", 1.2)).at(500).tick(500)
    assert rig.scrape()[GAUGE] == 499
    assert rig.scrape()["perps_bot_signals_unanswered_total"] == 0


def test_an_unfinished_signalled_cycle_survives_a_restart_and_ends_from_the_ledger() -> None:
    first = mark(1)
    rig = started().feed(first, decision(first, 1.1, "s"), verdict("s", 1.2)).at(9)
    after = restarted(rig).feed(RECOVERED)
    assert after.scrape()[GAUGE] == 8
    after.feed(order("s", 1, m.OrderStatus.SUBMITTING, 1.3), order("s", 2, m.OrderStatus.ACCEPTED, 3))
    assert after.scrape()[GAUGE] == 2


def test_a_signal_that_is_repeated_after_a_restart_does_not_begin_anew() -> None:
    first, second = mark(1), mark(5)
    after = restarted(started().feed(first, decision(first, 1.1, "s"))).feed(RECOVERED)
    after.feed(second, decision(second, 5.1, "s"))
    assert after.at(9).scrape()[GAUGE] == 8


def test_the_histogram_holds_every_finished_cycle() -> None:
    rig = started()
    for second, took in enumerate((0.0005, 0.2, 4.0, 100.0)):
        at = mark(second * 200)
        rig.feed(at, decision(at, second * 200 + took))
    samples = rig.at(999).scrape()
    assert samples["perps_bot_cycle_seconds_bucket{le=0.001}"] == 1
    assert samples["perps_bot_cycle_seconds_bucket{le=3.0}"] == 2
    assert samples["perps_bot_cycle_seconds_bucket{le=6.0}"] == 3
    assert samples["perps_bot_cycle_seconds_bucket{le=60.0}"] == 3
    assert samples["perps_bot_cycle_seconds_bucket{le=+Inf}"] == samples[COUNT] == 4
    assert samples["perps_bot_cycle_seconds_sum"] == pytest.approx(104.2005)
