"""Builders of messages, and a desk that plays the shell: it feeds a core and hands its verdicts back as facts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeVar

import msgspec

from libs.common import messages as m
from services.risk.config import (
    DailyLoss,
    Guards,
    HaltPositions,
    MarkStaleness,
    OrderErrors,
    PositionDrift,
    RiskConfig,
    Steps,
    Volatility,
)
from services.risk.core import RiskCore
from services.risk.operator import OrderAsked
from services.risk.trading import Action, OperatorCommand

D = Decimal
NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
MIDNIGHT = datetime(2026, 3, 11, tzinfo=UTC)  # the next one
BTC, ETH = "BTC-USD", "ETH-USD"
PRODUCTS = (BTC, ETH)
SECOND = timedelta(seconds=1)
OPENING = {"USD": D(100_000), "BTC": D(0), "ETH": D(0)}
T = TypeVar("T", bound=m.Message)

NEVER = D(10) ** 9
QUIET = Guards(
    daily_loss=DailyLoss(),
    drawdown=Steps(halt=NEVER),
    volatility=Volatility(sample_seconds=60, window=20, halt=NEVER),
    mark_staleness=MarkStaleness(reduce=NEVER, recover_seconds=10),
    concentration=Steps(halt=NEVER),
    order_errors=OrderErrors(window_seconds=300, halt=D(1000)),
    rejections=Steps(halt=NEVER),
    position_drift=PositionDrift(),
)

# Wide: a test narrows the one limit that it is about.
WIDE = RiskConfig(
    order_notional_max=D(1_000_000),
    position_notional_max=D(1_000_000),
    exposure_max=D(1_000_000),
    exposure_fraction_max=D(10),
    orders_per_minute_max=1000,
    daily_loss_limit=D(1000),
    daily_loss_percent_max=D(100),
    spread_bps_max=D(100),
    price_deviation_bps_max=D(100),
    slippage_bps=D(10),
    account_age_max_seconds=60,
    price_age_max_seconds=1e9,
    halt_positions=HaltPositions.KEEP,
    guards=QUIET,
    approval_ttl_seconds=10,
)


def config(**changes: object) -> RiskConfig:
    return msgspec.structs.replace(WIDE, **changes)


def guarded(**guards: Steps) -> RiskConfig:
    """Wide, but for these guards."""
    return config(guards=msgspec.structs.replace(QUIET, **guards))


def mark(
    product_id: str = BTC, price: str = "100", at: datetime = NOON, spread: str = "0", **changes: object
) -> m.Mark:
    mid, half = D(price), D(spread) / 2
    plain = m.Mark(
        id=f"mark-{product_id}-{at.isoformat()}-{price}",
        at=at,
        product_id=product_id,
        bid=mid - half,
        ask=mid + half,
        last=mid,
        mid=mid,
        price_time=at,
        sequence=1,
        received_at=at,
        bid_size=D(1_000_000),
        ask_size=D(1_000_000),
    )
    return msgspec.structs.replace(plain, **changes)


def product(product_id: str = BTC, /, **changes: object) -> m.Product:
    base, quote = product_id.split("-")
    plain = m.Product(
        id=f"product-{product_id}",
        at=NOON,
        product_id=product_id,
        base_currency=base,
        quote_currency=quote,
        base_increment=D("0.001"),
        quote_increment=D("0.01"),
        price_increment=D("0.01"),
        base_min_size=D("0.01"),
        base_max_size=D(10_000),
        quote_min_size=D(1),
        quote_max_size=D(1_000_000),
    )
    return msgspec.structs.replace(plain, **changes)


def feed(product_id: str = BTC, state: m.Feed = m.Feed.LIVE) -> m.FeedState:
    return m.FeedState(
        id=f"feed-{product_id}-{state}", at=NOON, product_id=product_id, state=state, reason="", since=NOON
    )


def account(
    balances: dict[str, Decimal] | None = None,
    at: datetime = NOON,
    settled: bool = True,
    fee: str = "0",
    hold: dict[str, Decimal] | None = None,
    opening: dict[str, Decimal] | None = None,
    ledger_sequence: int = 0,
) -> m.Account:
    given, held = OPENING if balances is None else balances, hold or {}
    return m.Account(
        id=f"account-{at.isoformat()}",
        at=at,
        balances={c: m.Balance(available=amount, hold=held.get(c, D(0))) for c, amount in given.items()},
        taker_fee_rate=D(fee),
        maker_fee_rate=D(0),
        settled=settled,
        ledger_sequence=ledger_sequence,
        opening=opening,
    )


def installation(opening: dict[str, Decimal] | None = OPENING) -> m.Installation:
    return m.Installation(id="installation", at=NOON, opening=opening)


def trading(state: m.Trading = m.Trading.ACTIVE, revision: int = 1, **changes: object) -> m.TradingState:
    plain = m.TradingState(
        id=f"trading-{revision}-{state}", at=NOON, state=state, reason="test", who="test", since=NOON, revision=revision
    )
    return msgspec.structs.replace(plain, **changes)


def signal(name: str = "signal", side: m.Side = m.Side.BUY, quantity: str = "1", **changes: object) -> m.Signal:
    at = changes.get("at", NOON)
    assert isinstance(at, datetime)
    plain = m.Signal(
        id=name,
        at=NOON,
        product_id=BTC,
        strategy="test",
        side=side,
        order_type=m.OrderType.LIMIT,
        time_in_force=m.TimeInForce.IOC,
        quantity=D(quantity),
        limit_price=D(100),
        reduce_only=side is m.Side.SELL,
        reason="test",
        trigger="test",
        attempt=1,
        expires_at=at + 30 * SECOND,
    )
    return msgspec.structs.replace(plain, **changes)


def market(name: str = "signal", side: m.Side = m.Side.BUY, quantity: str = "1", **changes: object) -> m.Signal:
    more = {"order_type": m.OrderType.MARKET, "limit_price": None, **changes}
    return signal(name, side, quantity, **more)


def edit(of: m.Verdict, quantity: str, price: str = "100", name: str = "edit", **changes: object) -> m.Signal:
    """Another size and price for the order of an earlier verdict."""
    assert of.order is not None
    order, gtc = of.order, m.TimeInForce.GTC
    more = {"product_id": order.product_id, "edits": order.client_order_id, "limit_price": D(price), **changes}
    return signal(name, order.side, quantity, time_in_force=gtc, **more)


def fill(
    name: str,
    side: m.Side = m.Side.BUY,
    size: str = "1",
    price: str = "100",
    fee: str = "0",
    at: datetime = NOON,
    order: str = "elsewhere",
    product_id: str = BTC,
) -> m.Fill:
    return m.Fill(
        id=name,
        at=at,
        product_id=product_id,
        client_order_id=order,
        venue_order_id=f"venue-{order}",
        trade_id=name,
        side=side,
        price=D(price),
        size=D(size),
        fee=D(fee),
        liquidity="TAKER",
        trade_time=at,
    )


def event(
    verdict: m.Verdict,
    status: m.OrderStatus,
    revision: int,
    filled: str = "0",
    at: datetime = NOON,
    **changes: object,
) -> m.OrderEvent:
    assert verdict.order is not None
    plain = m.OrderEvent(
        id=f"{verdict.order.client_order_id}-{revision}",
        at=at,
        product_id=verdict.product_id,
        client_order_id=verdict.order.client_order_id,
        signal_id=verdict.signal_id,
        revision=revision,
        status=status,
        reason="",
        order=verdict.order,
        filled_qty=D(filled),
    )
    return msgspec.structs.replace(plain, **changes)


def command(action: Action, reason: str = "because", name: str = "command", at: datetime = NOON) -> OperatorCommand:
    return OperatorCommand(id=name, at=at, command=action, reason=reason, who="operator")


def requested(wanted: m.Signal, at: datetime = NOON) -> OrderAsked:
    """The same as an operator's request."""
    fields = {name: getattr(wanted, name) for name in m.OrderRequest.__struct_fields__ if name != "request_id"}
    fields |= {"quantity": wanted.quantity if wanted.quote_size is None else None}
    request = m.OrderRequest(request_id=wanted.id, **fields)
    return OrderAsked(id=wanted.id, at=at, request=request, reason="test", who="ann")


def tick(at: datetime = NOON) -> m.Tick:
    return m.Tick(id="tick", at=at)


class Desk:
    """Plays the shell: verdicts are stored in `ledger` and handed back; what is to be published is in `outbox`.

    Trading states that the core wants stored wait in `storing` until `store` hands them back.
    """

    def __init__(self, limits: RiskConfig = WIDE, now: datetime = NOON) -> None:
        self.limits = limits
        self.now = now
        self.ledger: list[m.Message] = []
        self.outbox: list[m.Message] = []
        self.storing: list[m.TradingState] = []
        self.core = RiskCore(limits, PRODUCTS, "USD")

    def open(
        self, *, fee: str = "0", opening: dict[str, Decimal] | None = OPENING, prices: dict[str, str] | None = None
    ) -> Desk:
        """Everything known and trading active."""
        self.feed(installation(opening), trading(), *(product(p) for p in PRODUCTS), *(feed(p) for p in PRODUCTS))
        self.feed(account(opening or OPENING, at=self.now, fee=fee))
        self.feed(*(mark(p, (prices or {}).get(p, "100"), self.now) for p in PRODUCTS))
        self.feed(m.Recovered(id="recovered", at=self.now), tick(self.now))
        self.outbox.clear()
        return self

    def feed(self, *messages: m.Message, at: datetime | None = None) -> list[m.Message]:
        """Everything that came of it."""
        self.now = at or self.now
        found = []
        for message in messages:
            for output in self.core.on_message(message, self.now):
                found.append(output)
                if isinstance(output, m.Verdict | m.Baseline | m.Adjustment):
                    self.ledger.append(output)
                    found += self.feed(output)
                elif isinstance(output, m.TradingState):
                    self.storing.append(output)
                else:
                    self.outbox.append(output)
        return found

    def fact(self, *messages: m.OrderEvent | m.Fill) -> list[m.Message]:
        """What execution has stored in the ledger."""
        self.ledger += messages
        return self.feed(*messages)

    def ask(self, wanted: m.Signal) -> m.Verdict:
        return one(self.feed(wanted), m.Verdict)

    def approve(self, wanted: m.Signal) -> m.Verdict:
        verdict = self.ask(wanted)
        assert verdict.order is not None, f"{verdict.reason}: {verdict.detail}"
        return verdict

    def bought(self, quantity: str, price: str = "100", fee: str = "0", product_id: str = BTC) -> Desk:
        """A position that came of an order long done."""
        name = f"before-{len(self.ledger)}"
        self.fact(fill(name, m.Side.BUY, quantity, price, fee, self.now, product_id=product_id))
        return self

    def fill(self, verdict: m.Verdict, name: str, size: str, price: str = "100", fee: str = "0") -> list[m.Message]:
        assert verdict.order is not None
        return self.fact(
            fill(
                name, verdict.order.side, size, price, fee, self.now, verdict.order.client_order_id, verdict.product_id
            )
        )

    def end(
        self, verdict: m.Verdict, status: m.OrderStatus, revision: int, filled: str = "0", **changes: object
    ) -> list[m.Message]:
        return self.fact(event(verdict, status, revision, filled, self.now, **changes))

    def ask_as_operator(self, wanted: m.Signal) -> m.Verdict:
        """The same as a request: the strategy's orders are not in its way, nor it in theirs."""
        return one(self.feed(requested(wanted, self.now)), m.Verdict)

    def ordered(self, wanted: m.Signal) -> m.Verdict:
        """Approved, and asked for by an operator."""
        verdict = self.ask_as_operator(wanted)
        assert verdict.order is not None, f"{verdict.reason}: {verdict.detail}"
        return verdict

    def rest(self, wanted: m.Signal) -> m.Verdict:
        """Approved, and accepted by the venue."""
        verdict = self.approve(wanted)
        self.end(verdict, m.OrderStatus.ACCEPTED, 1)
        return verdict

    def later(self, seconds: float = 1, *products: str) -> datetime:
        """Time passes, and the market confirms its prices."""
        self.now += timedelta(seconds=seconds)
        for product_id in products or PRODUCTS:
            price = self.core.known.marks[product_id].mid
            self.feed(mark(product_id, str(price), self.now))
        return self.now

    def store(self) -> list[m.Message]:
        """The store has taken the last state that was proposed."""
        state = self.storing.pop()
        return self.feed(msgspec.structs.replace(state, revision=state.revision + 1))

    def tell(self, action: Action, reason: str = "because", name: str = "command") -> m.Audit:
        """An operator's command, carried out to its end."""
        found = self.feed(command(action, reason, name, self.now))
        while self.storing:
            found += self.store()
        return one(found, m.Audit)

    def restart(self, *, snapshot: bool = True) -> Desk:
        """A new process: snapshot, then the whole ledger again, then last values, then Recovered."""
        old, raw = self.core, self.core.dump()
        self.core = RiskCore(self.limits, PRODUCTS, "USD")
        self.core.on_message(installation(old.known.opening), self.now)
        if snapshot:
            self.core.restore(raw)
        last: list[m.Message | None] = [*self.ledger, old.switch.current, old.known.account]
        last += [*old.known.rules.values(), *old.known.feeds.values(), *old.known.marks.values()]
        for message in last:
            if message is not None:
                self.core.on_message(message, self.now)
        self.feed(m.Recovered(id="recovered", at=self.now))
        return self

    def trading(self) -> m.Trading:
        return self.figures.trading

    @property
    def figures(self) -> m.RiskFigures:
        return self.core.figures(self.now)


def one(found: list[m.Message], kind: type[T]) -> T:
    """The only message of this kind."""
    [message] = [message for message in found if isinstance(message, kind)]
    return message


def all_of(found: list[m.Message], kind: type[T]) -> list[T]:
    return [message for message in found if isinstance(message, kind)]
