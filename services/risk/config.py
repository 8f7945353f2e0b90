"""Settings of risk: the table [risk] of a profile. A limit has no default: whoever trades has chosen it."""

from __future__ import annotations

from decimal import Decimal
from math import isfinite

from msgspec import Struct, field

BPS = Decimal(10_000)


class RiskConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Amounts in the quote currency; bps are hundredths of a percent; seconds are of market time."""

    order_notional_max: Decimal
    position_notional_max: Decimal  # per product, where the table below names none
    exposure_max: Decimal  # positions and reservations of all products together
    exposure_fraction_max: Decimal  # the same, as a part of equity; from 1 on only the balance bounds it
    orders_per_minute_max: int
    daily_loss_limit: Decimal
    spread_bps_max: Decimal
    price_deviation_bps_max: Decimal  # a limit price against the mark
    slippage_bps: Decimal  # what a market buy may cost above the ask, for its reservation
    account_age_max_seconds: float
    position_notional_max_by_product: dict[str, Decimal] = field(default_factory=dict)
    mark_age_max_seconds: float = 5
    approval_ttl_seconds: float = 10
    port: int = 9105
    host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        own = {f"position_notional_max_by_product of {p}": v for p, v in self.position_notional_max_by_product.items()}
        for name, value in ({name: getattr(self, name) for name in LIMITS} | own).items():
            if not (isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite number > 0, it is {value}")
        if not 0 < self.port < 65536:
            raise ValueError(f"port must be between 1 and 65535, it is {self.port}")
        if not self.host:
            raise ValueError("host must not be empty")

    def position_limit(self, product_id: str) -> Decimal:
        return self.position_notional_max_by_product.get(product_id, self.position_notional_max)


NO_LIMITS = ("position_notional_max_by_product", "port", "host")
LIMITS = tuple(name for name in RiskConfig.__struct_fields__ if name not in NO_LIMITS)
