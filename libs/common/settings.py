"""One reading of configuration: a TOML profile, then PERPS_* overrides, into frozen structs that check themselves.

`config/profiles/<profile>.toml` has one table per section; `PERPS_<SECTION>_<KEY>` overrides one scalar of it
(`PERPS_EXPORTER_PORT=9202`, `PERPS_MARKET_GRANULARITY=5m`). Unknown sections, keys and PERPS_ names are refused, and so
is an override of what the profile locks. The table `[profile]` is for the file alone: the environment has no say in it.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

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
GLOBALS = (
    "PERPS_DATA_DIR",
    "PERPS_PROFILE",
    "PERPS_PROFILES_DIR",
    "PERPS_IDENTITY_FILE",
    "PERPS_PYTHON",
    "PERPS_NATS_SERVER",
)
KEYS = ("key_name", "private_key")  # of [coinbase]: from the environment, never from a profile
PRIVATE_KEY = "PERPS_COINBASE_PRIVATE_KEY"
REAL_VENUE = "coinbase.com"
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


class Secret(str):
    """Text that prints as nothing wherever a struct, a table or a traceback shows what it holds."""

    def __repr__(self) -> str:
        return "'***'"


class Profile(Struct, frozen=True, forbid_unknown_fields=True):
    """What a profile says of itself. `locked` are the `section.key` of this file that no PERPS_* variable changes;
    `trades_real_money` is the operator's word, without which nothing that trades real money starts."""

    locked: tuple[str, ...] = ()
    trades_real_money: bool = False


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
    """Keys of the account. Only where they are may stand in a profile: see KEYS."""

    key_file: str = ""  # empty, with no private key given: the key file that the simulated venue writes
    key_name: str = ""  # where the file holds nothing but the private key, or the environment holds it
    private_key: str = ""

    def __repr__(self) -> str:
        """Without the key, whoever prints it."""
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
    folder: Path = PROFILES  # of the profile

    def section(self, name: str, kind: type[T]) -> T:
        """Raises BadConfig with one line that names the section and the key."""
        try:
            return msgspec.convert(self.tables.get(name, {}), kind, strict=False)
        except (ValueError, OverflowError) as error:
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
    def coinbase(self) -> Coinbase:
        return self.section("coinbase", Coinbase)

    def check_live(self) -> None:
        """Whoever starts something that trades real money has said so in the profile. Raises BadConfig."""
        if not self.market.simulated and not self.section("profile", Profile).trades_real_money:
            file, word = self.folder / f"{self.profile}.toml", "write trades_real_money = true under [profile]"
            shipped = f"copy {file} to a folder of your own, {word} there, and set PERPS_PROFILES_DIR to that folder"
            how = shipped if self.folder == PROFILES else f"{word} of {file}"
            raise BadConfig(f"profile {self.profile} trades real money, which wants a yes: {how}")

    @property
    def sim_url(self) -> str:
        """Host and port of the simulated venue, without a scheme."""
        return f"127.0.0.1:{self.tables.get('sim', {}).get('port', 9110)}"

    @property
    def venue(self) -> Venue:
        """Addresses with the simulated venue filled in. Raises BadConfig where real trading names no address, or where
        what calls itself simulated names the real venue."""
        given = self.section("venue", Venue)
        if not self.market.simulated:
            if not (given.rest_url and given.ws_url and given.user_ws_url):
                raise BadConfig(f"profile {self.profile}, [venue]: rest_url, ws_url and user_ws_url are needed")
            return given
        for name in given.__struct_fields__:
            place = f"profile {self.profile}, [venue]: {name}"
            try:
                host = urlsplit(getattr(given, name)).hostname or ""
            except ValueError as error:
                raise BadConfig(f"{place} is no address: {error}") from None
            if f".{host}".endswith(f".{REAL_VENUE}"):
                raise BadConfig(f"{place} is the real venue's, while [market] simulated = true")
        return Venue(
            rest_url=given.rest_url or f"http://{self.sim_url}",
            ws_url=given.ws_url or f"ws://{self.sim_url}/ws",
            user_ws_url=given.user_ws_url or f"ws://{self.sim_url}/ws/user",
        )

    @property
    def key_file(self) -> Path:
        """CDP key file of the account; where none is named, the one that the simulated venue writes. Raises BadConfig
        where real trading names neither a file nor the key itself."""
        given = self.coinbase
        if not self.market.simulated and not (given.key_file or given.private_key):
            raise BadConfig(
                f"profile {self.profile} trades real money and needs a CDP key file: set PERPS_COINBASE_KEY_FILE or "
                "[coinbase] key_file, or PERPS_COINBASE_PRIVATE_KEY and PERPS_COINBASE_KEY_NAME"
            )
        return Path(given.key_file) if given.key_file else self.data_dir / "sim" / "cdp_api_key.json"

    @property
    def identities(self) -> Path:
        """Folder with one bus credential per identity."""
        return self.data_dir / "nats" / "identities"

    @property
    def metrics_file(self) -> Path:
        return self.data_dir / "data" / "perps_bot" / self.profile / "metrics.json"


def load(profile: str, environment: Mapping[str, str] = os.environ, folder: Path | None = None) -> Settings:
    """Read `<folder>/<profile>.toml` and the overrides; without `folder`, PERPS_PROFILES_DIR or the shipped profiles.

    Raises BadConfig with one line.
    """
    folder = (folder or Path(environment.get("PERPS_PROFILES_DIR") or PROFILES)).absolute()
    tables = _read(profile, folder)
    settings = Settings(profile, Path(environment.get("PERPS_DATA_DIR", "var")).absolute(), tables, folder)
    locked = _locked(settings)
    for name, value in environment.items():
        if name.startswith("PERPS_") and name not in GLOBALS:
            section, key = _split(name)
            if f"{section}.{key}" in locked and value != as_text(tables[section][key]):
                raise BadConfig(f"{name}: profile {profile} locks {section}.{key}, it is changed in the profile only")
            tables.setdefault(section, {})[key] = Secret(value) if name == PRIVATE_KEY else _listed(section, key, value)
    return settings


def as_text(value: object) -> str:
    """A setting as an environment variable holds it."""
    if isinstance(value, list | tuple):
        return ",".join(str(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(profile: str, folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / f"{profile}.toml"
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        raise BadConfig(f"unknown profile {profile!r}: there are {known or 'none'} in {folder}") from None
    except OSError as error:
        raise BadConfig(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # ValueError: no TOML, no UTF-8, a number of thousands of digits
        raise BadConfig(f"{path} is not valid TOML: {error}") from None
    if unknown := [name for name in tables if name not in (*SECTIONS, "profile")]:
        raise BadConfig(f"{path}: unknown section [{unknown[0]}]; there are profile, {', '.join(SECTIONS)}")
    if loose := [name for name, table in tables.items() if not isinstance(table, dict)]:
        raise BadConfig(f"{path}: {loose[0]} must be a table")
    if told := [name for name in KEYS if name in tables.get("coinbase", {})]:
        raise BadConfig(f"{path}: [coinbase] {told[0]} belongs in PERPS_COINBASE_{told[0].upper()}, not in a profile")
    return tables


def _locked(settings: Settings) -> frozenset[str]:
    """A lock names what the file itself states: so a misspelt one cannot pass for a lock."""
    locked = settings.section("profile", Profile).locked
    for name in locked:
        section, _, key = name.partition(".")
        if section not in SECTIONS or key not in settings.tables.get(section, {}):
            raise BadConfig(
                f"profile {settings.profile}, [profile]: locked names {name}, which is no section.key of this profile"
            )
    return frozenset(locked)


def _split(name: str) -> tuple[str, str]:
    section, _, key = name.removeprefix("PERPS_").lower().partition("_")
    if section not in (*SECTIONS, "profile") or not key or name != name.upper():
        raise BadConfig(f"unknown environment variable {name}: overrides are PERPS_<SECTION>_<KEY>")
    if section == "profile":
        raise BadConfig(f"{name}: what stands under [profile] is said in the profile, never in the environment")
    return section, key


def _listed(section: str, key: str, value: str) -> str | list[str]:
    return [part for part in value.split(",") if part] if (section, key) == ("market", "products") else value
