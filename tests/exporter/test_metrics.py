from __future__ import annotations

from decimal import Decimal

import pytest

from libs.common import messages as m
from services.exporter.figures import ACCOUNT_PARTS
from tests.exporter.builders import (
    ETH,
    PLAYBOOK_NAMES,
    RECOVERED,
    Rig,
    account,
    decision,
    feed,
    full_story,
    mark,
    order,
    risk,
    status,
    t,
    trading,
)


def test_every_playbook_metric_is_there_after_a_full_story() -> None:
    samples = Rig().feed(*full_story()).at(10).scrape()
    assert [name for name in PLAYBOOK_NAMES if name not in samples] == []
    assert samples["perps_bot_cycle_duration_seconds"] == pytest.approx(0.5)
    assert samples["perps_bot_cycle_errors_total"] == 1
    assert samples["perps_bot_orders_submitted_total"] == 2
    assert samples["perps_bot_risk_daily_loss"] == 125.5
    assert samples["perps_bot_risk_daily_loss_limit"] == 1000
    assert samples["perps_bot_market_data_staleness_seconds"] == 5
    assert samples["perps_bot_telemetry_account_age_seconds"] == 3
    assert samples["perps_bot_order_tooling_errors_total"] == 1


def test_no_playbook_metric_is_there_before_anything_is_known() -> None:
    samples = Rig().at(3).scrape()
    assert [name for name in PLAYBOOK_NAMES if name in samples] == []


def test_after_recovery_counters_begin_at_zero_so_that_the_first_increase_is_seen() -> None:
    samples = Rig().feed(RECOVERED).scrape()
    assert [samples.get(name) for name in PLAYBOOK_NAMES if name.endswith("_total")] == [0, 0, 0]


def test_metrics_up_says_whether_the_exporter_hears_the_bus() -> None:
    rig = Rig()
    assert rig.scrape()["perps_bot_metrics_up"] == 1
    rig.reason = "bus disconnected"
    assert rig.scrape()["perps_bot_metrics_up"] == 0


def test_ages_grow_with_wall_time_alone() -> None:
    rig = Rig().feed(*full_story())
    ages = [
        "perps_bot_market_data_staleness_seconds",
        "perps_bot_market_data_product_staleness_seconds{product=BTC-USD}",
        "perps_bot_telemetry_account_age_seconds",
        "perps_bot_risk_figures_age_seconds",
        "perps_bot_last_mark_age_seconds",
        "perps_bot_last_decision_age_seconds",
        "perps_bot_last_venue_answer_age_seconds",
        "perps_bot_oldest_unknown_order_age_seconds",
    ]
    before, after = rig.at(10).scrape(), rig.at(17).scrape()
    assert [after[name] - before[name] for name in ages] == [pytest.approx(7)] * len(ages)


def test_an_age_is_never_negative_when_another_machine_s_clock_is_ahead() -> None:
    samples = Rig().feed(mark(2), mark(2, ETH), account(2)).at(1).scrape()
    assert samples["perps_bot_market_data_staleness_seconds"] == 0
    assert samples["perps_bot_telemetry_account_age_seconds"] == 0


def test_staleness_is_that_of_the_oldest_product() -> None:
    samples = Rig().feed(mark(1), mark(4, ETH)).at(6).scrape()
    assert samples["perps_bot_market_data_staleness_seconds"] == 5
    assert samples["perps_bot_market_data_product_staleness_seconds{product=ETH-USD}"] == 2
    assert samples["perps_bot_last_mark_age_seconds"] == 2


def test_a_product_without_any_mark_counts_from_the_start_of_the_exporter() -> None:
    rig = Rig().at(35)
    assert rig.scrape()["perps_bot_market_data_product_staleness_seconds{product=ETH-USD}"] == 35
    assert "perps_bot_market_data_staleness_seconds" not in rig.scrape()
    assert rig.feed(mark(34)).scrape()["perps_bot_market_data_staleness_seconds"] == 35


def test_a_confirmation_of_an_old_price_is_fresh() -> None:
    samples = Rig().feed(mark(1), mark(9, received=1, sent=9), mark(9, ETH)).at(10).scrape()
    assert samples["perps_bot_market_data_staleness_seconds"] == 1


def test_a_mark_that_was_overtaken_does_not_make_the_price_older() -> None:
    samples = Rig().feed(mark(9), mark(9, ETH), mark(1)).at(10).scrape()
    assert samples["perps_bot_market_data_staleness_seconds"] == 1


def test_in_a_replay_mark_ages_are_market_time() -> None:
    rig = Rig(replay=True).feed(mark(1, sent=0), mark(1, ETH, sent=0)).at(500)
    assert rig.scrape()["perps_bot_market_data_staleness_seconds"] == 0
    rig.feed(mark(8, ETH, sent=0))
    assert rig.scrape()["perps_bot_market_data_staleness_seconds"] == 7


def test_risk_figures_vanish_when_they_are_old() -> None:
    names = ["perps_bot_risk_daily_loss", "perps_bot_risk_daily_loss_limit", "perps_bot_equity", "perps_bot_fees"]
    rig = Rig().feed(risk(1))
    assert all(name in rig.at(31).scrape() for name in names)
    late = rig.at(31.1).scrape()
    assert [name for name in (*names, "perps_bot_position_quantity{product=BTC-USD}") if name in late] == []
    assert late["perps_bot_risk_figures_age_seconds"] == pytest.approx(30.1)


def test_a_figure_that_risk_does_not_know_is_absent_and_not_zero() -> None:
    samples = Rig().feed(risk(1, daily_loss=None, equity=None, exposure=None, unrealized_pnl=None)).at(2).scrape()
    assert "perps_bot_risk_daily_loss" not in samples
    assert "perps_bot_equity" not in samples
    assert "perps_bot_exposure" not in samples
    assert samples["perps_bot_risk_daily_loss_limit"] == 1000


def test_positions_and_drift_come_per_product_and_currency() -> None:
    samples = Rig().feed(risk(1)).at(2).scrape()
    assert samples["perps_bot_position_quantity{product=BTC-USD}"] == 0.5
    assert samples["perps_bot_position_quantity{product=ETH-USD}"] == 0
    assert samples["perps_bot_account_drift{currency=BTC}"] == 0.01


def test_the_levels_of_the_guards_rise_with_what_they_do() -> None:
    name = "perps_bot_risk_guard_level{guard=drawdown}"
    levels = ("ok", "unknown", "warning", "reduce", "halt")
    told = []
    for level in levels:
        guards = {m.Guard.DRAWDOWN: m.GuardFigure(level=m.GuardLevel(level), value=Decimal(1))}
        rig = Rig().feed(risk(1, guards=guards)).at(2)
        told.append(rig.scrape()[name])
        assert "0 ok, 1 unknown, 2 warning, 3 reduce, 4 halt" in rig.text()
    assert told == [0, 1, 2, 3, 4]


def test_values_and_thresholds_of_the_guards_are_there_where_they_are_known() -> None:
    samples = Rig().feed(risk(1)).at(2).scrape()
    assert samples["perps_bot_risk_guard_value{guard=drawdown}"] == 0.12
    assert "perps_bot_risk_guard_value{guard=volatility}" not in samples
    assert samples["perps_bot_risk_guard_level{guard=volatility}"] == 1
    steps = {step: f"perps_bot_risk_guard_threshold{{guard=daily_loss,step={step}}}" for step in ("warn", "halt")}
    assert (samples[steps["warn"]], samples[steps["halt"]]) == (0.8, 1)
    assert "perps_bot_risk_guard_threshold{guard=daily_loss,step=reduce}" not in samples
    assert samples["perps_bot_risk_guard_threshold{guard=drawdown,step=reduce}"] == 0.1


def test_every_configured_product_says_whether_it_is_degraded_and_no_other_does() -> None:
    samples = Rig().feed(risk(1, degraded={ETH: "gap", "DOGE-USD": "gap"})).at(2).scrape()
    found = {name: value for name, value in samples.items() if name.startswith("perps_bot_market_degraded")}
    assert found == {
        "perps_bot_market_degraded{product=BTC-USD}": 0,
        "perps_bot_market_degraded{product=ETH-USD}": 1,
    }


@pytest.mark.parametrize(("outcome", "going_on"), [("selling", 1), ("waiting", 1), ("flat", 0), ("dust", 0)])
def test_a_position_is_closing_until_it_is_flat_or_dust(outcome: str, going_on: int) -> None:
    closing = {ETH: m.Closing(held=Decimal(1), sold=Decimal(0), outcome=outcome)}
    assert (
        Rig().feed(risk(1, closing=closing)).at(2).scrape()["perps_bot_position_closing{product=ETH-USD}"] == going_on
    )
    assert "perps_bot_position_closing" not in Rig().feed(risk(1, closing=None)).at(2).text()


def test_the_bases_of_the_guards_are_absent_where_they_are_not_known() -> None:
    samples = Rig().feed(risk(1)).at(2).scrape()
    assert (samples["perps_bot_equity_day_start"], samples["perps_bot_equity_peak"]) == (100000, 100250.5)
    samples = Rig().feed(risk(1, equity_day_start=None, equity_peak=None)).at(2).scrape()
    assert not {"perps_bot_equity_day_start", "perps_bot_equity_peak"} & samples.keys()


GUARDED = ("perps_bot_risk_guard_", "perps_bot_market_degraded", "perps_bot_position_closing")


def test_guards_degraded_products_and_closings_vanish_when_the_figures_are_old() -> None:
    rig = Rig().feed(risk(1))
    assert all(name in rig.at(31).text() for name in GUARDED)
    assert not any(name in rig.at(31.1).text() for name in GUARDED)


def test_a_risk_that_tells_of_no_guards_does_not_say_that_nothing_is_degraded() -> None:
    text = Rig().feed(risk(1, guards={}, degraded={}, closing=None)).at(2).text()
    assert not any(name in text for name in GUARDED)


def test_a_failed_part_of_the_account_is_told_and_has_no_figure() -> None:
    samples = Rig().feed(account(1)).at(2).scrape()
    failed = {part: samples[f"perps_bot_account_part_unavailable{{part={part}}}"] for part in ACCOUNT_PARTS}
    assert failed == dict.fromkeys(ACCOUNT_PARTS, 0) | {"limits": 1}
    bare = account(1, permissions=None, foreign_orders=None, taker_fee_rate=None, maker_fee_rate=None)
    samples = Rig().feed(bare).at(2).scrape()
    names = ("perps_bot_fee_rate", "perps_bot_key_permission", "perps_bot_foreign_open_orders")
    assert [name for name in samples if name.startswith(names)] == []
    assert samples["perps_bot_account_part_unavailable{part=permissions}"] == 1
    assert samples["perps_bot_account_part_unavailable{part=foreign_orders}"] == 1


def test_parts_that_are_not_on_the_list_make_no_series() -> None:
    samples = Rig().feed(account(1, unavailable={"weather": "rain"})).at(2).scrape()
    assert "perps_bot_account_part_unavailable{part=weather}" not in samples


def test_the_account_s_fees_permissions_and_foreign_orders_are_exported() -> None:
    samples = Rig().feed(account(1)).at(2).scrape()
    assert samples["perps_bot_fee_rate{side=taker}"] == 0.006
    assert samples["perps_bot_fee_rate{side=maker}"] == 0.004
    assert samples["perps_bot_key_permission{permission=trade}"] == 1
    assert samples["perps_bot_key_permission{permission=transfer}"] == 0
    assert samples["perps_bot_foreign_open_orders"] == 1
    assert samples["perps_bot_foreign_fills"] == 2


def test_an_account_that_is_old_exports_its_age_and_nothing_else() -> None:
    samples = Rig().feed(account(1)).at(901.5).scrape()
    assert samples["perps_bot_telemetry_account_age_seconds"] == 900.5
    assert samples["perps_bot_reconciliation_age_seconds"] == 901.5
    gone = ("perps_bot_account_part", "perps_bot_foreign", "perps_bot_fee_rate", "perps_bot_key_permission")
    assert [name for name in samples if name.startswith(gone)] == []


def test_nothing_is_said_of_an_account_that_nobody_has_read() -> None:
    samples = Rig().at(2).scrape()
    assert [name for name in samples if "account_part" in name or "foreign" in name or "reconciliation" in name] == []


def test_the_age_of_the_reconciliation_is_wall_time_and_in_a_replay_market_time() -> None:
    live = Rig().feed(account(8, reconciled_at=t(5)))
    assert live.at(10).scrape()["perps_bot_reconciliation_age_seconds"] == 5
    replay = Rig(replay=True).feed(account(8, reconciled_at=t(5))).at(10_000)
    assert replay.scrape()["perps_bot_reconciliation_age_seconds"] == 3
    never = Rig().feed(account(8, reconciled_at=None)).at(10).scrape()
    assert "perps_bot_reconciliation_age_seconds" not in never


def test_an_order_whose_edit_is_under_way_is_open_and_neither_sent_again_nor_finished() -> None:
    rig = Rig().feed(RECOVERED, order("a", 1, m.OrderStatus.SUBMITTING, 1), order("a", 2, m.OrderStatus.ACCEPTED, 2))
    rig.feed(order("a", 3, m.OrderStatus.PENDING_UPDATE, 3), order("a", 4, m.OrderStatus.PARTIALLY_FILLED, 4, "0.1"))
    rig.feed(order("a", 5, m.OrderStatus.PENDING_UPDATE, 5))
    samples = rig.scrape()
    assert (samples["perps_bot_open_orders"], samples["perps_bot_orders_submitted_total"]) == (1, 1)
    assert {samples[f"perps_bot_orders_finished_total{{status={status}}}"] for status in m.TERMINAL} == {0}
    assert rig.document()["orders"]["open"][0]["status"] == "PENDING_UPDATE"
    done = rig.feed(order("a", 6, m.OrderStatus.FILLED, 6, "0.5")).scrape()
    assert (done["perps_bot_open_orders"], done["perps_bot_orders_finished_total{status=FILLED}"]) == (0, 1)


def test_exactly_one_trading_state_is_in_force() -> None:
    samples = Rig().feed(trading(1, m.Trading.REDUCING)).scrape()
    states = {state: samples[f"perps_bot_trading_state{{state={state}}}"] for state in m.Trading}
    assert states == {"active": 0, "reducing": 1, "halted": 0}


def test_a_feed_state_is_known_only_while_marketdata_reports() -> None:
    rig = Rig().feed(feed(1, m.Feed.GAP), status("marketdata", 1))
    assert rig.at(2).scrape()["perps_bot_feed_state{product=BTC-USD,state=gap}"] == 1
    assert rig.scrape()["perps_bot_feed_state{product=BTC-USD,state=live}"] == 0
    assert "perps_bot_feed_state{product=BTC-USD,state=gap}" not in rig.at(7).scrape()


def test_a_service_is_down_once_it_has_been_silent_for_five_seconds() -> None:
    rig = Rig().feed(status("risk", 1, restarts=2))
    assert rig.at(5.9).scrape()["perps_bot_service_up{service=risk}"] == 1
    assert rig.scrape()["perps_bot_service_ready{service=risk}"] == 1
    late = rig.at(6).scrape()
    assert late["perps_bot_service_up{service=risk}"] == 0
    assert late["perps_bot_service_ready{service=risk}"] == 0
    assert late["perps_bot_service_restarts_total{service=risk}"] == 2


def test_a_service_that_was_never_heard_of_is_down_and_nothing_else_is_claimed() -> None:
    samples = Rig().scrape()
    assert samples["perps_bot_service_up{service=execution}"] == 0
    assert "perps_bot_service_ready{service=execution}" not in samples
    assert "perps_bot_service_restarts_total{service=execution}" not in samples


def test_a_service_that_reports_a_reason_is_up_but_not_ready() -> None:
    samples = Rig().feed(status("risk", 1, ready=False, not_ready_reason="no marks")).at(2).scrape()
    assert samples["perps_bot_service_up{service=risk}"] == 1
    assert samples["perps_bot_service_ready{service=risk}"] == 0


def test_open_and_unknown_orders_are_counted_while_they_are_so() -> None:
    rig = Rig().feed(RECOVERED, order("a", 1, m.OrderStatus.SUBMITTING, 1), order("a", 2, m.OrderStatus.UNKNOWN, 2))
    rig.feed(order("a", 3, m.OrderStatus.UNKNOWN, 4), order("b", 1, m.OrderStatus.SUBMITTING, 3))
    samples = rig.at(10).scrape()
    assert samples["perps_bot_open_orders"] == 2
    assert samples["perps_bot_unknown_orders"] == 1
    assert samples["perps_bot_oldest_unknown_order_age_seconds"] == 8
    settled = rig.feed(order("a", 4, m.OrderStatus.CANCELED, 5)).scrape()
    assert settled["perps_bot_open_orders"] == 1
    assert settled["perps_bot_unknown_orders"] == 0
    assert "perps_bot_oldest_unknown_order_age_seconds" not in settled


def test_the_last_decision_is_the_youngest_of_all_products() -> None:
    rig = Rig().feed(decision(mark(1), 1.5), decision(mark(3, ETH), 3.5))
    assert rig.at(5).scrape()["perps_bot_last_decision_age_seconds"] == 1.5


def test_the_mode_is_shown_openly() -> None:
    assert Rig().scrape()["perps_bot_info{profile=dev,time=wall,venue=simulated}"] == 1


def test_every_family_has_help_and_type_and_counters_alone_end_in_total() -> None:
    lines = Rig().feed(*full_story()).at(10).text().splitlines()
    types = {line.split()[2]: line.split()[3] for line in lines if line.startswith("# TYPE perps_")}
    helped = {line.split()[2] for line in lines if line.startswith("# HELP perps_")}
    assert set(types) == helped
    wrong = [name for name, kind in types.items() if (kind == "counter") != name.endswith("_total")]
    assert wrong == []


def test_products_that_are_not_configured_make_no_series() -> None:
    rig = Rig().feed(mark(1, "DOGE-USD"), feed(1, product_id="DOGE-USD"), decision(mark(1, "DOGE-USD"), 1))
    assert "DOGE" not in rig.text()
    assert rig.scrape()["perps_exporter_dropped_total{type=Mark}"] == 1


def test_a_large_number_survives_the_way_out() -> None:
    samples = Rig().feed(risk(1, equity=Decimal("123456789.01"))).at(2).scrape()
    assert samples["perps_bot_equity"] == 123456789.01
