from __future__ import annotations

from pathlib import Path

import pytest

from libs.common.errors import BadConfig
from libs.common.settings import PROFILES, load


def read_all(profile: str, folder: Path, environment: dict[str, str]) -> None:
    settings = load(profile, environment, folder)
    _ = settings.market, settings.nats, settings.log, settings.venue, settings.key_file


def refuse(
    message: str, profile: str = "dev", folder: Path = PROFILES, environment: dict[str, str] | None = None
) -> None:
    with pytest.raises(BadConfig, match=message) as caught:
        read_all(profile, folder, environment or {})
    assert "\n" not in str(caught.value)


def test_an_unknown_profile_is_refused_and_the_known_ones_are_named() -> None:
    refuse("unknown profile 'nope': there are .*dev", "nope")


def test_malformed_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[market\nproducts=")
    refuse("not valid TOML", "x", tmp_path)


def test_an_unknown_section_and_an_unknown_key_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[markett]\n")
    refuse(r"unknown section \[markett\]", "x", tmp_path)
    (tmp_path / "x.toml").write_text('[market]\nproducts=["BTC-USD"]\ncolour="red"\n')
    refuse("colour", "x", tmp_path)
    (tmp_path / "x.toml").write_text("market=1\n")
    refuse("must be a table", "x", tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PERPS_MARKET_GRANULARITY", "7m", "granularity"),
        ("PERPS_MARKET_PRODUCTS", "BTC-EUR", "quoted in USD"),
        ("PERPS_NATS_PORT", "many", "int"),
        ("PERPS_LOG_LEVEL", "LOUD", "level"),
        ("PERPS_LOG_FORMAT", "xml", "format"),
        ("PERPS_STRATEGI_NAME", "x", "unknown environment variable PERPS_STRATEGI_NAME"),
        ("PERPS_NATS", "x", "unknown environment variable"),
    ],
)
def test_a_bad_override_is_refused_in_one_line(name: str, value: str, message: str) -> None:
    refuse(message, environment={name: value})


def test_an_override_wins_over_the_profile() -> None:
    settings = load("dev", {"PERPS_MARKET_PRODUCTS": "SOL-USD", "PERPS_NATS_PORT": "5222", "PERPS_DATA_DIR": "/d"})
    assert settings.market.products == ("SOL-USD",)
    assert settings.nats.servers == ["nats://127.0.0.1:5222"]
    assert settings.metrics_file == Path("/d/data/perps_bot/dev/metrics.json")


def test_a_simulated_profile_finds_its_venue_by_the_port() -> None:
    settings = load("dev", {"PERPS_SIM_PORT": "7000"})
    assert settings.venue.rest_url == "http://127.0.0.1:7000"
    assert settings.venue.ws_url.startswith("ws://127.0.0.1:7000")


def test_real_trading_refuses_to_guess_keys_or_addresses() -> None:
    refuse("needs a CDP key file", "spot")
    refuse("rest_url, ws_url and user_ws_url", "spot", environment={"PERPS_VENUE_REST_URL": ""})


# -- what a profile locks, and the keys


def profile(folder: Path, *lines: str) -> Path:
    (folder / "x.toml").write_text("\n".join(['[market]\nproducts = ["BTC-USD"]\nsimulated = true', *lines]))
    return folder


def test_a_locked_key_may_be_repeated_by_the_environment_but_not_changed(tmp_path: Path) -> None:
    folder = profile(tmp_path, '[profile]\nlocked = ["market.simulated", "market.products"]')
    same = {"PERPS_MARKET_SIMULATED": "true", "PERPS_MARKET_PRODUCTS": "BTC-USD", "PERPS_MARKET_GRANULARITY": "1m"}
    read_all("x", folder, same)
    refuse("PERPS_MARKET_SIMULATED: profile x locks market.simulated", "x", folder, {"PERPS_MARKET_SIMULATED": "false"})
    other = {"PERPS_MARKET_PRODUCTS": "BTC-USD,ETH-USD"}
    refuse("PERPS_MARKET_PRODUCTS: profile x locks market.products", "x", folder, other)
    refuse("unknown environment variable PERPS_Market_Simulated", "x", folder, {"PERPS_Market_Simulated": "false"})


@pytest.mark.parametrize("name", ["market", "market.", "market.simulatd", "markets.simulated", "market.granularity"])
def test_a_lock_of_what_the_profile_does_not_state_is_refused(tmp_path: Path, name: str) -> None:
    refuse(f"locked names {name}, which is no", "x", profile(tmp_path, f'[profile]\nlocked = ["{name}"]'))


@pytest.mark.parametrize("line", ["colour = 1", 'locked = "market.simulated"', 'trades_real_money = "perhaps"'])
def test_what_a_profile_says_of_itself_is_checked(tmp_path: Path, line: str) -> None:
    refuse(r"\[profile\]", "x", profile(tmp_path, f"[profile]\n{line}"))


def test_the_environment_has_no_say_in_what_a_profile_says_of_itself() -> None:
    for name in ("PERPS_PROFILE_TRADES_REAL_MONEY", "PERPS_PROFILE_LOCKED"):
        refuse(f"{name}: what stands under", "spot", environment={name: "true"})


@pytest.mark.parametrize("name", ["private_key", "key_name"])
def test_a_key_in_a_profile_is_refused_without_showing_it(tmp_path: Path, name: str) -> None:
    for value in ('"c2VjcmV0"', '["c2VjcmV0"]', '{ c2VjcmV0 = "c2VjcmV0" }'):
        folder = profile(tmp_path, f"[coinbase]\n{name} = {value}")
        with pytest.raises(BadConfig) as caught:
            load("x", {}, folder)
        assert f"PERPS_COINBASE_{name.upper()}" in str(caught.value)
        assert "c2VjcmV0" not in str(caught.value)


def test_a_profiles_folder_of_ones_own_is_used_instead_of_the_shipped_one(tmp_path: Path) -> None:
    profile(tmp_path)
    assert load("x", {"PERPS_PROFILES_DIR": str(tmp_path)}).market.products == ("BTC-USD",)
    with pytest.raises(BadConfig, match=f"unknown profile 'dev': there are x in {tmp_path}"):
        load("dev", {"PERPS_PROFILES_DIR": str(tmp_path)})
    with pytest.raises(BadConfig, match="there are none in /nowhere"):
        load("dev", {"PERPS_PROFILES_DIR": "/nowhere"})
