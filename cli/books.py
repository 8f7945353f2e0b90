"""Are the bot's books the venue's account? Cash, coins, fees, fills and PnL, as exactly equal decimals."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, localcontext

import httpx
import msgspec
from msgspec import Struct

from cli.journal import Journal, plain
from libs.common import messages as m
from libs.common.errors import StackFailed
from libs.common.settings import Settings
from services.execution.auth import Signer, load_signer
from services.execution.inputs import VenueFill
from services.execution.parse import parse_fills

FILLS = "/api/v3/brokerage/orders/historical/fills"
FIGURES_SECONDS = 15.0
PRECISION = 100  # no sum of ours comes near: nothing is rounded here
ZERO = Decimal(0)


class VenueState(Struct, frozen=True):
    """What we use of GET /sim/state."""

    balances: dict[str, m.Balance]
    total_fees: Decimal
    orders: int
    fills: int
    last_prices: dict[str, Decimal]
    candle_seconds: int | None
    ticks_done: int
    connections: int


class Difference(Struct, frozen=True):
    """One figure that differs."""

    what: str
    ours: str
    venues: str

    def __str__(self) -> str:
        return f"{self.what}: ours {self.ours}, the venue's {self.venues}"


class Audit(Struct, frozen=True):
    """The two sides and what differs between them."""

    venue: VenueState
    figures: m.RiskFigures
    differences: list[Difference]


async def venue_state(client: httpx.AsyncClient) -> VenueState:
    try:
        answer = await client.get("/sim/state")
        return msgspec.json.decode(answer.raise_for_status().content, type=VenueState)
    except (httpx.HTTPError, msgspec.DecodeError) as error:
        raise StackFailed(f"the simulated venue does not tell its state: {error!r}") from None


async def audit(journal: Journal, client: httpx.AsyncClient, settings: Settings, at: datetime) -> Audit:
    """Compare at rest, nothing in flight, with risk's figures of the market time `at` or later.

    Raises StackFailed when one side cannot be read.
    """

    def up_to_date() -> bool:
        figures = journal.figures
        return figures is not None and figures.ledger_sequence >= journal.position and figures.at >= at

    if not await journal.until(up_to_date, FIGURES_SECONDS) or journal.figures is None:
        raise StackFailed(f"risk has told no figures up to ledger {journal.position} in {FIGURES_SECONDS:.0f} s")
    figures = journal.figures
    venue = await venue_state(client)
    venue_fills = await _venue_fills(client, load_signer(settings.coinbase, settings.key_file, 120))
    adjustments, quote = list(journal.adjustments.values()), settings.market.quote_currency
    with localcontext() as context:
        context.prec = PRECISION
        by_hand = _by_hand(journal.fills, venue_fills, adjustments, quote)
        flows = sum((adjustment.flows.get(quote, ZERO) for adjustment in adjustments), ZERO)
        first = None if journal.first_equity is None else journal.first_equity + flows
        found = [
            *_balances(figures, venue),
            *_fees(figures, venue, by_hand),
            *_fills(journal.fills, {entry: fill for entry, fill in venue_fills.items() if entry not in by_hand}),
            *_profit(figures, venue, first, quote),
        ]
    return Audit(venue, figures, found)


def _differ(what: str, ours: Decimal, venues: Decimal) -> list[Difference]:
    return [] if ours == venues else [Difference(what, str(plain(ours)), str(plain(venues)))]


def _balances(figures: m.RiskFigures, venue: VenueState) -> list[Difference]:
    found = []
    for currency in sorted(figures.books.keys() | venue.balances.keys()):
        balance = venue.balances.get(currency)
        held = balance.available + balance.hold if balance else ZERO
        found += _differ(currency, figures.books.get(currency, ZERO), held)
    return found


def _by_hand(
    ours: dict[str, m.Fill], venues: dict[str, VenueFill], adjustments: list[m.Adjustment], quote: str
) -> dict[str, VenueFill]:
    """Fills of orders that are not ours, of the products where the manual trades in the ledger account for all of them:
    the same coins and the same cash, fees included."""
    found: dict[str, VenueFill] = {}
    foreign = {entry: fill for entry, fill in venues.items() if entry not in ours}
    for product in {fill.product_id for fill in foreign.values()}:
        fills = {entry: fill for entry, fill in foreign.items() if fill.product_id == product}
        coins = cash = ZERO
        for fill in fills.values():
            sign = 1 if fill.side is m.Side.BUY else -1
            coins += sign * fill.size
            cash -= sign * fill.quote_value + fill.fee
        for trade in adjustments:
            if trade.kind is m.AdjustmentKind.MANUAL_TRADE and trade.product_id == product:
                coins -= trade.size
                cash -= trade.flows.get(quote, ZERO) - trade.size * trade.price
        if not coins and not cash:
            found |= fills
    return found


def _fees(figures: m.RiskFigures, venue: VenueState, by_hand: dict[str, VenueFill]) -> list[Difference]:
    """The fees of a manual trade are in the price at which it was booked."""
    return _differ("fees", figures.fees + sum((fill.fee for fill in by_hand.values()), ZERO), venue.total_fees)


def _fills(ours: dict[str, m.Fill], venues: dict[str, VenueFill]) -> list[Difference]:
    found = [Difference(f"fill {entry}", "absent", "there") for entry in sorted(venues.keys() - ours.keys())]
    found += [Difference(f"fill {entry}", "there", "absent") for entry in sorted(ours.keys() - venues.keys())]
    for entry in sorted(ours.keys() & venues.keys()):
        for name in ("price", "size", "fee"):
            found += _differ(f"{name} of fill {entry}", getattr(ours[entry], name), getattr(venues[entry], name))
    return found


def _profit(figures: m.RiskFigures, venue: VenueState, first: Decimal | None, quote: str) -> list[Difference]:
    """What we say was made, against what the venue's account is worth now and was worth at the start, with what was
    paid in since. Coins that are not ours to sell (all that the books hold beside the position) are worth nothing."""
    if first is None or figures.unrealized_pnl is None:
        return [Difference("PnL", "not known", "not asked")]
    worth = ZERO
    for currency, balance in venue.balances.items():
        held = balance.available + balance.hold
        position = figures.positions.get(f"{currency}-{quote}")
        if currency == quote:
            worth += held
        elif held and position is not None and position.mark_price is not None:
            beside = figures.books.get(currency, ZERO) - position.quantity
            worth += (held - beside) * position.mark_price
    return _differ("PnL", figures.realized_pnl + figures.unrealized_pnl - figures.fees, worth - first)


async def _venue_fills(client: httpx.AsyncClient, signer: Signer) -> dict[str, VenueFill]:
    """Every fill that the venue's own listing holds, by entry id."""
    found: dict[str, VenueFill] = {}
    cursor = ""
    while True:
        token, _ = signer.token(datetime.now(UTC), f"GET {client.base_url.netloc.decode()}{FILLS}")
        params = {"limit": "250", "cursor": cursor} if cursor else {"limit": "250"}
        try:
            answer = await client.get(FILLS, params=params, headers={"Authorization": f"Bearer {token}"})
            page, cursor = parse_fills(answer.raise_for_status().content)
        except httpx.HTTPError as error:
            raise StackFailed(f"the simulated venue does not list its fills: {error!r}") from None
        found |= {fill.entry_id: fill for fill in page}
        if not cursor:
            return found
