"""The shipped profiles: what each locks, who may start them, and who gets to see the keys."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cli.plan import make_plan, own_ports
from cli.stack import Stack
from libs.common.errors import BadConfig
from libs.common.messages import Guard
from libs.common.settings import PROFILES, load
from libs.common.subjects import SERVICES
from services.risk.config import RiskConfig
from tests.cli.commands import ROOT, environment, perps_bot, short_folder, wait_until
from tests.cli.profiles import acknowledged

SIMULATED = ("dev", "demo", "paper")
REAL = ("spot", "canary", "prod")
STEPS = ("warn", "reduce", "halt")
PER_PRODUCT = "position_notional_max_by_product"
KEYS = ("PERPS_COINBASE_PRIVATE_KEY", "PERPS_COINBASE_KEY_NAME", "PERPS_COINBASE_KEY_FILE")
VENUE = {
    "PERPS_VENUE_REST_URL": "http://127.0.0.1:1",
    "PERPS_VENUE_WS_URL": "ws://127.0.0.1:1",
    "PERPS_VENUE_USER_WS_URL": "ws://127.0.0.1:1",
}


@pytest.fixture(autouse=True)
def _no_settings_of_this_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("PERPS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PERPS_DATA_DIR", str(tmp_path / "var"))


def private_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    return {"PERPS_COINBASE_PRIVATE_KEY": private_key(), "PERPS_COINBASE_KEY_NAME": "organizations/o/apiKeys/k"}


def refused(says: str, profile: str, overrides: Mapping[str, str]) -> str:
    with pytest.raises(BadConfig, match=says) as caught:
        make_plan(profile, overrides)
    line = str(caught.value)
    assert "\n" not in line
    return line


def limits_of(profile: str) -> RiskConfig:
    return load(profile, {}).section("risk", RiskConfig)


def test_these_are_the_profiles_that_are_shipped() -> None:
    assert {path.stem for path in PROFILES.glob("*.toml")} == {*SIMULATED, *REAL}


@pytest.mark.parametrize("profile", SIMULATED)
def test_a_simulated_profile_starts_without_keys(profile: str) -> None:
    plan = make_plan(profile)
    assert plan.own_venue
    assert plan.settings.venue.rest_url == "http://127.0.0.1:9110"


def test_paper_names_the_public_feed_and_demo_and_dev_have_none() -> None:
    feeds = {name: make_plan(name).environment.get("PERPS_SIM_FEED_WS_URL") for name in SIMULATED}
    assert feeds == {"dev": None, "demo": None, "paper": "wss://advanced-trade-ws.coinbase.com"}


@pytest.mark.parametrize("profile", ["demo", "paper"])
def test_what_trades_like_prod_has_the_strategy_and_the_limits_of_prod(profile: str) -> None:
    assert load(profile, {}).tables["strategy"] == load("prod", {}).tables["strategy"]
    ours, prod = limits_of(profile), limits_of("prod")
    if profile == "demo":  # its market is synthetic, and more than ten times as volatile
        guards = msgspec.structs.replace(ours.guards, volatility=prod.guards.volatility)
        ours = msgspec.structs.replace(ours, guards=guards)
    assert ours == prod


def test_canary_risks_next_to_nothing_on_one_product() -> None:
    tables = load("canary", {}).tables
    assert tables["market"]["products"] == ["BTC-USD"]
    names = ("order_notional_max", "position_notional_max", "exposure_max", "orders_per_minute_max", "daily_loss_limit")
    assert [tables["risk"][name] for name in names] == [25, 50, 50, 2, 10]
    canary, prod = limits_of("canary"), limits_of("prod")
    assert canary.daily_loss_percent_max < prod.daily_loss_percent_max
    for guard in ("drawdown", "volatility", "order_errors", "rejections", "position_drift"):
        ours, theirs = getattr(canary.guards, guard), getattr(prod.guards, guard)
        assert all(getattr(ours, step) < value for step in STEPS if (value := getattr(theirs, step)) is not None)


# -- real money


@pytest.mark.parametrize("profile", REAL)
def test_real_money_wants_keys_and_a_yes_in_the_profile_itself(
    profile: str, tmp_path: Path, keys: dict[str, str]
) -> None:
    assert "needs a CDP key file" in refused("trades real money", profile, {})
    line = refused("wants a yes", profile, keys)
    assert f"copy {PROFILES / profile}.toml" in line
    assert "write trades_real_money = true under [profile] there, and set PERPS_PROFILES_DIR" in line
    refused("PERPS_PROFILE_TRADES_REAL_MONEY", profile, {**keys, "PERPS_PROFILE_TRADES_REAL_MONEY": "true"})
    own = acknowledged(tmp_path / "own", profile)
    assert not make_plan(profile, {**keys, **own}).own_venue
    (tmp_path / "own" / f"{profile}.toml").write_text((PROFILES / f"{profile}.toml").read_text())
    line = refused("wants a yes", profile, {**keys, **own})
    assert line.endswith(f"write trades_real_money = true under [profile] of {tmp_path}/own/{profile}.toml")


@pytest.mark.parametrize("profile", REAL)
@pytest.mark.parametrize("limit", ["order_notional_max", "daily_loss_limit", "price_age_max_seconds", "concentration"])
def test_real_money_wants_its_limits_stated(profile: str, limit: str, tmp_path: Path, keys: dict[str, str]) -> None:
    own = acknowledged(tmp_path / "own", profile, without=limit)
    assert limit in refused(r"\[risk\]", profile, {**keys, **own})


def test_a_simulated_profile_does_not_turn_real_by_the_environment(keys: dict[str, str]) -> None:
    refused("wants a yes", "dev", {**keys, **VENUE, "PERPS_MARKET_SIMULATED": "false"})
    for name, value in (("REST", "https://api.coinbase.com"), ("WS", "wss://advanced-trade-ws.coinbase.com/")):
        refused("is the real venue's", "dev", {**keys, f"PERPS_VENUE_{name}_URL": value})


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_starts_by_hand_without_the_yes(service: str, tmp_path: Path, keys: dict[str, str]) -> None:
    env = environment(tmp_path / "var", keys)
    command = [sys.executable, "-m", f"services.{service}", "--profile", "prod"]
    answer = subprocess.run(command, env={**env, **VENUE}, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
    assert "prod trades real money, which wants a yes" in answer.stderr


def test_run_and_its_check_refuse_without_the_yes_and_never_show_the_key(tmp_path: Path, keys: dict[str, str]) -> None:
    env = {**environment(tmp_path / "var", keys), **VENUE}
    for arguments in (("run", "--check-config"), ("run",)):
        answer = perps_bot(*arguments, "--profile", "canary", env=env)
        assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
        assert "canary trades real money, which wants a yes" in answer.stderr
    own = acknowledged(tmp_path / "own", "canary")
    answer = perps_bot("run", "--check-config", "--profile", "canary", env={**env, **own})
    assert (answer.returncode, answer.stderr) == (0, "profile canary is valid\n")


# -- locks


@pytest.mark.parametrize("profile", ["demo", "paper"])
@pytest.mark.parametrize("name", [*VENUE, "PERPS_MARKET_SIMULATED"])
def test_the_simulated_profiles_for_show_cannot_be_led_elsewhere(profile: str, name: str) -> None:
    line = refused(f"^{name}: profile {profile} locks ", profile, {name: VENUE.get(name, "false")})
    assert name.removeprefix("PERPS_").lower().replace("_", ".", 1) in line


@pytest.mark.parametrize("profile", REAL)
def test_a_limit_of_real_money_is_changed_in_the_profile_only(profile: str, keys: dict[str, str]) -> None:
    stated = set(load(profile, {}).tables["risk"]) - {PER_PRODUCT}
    assert stated == set(RiskConfig.__struct_fields__) - {PER_PRODUCT, "port", "host"}
    for limit in stated:
        refused(f"profile {profile} locks risk.{limit}", profile, {**keys, f"PERPS_RISK_{limit.upper()}": "9"})
    refused("locks market.simulated", profile, {"PERPS_MARKET_SIMULATED": "true"})


@pytest.mark.parametrize("profile", [*SIMULATED, *REAL])
def test_every_profile_says_what_each_guard_does(profile: str) -> None:
    table = load(profile, {}).tables["risk"]["guards"]
    assert set(table) == set(Guard)
    for guard, steps in table.items():
        assert set(steps) & {*STEPS}, f"{guard} would do nothing"
    assert set(limits_of(profile).guards.__struct_fields__) == set(Guard)


def test_a_guard_cannot_be_set_by_the_environment() -> None:
    refused(r"\[risk\].*guards", "dev", {"PERPS_RISK_GUARDS": "none"})
    refused(r"\[risk\].*guards_drawdown", "dev", {"PERPS_RISK_GUARDS_DRAWDOWN": "9"})


@pytest.mark.parametrize("profile", REAL)
def test_real_profiles_can_be_pointed_at_another_venue(profile: str, tmp_path: Path, keys: dict[str, str]) -> None:
    plan = make_plan(profile, {**keys, **VENUE, **acknowledged(tmp_path / "own", profile)})
    assert plan.settings.venue.rest_url == VENUE["PERPS_VENUE_REST_URL"]


def test_the_profiles_folder_reaches_every_process_as_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, str]
) -> None:
    acknowledged(tmp_path / "own", "canary")
    monkeypatch.chdir(tmp_path)
    plan = make_plan("canary", {"PERPS_PROFILES_DIR": "own", **keys})
    assert plan.environment["PERPS_PROFILES_DIR"] == str(tmp_path / "own")
    refused(f"unknown profile 'dev': there are canary in {tmp_path}/own", "dev", {"PERPS_PROFILES_DIR": "own"})


# -- keys


def test_neither_a_plan_nor_its_settings_print_the_key(tmp_path: Path, keys: dict[str, str]) -> None:
    plan = make_plan("canary", {**keys, **acknowledged(tmp_path / "own", "canary")})
    secret = keys["PERPS_COINBASE_PRIVATE_KEY"]
    assert plan.settings.coinbase.private_key == secret
    for shown in (plan, plan.settings, plan.settings.coinbase, plan.settings.tables):
        assert secret.splitlines()[1] not in f"{shown!r} {shown} {list(getattr(shown, '__rich_repr__', list)())}"


def test_every_program_but_execution_starts_without_the_keys() -> None:
    programs = dict(re.findall(r"^\[program:(\w+)\]\ncommand=(.*)$", (ROOT / "supervisord.conf").read_text(), re.M))
    assert set(programs) == {"nats", "venue", *SERVICES}
    without = {name for name, command in programs.items() if all(f"-u {key} " in command for key in KEYS)}
    assert without == set(programs) - {"execution"}


@pytest.mark.integration
async def test_only_executions_environment_holds_the_keys(keys: dict[str, str]) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux shows the environment of a process")
    with short_folder() as folder:
        named = {**own_ports(), **keys, "PERPS_DATA_DIR": str(folder / "var")}
        async with Stack(make_plan("dev", named)) as stack:
            await stack.start_services()
            programs = await stack.supervisor.processes()
            held = {name: environ(process.pid) for name, process in programs.items()}
    assert set(held) == {"nats", "venue", *SERVICES}
    assert {name for name, names in held.items() if names & set(KEYS)} == {"execution"}
    assert all("PERPS_PROFILE" in names for names in held.values())


def environ(pid: int) -> set[str]:
    """Names of the variables that a program was started with, once supervisord's copy and `env` have become it."""

    def itself() -> bool:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")  # empty in the middle of becoming another
        return words[1:2] in ([b"-m"], [b"-c"]) and b"supervisor.supervisord" not in words

    wait_until(itself, 10)
    return {pair.partition(b"=")[0].decode() for pair in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")}
