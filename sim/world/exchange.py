"""The venue of a world: the simulator's own, on virtual time, with nothing on disk and no cryptography."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sim.core import Exchange
from sim.events import Ledger
from sim.orders import Fill, Order
from sim.products import spot_product
from sim.rules import VenueRules
from sim.venue import Venue
from sim.world.loop import Scheduler


class VenueClock:
    """`sim.clock.Clock`: virtual seconds since `epoch`."""

    def __init__(self, scheduler: Scheduler, epoch: datetime) -> None:
        self._scheduler = scheduler
        self._epoch = epoch

    def wall(self) -> datetime:
        return self._epoch + timedelta(seconds=self._scheduler.now)

    def monotonic(self) -> float:
        return self._scheduler.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class NoStore:
    """A venue that never restarts keeps nothing."""

    def commit(
        self,
        ledger: Ledger,
        orders: Iterable[Order],
        fills: Iterable[Fill],
        prices: Mapping[str, Decimal],
        position: int,
    ) -> None:
        pass

    def keep_prices(self, prices: Mapping[str, Decimal]) -> None:
        pass

    def note_position(self, position: int) -> None:
        pass


def open_venue(
    scheduler: Scheduler, epoch: datetime, products: Iterable[str], balances: Mapping[str, Decimal], seed: str
) -> Venue:
    """A venue whose market the world moves with `deliver`. Equal seeds give equal ids."""
    exchange = Exchange([spot_product(name) for name in products], VenueRules(), balances, seed)
    return Venue(exchange, NoStore(), VenueClock(scheduler, epoch), None)


class Signer:
    """`services.execution.auth.Signer`: tokens that say in clear what a JWT would."""

    def __init__(self, lifetime_seconds: float) -> None:
        self._lifetime = timedelta(seconds=lifetime_seconds)

    def token(self, now: datetime, uri: str = "") -> tuple[str, datetime]:
        expires_at = now + self._lifetime
        return f"{int(now.timestamp())}.{int(expires_at.timestamp())}.{uri}", expires_at


class Verifier:
    """`sim.auth.Verifier` for the tokens of `Signer`."""

    def accepts(self, token: str, now: datetime, uri: str = "") -> bool:
        claims = token.split(".", 2)
        if len(claims) != 3:
            return False
        begins, ends, named = claims
        return int(begins) <= now.timestamp() < int(ends) and uri in ("", named)


def expiry(token: str) -> datetime | None:
    """When a token dies, by the venue's clock; None for a request without one."""
    claims = token.split(".", 2)
    return datetime.fromtimestamp(int(claims[1]), UTC) if len(claims) == 3 else None
