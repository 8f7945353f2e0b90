"""Messages that stay inside this service: what the shell tells the core, and what the core asks the shell to do."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from libs.common import messages as m
from services.marketdata.wire import Bucket, Frame, Trade


class Trouble(StrEnum):
    """Why a connection is made anew. One word in the feed state, the log and the metric label."""

    START = "start"
    SEQUENCE_GAP = "sequence_gap"
    HEARTBEAT_GAP = "heartbeat_gap"
    SILENT_SOCKET = "silent_socket"
    ERROR_FRAME = "error_frame"
    ACK_MISSING = "ack_missing"
    CONNECTION_LOST = "connection_lost"
    CONNECT_FAILED = "connect_failed"


GAPS = (Trouble.SEQUENCE_GAP, Trouble.HEARTBEAT_GAP)


# -- the connection


class Connected(m.Message, frozen=True, kw_only=True):
    """A new connection, counted from 1; every subscription has been sent."""

    connection: int


class Disconnected(m.Message, frozen=True, kw_only=True):
    """A connection ended, or did not come about (`connection` is 0 then)."""

    connection: int
    trouble: Trouble
    detail: str


class FrameReceived(m.Message, frozen=True, kw_only=True):
    connection: int
    frame: Frame
    received_at: datetime  # wall


class Pulse(m.Tick, frozen=True, kw_only=True):
    """Wall time passes: a tick, and no input that the shell counts.

    All figures are wall seconds, measured by the shell; `monotonic` from an arbitrary start.
    """

    monotonic: float
    connection: int  # 0 while there is none
    connected_seconds: float
    silent_seconds: float
    bus_connected: bool


class Reconnect(m.Message, frozen=True, kw_only=True):
    """To do: give up this connection and make a new one; its snapshots are the way back to a known state."""

    connection: int
    trouble: Trouble
    detail: str


# -- REST: what to ask for, and what came of it


class FetchCandles(m.Message, frozen=True, kw_only=True):
    """Closed buckets with `start <= bucket < end`; never more than one answer holds."""

    product_id: str
    granularity: str
    start: datetime
    end: datetime


class FetchTrades(m.Message, frozen=True, kw_only=True):
    """The newest trades with `start <= time <= end`, as many as one answer holds."""

    product_id: str
    start: datetime
    end: datetime


class FetchProduct(m.Message, frozen=True, kw_only=True):
    product_id: str


Fetch = FetchCandles | FetchTrades | FetchProduct


class Fetched(m.Message, frozen=True, kw_only=True):
    """The answer; what was not asked for is left out."""

    request: Fetch
    candles: tuple[Bucket, ...] = ()
    trades: tuple[Trade, ...] = ()
    product: m.Product | None = None


class FetchFailed(m.Message, frozen=True, kw_only=True):
    """The venue refused, or did not answer several times in a row."""

    request: Fetch
    reason: str
