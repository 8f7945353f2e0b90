from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common import messages as m
from services.exporter.state import RECENT_MAX
from tests.exporter.builders import (
    RECOVERED,
    START,
    Rig,
    fill,
    full_story,
    order,
    restarted,
    status,
    tooling,
    verdict,
)

ERRORS = "perps_bot_cycle_errors_total"
SUBMITTED = "perps_bot_orders_submitted_total"
TOOLING = "perps_bot_order_tooling_errors_total"


def started() -> Rig:
    return Rig().feed(RECOVERED)


def test_an_order_counts_as_submitted_once() -> None:
    submitting = order("a", 1, m.OrderStatus.SUBMITTING, 1)
    rig = started().feed(submitting, submitting, order("a", 2, m.OrderStatus.UNKNOWN, 2))
    rig.feed(order("a", 3, m.OrderStatus.SUBMITTING, 3), order("b", 1, m.OrderStatus.SUBMITTING, 3))
    assert rig.scrape()[SUBMITTED] == 2


def test_an_order_that_was_never_sent_is_not_submitted() -> None:
    rig = started().feed(order("a", 1, m.OrderStatus.DENIED, 1))
    assert rig.scrape()[SUBMITTED] == 0
    assert rig.scrape()["perps_bot_orders_finished_total{status=DENIED}"] == 1
    assert rig.document()["order_stats"] == {"attempted": 0, "successful": 0, "failed": 0}


def test_a_finished_order_is_finished_once() -> None:
    events = [order("a", 1, m.OrderStatus.SUBMITTING, 1), order("a", 2, m.OrderStatus.FILLED, 2, "0.5")]
    samples = started().feed(*events, *events, order("a", 3, m.OrderStatus.FILLED, 3, "0.5")).scrape()
    assert samples["perps_bot_orders_finished_total{status=FILLED}"] == 1
    assert samples["perps_bot_open_orders"] == 0
    assert samples[SUBMITTED] == 1


def test_an_order_that_traded_is_a_success_whatever_ended_it() -> None:
    rig = started()
    for name, end, filled in (("a", "EXPIRED", "0.1"), ("b", "EXPIRED", "0"), ("c", "REJECTED", "0")):
        rig.feed(order(name, 1, m.OrderStatus.SUBMITTING, 1), order(name, 2, m.OrderStatus(end), 2, filled))
    rig.feed(order("d", 1, m.OrderStatus.SUBMITTING, 1))
    assert rig.document()["order_stats"] == {"attempted": 4, "successful": 1, "failed": 2}
    assert rig.document()["open_orders"] == 1


def test_an_overtaken_order_event_changes_nothing() -> None:
    rig = started().feed(order("a", 1, m.OrderStatus.SUBMITTING, 1), order("a", 3, m.OrderStatus.ACCEPTED, 3))
    rig.feed(order("a", 2, m.OrderStatus.UNKNOWN, 2))
    assert rig.scrape()["perps_bot_unknown_orders"] == 0


def test_a_fill_counts_once_with_its_notional() -> None:
    rig = started().feed(fill("f1", 1, "50000", "0.5"), fill("f1", 1, "50000", "0.5"), fill("f2", 2, "100", "2"))
    samples = rig.feed(fill("f3", 3, "10", "1", m.Side.SELL)).scrape()
    assert samples["perps_bot_fills_total{side=BUY}"] == 2
    assert samples["perps_bot_fill_notional_total{side=BUY}"] == 25200
    assert samples["perps_bot_fills_total{side=SELL}"] == 1
    assert samples["perps_bot_fill_notional_total{side=SELL}"] == 10
    told = msgspec.structs.replace(fill("f4", 4, "3", "0.333333333333", m.Side.SELL), value=Decimal(1))
    assert rig.feed(told).scrape()["perps_bot_fill_notional_total{side=SELL}"] == 11


def test_a_verdict_counts_once_under_its_reason() -> None:
    rig = started().feed(verdict("a", 1, m.Reason.DUST), verdict("a", 1, m.Reason.DUST), verdict("b", 2))
    samples = rig.scrape()
    assert samples["perps_bot_verdicts_total{reason=dust}"] == 1
    assert samples["perps_bot_verdicts_total{reason=approved}"] == 1
    assert samples["perps_bot_verdicts_total{reason=mark_stale}"] == 0


def test_errors_of_all_services_add_up() -> None:
    rig = started().feed(status("risk", 1, errors=2), status("strategy", 1, errors=1), status("risk", 2, errors=5))
    assert rig.scrape()[ERRORS] == 6


def test_a_status_that_was_overtaken_or_repeated_adds_no_errors() -> None:
    rig = started().feed(status("risk", 3, errors=4), status("risk", 1, errors=2), status("risk", 3, errors=4))
    rig.feed(status("risk", 4, errors=5))
    assert rig.scrape()[ERRORS] == 5


def test_a_service_that_restarts_in_good_order_adds_no_errors() -> None:
    later = START + timedelta(seconds=60)
    rig = started().feed(status("risk", 1, errors=2), status("risk", 30, errors=7))
    rig.feed(status("risk", 61, errors=2, started_at=later, restarts=1))
    assert rig.scrape()[ERRORS] == 7


def test_a_crash_adds_one_error_whatever_the_service_had_counted_before() -> None:
    later = START + timedelta(seconds=60)
    rig = started().feed(status("risk", 1, errors=2), status("risk", 30, errors=7))
    rig.feed(status("risk", 61, errors=3, started_at=later, restarts=1))
    assert rig.scrape()[ERRORS] == 8
    rig.feed(status("risk", 62, errors=4, started_at=later, restarts=1))
    assert rig.scrape()[ERRORS] == 9


def test_a_start_that_reports_less_than_the_one_before_takes_nothing_back() -> None:
    later = START + timedelta(seconds=60)
    rig = started().feed(status("risk", 1, errors=3), status("risk", 61, errors=1, started_at=later))
    assert rig.scrape()[ERRORS] == 3


def test_a_count_that_falls_within_one_life_is_not_counted_twice() -> None:
    rig = started().feed(status("risk", 1, errors=4), status("risk", 2, errors=2), status("risk", 3, errors=4))
    assert rig.scrape()[ERRORS] == 4


def test_the_last_word_of_a_former_life_adds_no_errors() -> None:
    later = START + timedelta(seconds=60)
    rig = started().feed(status("risk", 61, errors=1, started_at=later), status("risk", 62, errors=9))
    assert rig.scrape()[ERRORS] == 1


def test_only_failed_tools_count_and_each_once() -> None:
    failed = tooling(1, ok=False)
    rig = started().feed(failed, failed, tooling(2, ok=True), tooling(3, ok=False))
    assert rig.scrape()[TOOLING] == 2


def test_the_same_tool_failing_again_counts_again() -> None:
    first = tooling(1, ok=False)
    rig = started().feed(first, msgspec.structs.replace(first, at=START + timedelta(seconds=2)))
    assert rig.scrape()[TOOLING] == 2


def counters(rig: Rig) -> dict[str, float]:
    """What we count ourselves. Restarts are the services' own figure: absent until they report again."""
    return {
        name: value
        for name, value in rig.scrape().items()
        if name.startswith("perps_bot_") and name.partition("{")[0].endswith("_total") and "restarts" not in name
    }


def test_counters_survive_a_restart_and_a_ledger_that_is_told_again() -> None:
    rig = Rig().feed(*full_story())
    before = counters(rig)
    after = restarted(rig).feed(*full_story())
    assert counters(after) == before
    assert after.document()["fills"] == rig.document()["fills"]
    assert after.document()["orders"] == rig.document()["orders"]


def test_errors_and_tools_go_on_from_what_was_dumped() -> None:
    rig = restarted(started().feed(status("risk", 1, errors=4), tooling(1, ok=False)))
    rig.feed(RECOVERED, status("risk", 2, errors=6), tooling(2, ok=False))
    assert rig.scrape()[ERRORS] == 6
    assert rig.scrape()[TOOLING] == 2


def test_a_dump_that_is_not_one_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        Rig().core.restore(b'{"submitted": "many"}')


def test_the_state_stays_small_over_any_number_of_orders() -> None:
    rig = started()
    sizes = []
    for number in range(3 * RECENT_MAX):
        name = f"s{number:06}"
        rig.feed(verdict(name, 1), order(name, 1, m.OrderStatus.SUBMITTING, 1), tooling(number, ok=False))
        rig.feed(fill(f"f{number:06}", 1), order(name, 2, m.OrderStatus.FILLED, 2, "0.5"))
        sizes.append(len(rig.core.dump()) if number in (2 * RECENT_MAX, 3 * RECENT_MAX - 1) else 0)
    assert rig.scrape()[SUBMITTED] == 3 * RECENT_MAX
    assert sizes[-1] - sizes[2 * RECENT_MAX] < 1000  # longer numbers, no more entries
    assert len(rig.document()["fills"]) == 20


def test_nothing_changes_a_dump_while_nothing_durable_happens() -> None:
    rig = Rig().feed(*full_story())
    before = rig.core.dump()
    rig.feed(*(message for message in full_story() if not isinstance(message, m.Decision)))
    assert rig.core.dump() == before


STATUSES = st.sampled_from(list(m.OrderStatus))
ANYTHING: st.SearchStrategy[Callable[[Rig], Rig]] = st.one_of(
    st.builds(
        lambda name, revision, state: lambda rig: rig.feed(order(name, revision, state, 1)),
        st.sampled_from("abc"),
        st.integers(0, 5),
        STATUSES,
    ),
    st.builds(
        lambda at, errors, life: (
            lambda rig: rig.feed(status("risk", at, errors=errors, started_at=START + timedelta(seconds=life)))
        ),
        st.integers(0, 9),
        st.integers(0, 9),
        st.integers(0, 3),
    ),
    st.builds(lambda at, ok: lambda rig: rig.feed(tooling(at, ok)), st.integers(0, 3), st.booleans()),
    st.builds(lambda name: lambda rig: rig.feed(fill(name, 1)), st.sampled_from("abc")),
    st.just(lambda rig: restarted(rig).feed(RECOVERED)),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(ANYTHING, max_size=12))
def test_counters_never_fall_whatever_comes_and_whenever_we_restart(steps: list[Callable[[Rig], Rig]]) -> None:
    rig = started()
    before = counters(rig)
    for step in steps:
        rig = step(rig)
        after = counters(rig)
        assert [name for name, value in before.items() if after[name] < value] == []
        before = after
