"""The venue's account on disk: whatever an answer or event tells is here before it leaves.

SQLite in WAL mode with synchronous NORMAL: a killed process loses nothing, a power cut may lose the last moments,
which a simulator can bear.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import uuid
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from sim.events import Ledger
from sim.orders import Fill, Order

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (sequence INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS fills (sequence INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, body BLOB NOT NULL);
"""
T = TypeVar("T")
POSITION = struct.Struct("<q")


class Stored(Struct, frozen=True):
    """What a start finds. `ledger` is None before the first change."""

    ledger: Ledger | None
    orders: list[Order]
    fills: list[Fill]
    prices: dict[str, Decimal]
    position: int


class StoreMismatch(Exception):
    """The data directory belongs to another market than the one that was asked for."""


class Store:
    """One SQLite file, and a few bytes beside it for a replay's position, which moves far more often."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(folder / "venue.sqlite3", isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(SCHEMA)
        self._position = os.open(folder / "position", os.O_RDWR | os.O_CREAT, 0o644)

    def close(self) -> None:
        self._database.close()
        os.close(self._position)

    def claim(self, market: str) -> str:
        """Bind the folder to a market at the first start; gives the installation's id. Raises StoreMismatch."""
        known = self._state("market", str)
        if known is not None and known != market:
            raise StoreMismatch(f"the data directory belongs to {known}, not to {market}; use a fresh one")
        installation = self._state("installation", str) or uuid.uuid4().hex
        with self._database:
            self._database.execute("BEGIN")
            self._keep("market", market)
            self._keep("installation", installation)
        return installation

    def load(self) -> Stored:
        return Stored(
            ledger=self._state("ledger", Ledger),
            orders=self._bodies("orders", Order),
            fills=self._bodies("fills", Fill),
            prices=self._state("prices", dict[str, Decimal]) or {},
            position=max(self._state("position", int) or 0, self._noted_position()),
        )

    def commit(
        self,
        ledger: Ledger,
        orders: Iterable[Order],
        fills: Iterable[Fill],
        prices: Mapping[str, Decimal],
        position: int,
    ) -> None:
        """Keep one state change whole: all of it is there after a crash, or nothing."""
        encode = msgspec.json.encode
        with self._database:
            self._database.execute("BEGIN")
            for table, values in (("orders", orders), ("fills", fills)):
                rows = [(value.sequence, encode(value)) for value in values]
                self._database.executemany(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", rows)
            self._keep("ledger", ledger)
            self._keep("prices", prices)
            self._keep("position", position)

    def keep_prices(self, prices: Mapping[str, Decimal]) -> None:
        """Where the synthetic market goes on after a restart."""
        self._keep("prices", prices)

    def note_position(self, position: int) -> None:
        """Keep how many ticks were delivered: a plain write, a few microseconds, safe against a killed process."""
        os.pwrite(self._position, POSITION.pack(position), 0)

    def _noted_position(self) -> int:
        raw = os.pread(self._position, POSITION.size, 0)
        found: int = POSITION.unpack(raw)[0] if len(raw) == POSITION.size else 0
        return found

    def _keep(self, name: str, value: object) -> None:
        self._database.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (name, msgspec.json.encode(value)))

    def _state(self, name: str, kind: type[T]) -> T | None:
        row = self._database.execute("SELECT body FROM state WHERE name = ?", (name,)).fetchone()
        return msgspec.json.decode(row[0], type=kind) if row else None

    def _bodies(self, table: str, kind: type[T]) -> list[T]:
        rows = self._database.execute(f"SELECT body FROM {table} ORDER BY sequence")
        return [msgspec.json.decode(body, type=kind) for (body,) in rows]
