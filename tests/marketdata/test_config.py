"""Settings of marketdata: defaults that hold, wrong ones refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from libs.common.errors import BadConfig
from libs.common.settings import Settings, load
from services.marketdata.__main__ import check
from services.marketdata.config import PORT


def settings(**section: object) -> Settings:
    return Settings("test", Path(), {"market": {"products": ["BTC-USD"]}, "marketdata": section})


def test_the_defaults_are_those_of_the_port_table_and_the_design() -> None:
    config = check(settings())[2]
    assert (config.port, config.silent_seconds, config.stale_seconds) == (PORT, 5.0, 10.0) == (9103, 5.0, 10.0)
    assert (config.reconnect_seconds_min, config.reconnect_seconds_max) == (0.25, 5.0)
    assert (config.warmup_candles, config.product_refresh_seconds, config.candle_grace_seconds) == (300, 60.0, 0.5)


@pytest.mark.parametrize("profile", ["dev", "spot", "prod"])
def test_every_profile_is_valid_for_marketdata(profile: str) -> None:
    check(load(profile, {}))


def test_the_environment_overrides_the_profile() -> None:
    assert check(load("dev", {"PERPS_MARKETDATA_SILENT_SECONDS": "2.5"}))[2].silent_seconds == 2.5


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ({"port": 0}, "port must be between 1 and 65535"),
        ({"silent_seconds": 0}, "silent_seconds must be above 0"),
        ({"ack_seconds": -1}, "ack_seconds must be above 0"),
        ({"stale_seconds": 0}, "stale_seconds must be above 0"),
        ({"reconnect_seconds_min": 0}, "reconnect_seconds_min must be above 0"),
        ({"reconnect_seconds_max": 0.1}, "reconnect_seconds_max must not be below reconnect_seconds_min"),
        ({"product_refresh_seconds": 0.5}, "product_refresh_seconds must be at least 1"),
        ({"warmup_candles": -1}, "warmup_candles must not be negative"),
        ({"candle_grace_seconds": 3}, "candle_grace_seconds must be between 0 and 2"),
        ({"no_such_key": 1}, "no_such_key"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line_that_names_it(section: dict[str, object], text: str) -> None:
    with pytest.raises(BadConfig) as caught:
        check(settings(**section))
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
