"""Settings of strategy: the table [strategy] of a profile."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from msgspec import Struct

PAUSE_SECONDS_MAX = 300
DOUBLINGS_MAX = 30  # an exit may have thousands of attempts: their power of two would outgrow a float


def require(holds: bool, line: str) -> None:
    """For `__post_init__`. Raises ValueError with the line that the operator is to read."""
    if not holds:
        raise ValueError(line)


def _check_amounts(notional: Decimal | None, percent: Decimal | None) -> None:
    sound = notional is None or (notional.is_finite() and 0 < notional < 10**9)
    require(sound, f"entry_notional must be positive and below a billion, it is {notional}")
    sound = percent is None or (percent.is_finite() and 0 < percent < 100)
    require(sound, f"trailing_stop_percent must lie between 0 and 100, it is {percent}")


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
    retry_seconds: float = 5  # from the end of an exit's first attempt to its second; see `pause_after`
    mark_age_max_seconds: float = 5
    parameters: dict[str, object] = {}
    products: dict[str, ProductConfig] = {}

    def __post_init__(self) -> None:
        require(0 < self.port < 65536, f"port must be between 1 and 65535, it is {self.port}")
        require(bool(self.host and self.name), "host and name must not be empty")
        _check_amounts(self.entry_notional, self.trailing_stop_percent)
        sound = self.entry_slippage_bps.is_finite() and 0 <= self.entry_slippage_bps <= 1000
        require(sound, f"entry_slippage_bps must be from 0 to 1000, it is {self.entry_slippage_bps}")
        for name in ("signal_ttl_seconds", "retry_seconds", "mark_age_max_seconds"):
            value = getattr(self, name)
            require(0 < value <= 3600, f"{name} must be above 0 and at most 3600, it is {value}")

    def entry_notional_of(self, product_id: str) -> Decimal:
        return self._of(product_id).entry_notional or self.entry_notional

    def trailing_stop_of(self, product_id: str) -> Decimal:
        """As a fraction of the peak."""
        return (self._of(product_id).trailing_stop_percent or self.trailing_stop_percent) / 100

    def parameters_of(self, product_id: str) -> dict[str, object]:
        return {**self.parameters, **self._of(product_id).parameters}

    def _of(self, product_id: str) -> ProductConfig:
        return self.products.get(product_id, ProductConfig())

    def pause_after(self, attempt: int) -> timedelta:
        """From the end of an exit's attempt to its next. It doubles, so that a halt of hours does not fill the ledger
        with denials."""
        return timedelta(seconds=min(self.retry_seconds * 2 ** min(attempt - 1, DOUBLINGS_MAX), PAUSE_SECONDS_MAX))
