"""Settings of execution, section [execution]."""

from __future__ import annotations

from math import isfinite

from msgspec import Struct


class ExecutionConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds are wall time throughout."""

    port: int = 9106
    host: str = "127.0.0.1"
    request_timeout_seconds: float = 5
    jwt_seconds: int = 120  # the venue's maximum; a shorter life settles "never arrived" sooner
    jwt_margin_seconds: float = 5  # waited beyond the token's expiry before its request counts as dead
    poll_seconds: float = 5  # resting orders, beside the user channel
    account_seconds: float = 60
    reconcile_seconds: float = 30  # every order and fill of the account, beside what is asked about single orders
    bus_lost_cancel_seconds: float = 10  # then resting entries are cancelled at the venue

    def __post_init__(self) -> None:
        if unknown := [name for name in self.__struct_fields__[2:] if not isfinite(getattr(self, name))]:
            raise ValueError(f"{unknown[0]} must be a finite number")
        if not 0 < self.port < 65536:
            raise ValueError(f"port must be between 1 and 65535, it is {self.port}")
        if not 5 <= self.jwt_seconds <= 120:
            raise ValueError("jwt_seconds must be from 5 to 120: the venue takes no longer-lived token")
        if self.reconcile_seconds < 1:
            raise ValueError("reconcile_seconds must be at least 1: it costs three requests or more")
        if self.jwt_margin_seconds < 0:
            raise ValueError("jwt_margin_seconds must not be negative: a live token may still be used")
        for name in ("request_timeout_seconds", "poll_seconds", "account_seconds", "bus_lost_cancel_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0")
