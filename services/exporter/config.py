"""Settings of the exporter: the table [exporter] of a profile."""

from __future__ import annotations

from msgspec import Struct


class ExporterConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`metrics_interval_seconds` lies between two writes of metrics.json and account.json."""

    port: int = 9102
    host: str = "127.0.0.1"
    metrics_interval_seconds: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ValueError(f"port must be between 1 and 65535, it is {self.port}")
        if not self.host:
            raise ValueError("host must not be empty")
        if not 1 <= self.metrics_interval_seconds <= 60:
            raise ValueError(f"metrics_interval_seconds must be from 1 to 60, it is {self.metrics_interval_seconds}")
