"""Limits are explicit, positive and about products that are traded; otherwise nothing starts."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from libs.common.errors import BadConfig
from libs.common.settings import Settings, load
from services.risk.__main__ import PORT, check
from services.risk.config import LIMITS, RiskConfig

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
}


def settings(table: dict[str, Any]) -> Settings:
    return Settings("test", Path("var"), {"market": {"products": ["BTC-USD"], "simulated": False}, "risk": table})


def test_limits_are_exact_decimals() -> None:
    read = check(settings(GIVEN))
    assert (read.daily_loss_limit, read.slippage_bps) == (Decimal(50), Decimal("12.5"))
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


@pytest.mark.parametrize("profile", ["dev", "spot", "prod"])
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
