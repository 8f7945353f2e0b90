"""Spot products: increments, limits and trading flags, with sensible ones for the pairs that the simulator offers."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct


class Product(Struct, frozen=True):
    """One spot pair as the venue lists it. Prices move in `price_increment`, base sizes in `base_increment`."""

    product_id: str
    base: str
    quote: str
    base_name: str
    quote_name: str
    price_increment: Decimal
    base_increment: Decimal
    base_min_size: Decimal
    base_max_size: Decimal
    quote_increment: Decimal
    quote_min_size: Decimal = Decimal(1)
    quote_max_size: Decimal = Decimal(150_000_000)
    status: str = "online"
    is_disabled: bool = False
    trading_disabled: bool = False
    cancel_only: bool = False
    limit_only: bool = False
    post_only: bool = False
    auction_mode: bool = False
    view_only: bool = False


class Flags(Struct, frozen=True, forbid_unknown_fields=True):
    """Overrides of a product's trading flags; None keeps the product's own."""

    status: str | None = None
    is_disabled: bool | None = None
    trading_disabled: bool | None = None
    cancel_only: bool | None = None
    limit_only: bool | None = None
    post_only: bool | None = None
    auction_mode: bool | None = None
    view_only: bool | None = None


class Asset(Struct, frozen=True):
    """What is known of a base currency: name, where a synthetic price starts, increments, largest order."""

    name: str
    base_price: Decimal
    price_increment: Decimal
    base_increment: Decimal
    base_max_size: Decimal


def _asset(name: str, price: str, price_increment: str, base_increment: str, base_max: str) -> Asset:
    return Asset(name, Decimal(price), Decimal(price_increment), Decimal(base_increment), Decimal(base_max))


ASSETS = {
    "BTC": _asset("Bitcoin", "100000", "0.01", "0.00000001", "3400"),
    "ETH": _asset("Ethereum", "3500", "0.01", "0.00000001", "42000"),
    "SOL": _asset("Solana", "180", "0.01", "0.00000001", "160000"),
    "XRP": _asset("XRP", "2.2", "0.0001", "0.000001", "20000000"),
    "LTC": _asset("Litecoin", "90", "0.01", "0.00000001", "160000"),
    "ADA": _asset("Cardano", "0.75", "0.0001", "0.00000001", "50000000"),
    "DOGE": _asset("Dogecoin", "0.2", "0.00001", "0.1", "230000000"),
    "BCH": _asset("Bitcoin Cash", "450", "0.01", "0.00000001", "50000"),
    "AVAX": _asset("Avalanche", "25", "0.01", "0.00000001", "1300000"),
    "LINK": _asset("Chainlink", "18", "0.001", "0.01", "1600000"),
}
CURRENCY_NAMES = {"USD": "US Dollar", "EUR": "Euro", "GBP": "British Pound", "USDC": "USDC", "USDT": "Tether"}
FIAT = frozenset({"USD", "EUR", "GBP"})
DEFAULT_ASSET = _asset("", "100", "0.01", "0.00000001", "1000000")


def spot_product(product_id: str, price_increment: Decimal | None = None) -> Product:
    """The product of an id like BTC-USD; an unknown base takes `price_increment` from its data, else 0.01."""
    base, _, quote = product_id.partition("-")
    asset = ASSETS.get(base, DEFAULT_ASSET)
    step = price_increment if base not in ASSETS and price_increment else asset.price_increment
    return Product(
        product_id=product_id,
        base=base,
        quote=quote,
        base_name=asset.name or base,
        quote_name=CURRENCY_NAMES.get(quote, quote),
        price_increment=step,
        base_increment=asset.base_increment,
        base_min_size=asset.base_increment,
        base_max_size=asset.base_max_size,
        quote_increment=step,
    )
