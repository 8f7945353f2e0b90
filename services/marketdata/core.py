"""What marketdata decides: whether the feed can be trusted, what the mark is, when a candle is closed.

The connection vouches for its prices as long as its sequence has no hole and its heartbeats come. The first doubt
ends it: a new connection begins with snapshots, and those are the way back.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import msgspec
from msgspec import Struct

from libs.common import messages as m
from libs.common.messages import Feed
from services.marketdata.candles import Candles, Timing
from services.marketdata.config import Config
from services.marketdata.facts import (
    CandlesFetched,
    Connected,
    Disconnected,
    FetchFailed,
    FetchProduct,
    FrameReceived,
    ProductFetched,
    Pulse,
    Reconnect,
    TradesFetched,
    Trouble,
)
from services.marketdata.feed import Line, Link
from services.marketdata.frames import MARKET_TRADES, Frame, Heartbeat, Subscriptions, Tickers, Trade, Trades

FEED_REPEAT_SECONDS = 2.0  # wall; whoever starts late need not wait for a change
RULES_RETRY_SECONDS = 5.0  # wall, while a product's rules are not known at all


class Kept(Struct):
    """What outlives the process: start of the last candle published, by product, in unix seconds."""

    granularity: str
    published: dict[str, int]


class MarketDataCore:
    """See `libs.common.shell.Core`. `rejected` counts what the venue sent and nobody may use, by reason."""

    def __init__(self, products: tuple[str, ...], timing: Timing, config: Config, replay: bool) -> None:
        self._config = config
        # In a replay market time leaps from one product's tick to the next one's: age says nothing there.
        self._stale = timedelta.max if replay else timedelta(seconds=config.stale_seconds)
        self._granularity = timing.granularity
        self.lines = {product: Line(product, Candles(product, timing)) for product in products}
        self.rejected: Counter[str] = Counter()
        self._link = Link()
        self._monotonic = 0.0
        self._repeat_due = 0.0

    def on_message(self, message: m.Message, now: datetime) -> list[m.Message]:
        if isinstance(message, FrameReceived):
            return self._on_frame(message, now)
        match message:
            case Pulse():
                return self._on_pulse(message, now)
            case m.Tick():
                return self._on_tick(now)
            case m.Recovered():
                return self._on_recovered(now)
            case Connected():
                return self._on_connected(message)
            case Disconnected():
                return self._on_disconnected(message, now)
            case _:
                return self._on_answer(message, now)

    def not_ready(self, now: datetime) -> str:
        return "; ".join(lack for line in self.lines.values() if (lack := line.lacks()))

    @property
    def busy(self) -> bool:
        """A replay waits for answers that its results depend on."""
        return any(line.candles.busy or (line.rules is None and line.rules_asked) for line in self.lines.values())

    def dump(self) -> bytes:
        published = {line.product_id: line.candles.published for line in self.lines.values()}
        known = {product: start for product, start in published.items() if start is not None}
        return msgspec.json.encode(Kept(self._granularity, known))

    def restore(self, raw: bytes) -> None:
        kept = msgspec.json.decode(raw, type=Kept)
        if kept.granularity == self._granularity:
            for product, start in kept.published.items():
                if product in self.lines:
                    self.lines[product].candles.published = start

    # -- connection

    def _on_recovered(self, now: datetime) -> list[m.Message]:
        for line in self.lines.values():
            line.since = now
        begin = Reconnect(id="reconnect-0", connection=0, trouble=Trouble.START, detail="first connection")
        return [*(line.feed_state(now) for line in self.lines.values()), begin]

    def _on_connected(self, message: Connected) -> list[m.Message]:
        self._link = Link(message.connection)
        self._uncover()
        return []

    def _on_disconnected(self, message: Disconnected, now: datetime) -> list[m.Message]:
        if message.connection != self._link.number and message.connection != 0:
            return []  # one before the present one
        if self._link.broken and message.connection != 0:
            return []  # our own doing: the state tells the cause already
        self._link.broken = True
        self._uncover()
        return self._turn(Feed.RECONNECTING, f"{message.trouble}: {message.detail}", now)

    def _break(self, trouble: Trouble, detail: str, now: datetime) -> list[m.Message]:
        """Trust nothing of this connection from here on, and have a new one made."""
        self._link.broken = True
        self._uncover()
        number = self._link.number
        gap = trouble in (Trouble.SEQUENCE_GAP, Trouble.HEARTBEAT_GAP)
        states = self._turn(Feed.GAP if gap else Feed.RECONNECTING, f"{trouble}: {detail}", now)
        command = Reconnect(id=f"reconnect-{number}", at=now, connection=number, trouble=trouble, detail=detail)
        return [*states, command]

    def _uncover(self) -> None:
        for line in self.lines.values():
            line.quoted = False
            line.candles.lose()

    def _turn(self, state: Feed, reason: str, now: datetime) -> list[m.Message]:
        return [message for line in self.lines.values() for message in line.turn(state, reason, now)]

    # -- frames

    def _on_frame(self, message: FrameReceived, now: datetime) -> list[m.Message]:
        link, frame = self._link, message.frame
        if message.connection != link.number or link.broken:
            return []
        if frame.error:
            return self._on_error(frame.error, now)
        if link.is_old(frame):
            self.rejected["out_of_order"] += 1
            return []
        trouble = link.follow(frame)
        if trouble is not None:
            return self._break(*trouble, now)
        marks = self._take(frame, message.received_at)
        # A closed candle goes before the mark of the message that closed it.
        time = frame.timestamp.timestamp()
        out = [message for line in self.lines.values() for message in line.candles.advance(time)]
        out += marks
        if any(isinstance(event, Heartbeat) for event in frame.events):
            out += self._confirm(frame.timestamp, message.received_at, now)
        return out + self._revive(now)

    def _on_error(self, text: str, now: datetime) -> list[m.Message]:
        """Nothing else tells of a refused subscription. Once all are confirmed, an error is no concern of ours."""
        if self._link.missing(self.lines):
            return self._break(Trouble.ERROR_FRAME, text, now)
        self.rejected["error_frame"] += 1
        return []

    def _take(self, frame: Frame, received_at: datetime) -> list[m.Message]:
        quotes: dict[str, m.Message] = {}
        for event in frame.events:
            if isinstance(event, Tickers):
                quotes.update(self._quotes(event, frame, received_at))
            elif isinstance(event, Trades):
                self._trades(event)
            elif isinstance(event, Subscriptions):
                for line in self.lines.values():
                    if self._link.subscribed(MARKET_TRADES, line.product_id):
                        line.candles.acknowledge(frame.timestamp)
        return list(quotes.values())

    def _quotes(self, event: Tickers, frame: Frame, received_at: datetime) -> dict[str, m.Message]:
        quotes: dict[str, m.Message] = {}
        for ticker in event.tickers:
            line = self.lines.get(ticker.product_id)
            if line is None:
                continue
            mark = line.quote(ticker, frame, received_at)
            if isinstance(mark, str):
                self.rejected[mark] += 1
            else:
                quotes[ticker.product_id] = mark
        return quotes

    def _trades(self, event: Trades) -> None:
        by_product: dict[str, list[Trade]] = {}
        for trade in event.trades:
            by_product.setdefault(trade.product_id, []).append(trade)
        for product, trades in by_product.items():
            if product in self.lines:
                self.lines[product].candles.take(trades, event.snapshot)

    # -- freshness

    def _confirm(self, at: datetime, received_at: datetime, now: datetime) -> list[m.Message]:
        """A heartbeat on a gapless connection: every price still holds. One that comes too late says nothing."""
        if now - at > self._stale or self._link.missing(self.lines):
            return []
        out: list[m.Message] = []
        for line in self.lines.values():
            if line.quoted and (mark := line.confirm(at, received_at)) is not None:
                out.append(mark)
        return out

    def _revive(self, now: datetime) -> list[m.Message]:
        waiting = [line for line in self.lines.values() if line.state is not Feed.LIVE and line.quoted]
        if not waiting or self._link.missing(self.lines):
            return []
        fresh = [line for line in waiting if (age := line.age(now)) is not None and age <= self._stale]
        return [message for line in fresh for message in line.turn(Feed.LIVE, "gapless", now)]

    def _on_tick(self, now: datetime) -> list[m.Message]:
        out: list[m.Message] = []
        for line in self.lines.values():
            age = line.age(now)
            if line.state is Feed.LIVE and age is not None and age > self._stale:
                out += line.turn(Feed.STALE, f"no confirmation for more than {self._config.stale_seconds:g} s", now)
        return out

    # -- wall time

    def _on_pulse(self, pulse: Pulse, now: datetime) -> list[m.Message]:
        self._monotonic = pulse.monotonic
        out = self._watch(pulse, now)
        for line in self.lines.values():
            out += line.candles.on_pulse(pulse.monotonic, pulse.bus_connected)
            if pulse.monotonic >= line.rules_due and not line.rules_asked:
                line.rules_asked = True
                out.append(FetchProduct(id=f"fetch-product-{line.product_id}", at=now, product_id=line.product_id))
        if pulse.monotonic >= self._repeat_due:
            self._repeat_due = pulse.monotonic + FEED_REPEAT_SECONDS
            out += [line.feed_state(now) for line in self.lines.values()]
        return out

    def _watch(self, pulse: Pulse, now: datetime) -> list[m.Message]:
        if self._link.broken or pulse.connection != self._link.number:
            return []
        if pulse.silent_seconds > self._config.silent_seconds:
            return self._break(Trouble.SILENT_SOCKET, f"no frame for {pulse.silent_seconds:.1f} s", now)
        if pulse.connected_seconds > self._config.ack_seconds and (missing := self._link.missing(self.lines)):
            return self._break(Trouble.ACK_MISSING, f"not confirmed: {', '.join(missing)}", now)
        return []

    # -- answers

    def _on_answer(self, message: m.Message, now: datetime) -> list[m.Message]:
        match message:
            case CandlesFetched():
                return self.lines[message.product_id].candles.on_candles(message)
            case TradesFetched():
                return self.lines[message.product_id].candles.on_trades(message)
            case ProductFetched():
                return self._on_product(message.product, now)
            case FetchFailed():
                return self._on_failed(message)
            case _:
                return []  # an installation, for instance: of no interest here

    def _on_product(self, rules: m.Product, now: datetime) -> list[m.Message]:
        line = self.lines[rules.product_id]
        line.rules = msgspec.structs.replace(rules, id=f"product-{rules.product_id}-{now.isoformat()}", at=now)
        line.rules_asked = False
        line.rules_due = self._monotonic + self._config.product_refresh_seconds
        return [line.rules]

    def _on_failed(self, message: FetchFailed) -> list[m.Message]:
        line = self.lines[message.request.product_id]
        if isinstance(message.request, FetchProduct):
            line.rules_asked = False
            line.rules_due = self._monotonic + RULES_RETRY_SECONDS
        else:
            line.candles.on_failed(self._monotonic)
        return []
