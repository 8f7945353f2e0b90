"""Settings of strategy: the table [strategy] of a profile."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct


def _check_amounts(entry_notional: Decimal | None, trailing_stop_percent: Decimal | None) -> None:
    if entry_notional is not None and not (entry_notional.is_finite() and 0 < entry_notional < 10**9):
        raise ValueError(f"entry_notional must be positive and below a billion, it is {entry_notional}")
    if trailing_stop_percent is not None and not (
        trailing_stop_percent.is_finite() and 0 < trailing_stop_percent < 100
    ):
        raise ValueError(f"trailing_stop_percent must lie between 0 and 100, it is {trailing_stop_percent}")


class ProductConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is different for one product."""

    entry_notional: Decimal | None = None
    trailing_stop_percent: Decimal | None = None
    parameters: dict[str, object] = {}

    def __post_init__(self) -> None:
        _check_amounts(self.entry_notional, self.trailing_stop_percent)


class StrategyConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`name` is a registered strategy or `module:Class`; `parameters` are its own, for every product, and a product's
    override them one by one. Amounts in quote currency; seconds are market time."""

    port: int = 9104
    host: str = "127.0.0.1"
    name: str = "crossover"
    entry_notional: Decimal = Decimal(100)
    trailing_stop_percent: Decimal = Decimal(1)  # below the peak since the entry
    entry_slippage_bps: Decimal = Decimal(10)  # how far above the ask an entry may fill
    signal_ttl_seconds: float = 10  # a signal, and the candle of an entry, may be this old
    retry_seconds: float = 5  # between the end of an exit's attempt and the next
    mark_age_max_seconds: float = 5
    parameters: dict[str, object] = {}
    products: dict[str, ProductConfig] = {}

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ValueError(f"port must be between 1 and 65535, it is {self.port}")
        if not self.host or not self.name:
            raise ValueError("host and name must not be empty")
        _check_amounts(self.entry_notional, self.trailing_stop_percent)
        if not (self.entry_slippage_bps.is_finite() and 0 <= self.entry_slippage_bps <= 1000):
            raise ValueError(f"entry_slippage_bps must be from 0 to 1000, it is {self.entry_slippage_bps}")
        for name in ("signal_ttl_seconds", "retry_seconds", "mark_age_max_seconds"):
            if not 0 < getattr(self, name) <= 3600:
                raise ValueError(f"{name} must be above 0 and at most 3600, it is {getattr(self, name)}")

    def entry_notional_of(self, product_id: str) -> Decimal:
        return self._of(product_id).entry_notional or self.entry_notional

    def trailing_stop_of(self, product_id: str) -> Decimal:
        """As a fraction of the peak."""
        return (self._of(product_id).trailing_stop_percent or self.trailing_stop_percent) / 100

    def parameters_of(self, product_id: str) -> dict[str, object]:
        return {**self.parameters, **self._of(product_id).parameters}

    def _of(self, product_id: str) -> ProductConfig:
        return self.products.get(product_id, ProductConfig())
