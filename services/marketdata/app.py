"""What surrounds the shell of marketdata: the reader of the socket, the pulse of wall time, the REST requests.

Nothing is decided here but when to try again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from libs.common import messages as m
from libs.common.bus import Bus
from libs.common.clock import Clock, Tasks
from libs.common.errors import Rejected, Retryable
from libs.common.settings import Market
from libs.common.shell import Inputs, Shell
from services.marketdata import facts as f
from services.marketdata.config import Config
from services.marketdata.core import MarketDataCore
from services.marketdata.metrics import MarketDataMetrics
from services.marketdata.venue import MarketConnection, MarketVenue
from services.marketdata.wire import parse_frame

log = logging.getLogger(__name__)
PULSE_SECONDS = 0.25
FETCH_TRIES = 4
STEADY_SECONDS = 2.0  # a connection that lived so long was accepted: the next wait is the shortest again
KINDS: dict[type[f.Fetch], str] = {f.FetchCandles: "candles", f.FetchTrades: "trades", f.FetchProduct: "product"}


def waits(shortest: float, longest: float, jitter: Callable[[], float]) -> Iterator[float]:
    """Seconds to wait before the next try: doubling up to a bound, each between a half and the whole of it.

    `jitter` gives numbers from 0 to below 1.
    """
    bound = shortest
    while True:
        yield bound * (0.5 + jitter() / 2)
        bound = min(2 * bound, longest)


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
        core = MarketDataCore(market.products, market.granularity, market.candle_seconds, config, market.replay)
        self.shell = Shell(
            "marketdata",
            profile,
            core,
            Inputs(),
            bus=bus,
            clock=clock,
            tasks=tasks,
            metrics=metrics,
            perform=self._perform,
        )
        metrics.watch(core, clock)
        self.core = core
        self.metrics = metrics
        self._config = config
        self._venue = venue
        self._jitter = jitter
        self._connection: MarketConnection | None = None
        self._given_up: f.Reconnect | None = None
        self._number = 0
        self._connected_at = 0.0  # monotonic, as all times here
        self._frame_at = 0.0

    async def _perform(self, command: m.Message) -> list[m.Message]:
        """Begin what the core asks for. The answers come later, as messages of their own."""
        match command:
            case f.Reconnect(trouble=f.Trouble.START):
                self.shell.tasks.spawn(self._follow(), "venue")
                self.shell.tasks.spawn(self._beat(), "pulse")
            case f.Reconnect():
                # Its reason is the one that counts.
                if self._connection is not None and command.connection == self._number:
                    self._given_up = command
                    self._connection.abort()
            case f.FetchCandles() | f.FetchTrades() | f.FetchProduct():
                self.shell.tasks.spawn(self._fetch(command), command.id)
            case _:
                raise AssertionError(f"marketdata does not perform {type(command).__name__}")
        return []

    def _pauses(self) -> Iterator[float]:
        return waits(self._config.reconnect_seconds_min, self._config.reconnect_seconds_max, self._jitter)

    # -- socket

    async def _follow(self) -> None:
        """Connect, read, and begin again, for ever. The wait grows while connections do not last."""
        pauses = self._pauses()
        while True:
            number, trouble, detail = await self._one_connection()
            self.metrics.reconnects.labels(trouble).inc()
            if trouble in f.GAPS:
                self.metrics.gaps.inc()
            extra = {"event": "venue.reconnect", "reason": trouble}
            log.warning("connecting again: %s: %s", trouble, detail, extra=extra)
            label, at = f"disconnected-{number}", self.shell.clock.market()
            self.shell.post(f.Disconnected(id=label, at=at, connection=number, trouble=trouble, detail=detail))
            if number and self.shell.clock.monotonic() - self._connected_at > STEADY_SECONDS:
                pauses = self._pauses()
            await self.shell.tasks.sleep(next(pauses))

    async def _one_connection(self) -> tuple[int, f.Trouble, str]:
        """Live through one connection; gives its number, 0 where none came about, and how it ended."""
        try:
            connection = await self._venue.connect()
        except (Retryable, Rejected) as error:
            return 0, f.Trouble.CONNECT_FAILED, str(error)
        self._number += 1
        number = self._number
        self._connected_at = self._frame_at = self.shell.clock.monotonic()
        self._connection, self._given_up = connection, None
        self.metrics.connected.set(1)
        self.shell.post(f.Connected(id=f"connected-{number}", at=self.shell.clock.market(), connection=number))
        log.info("connected to the venue", extra={"event": "venue.connected", "connection": number})
        try:
            while True:
                self._on_data(await connection.read(), number)
        except Retryable as error:
            if self._given_up is not None:
                return number, self._given_up.trouble, self._given_up.detail
            return number, f.Trouble.CONNECTION_LOST, str(error)
        finally:
            self._connection = None
            self.metrics.connected.set(0)
            await connection.close()

    def _on_data(self, data: bytes | str, number: int) -> None:
        """The hot path: frame to message. What cannot be read is dropped; if it bore a sequence number, its absence
        shows in the next frame."""
        self._frame_at = self.shell.clock.monotonic()
        now = self.shell.last_venue_at = self.shell.clock.wall()
        try:
            frame = parse_frame(data)
        except Rejected as error:
            self.metrics.undecodable.labels(error.reason).inc()
            log.warning("undecodable frame: %s", error, extra={"event": "venue.undecodable", "connection": number})
            return
        self.metrics.frame(frame, now)
        label = f"frame-{number}-{frame.sequence}"
        self.shell.post(f.FrameReceived(id=label, at=frame.timestamp, connection=number, frame=frame, received_at=now))

    async def _beat(self) -> None:
        while True:
            now = self.shell.clock.monotonic()
            self.shell.post(
                f.Pulse(
                    id="pulse",
                    at=self.shell.clock.market(),
                    monotonic=now,
                    connection=0 if self._connection is None else self._number,
                    connected_seconds=now - self._connected_at,
                    silent_seconds=now - self._frame_at,
                    bus_connected=self.shell.bus.connected,
                )
            )
            await self.shell.tasks.sleep(PULSE_SECONDS)

    # -- REST

    async def _fetch(self, request: f.Fetch) -> None:
        """Ask the venue, several times if need be; exactly one answer goes to the core."""
        pauses, reason = self._pauses(), ""
        for attempt in range(FETCH_TRIES):
            if attempt:
                await self.shell.tasks.sleep(next(pauses))
            try:
                answer = await self._venue.fetch(request)
            except (Retryable, Rejected) as error:
                outcome, reason = "rejected" if isinstance(error, Rejected) else "retryable", str(error)
                self.metrics.rest.labels(KINDS[type(request)], outcome).inc()
                log.warning("%s: %s", request.id, error, extra={"event": "venue.rest", "outcome": outcome})
                if isinstance(error, Rejected):
                    break
            else:
                self.metrics.rest.labels(KINDS[type(request)], "ok").inc()
                self.shell.last_venue_at = self.shell.clock.wall()
                self.shell.post(answer)
                return
        self.shell.post(
            f.FetchFailed(id=f"failed-{request.id}", at=self.shell.clock.market(), request=request, reason=reason)
        )
