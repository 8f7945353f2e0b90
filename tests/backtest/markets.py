"""Recordings made for tests, and a strategy that does what it is told."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

from libs.common.messages import Candle
from services.strategy.plugin import Action, Intent, Why

START = datetime(2025, 10, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def minutes(path: Path, prices: Iterable[str]) -> Path:
    """One-minute candles that stand still, each at its price."""
    lines = ["time,open,high,low,close,volume"]
    for number, price in enumerate(prices):
        lines.append(f"{_unix(number)},{price},{price},{price},{price},8")
    path.write_text("\n".join(lines) + "\n")
    return path


def waves(path: Path, count: int, level: float = 60_000.0, first: int = 0) -> Path:
    """One-minute candles of a market that goes up and down often enough to be traded, from minute `first` on."""
    lines, price = ["time,open,high,low,close,volume"], level
    for number in range(first, first + count):
        following = level * (1 + 0.015 * math.sin(number / 6) + 0.0025 * math.sin(number / 2.3))
        high, low = max(price, following) * 1.0002, min(price, following) * 0.9998
        lines.append(f"{_unix(number)},{price:.2f},{high:.2f},{low:.2f},{following:.2f},{3 + number % 5}.125")
        price = round(following, 2)
    path.write_text("\n".join(lines) + "\n")
    return path


def _unix(number: int) -> int:
    return int((START + number * MINUTE).timestamp())


class Parameters(Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers of candles, counted from 1; 0 for never."""

    enter: int = 0
    leave: int = 0


class Planned:
    Parameters: TypeAlias = Parameters

    def __init__(self, parameters: Parameters) -> None:
        self.warmup_candles = 1
        self._parameters = parameters
        self._seen = 0

    def on_candle(self, candle: Candle, held: bool) -> Intent:
        self._seen += 1
        if self._seen == self._parameters.enter:
            return Intent(Action.ENTER, Why.CROSSED_UP)
        if self._seen == self._parameters.leave:
            return Intent(Action.EXIT, Why.CROSSED_DOWN)
        return Intent(Action.HOLD, Why.NO_SIGNAL)
