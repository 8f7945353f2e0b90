"""Section [marketdata] of a profile."""

from __future__ import annotations

from math import isfinite

from msgspec import Struct

PORT = 9103


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds are wall time unless said otherwise."""

    host: str = "127.0.0.1"
    port: int = PORT
    silent_seconds: float = 5.0  # without any frame: the socket is given up
    ack_seconds: float = 5.0  # for the venue to confirm every subscription
    stale_seconds: float = 10.0  # market time without a confirmation: the feed is stale
    reconnect_seconds_min: float = 0.25
    # Without a market there is nothing to lose by asking: the venue takes 8 connections a second.
    reconnect_seconds_max: float = 5.0
    warmup_candles: int = 300  # closed candles to have before the first live one
    product_refresh_seconds: float = 60.0
    candle_grace_seconds: float = 0.5  # market time for late trades; a replay has none

    def __post_init__(self) -> None:
        if unknown := [name for name in self.__struct_fields__[2:] if not isfinite(getattr(self, name))]:
            raise ValueError(f"{unknown[0]} must be a finite number")
        if not 0 < self.port < 65536:
            raise ValueError("port must be between 1 and 65535")
        for name in ("silent_seconds", "ack_seconds", "stale_seconds", "reconnect_seconds_min"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0")
        if self.reconnect_seconds_max < self.reconnect_seconds_min:
            raise ValueError("reconnect_seconds_max must not be below reconnect_seconds_min")
        if self.product_refresh_seconds < 1:
            raise ValueError("product_refresh_seconds must be at least 1")
        if self.warmup_candles < 0:
            raise ValueError("warmup_candles must not be negative")
        if not 0 <= self.candle_grace_seconds <= 2:
            raise ValueError("candle_grace_seconds must be between 0 and 2")
