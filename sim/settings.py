"""The simulator's settings, read once from PERPS_* environment variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from sim.columns import number, product_of, read_iso


class BadSettings(Exception):
    """A setting that cannot be used; one line naming its variable."""


class Settings(Struct, frozen=True):
    """How the venue runs. `replay` names a file of market data; without it, prices come live from the feed that is
    named, or else from a synthetic market."""

    port: int = 9110
    data_dir: Path = Path("var")
    seed: int = 1
    products: tuple[str, ...] = ("BTC-USD", "ETH-USD")
    cash: Decimal = Decimal(100_000)  # USD at the very first start
    replay: Path | None = None
    start: datetime | None = None
    end: datetime | None = None  # exclusive
    product: str | None = None
    half_spread_bps: Decimal = Decimal(1)
    taker_fee: Decimal = Decimal("0.012")  # fraction of the value
    maker_fee: Decimal = Decimal("0.006")
    rate_limits: bool = False
    feed_ws_url: str = ""  # a public Coinbase feed, for paper trading
    feed_rest_url: str = ""
    feed_silent_seconds: float = 5  # without any message the feed counts as lost
    first_subscribe_seconds: float = 5  # the venue hangs up on a socket without a subscription by then

    @property
    def folder(self) -> Path:
        """Where the venue keeps its state and its key file."""
        return self.data_dir / "sim"


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not low <= int(value) <= high:
            raise ValueError
        return int(value)

    return parse


def _products(value: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_product(name.strip()) for name in value.split(",")))


def _product(value: str) -> str:
    if product_of(value) != value:
        raise ValueError
    return value


def _below_one(value: str) -> Decimal:
    rate = number(value)
    if rate >= 1:
        raise ValueError
    return rate


def _switch(value: str) -> bool:
    return {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}[value.lower()]


def _address(*schemes: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError
        return value

    return parse


# variable: field, how its value is read, what it has to be
VARIABLES: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "PERPS_DATA_DIR": ("data_dir", Path, "a directory"),
    "PERPS_SIM_PORT": ("port", _whole(0, 65535), "a port"),
    "PERPS_SIM_SEED": ("seed", _whole(0, 2**63), "a whole number"),
    "PERPS_SIM_PRODUCTS": ("products", _products, "product ids like BTC-USD,ETH-USD"),
    "PERPS_SIM_CASH": ("cash", number, "an amount in USD"),
    "PERPS_SIM_REPLAY": ("replay", Path, "a file"),
    "PERPS_SIM_FROM": ("start", read_iso, "a time like 2025-10-01 or 2025-10-01T12:00:00Z"),
    "PERPS_SIM_TO": ("end", read_iso, "a time like 2025-10-01 or 2025-10-01T12:00:00Z"),
    "PERPS_SIM_PRODUCT": ("product", _product, "a product id like BTC-USD"),
    "PERPS_SIM_SPREAD_BPS": ("half_spread_bps", number, "half the spread in basis points"),
    "PERPS_SIM_TAKER_FEE": ("taker_fee", _below_one, "a fraction like 0.012"),
    "PERPS_SIM_MAKER_FEE": ("maker_fee", _below_one, "a fraction like 0.006"),
    "PERPS_SIM_RATE_LIMITS": ("rate_limits", _switch, "on or off"),
    "PERPS_SIM_FEED_WS_URL": ("feed_ws_url", _address("ws", "wss"), "an address like wss://host"),
    "PERPS_SIM_FEED_REST_URL": ("feed_rest_url", _address("http", "https"), "an address like https://host"),
}


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Read the environment; empty values count as absent. Raises BadSettings."""
    unknown = sorted(name for name in environment if name.startswith("PERPS_SIM_") and name not in VARIABLES)
    if unknown:
        raise BadSettings(f"unknown setting {unknown[0]}")
    fields: dict[str, Any] = {}
    for name, (field, parse, wanted) in VARIABLES.items():
        if value := environment.get(name):
            try:
                fields[field] = parse(value)
            except (ValueError, KeyError, OverflowError):
                raise BadSettings(f"{name}={value!r} is not {wanted}") from None
    settings = Settings(**fields)
    if settings.start and settings.end and settings.start >= settings.end:
        raise BadSettings("PERPS_SIM_FROM is not before PERPS_SIM_TO")
    if bool(settings.feed_ws_url) != bool(settings.feed_rest_url):
        raise BadSettings("PERPS_SIM_FEED_WS_URL and PERPS_SIM_FEED_REST_URL go together")
    return settings
