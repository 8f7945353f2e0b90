"""The venue as the operator's tools ask it: execution's adapter and key file, without the bus."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Protocol

from libs.common.clock import SystemClock
from libs.common.messages import ApprovedOrder
from libs.common.settings import Settings
from services.execution.auth import load_signer
from services.execution.config import ExecutionConfig
from services.execution.inputs import AccountParts, Preview, VenueFill, VenueOrder
from services.execution.venue import CoinbaseVenue


class Orders(Protocol):
    """Reading orders. Everything raises Rejected, Retryable or OutcomeUnknown."""

    async def order(self, venue_order_id: str) -> tuple[VenueOrder, list[VenueFill]]: ...

    def orders(
        self, *, product_id: str = "", open_only: bool = False, since: datetime | None = None
    ) -> AsyncIterator[list[VenueOrder]]: ...


class Fills(Protocol):
    def fills(
        self, *, order_id: str = "", product_id: str = "", since: datetime | None = None
    ) -> AsyncIterator[list[VenueFill]]: ...


class Cancels(Orders, Protocol):
    async def cancel(self, venue_order_ids: list[str]) -> dict[str, str]: ...


class Previews(Orders, Protocol):
    async def preview(self, order: ApprovedOrder) -> Preview: ...

    async def preview_edit(self, venue_order_id: str, wanted: ApprovedOrder) -> Preview: ...

    async def account(self) -> AccountParts: ...


@contextlib.asynccontextmanager
async def open_venue(settings: Settings) -> AsyncIterator[CoinbaseVenue]:
    """Raises BadConfig with one line where the key or an address is missing."""
    config = settings.section("execution", ExecutionConfig)
    signer = load_signer(settings.coinbase, settings.key_file, config.jwt_seconds)
    address = settings.venue
    timeout_seconds = config.request_timeout_seconds
    venue = CoinbaseVenue(address.rest_url, address.user_ws_url, signer, SystemClock(), timeout_seconds)
    try:
        yield venue
    finally:
        await venue.close()
