"""Reading recorded market data from files: CSV (plain or .gz) and JSONL of venue frames, row by row."""

from __future__ import annotations

import csv
import gzip
import itertools
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TextIO

import msgspec
from msgspec import Struct

from sim.columns import Form, QuoteRow, Row, TradeRow, form_of, headerless, price, product_of, read_iso, size
from sim.ticks import Side

HEADER_LINES = 5  # banner lines before the header, at most


class BadData(Exception):
    """Market data that cannot be replayed; one line for the operator. `line` is 0 where no line is at fault."""

    def __init__(self, path: Path, line: int, what: str) -> None:
        place = f"{path}:{line}" if line else str(path)
        super().__init__(" ".join(f"{place}: {what}".splitlines()))
        self.path = path
        self.line = line
        self.what = what


class Source(Struct, frozen=True):
    """A file whose rows can be read as often as wanted, in the order of the file."""

    path: Path
    product_id: str

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Line number and row of this source's product."""
        read = _frames if is_jsonl(self.path) else _csv_rows
        with reading(self.path):
            yield from read(self.path, self.product_id)


def is_jsonl(path: Path) -> bool:
    return any(path.name.endswith(end) for end in (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"))


def source_of(path: Path, product: str | None) -> Source:
    """Find out whose data a file holds: its symbol column, else the argument, else its name."""
    with reading(path):
        found = product or _frames_product(path) if is_jsonl(path) else _csv_product(path, product)
    if found is None:
        raise BadData(path, 0, "no product in the file or its name; name one with PERPS_SIM_PRODUCT")
    return Source(path, found)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a file can do wrong into BadData."""
    try:
        yield
    except FileNotFoundError:
        raise BadData(path, 0, "no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise BadData(path, 0, "the gzip stream is truncated or damaged") from None
    except OSError as error:
        raise BadData(path, 0, error.strerror or "cannot be read") from None
    except UnicodeDecodeError:
        raise BadData(path, 0, "is not text in UTF-8") from None
    except csv.Error as error:
        raise BadData(path, 0, f"is not CSV: {error}") from None


def _open(path: Path) -> TextIO:
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _csv_product(path: Path, product: str | None) -> str | None:
    with _open(path) as file:
        form, body = _form(path, csv.reader(file))
        _, first = next(body)
        if form.symbol is None:
            return product or _product_in_name(path)
        return product or product_of(_cell(first, form.symbol))


def _csv_rows(path: Path, product_id: str) -> Iterator[tuple[int, Row]]:
    with _open(path) as file:
        form, body = _form(path, csv.reader(file))
        products: dict[str, bool] = {}
        for line, cells in body:
            if form.symbol is not None:
                symbol = _cell(cells, form.symbol)
                if not products.setdefault(symbol, product_of(symbol) == product_id):
                    continue
            try:
                yield line, form.parse(cells)
            except IndexError:
                raise BadData(path, line, f"only {len(cells)} cells") from None
            except (ValueError, ArithmeticError) as error:
                raise BadData(path, line, str(error)) from None


def _form(path: Path, rows: Iterator[list[str]]) -> tuple[Form, Iterator[tuple[int, list[str]]]]:
    """The form of a file and its rows of data with their line numbers; empty lines are left out."""
    numbered = ((line, cells) for line, cells in enumerate(rows, start=1) if cells)
    head = list(itertools.islice(numbered, HEADER_LINES))
    if not head:
        raise BadData(path, 0, "is empty")
    if names := headerless(head[0][1]):
        found = form_of(names, head[0][1])
        assert found is not None  # headerless names are known ones
        return found, itertools.chain(head, numbered)
    for place, (_, cells) in enumerate(head[:-1]):
        names = tuple(cell.strip().lower() for cell in cells)
        if found := form_of(names, head[place + 1][1]):
            return found, itertools.chain(head[place + 1 :], numbered)
    raise BadData(path, head[0][0], f"no data under known columns: {','.join(head[0][1])[:80]}")


def _cell(cells: Sequence[str], place: int) -> str:
    return cells[place] if place < len(cells) else ""


def _product_in_name(path: Path) -> str | None:
    words = path.name.split(".")[0].split("_")
    return next((found for word in words if (found := product_of(word))), None)


class _Trade(Struct):
    product_id: str
    trade_id: str
    price: str
    size: str
    time: str
    side: Side


class _Ticker(Struct):
    product_id: str
    price: str
    best_bid: str = ""
    best_ask: str = ""
    best_bid_quantity: str = ""
    best_ask_quantity: str = ""


class _Event(Struct):
    trades: list[_Trade] = []
    tickers: list[_Ticker] = []


class _Frame(Struct):
    channel: str = ""
    timestamp: str = ""
    events: list[_Event] = []


_decode = msgspec.json.Decoder(_Frame).decode


def _frames_product(path: Path) -> str | None:
    return next((product_id for _, product_id, _ in _messages(path)), None)


def _frames(path: Path, product_id: str) -> Iterator[tuple[int, Row]]:
    for line, whose, row in _messages(path):
        if whose == product_id:
            yield line, row


def _messages(path: Path) -> Iterator[tuple[int, str, Row]]:
    """Trades and quotes of all products in the order of the file; frames list their trades newest first."""
    with _open(path) as file:
        for line, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            try:
                frame = _decode(raw)
                yield from ((line, *found) for found in _rows_of(frame))
            except (ValueError, ArithmeticError, RecursionError, msgspec.MsgspecError) as error:
                raise BadData(path, line, f"not a venue frame: {error}") from None


def _rows_of(frame: _Frame) -> Iterator[tuple[str, Row]]:
    for event in frame.events:
        for trade in reversed(event.trades):
            at = read_iso(trade.time)
            yield (
                trade.product_id,
                TradeRow(at, price(trade.price), size(trade.size), trade.side, int(trade.trade_id)),
            )
        for ticker in event.tickers:
            if ticker.best_bid and ticker.best_ask:
                yield ticker.product_id, _quote_row(read_iso(frame.timestamp), ticker)


def _quote_row(at: datetime, ticker: _Ticker) -> QuoteRow:
    sizes = [_optional(cell) for cell in (ticker.best_bid_quantity, ticker.best_ask_quantity)]
    return QuoteRow(at, price(ticker.best_bid), price(ticker.best_ask), sizes[0], sizes[1])


def _optional(cell: str) -> Decimal | None:
    return size(cell) if cell else None
