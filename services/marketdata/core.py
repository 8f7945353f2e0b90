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
from services.marketdata import facts as f
from services.marketdata.candles import Candles, Timing
from services.marketdata.config import Config
from services.marketdata.feed import Line, Link
from services.marketdata.wire import MARKET_TRADES, Frame, Heartbeat, Subscriptions, Tickers, Trades

FEED_REPEAT_SECONDS = 2.0  # wall; whoever starts late need not wait for a change
RETRY_SECONDS = 5.0  # wall, after a request that the shell gave up
# Market time. The venue's public answers are cached for about a second: a bucket asked for right after its end may
# lack its last trades.
REST_DELAY_SECONDS = 2.0


class Kept(Struct, forbid_unknown_fields=True):
    """What outlives the process: start of the last candle published, by product, in unix seconds."""

    granularity: str
    published: dict[str, int]


class MarketDataCore:
    """See `libs.common.shell.Core`. `rejected` counts what the venue sent and nobody may use, by reason."""

    def __init__(
        self, products: tuple[str, ...], granularity: str, candle_seconds: int, config: Config, replay: bool
    ) -> None:
        grace, delay = (0.0, 0.0) if replay else (config.candle_grace_seconds, REST_DELAY_SECONDS)
        timing = Timing(granularity, candle_seconds, grace, delay, config.warmup_candles)
        self._config = config
        # In a replay market time leaps from one product's tick to the next one's: age says nothing there.
        self._stale = timedelta.max if replay else timedelta(seconds=config.stale_seconds)
        self._granularity = granularity
        self.lines = {product: Line(product, Candles(product, timing)) for product in products}
        self.rejected: Counter[str] = Counter()
        self._link = Link()
        self._monotonic = 0.0
        self._repeat_due = 0.0

    def on_message(self, message: m.Message, now: datetime) -> list[m.Message]:
        match message:
            case f.FrameReceived():
                return self._on_frame(message, now)
            case f.Pulse():
                return self._on_pulse(message, now)
            case m.Tick():
                return self._on_tick(now)
            case m.Recovered():
                return self._on_recovered(now)
            case f.Connected():
                self._link = Link(message.connection)
                self._uncover()
                return []
            case f.Disconnected():
                return self._on_disconnected(message, now)
            case f.Fetched():
                return self._on_fetched(message, now)
            case f.FetchFailed():
                return self._on_failed(message)
            case _:
                return []  # an installation, for instance: of no interest here

    def not_ready(self, now: datetime) -> str:
        return "; ".join(lack for line in self.lines.values() if (lack := line.lacks()))

    @property
    def busy(self) -> bool:
        """A replay waits for answers that its results depend on."""
        return any(line.candles.hole or (line.rules is None and line.rules_due is None) for line in self.lines.values())

    def dump(self) -> bytes:
        published = {product: line.candles.published for product, line in self.lines.items()}
        known = {product: start for product, start in published.items() if start is not None}
        return msgspec.json.encode(Kept(self._granularity, known))

    def restore(self, raw: bytes) -> None:
        kept = m.read(raw, Kept)
        if kept.granularity == self._granularity:
            for product, line in self.lines.items():
                line.candles.published = kept.published.get(product)

    # -- connection

    def _on_recovered(self, now: datetime) -> list[m.Message]:
        for line in self.lines.values():
            line.since = now
        begin = f.Reconnect(id="reconnect-0", connection=0, trouble=f.Trouble.START, detail="first connection")
        return [*(line.feed_state(now) for line in self.lines.values()), begin]

    def _on_disconnected(self, message: f.Disconnected, now: datetime) -> list[m.Message]:
        """Of no interest for a connection before the present one, or if it was our own doing: the state tells the
        cause already."""
        if message.connection and (message.connection != self._link.number or self._link.broken):
            return []
        return self._lose(m.Feed.RECONNECTING, message.trouble, message.detail, now)

    def _break(self, trouble: f.Trouble, detail: str, now: datetime) -> list[m.Message]:
        """Have a new connection made."""
        number = self._link.number
        states = self._lose(m.Feed.GAP if trouble in f.GAPS else m.Feed.RECONNECTING, trouble, detail, now)
        command = f.Reconnect(id=f"reconnect-{number}", at=now, connection=number, trouble=trouble, detail=detail)
        return [*states, command]

    def _lose(self, state: m.Feed, trouble: f.Trouble, detail: str, now: datetime) -> list[m.Message]:
        """Trust nothing of this connection from here on."""
        self._link.broken = True
        self._uncover()
        return [message for line in self.lines.values() for message in line.turn(state, f"{trouble}: {detail}", now)]

    def _uncover(self) -> None:
        for line in self.lines.values():
            line.quoted = False
            line.candles.lose()

    # -- frames

    def _on_frame(self, message: f.FrameReceived, now: datetime) -> list[m.Message]:
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
            return self._break(f.Trouble.ERROR_FRAME, text, now)
        self.rejected["error_frame"] += 1
        return []

    def _take(self, frame: Frame, received_at: datetime) -> list[m.Message]:
        """Gives one mark per product, the last."""
        marks: dict[str, m.Message] = {}
        for event in frame.events:
            if isinstance(event, Tickers):
                marks |= self._quotes(event, frame, received_at)
                continue
            for product, line in self.lines.items():
                if isinstance(event, Trades):
                    trades = [trade for trade in event.trades if trade.product_id == product]
                    if trades:
                        line.candles.take(trades, event.snapshot)
                elif isinstance(event, Subscriptions) and self._link.subscribed(MARKET_TRADES, product):
                    line.candles.acknowledge(frame.timestamp)
        return list(marks.values())

    def _quotes(self, event: Tickers, frame: Frame, received_at: datetime) -> dict[str, m.Message]:
        marks: dict[str, m.Message] = {}
        for ticker in event.tickers:
            if ticker.product_id in self.lines:
                mark = self.lines[ticker.product_id].quote(ticker, frame, received_at)
                if isinstance(mark, str):
                    self.rejected[mark] += 1
                else:
                    marks[ticker.product_id] = mark
        return marks

    # -- freshness

    def _confirm(self, at: datetime, received_at: datetime, now: datetime) -> list[m.Message]:
        """A heartbeat on a gapless connection: every price still holds. One that comes too late says nothing."""
        if now - at > self._stale or self._link.missing(self.lines):
            return []
        quoted = [line for line in self.lines.values() if line.quoted]
        return [mark for line in quoted if (mark := line.confirm(at, received_at)) is not None]

    def _revive(self, now: datetime) -> list[m.Message]:
        waiting = [line for line in self.lines.values() if line.state is not m.Feed.LIVE and line.quoted]
        if not waiting or self._link.missing(self.lines):
            return []
        fresh = [line for line in waiting if line.age(now) <= self._stale]
        return [message for line in fresh for message in line.turn(m.Feed.LIVE, "gapless", now)]

    def _on_tick(self, now: datetime) -> list[m.Message]:
        reason = f"no confirmation for more than {self._config.stale_seconds:g} s"
        old = [line for line in self.lines.values() if line.state is m.Feed.LIVE and line.age(now) > self._stale]
        return [message for line in old for message in line.turn(m.Feed.STALE, reason, now)]

    # -- wall time

    def _on_pulse(self, pulse: f.Pulse, now: datetime) -> list[m.Message]:
        self._monotonic = pulse.monotonic
        out = self._watch(pulse, now)
        for product, line in self.lines.items():
            out += line.candles.on_pulse(pulse.monotonic, pulse.bus_connected)
            if line.rules_due is not None and pulse.monotonic >= line.rules_due:
                line.rules_due = None
                out.append(f.FetchProduct(id=f"fetch-product-{product}", at=now, product_id=product))
        if pulse.monotonic >= self._repeat_due:
            self._repeat_due = pulse.monotonic + FEED_REPEAT_SECONDS
            out += [line.feed_state(now) for line in self.lines.values()]
        return out

    def _watch(self, pulse: f.Pulse, now: datetime) -> list[m.Message]:
        if self._link.broken or pulse.connection != self._link.number:
            return []
        if pulse.silent_seconds > self._config.silent_seconds:
            return self._break(f.Trouble.SILENT_SOCKET, f"no frame for {pulse.silent_seconds:.1f} s", now)
        if pulse.connected_seconds > self._config.ack_seconds and (missing := self._link.missing(self.lines)):
            return self._break(f.Trouble.ACK_MISSING, f"not confirmed: {', '.join(missing)}", now)
        return []

    # -- answers

    def _on_fetched(self, answer: f.Fetched, now: datetime) -> list[m.Message]:
        product = answer.request.product_id
        line = self.lines[product]
        if answer.product is None:
            return line.candles.on_answer(answer)
        line.rules = msgspec.structs.replace(answer.product, id=f"product-{product}-{now.isoformat()}", at=now)
        line.rules_due = self._monotonic + self._config.product_refresh_seconds
        return [line.rules]

    def _on_failed(self, message: f.FetchFailed) -> list[m.Message]:
        line = self.lines[message.request.product_id]
        due = self._monotonic + RETRY_SECONDS
        if isinstance(message.request, f.FetchProduct):
            line.rules_due = due
        elif line.candles.hole is not None:
            line.candles.hole.retry_at = due
        return []
