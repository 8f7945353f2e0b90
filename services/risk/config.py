"""Settings of risk: the table [risk] of a profile. A limit has no default: whoever trades has chosen it."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from math import isfinite

import msgspec
from msgspec import Struct, field

BPS = Decimal(10_000)
PERCENT = Decimal(100)
RETURNS_MIN = 10  # of which a volatility is made
ERRORS_MAX = 1000  # orders without an outcome that are remembered


def _above_zero(name: str, value: Decimal | float) -> None:
    if not (isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number > 0, it is {value}")


class HaltPositions(StrEnum):
    """What becomes of positions when trading is halted. Resting entries are always canceled."""

    KEEP = "keep"
    FLATTEN = "flatten"


class Steps(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From which value on a guard warns, makes trading reduce-only, halts it; without a value it never does."""

    warn: Decimal | None = None
    reduce: Decimal | None = None
    halt: Decimal | None = None

    def __post_init__(self) -> None:
        given = [(name, value) for name in ("warn", "reduce", "halt") if (value := getattr(self, name)) is not None]
        for name, value in given:
            _above_zero(name, value)
        for (low, below), (high, above) in pairwise(given):
            if below >= above:
                raise ValueError(f"{low} must be below {high}, they are {below} and {above}")


class DailyLoss(Steps, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parts of the daily loss limit. Trading halts at the limit or before it, never beyond."""

    warn: Decimal | None = Decimal("0.8")
    halt: Decimal | None = Decimal(1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.halt is None or self.halt > 1:
            raise ValueError(f"halt must be there and at most 1, the limit itself; it is {self.halt}")


class Volatility(Steps, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parts of the price per year, whatever the sampling: a return over t seconds counts t seconds."""

    sample_seconds: float  # market time between two prices
    window: int  # returns

    def __post_init__(self) -> None:
        super().__post_init__()
        _above_zero("sample_seconds", self.sample_seconds)
        if self.window < RETURNS_MIN:
            raise ValueError(f"window must be at least {RETURNS_MIN}, it is {self.window}")

    @property
    def returns_min(self) -> int:
        """Fewer tell nothing."""
        return max(RETURNS_MIN, self.window // 2)


class MarkStaleness(Steps, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds of market time. `reduce` closes the product to entries, and not all trading."""

    reduce: Decimal  # here it must be given
    recover_seconds: float  # without a doubt about feed and mark, before the product takes entries again

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isfinite(self.recover_seconds) and self.recover_seconds >= 0):
            raise ValueError(f"recover_seconds must be a finite number >= 0, it is {self.recover_seconds}")


class OrderErrors(Steps, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Orders of unknown outcome, unreachable venue or rejected, within the window."""

    window_seconds: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _above_zero("window_seconds", self.window_seconds)
        for name in ("warn", "reduce", "halt"):
            if (value := getattr(self, name)) is not None and value > ERRORS_MAX:
                raise ValueError(f"{name} must be at most {ERRORS_MAX}, as many are remembered; it is {value}")


class PositionDrift(Steps, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Quote currency that venue and books differ by. Any difference at all means reduce-only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warn is not None or self.reduce is not None:
            raise ValueError("any drift means reduce-only: only halt can be chosen")


class Guards(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table for each guard, [risk.guards.<guard>]; see `services.risk.guards` for what each measures."""

    daily_loss: DailyLoss
    drawdown: Steps
    volatility: Volatility
    mark_staleness: MarkStaleness
    concentration: Steps
    order_errors: OrderErrors
    rejections: Steps
    position_drift: PositionDrift

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            steps = getattr(self, name)
            if name != "position_drift" and (steps.warn, steps.reduce, steps.halt) == (None, None, None):
                raise ValueError(f"{name} needs at least one of warn, reduce, halt: without a step it guards nothing")


class RiskConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Amounts in the quote currency; bps are hundredths of a percent; seconds are of market time."""

    order_notional_max: Decimal
    position_notional_max: Decimal  # per product, where the table below names none
    exposure_max: Decimal  # positions and reservations of all products together
    exposure_fraction_max: Decimal  # the same, as a part of equity; from 1 on only the balance bounds it
    orders_per_minute_max: int
    daily_loss_limit: Decimal
    daily_loss_percent_max: Decimal  # of the equity at 00:00 UTC; the smaller of the two is the limit
    spread_bps_max: Decimal
    price_deviation_bps_max: Decimal  # a limit price against the mark
    slippage_bps: Decimal  # what a market buy may cost above the ask: refused above it, and reserved
    account_age_max_seconds: float
    price_age_max_seconds: float  # since the price last moved, however often it is confirmed
    halt_positions: HaltPositions
    guards: Guards
    position_notional_max_by_product: dict[str, Decimal] = field(default_factory=dict)
    mark_age_max_seconds: float = 5
    approval_ttl_seconds: float = 10
    port: int = 9105
    host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        own = {f"position_notional_max_by_product of {p}": v for p, v in self.position_notional_max_by_product.items()}
        for name, value in ({name: getattr(self, name) for name in LIMITS} | own).items():
            _above_zero(name, value)
        if not 0 < self.port < 65536:
            raise ValueError(f"port must be between 1 and 65535, it is {self.port}")
        if not self.host:
            raise ValueError("host must not be empty")

    def position_limit(self, product_id: str) -> Decimal:
        return self.position_notional_max_by_product.get(product_id, self.position_notional_max)

    def for_replay(self, candle_seconds: int) -> RiskConfig:
        """The account is polled by wall time, which says nothing in market time; and marks come as often as the
        recording has ticks: only what lacks, or stands still, for whole candles is stale."""
        staleness, lag = self.guards.mark_staleness, Decimal(candle_seconds)
        later = {
            name: None if (v := getattr(staleness, name)) is None else v + lag for name in ("warn", "reduce", "halt")
        }
        guards = msgspec.structs.replace(self.guards, mark_staleness=msgspec.structs.replace(staleness, **later))
        still = self.price_age_max_seconds + candle_seconds
        return msgspec.structs.replace(self, guards=guards, account_age_max_seconds=1e10, price_age_max_seconds=still)


NO_LIMITS = ("position_notional_max_by_product", "port", "host", "halt_positions", "guards")
LIMITS = tuple(name for name in RiskConfig.__struct_fields__ if name not in NO_LIMITS)
