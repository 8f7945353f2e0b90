"""One reading of configuration: a TOML profile, then PERPS_* overrides, into frozen structs that check themselves.

`config/profiles/<profile>.toml` has one table per section; `PERPS_<SECTION>_<KEY>` overrides one scalar of it
(`PERPS_EXPORTER_PORT=9202`, `PERPS_MARKET_GRANULARITY=5m`). Unknown sections, keys and PERPS_ names are refused.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from libs.common.errors import BadConfig

PROFILES = Path(__file__).parents[2] / "config" / "profiles"
SECTIONS = (
    "market",
    "nats",
    "venue",
    "coinbase",
    "log",
    "marketdata",
    "strategy",
    "risk",
    "execution",
    "exporter",
    "sim",
)
GLOBALS = ("PERPS_DATA_DIR", "PERPS_PROFILE", "PERPS_IDENTITY_FILE", "PERPS_PYTHON", "PERPS_NATS_SERVER")
GRANULARITY_SECONDS = {
    "1s": 1,
    "2s": 2,
    "5s": 5,
    "10s": 10,
    "1m": 60,
    "5m": 300,
    "15m": 900,
    "30m": 1800,
    "1h": 3600,
    "2h": 7200,
    "6h": 21600,
    "1d": 86400,
}

T = TypeVar("T", bound=Struct)


class Market(Struct, frozen=True, forbid_unknown_fields=True):
    """What is traded. `granularity` is the length of the candles that strategies see."""

    products: tuple[str, ...]
    quote_currency: str = "USD"
    granularity: str = "5m"
    replay: bool = False  # market time follows the messages instead of the wall clock
    simulated: bool = True  # the venue is ours; False trades real money

    def __post_init__(self) -> None:
        if not self.products:
            raise ValueError("products must name at least one product")
        if self.granularity not in GRANULARITY_SECONDS:
            raise ValueError(f"granularity must be one of {', '.join(GRANULARITY_SECONDS)}")
        if foreign := [p for p in self.products if not p.endswith(f"-{self.quote_currency}")]:
            raise ValueError(f"products must be quoted in {self.quote_currency}, {foreign[0]} is not")

    @property
    def candle_seconds(self) -> int:
        return GRANULARITY_SECONDS[self.granularity]


class Nats(Struct, frozen=True, forbid_unknown_fields=True):
    url: str = ""  # one or several servers, separated by commas; empty: 127.0.0.1 at `port`
    port: int = 4222
    monitor_port: int = 8222

    @property
    def servers(self) -> list[str]:
        return (self.url or f"nats://127.0.0.1:{self.port}").split(",")


class Venue(Struct, frozen=True, forbid_unknown_fields=True):
    """Addresses of Coinbase Advanced Trade; empty ones mean the simulated venue on `[sim] port`."""

    rest_url: str = ""
    ws_url: str = ""
    user_ws_url: str = ""


class Coinbase(Struct, frozen=True, forbid_unknown_fields=True):
    """Keys of the account. The private key comes from a file or from the environment, never from a profile."""

    key_file: str = ""  # empty, with no private key given: the key file that the simulated venue writes
    key_name: str = ""  # where the file holds nothing but the private key, or the environment holds it
    private_key: str = ""

    def __repr__(self) -> str:
        return f"Coinbase(key_file={self.key_file!r})"


class Log(Struct, frozen=True, forbid_unknown_fields=True):
    format: str = "json"
    level: str = "INFO"

    def __post_init__(self) -> None:
        if self.format not in ("json", "text"):
            raise ValueError("format must be json or text")
        if self.level not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
            raise ValueError("level must be DEBUG, INFO, WARNING, ERROR or CRITICAL")


class Settings(Struct, frozen=True):
    """A profile after overrides. `section` decodes one table into the struct of the service that asks."""

    profile: str
    data_dir: Path
    tables: dict[str, dict[str, Any]]

    def section(self, name: str, kind: type[T]) -> T:
        """Raises BadConfig with one line that names the section and the key."""
        try:
            return msgspec.convert(self.tables.get(name, {}), kind, strict=False)
        except (msgspec.ValidationError, ValueError) as error:
            raise BadConfig(f"profile {self.profile}, [{name}]: {error}") from None

    @property
    def market(self) -> Market:
        return self.section("market", Market)

    @property
    def nats(self) -> Nats:
        return self.section("nats", Nats)

    @property
    def log(self) -> Log:
        return self.section("log", Log)

    @property
    def sim_url(self) -> str:
        """Host and port of the simulated venue, without a scheme."""
        return f"127.0.0.1:{self.tables.get('sim', {}).get('port', 9110)}"

    @property
    def venue(self) -> Venue:
        """Addresses with the simulated venue filled in. Raises BadConfig where real trading names no address."""
        given = self.section("venue", Venue)
        if not self.market.simulated:
            if not (given.rest_url and given.ws_url and given.user_ws_url):
                raise BadConfig(f"profile {self.profile}, [venue]: rest_url, ws_url and user_ws_url are needed")
            return given
        return Venue(
            rest_url=given.rest_url or f"http://{self.sim_url}",
            ws_url=given.ws_url or f"ws://{self.sim_url}/ws",
            user_ws_url=given.user_ws_url or f"ws://{self.sim_url}/ws/user",
        )

    @property
    def key_file(self) -> Path:
        """CDP key file of the account. Raises BadConfig where real trading names none."""
        given = self.section("coinbase", Coinbase).key_file
        if not given and not self.market.simulated:
            raise BadConfig(
                f"profile {self.profile} trades real money and needs a CDP key file: "
                "set PERPS_COINBASE_KEY_FILE or [coinbase] key_file"
            )
        return Path(given) if given else self.data_dir / "sim" / "cdp_api_key.json"

    @property
    def identities(self) -> Path:
        """Folder with one bus credential per identity."""
        return self.data_dir / "nats" / "identities"

    @property
    def metrics_file(self) -> Path:
        return self.data_dir / "data" / "perps_bot" / self.profile / "metrics.json"


def load(profile: str, environment: Mapping[str, str] = os.environ, folder: Path = PROFILES) -> Settings:
    """Read `<folder>/<profile>.toml` and the overrides. Raises BadConfig with one line."""
    path = folder / f"{profile}.toml"
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        raise BadConfig(f"unknown profile {profile!r}: there are {known}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} is not valid TOML: {error}") from None
    if unknown := [name for name in tables if name not in SECTIONS]:
        raise BadConfig(f"{path}: unknown section [{unknown[0]}]; there are {', '.join(SECTIONS)}")
    if loose := [name for name, table in tables.items() if not isinstance(table, dict)]:
        raise BadConfig(f"{path}: {loose[0]} must be a table")
    for name, value in environment.items():
        if name.startswith("PERPS_") and name not in GLOBALS:
            section, key = _split(name)
            tables.setdefault(section, {})[key] = _listed(section, key, value)
    return Settings(profile, Path(environment.get("PERPS_DATA_DIR", "var")).absolute(), tables)


def _split(name: str) -> tuple[str, str]:
    section, _, key = name.removeprefix("PERPS_").lower().partition("_")
    if section not in SECTIONS or not key:
        raise BadConfig(f"unknown environment variable {name}: overrides are PERPS_<SECTION>_<KEY>")
    return section, key


def _listed(section: str, key: str, value: str) -> str | list[str]:
    return [part for part in value.split(",") if part] if (section, key) == ("market", "products") else value
