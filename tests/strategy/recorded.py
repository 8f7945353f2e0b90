"""Recorded candles of Coinbase, read for the tests of the shipped profiles."""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime
from decimal import Decimal
from itertools import dropwhile
from pathlib import Path

import pytest

from libs.common.messages import Candle

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "candles"


def read(name: str, product_id: str, granularity: str, first: str, last: str) -> list[Candle]:
    """Candles whose day lies between `first` and `last`, oldest first. Skips the test where the data is absent."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"recorded data is not here: {path.name}")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = csv.DictReader(dropwhile(lambda line: ",open," not in line.lower(), lines))
        candles = [_candle({k.lower(): v for k, v in row.items()}, product_id, granularity) for row in rows]
    return sorted((c for c in candles if first <= c.start.date().isoformat() <= last), key=lambda c: c.start)


def _candle(row: dict[str, str], product_id: str, granularity: str) -> Candle:
    # CryptoDataDownload writes "2019-10-17 09-AM" and, under "volume", the quote currency's.
    text, form = (row["date"], "%Y-%m-%d %I-%p") if "date" in row else (row["start"], "%Y-%m-%d %H:%M:%S")
    start = datetime.strptime(text, form).replace(tzinfo=UTC)
    base_volume = next(value for name, value in row.items() if name.startswith("volume"))
    return Candle(
        id=f"candle-{product_id}-{text}",
        at=start,
        product_id=product_id,
        granularity=granularity,
        start=start,
        open=Decimal(row["open"]),
        high=Decimal(row["high"]),
        low=Decimal(row["low"]),
        close=Decimal(row["close"]),
        volume=Decimal(base_volume),
    )
