"""A profile with something odd in it, and odd variables of the environment: read, or refused in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from cli.plan import make_plan
from libs.common.errors import BadConfig
from libs.common.settings import PROFILES, Coinbase, Log, Market, Nats, Profile, Settings, Venue, load
from services.execution.config import ExecutionConfig
from services.execution.core import ExecutionCore
from services.exporter.config import ExporterConfig
from services.exporter.core import ExporterCore
from services.marketdata.config import Config as MarketDataConfig
from services.marketdata.core import MarketDataCore
from services.risk.__main__ import check as risk_config
from services.risk.config import RiskConfig
from services.risk.core import RiskCore
from services.strategy.config import StrategyConfig
from tests.properties.damage import damaged, places

SECTIONS: dict[str, type[Struct]] = {
    "profile": Profile,
    "market": Market,
    "nats": Nats,
    "venue": Venue,
    "coinbase": Coinbase,
    "log": Log,
    "marketdata": MarketDataConfig,
    "strategy": StrategyConfig,
    "risk": RiskConfig,
    "execution": ExecutionConfig,
    "exporter": ExporterConfig,
}
WHOLE = (PROFILES / "dev.toml").read_bytes()
WORDS = """
    true false 0 -1 1 65536 9223372036854775808 99999999999999999999999999 0.0 -0.0 0.1 1e400 inf -inf nan "" "x" "NaN"
    "sNaN" "inf" "1e400" "-1" "1e-400" "1E99999999999999999999" "0" "true" "BTC-USD" "a,b" "\\u0000" "a\\nb" "\\u2028"
    "http://[" "http://[x]:y" "ws://h:99999999" ".x:y" "os:path" "tests.cli.quiet:Quiet" ":" "a:" [] [[]] [1] [""]
    ["x"] ["BTC-USD"] {} {a=1} {a={}} [{}] 2026-02-30 2026-01-01 2026-01-01T00:00:00Z 07:32:00 1_000 0x10 [1,"a"]
"""
VALUES = WORDS.split()
VALUES += ["9" * 5000, '"' + "9" * 5000 + '"', "[" * 3000 + "]" * 3000, "{a=" * 300 + "1" + "}" * 300, "1e9", "1e300"]
TURNS = 20  # the same for variables, of which there are more
SHARE = 8  # one odd value in so many is tried at each place
fuzz = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def starts(folder: Path, profile: bytes, environment: dict[str, str] | None = None) -> bool:
    """Whether it is taken; then every core can be made of it. A refusal is one line."""
    (folder / "odd.toml").write_bytes(profile)
    own = {"PERPS_DATA_DIR": str(folder / "var"), "PERPS_PROFILES_DIR": str(folder), **(environment or {})}
    try:
        make_cores(make_plan("odd", own).settings)
    except BadConfig as error:
        refused = str(error)
    else:
        return True
    assert refused.splitlines() == [refused]
    return False


def make_cores(found: Settings) -> None:
    market = found.market
    RiskCore(risk_config(found), market.products, market.quote_currency)
    ExecutionCore(found.section("execution", ExecutionConfig))
    config = found.section("marketdata", MarketDataConfig)
    MarketDataCore(market.products, market.granularity, market.candle_seconds, config, market.replay)
    ExporterCore(market.products)


def written(value: object) -> str:
    """As TOML, in one line; a name that begins with @ stands for itself."""
    match value:
        case dict():
            return "{" + ", ".join(f"{json.dumps(name)} = {written(each)}" for name, each in value.items()) + "}"
        case list():
            return f"[{', '.join(map(written, value))}]"
        case _:
            return json.dumps(value)


def profiles(section: str) -> Iterator[bytes]:
    """Every setting of the section, each with odd values in turn."""
    told = msgspec.to_builtins(load("dev", {}).section(section, SECTIONS[section]))
    table = {name: value for name, value in told.items() if value is not None}
    rest = {name: each for name, each in load("dev", {}).tables.items() if name != section}
    others = "".join(f"{name} = {written(each)}\n" for name, each in rest.items())
    turns = count()
    for container, key in list(places(table)):
        kept, container[key] = container[key], "@hole@"
        text = f"{others}{section} = {written(table)}\n"
        for value in VALUES[next(turns) % SHARE :: SHARE]:
            yield text.replace('"@hole@"', value).encode("utf-8", "surrogatepass")
        container[key] = kept


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_with_an_odd_value_is_taken_or_refused_in_one_line(section: str, tmp_path: Path) -> None:
    assert starts(tmp_path, WHOLE)
    assert False in [starts(tmp_path, profile) for profile in profiles(section)]


def test_every_odd_variable_is_taken_or_refused_in_one_line(tmp_path: Path) -> None:
    names = [f"PERPS_{section}_{key}".upper() for section, kind in SECTIONS.items() for key in kind.__struct_fields__]
    names += [f"PERPS_SIM_{key}".upper() for key in ("port", "products", "cash", "from", "to", "replay", "feed_ws_url")]
    texts = [value.strip('"').encode().decode("unicode_escape")[:600] for value in VALUES if "\\u0000" not in value]
    for number, name in enumerate(names):
        for text in texts[number % TURNS :: TURNS]:
            starts(tmp_path, WHOLE, {name: text})


@fuzz
@given(st.data())
def test_a_profile_with_damaged_bytes_is_taken_or_refused_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    starts(tmp_path, data.draw(st.composite(lambda draw: damaged(WHOLE, draw))()))
