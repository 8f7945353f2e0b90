"""The settings of a backtest: a profile's, with what a recording and whoever runs it say in its place."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from msgspec.structs import replace

from libs.common.errors import BadConfig
from libs.common.settings import GRANULARITY_SECONDS, SECTIONS, Settings, as_text
from sim import settings as sim
from sim.backtest.market import Market

Table = dict[str, Any]
LENGTHS = {seconds: name for name, seconds in GRANULARITY_SECONDS.items()}


def prepared(
    settings: Settings, market: Market, granularity: str, strategy: str, parameters: Mapping[str, str]
) -> Settings:
    """The recording's products, in candles of its length, and nothing that the profile says of other products.

    A parameter is one of the strategy's own (`short`, `volatility.min`), for every product, or any other setting by
    its section (`strategy.trailing_stop_percent`, `risk.order_notional_max`, `sim.taker_fee`). Another strategy than
    the profile's starts from its own defaults. Raises BadConfig.
    """
    tables = deepcopy(settings.tables)
    length = granularity or LENGTHS.get(market.candle_seconds) or settings.market.granularity
    products = list(market.products)
    tables.setdefault("market", {}).update(products=products, granularity=length, replay=True)
    _only(tables.get("risk", {}), "position_notional_max_by_product", products)
    plan = tables.setdefault("strategy", {})
    _only(plan, "products", products)
    own = [plan, *plan.get("products", {}).values()]
    if strategy and strategy != plan.get("name"):
        plan["name"] = strategy
        for table in own:
            table.pop("parameters", None)
    for name, value in parameters.items():
        section, _, key = name.partition(".")
        if key and section in SECTIONS:
            _put(tables.setdefault(section, {}), name, key, value)
            continue
        for table in own:
            if table is plan or "parameters" in table:
                _put(table.setdefault("parameters", {}), name, name, value)
    return replace(settings, tables=tables)


def _only(table: Table, name: str, products: list[str]) -> None:
    if name in table:
        table[name] = {product: value for product, value in table[name].items() if product in products}


def _put(table: Table, name: str, path: str, value: str) -> None:
    """Raises BadConfig where the path leads through something that is no table."""
    *parts, last = path.split(".")
    for part in parts:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise BadConfig(f"parameter {name}: {part} is no table")
    table[last] = value


def venue_settings(settings: Settings) -> sim.Settings:
    """Of the simulated venue: cash, fees, spread. Raises BadConfig."""
    table = {f"PERPS_SIM_{name.upper()}": as_text(value) for name, value in settings.tables.get("sim", {}).items()}
    try:
        return sim.settings_from(table)
    except sim.BadSettings as error:
        raise BadConfig(f"profile {settings.profile}, [sim]: {error}") from None
