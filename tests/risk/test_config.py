"""Limits are explicit, positive and about products that are traded; otherwise nothing starts."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from libs.common.errors import BadConfig
from libs.common.messages import Guard
from libs.common.settings import PROFILES, Settings, load
from services.risk.__main__ import PORT, check
from services.risk.config import LIMITS, HaltPositions, RiskConfig

GUARDS: dict[str, dict[str, Any]] = {
    "daily_loss": {},
    "drawdown": {"warn": "0.1", "reduce": "0.2", "halt": "0.3"},
    "volatility": {"sample_seconds": 60, "window": 30, "halt": 5},
    "mark_staleness": {"warn": 10, "reduce": 30, "recover_seconds": 5},
    "concentration": {"warn": "0.2"},
    "order_errors": {"window_seconds": 300, "warn": 3, "reduce": 5, "halt": 10},
    "rejections": {"halt": 5},
    "position_drift": {},
}
GIVEN: dict[str, Any] = {
    "order_notional_max": 100,
    "position_notional_max": 200,
    "exposure_max": 300,
    "exposure_fraction_max": "0.5",
    "orders_per_minute_max": 6,
    "daily_loss_limit": 50,
    "spread_bps_max": 30,
    "price_deviation_bps_max": 50,
    "slippage_bps": "12.5",
    "account_age_max_seconds": 900,
    "daily_loss_percent_max": "2.5",
    "price_age_max_seconds": 600,
    "halt_positions": "keep",
    "guards": GUARDS,
}


def settings(table: dict[str, Any]) -> Settings:
    return Settings("test", Path("var"), {"market": {"products": ["BTC-USD"], "simulated": False}, "risk": table})


def guarded(guard: str, **changes: Any) -> Settings:
    """With these keys of one guard; None takes the key out."""
    table = {key: value for key, value in {**GUARDS[guard], **changes}.items() if value is not None}
    return settings({**GIVEN, "guards": {**GUARDS, guard: table}})


def refused(given: Settings, says: str) -> None:
    with pytest.raises(BadConfig) as caught:
        check(given)
    line = str(caught.value)
    assert line.startswith("profile test, [risk]: ")
    assert says in line
    assert "\n" not in line


def test_limits_are_exact_decimals() -> None:
    read = check(settings(GIVEN))
    assert (read.daily_loss_limit, read.slippage_bps) == (Decimal(50), Decimal("12.5"))
    assert (read.daily_loss_percent_max, read.guards.drawdown.warn) == (Decimal("2.5"), Decimal("0.1"))
    assert (read.mark_age_max_seconds, read.approval_ttl_seconds, read.port) == (5, 10, PORT)


@pytest.mark.parametrize("name", list(GIVEN))
def test_a_limit_that_is_not_given_is_missed(name: str) -> None:
    with pytest.raises(BadConfig, match=rf"profile test, \[risk\].*{name}"):
        check(settings({key: value for key, value in GIVEN.items() if key != name}))


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [0, -1, "NaN", "inf"])
def test_a_limit_must_be_a_finite_number_above_zero(name: str, value: object) -> None:
    with pytest.raises(BadConfig, match=rf"profile test, \[risk\].*({name}|int)"):
        check(settings({**GIVEN, name: value}))


@pytest.mark.parametrize("value", [0, "NaN"])
def test_a_products_own_limit_must_be_a_finite_number_above_zero(value: object) -> None:
    with pytest.raises(BadConfig, match="position_notional_max_by_product of BTC-USD must be"):
        check(settings({**GIVEN, "position_notional_max_by_product": {"BTC-USD": value}}))


def test_a_limit_of_a_product_that_is_not_traded_is_a_mistake() -> None:
    with pytest.raises(BadConfig, match="names BTCUSD, which is not traded"):
        check(settings({**GIVEN, "position_notional_max_by_product": {"BTCUSD": 1}}))


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(BadConfig, match="daily_los_limit"):
        check(settings({**GIVEN, "daily_los_limit": 5}))


@pytest.mark.parametrize(("name", "value"), [("port", 0), ("port", 70_000), ("host", "")])
def test_an_address_that_cannot_be_is_refused(name: str, value: object) -> None:
    with pytest.raises(BadConfig, match=name):
        check(settings({**GIVEN, name: value}))


def test_a_products_own_limit_comes_before_the_general_one() -> None:
    read = check(settings({**GIVEN, "position_notional_max_by_product": {"BTC-USD": 7}}))
    assert (read.position_limit("BTC-USD"), read.position_limit("ETH-USD")) == (Decimal(7), Decimal(200))


def test_what_becomes_of_positions_on_a_halt_is_one_of_two() -> None:
    assert check(settings({**GIVEN, "halt_positions": "flatten"})).halt_positions is HaltPositions.FLATTEN
    refused(settings({**GIVEN, "halt_positions": "sell"}), "$.halt_positions")


# -- guards


@pytest.mark.parametrize("guard", Guard)
def test_a_guard_that_is_not_given_is_missed(guard: Guard) -> None:
    guards = {name: table for name, table in GUARDS.items() if name != guard}
    refused(settings({**GIVEN, "guards": guards}), f"`{guard}` - at `$.guards`")


def test_a_guard_that_does_not_exist_is_refused() -> None:
    refused(settings({**GIVEN, "guards": {**GUARDS, "draw_down": {}}}), "`draw_down` - at `$.guards`")


@pytest.mark.parametrize("guard", Guard)
def test_an_unknown_step_is_refused(guard: Guard) -> None:
    refused(guarded(guard, stop=1), f"`stop` - at `$.guards.{guard}`")


@pytest.mark.parametrize("guard", Guard)
@pytest.mark.parametrize("value", [0, -1, "NaN", "inf"])
def test_a_step_must_be_a_finite_number_above_zero(guard: Guard, value: object) -> None:
    says = f"halt must be a finite number > 0, it is {Decimal(str(value))} - at `$.guards.{guard}`"
    refused(guarded(guard, halt=value), says)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"warn": "0.2"}, "warn must be below reduce, they are 0.2 and 0.2"),
        ({"reduce": "0.3"}, "reduce must be below halt, they are 0.3 and 0.3"),
        ({"reduce": None, "warn": "0.3"}, "warn must be below halt, they are 0.3 and 0.3"),
        ({"warn": "0.4"}, "warn must be below reduce, they are 0.4 and 0.2"),
    ],
)
def test_the_steps_of_a_guard_rise(changes: dict[str, Any], says: str) -> None:
    refused(guarded("drawdown", **changes), f"{says} - at `$.guards.drawdown`")


@pytest.mark.parametrize("missing", ["warn", "reduce", "halt"])
def test_a_guard_may_do_without_a_step(missing: str) -> None:
    assert getattr(check(guarded("drawdown", **{missing: None})).guards.drawdown, missing) is None


def test_daily_loss_warns_at_four_fifths_and_halts_at_the_limit_or_before_it() -> None:
    steps = check(settings(GIVEN)).guards.daily_loss
    assert (steps.warn, steps.reduce, steps.halt) == (Decimal("0.8"), None, Decimal(1))
    assert check(guarded("daily_loss", warn="0.5", halt="0.9")).guards.daily_loss.halt == Decimal("0.9")
    refused(guarded("daily_loss", halt="1.01"), "halt must be there and at most 1, the limit itself; it is 1.01")


@pytest.mark.parametrize(
    ("guard", "changes", "says"),
    [
        ("volatility", {"sample_seconds": 0}, "sample_seconds must be a finite number > 0, it is 0"),
        ("volatility", {"sample_seconds": None}, "`sample_seconds`"),
        ("volatility", {"window": 9}, "window must be at least 10, it is 9"),
        ("volatility", {"window": None}, "`window`"),
        ("mark_staleness", {"reduce": None}, "`reduce`"),
        ("mark_staleness", {"recover_seconds": -1}, "recover_seconds must be a finite number >= 0, it is -1"),
        ("mark_staleness", {"recover_seconds": "inf"}, "recover_seconds must be a finite number >= 0, it is inf"),
        ("mark_staleness", {"recover_seconds": None}, "`recover_seconds`"),
        ("order_errors", {"window_seconds": 0}, "window_seconds must be a finite number > 0, it is 0"),
        ("order_errors", {"window_seconds": None}, "`window_seconds`"),
        ("order_errors", {"halt": 1001}, "halt must be at most 1000, as many are remembered; it is 1001"),
        ("position_drift", {"warn": 1}, "any drift means reduce-only: only halt can be chosen"),
        ("position_drift", {"reduce": 1}, "any drift means reduce-only: only halt can be chosen"),
    ],
)
def test_what_a_guard_could_not_work_with_is_refused(guard: str, changes: dict[str, Any], says: str) -> None:
    given = guarded(guard, **changes)
    refused(given, says)
    refused(given, f"at `$.guards.{guard}`")


@pytest.mark.parametrize(
    ("guard", "changes"),
    [("volatility", {"window": 10}), ("mark_staleness", {"recover_seconds": 0}), ("order_errors", {"halt": 1000})],
)
def test_the_last_value_that_a_guard_can_work_with_is_taken(guard: str, changes: dict[str, Any]) -> None:
    steps = getattr(check(guarded(guard, **changes)).guards, guard)
    assert all(getattr(steps, name) == value for name, value in changes.items())


def test_in_a_replay_a_mark_may_be_a_candle_older() -> None:
    read = check(settings(GIVEN)).for_replay(300)
    staleness = read.guards.mark_staleness
    assert (staleness.warn, staleness.reduce, staleness.halt) == (Decimal(310), Decimal(330), None)
    assert (staleness.recover_seconds, read.guards.drawdown) == (5, check(settings(GIVEN)).guards.drawdown)


# -- profiles


@pytest.mark.parametrize("profile", sorted(path.stem for path in PROFILES.glob("*.toml")))
def test_every_profile_states_its_limits(profile: str) -> None:
    assert isinstance(check(load(profile, {})), RiskConfig)


def test_the_environment_overrides_a_limit() -> None:
    assert check(load("dev", {"PERPS_RISK_DAILY_LOSS_LIMIT": "123.45"})).daily_loss_limit == Decimal("123.45")


def test_the_spot_profile_keeps_the_limits_of_its_table() -> None:
    read = check(load("spot", {}))
    assert (read.daily_loss_limit, read.spread_bps_max, read.exposure_fraction_max) == (
        Decimal(250),
        Decimal(60),
        Decimal("0.6"),
    )
    assert {p: int(v) for p, v in read.position_notional_max_by_product.items()} == {
        "BTC-USD": 10_000,
        "ETH-USD": 6000,
        "SOL-USD": 2000,
        "XRP-USD": 1500,
        "LTC-USD": 2500,
        "ADA-USD": 1200,
        "DOGE-USD": 800,
        "BCH-USD": 2500,
        "AVAX-USD": 1800,
        "LINK-USD": 1800,
    }
