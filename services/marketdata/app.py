"""What surrounds the shell of marketdata: the reader of the socket, the pulse of wall time, the REST requests.

Nothing is decided here but when to try again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from libs.common import messages as m
from libs.common.bus import Bus
from libs.common.clock import Clock, Tasks
from libs.common.errors import Rejected, Retryable
from libs.common.settings import Market
from libs.common.shell import Inputs, Shell
from services.marketdata.candles import Timing
from services.marketdata.config import Config
from services.marketdata.core import MarketDataCore
from services.marketdata.facts import (
    CandlesFetched,
    Connected,
    Disconnected,
    Fetch,
    FetchCandles,
    FetchFailed,
    FetchProduct,
    FetchTrades,
    FrameReceived,
    ProductFetched,
    Pulse,
    Reconnect,
    TradesFetched,
    Trouble,
)
from services.marketdata.frames import parse_frame
from services.marketdata.metrics import MarketDataMetrics
from services.marketdata.venue import MarketConnection, MarketVenue

log = logging.getLogger(__name__)
PULSE_SECONDS = 0.25
FETCH_TRIES = 4
STEADY_SECONDS = 2.0  # a connection that lived so long was accepted: the next wait is the shortest again
KINDS: dict[type[Fetch], str] = {FetchCandles: "candles", FetchTrades: "trades", FetchProduct: "product"}
GAPS = (Trouble.SEQUENCE_GAP, Trouble.HEARTBEAT_GAP)


class Backoff:
    """Seconds to wait before the next try: doubling up to a bound, each between a half and the whole of it.

    `jitter` gives numbers from 0 to below 1.
    """

    def __init__(self, shortest: float, longest: float, jitter: Callable[[], float]) -> None:
        self._shortest = shortest
        self._longest = longest
        self._jitter = jitter
        self._bound = shortest

    def reset(self) -> None:
        self._bound = self._shortest

    def next(self) -> float:
        bound = self._bound
        self._bound = min(2 * bound, self._longest)
        return bound * (0.5 + self._jitter() / 2)


class App:
    """Builds the shell; everything with an effect is handed in."""

    def __init__(
        self,
        profile: str,
        market: Market,
        config: Config,
        *,
        bus: Bus,
        clock: Clock,
        tasks: Tasks,
        venue: MarketVenue,
        jitter: Callable[[], float],
        metrics: MarketDataMetrics,
    ) -> None:
        timing = Timing.of(
            market.granularity,
            market.candle_seconds,
            config.candle_grace_seconds,
            config.warmup_candles,
            market.replay,
        )
        self.core = MarketDataCore(market.products, timing, config, market.replay)
        self.shell = Shell(
            "marketdata",
            profile,
            self.core,
            Inputs(),
            bus=bus,
            clock=clock,
            tasks=tasks,
            metrics=metrics,
            perform=self._perform,
        )
        self.metrics = metrics
        metrics.watch(self.core, clock)
        self._config = config
        self._bus = bus
        self._clock = clock
        self._tasks = tasks
        self._venue = venue
        self._jitter = jitter
        self._connection: MarketConnection | None = None
        self._distrusted: Reconnect | None = None
        self._number = 0
        self._connected_at = 0.0  # monotonic, as all times here
        self._frame_at = 0.0

    async def _perform(self, command: m.Message) -> list[m.Message]:
        """Begin what the core asks for. The answers come later, as messages of their own."""
        match command:
            case Reconnect(trouble=Trouble.START):
                self._tasks.spawn(self._follow(), "venue")
                self._tasks.spawn(self._beat(), "pulse")
            case Reconnect():
                self._give_up(command)
            case FetchCandles() | FetchTrades() | FetchProduct():
                self._tasks.spawn(self._fetch(command), command.id)
            case _:
                raise AssertionError(f"marketdata does not perform {type(command).__name__}")
        return []

    # -- socket

    async def _follow(self) -> None:
        """Connect, read, and begin again, for ever. The wait grows while connections do not last."""
        backoff = Backoff(self._config.reconnect_seconds_min, self._config.reconnect_seconds_max, self._jitter)
        while True:
            trouble, detail, number = await self._one_connection()
            self._count(trouble, detail)
            self.shell.post(
                Disconnected(
                    id=f"disconnected-{number}",
                    at=self._clock.market(),
                    connection=number,
                    trouble=trouble,
                    detail=detail,
                )
            )
            if number and self._clock.monotonic() - self._connected_at > STEADY_SECONDS:
                backoff.reset()
            await self._tasks.sleep(backoff.next())

    async def _one_connection(self) -> tuple[Trouble, str, int]:
        """Live through one connection; tells how it ended and its number, 0 where none came about."""
        try:
            connection = await self._venue.connect()
        except (Retryable, Rejected) as error:
            return Trouble.CONNECT_FAILED, str(error), 0
        self._number += 1
        number = self._number
        self._connected_at = self._frame_at = self._clock.monotonic()
        self._connection = connection
        self.metrics.connected.set(1)
        self.shell.post(Connected(id=f"connected-{number}", at=self._clock.market(), connection=number))
        log.info("connected to the venue", extra={"event": "venue.connected", "connection": number})
        try:
            while True:
                self._on_data(await connection.read(), number)
        except Retryable as error:
            return self._ended(error, number)
        finally:
            self._connection = None
            self.metrics.connected.set(0)
            await connection.close()

    def _on_data(self, data: bytes | str, number: int) -> None:
        """The hot path: frame to message. What cannot be read is dropped; if it bore a sequence number, its absence
        shows in the next frame."""
        self._frame_at = self._clock.monotonic()
        received_at = self._clock.wall()
        self.shell.last_venue_at = received_at
        try:
            frame = parse_frame(data)
        except Rejected as error:
            self.metrics.undecodable.labels(error.reason).inc()
            log.warning("undecodable frame: %s", error, extra={"event": "venue.undecodable", "connection": number})
            return
        self.metrics.frame(frame, received_at)
        self.shell.post(
            FrameReceived(
                id=f"frame-{number}-{frame.sequence}",
                at=frame.timestamp,
                connection=number,
                frame=frame,
                received_at=received_at,
            )
        )

    def _give_up(self, command: Reconnect) -> None:
        """End the connection that the core no longer trusts. Its reason is the one that counts."""
        if self._connection is not None and command.connection == self._number:
            self._distrusted = command
            self._connection.abort()

    def _ended(self, error: Retryable, number: int) -> tuple[Trouble, str, int]:
        command = self._distrusted
        if command is not None and command.connection == number:
            return command.trouble, command.detail, number
        return Trouble.CONNECTION_LOST, str(error), number

    def _count(self, trouble: Trouble, detail: str) -> None:
        self.metrics.reconnects.labels(trouble).inc()
        if trouble in GAPS:
            self.metrics.gaps.inc()
        log.warning("connecting again: %s: %s", trouble, detail, extra={"event": "venue.reconnect", "reason": trouble})

    async def _beat(self) -> None:
        while True:
            now = self._clock.monotonic()
            open_ = self._connection is not None
            self.shell.post(
                Pulse(
                    id="pulse",
                    at=self._clock.market(),
                    monotonic=now,
                    connection=self._number if open_ else 0,
                    connected_seconds=now - self._connected_at,
                    silent_seconds=now - self._frame_at,
                    bus_connected=self._bus.connected,
                )
            )
            await self._tasks.sleep(PULSE_SECONDS)

    # -- REST

    async def _fetch(self, request: Fetch) -> None:
        """Ask the venue, several times if need be; exactly one answer goes to the core."""
        backoff = Backoff(self._config.reconnect_seconds_min, self._config.reconnect_seconds_max, self._jitter)
        reason = ""
        for attempt in range(FETCH_TRIES):
            if attempt:
                await self._tasks.sleep(backoff.next())
            try:
                answer = await self._ask(request)
            except Retryable as error:
                reason = self._refused(request, "retryable", error)
            except Rejected as error:
                reason = self._refused(request, "rejected", error)
                break
            else:
                self.metrics.rest.labels(KINDS[type(request)], "ok").inc()
                self.shell.last_venue_at = self._clock.wall()
                self.shell.post(answer)
                return
        self.shell.post(FetchFailed(id=f"failed-{request.id}", at=self._clock.market(), request=request, reason=reason))

    def _refused(self, request: Fetch, outcome: str, error: Exception) -> str:
        self.metrics.rest.labels(KINDS[type(request)], outcome).inc()
        log.warning("%s: %s", request.id, error, extra={"event": "venue.rest", "outcome": outcome})
        return str(error)

    async def _ask(self, request: Fetch) -> m.Message:
        product, label = request.product_id, f"answer-{request.id}"
        if isinstance(request, FetchProduct):
            return ProductFetched(id=label, product=await self._venue.product(product))
        start, end = request.start, request.end
        if isinstance(request, FetchTrades):
            trades = await self._venue.trades(product, start, end)
            return TradesFetched(id=label, product_id=product, start=start, end=end, trades=trades)
        candles = await self._venue.candles(product, request.granularity, start, end)
        return CandlesFetched(id=label, product_id=product, start=start, end=end, candles=candles)
