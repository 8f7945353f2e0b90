"""A recorded market as a stream of ticks in strictly rising time."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

from sim.columns import Quote, QuoteBar, QuoteRow, Row, TradeRow
from sim.money import floor_to
from sim.products import Product, spot_product
from sim.readers import BadData, Source, is_jsonl, source_of
from sim.ticks import LAST_MOMENT, UNIT, Candle, Side, Tick, ticks_of

HISTORY_CANDLES = 500
DEFAULT_SECONDS = 60  # of a file with a single bar, whose spacing tells nothing
TICKS_PER_BAR = 4
STRAY_SHARE = 100  # one row in so many may be out of place or closer than the others
INSTANT = timedelta(microseconds=1)


def open_replay(path: Path, product: str | None, start: datetime | None, end: datetime | None) -> Replay:
    """Survey a file and check all that will be replayed, start <= time < end. Raises BadData, and nothing else."""
    source = source_of(path, product)
    survey = _Survey(source, start, end)
    survey.run()
    return Replay(survey)


class _Survey:
    """One pass over a file: what is in the selection, how long its bars are, which candles come before it."""

    def __init__(self, source: Source, start: datetime | None, end: datetime | None) -> None:
        self.source = source
        self.start, self.end = start, end
        self.frames = is_jsonl(source.path)
        self.history: deque[tuple[int, Candle]] = deque(maxlen=HISTORY_CANDLES)
        self.selected = 0
        self.kinds: set[type[Row]] = set()
        self.spacing: Counter[timedelta] = Counter()
        self.finest = Decimal(1)
        self.first: Row | None = None
        self._sorted: list[Row] | None = None

    def run(self) -> None:
        self._sorted = self._newest_first()
        previous: datetime | None = None
        for index, line, row in self.rows():
            self._check_order(previous, line, row)
            if previous is not None:
                self.spacing[row.start - previous] += 1
            previous = row.start
            if self.start is not None and row.start < self.start:
                if isinstance(row, Candle):
                    self.history.append((index, row))
                continue
            self.selected += 1
            self.kinds.add(type(row))
            self.first = self.first or row
            self.finest = min(self.finest, _step(row))
        if not self.selected:
            raise BadData(self.source.path, 0, f"no data for {self.source.product_id} in the given period")

    def rows(self) -> Iterator[tuple[int, int, Row]]:
        """Place in time, line (0 when sorted) and row, oldest first, up to the end of the selection."""
        numbered = ((0, row) for row in self._sorted) if self._sorted is not None else self.source.rows()
        for index, (line, row) in enumerate(numbered):
            if self.end is not None and row.start >= self.end and not self.frames:
                return
            if self.end is None or row.start < self.end:
                yield index, line, row

    def seconds(self) -> int | None:
        """The length of the bars; None for trades and quotes. Sparse bars are as long as the closest two are apart."""
        if not self.kinds & {Candle, QuoteBar}:
            return None
        if not self.spacing:
            return DEFAULT_SECONDS
        common = self.spacing.most_common(1)[0][0]
        closer = sum(count for gap, count in self.spacing.items() if gap < common)
        if closer * STRAY_SHARE > self.spacing.total():
            common = min(self.spacing)
        elif closer:
            raise BadData(self.source.path, 0, f"{closer} bars overlap the one after them (bars of {common})")
        return max(int(common.total_seconds()), 1)

    def _newest_first(self) -> list[Row] | None:
        """All rows sorted, if the file lists the newest first. Some public files hold a few misplaced rows."""
        if self.frames:
            return None
        head = list(itertools.islice(self.source.rows(), 2))
        if len(head) < 2 or head[1][1].start >= head[0][1].start:
            return None
        rows = list(self.source.rows())
        rising = [line for (_, newer), (line, older) in itertools.pairwise(rows) if older.start >= newer.start]
        if len(rising) * STRAY_SHARE > len(rows):
            raise BadData(self.source.path, rising[0], "neither in time order nor newest first")
        return sorted((row for _, row in rows), key=lambda row: row.start)

    def _check_order(self, previous: datetime | None, line: int, row: Row) -> None:
        if previous is None or self.frames or row.start > previous:
            return  # a frame's trades are a little older than the frame: their order in the file is what counts
        bars = isinstance(row, Candle | QuoteBar)
        if row.start < previous:
            raise BadData(self.source.path, line, "not in time order")
        if bars:
            raise BadData(self.source.path, line, f"a second bar for {row.start:%Y-%m-%d %H:%M:%S}")


class Replay:
    """The ticks of a selection. Iterating again starts again."""

    def __init__(self, survey: _Survey) -> None:
        self._survey = survey
        self.product_id = survey.source.product_id
        self.candle_seconds = survey.seconds()
        per_row = TICKS_PER_BAR if self.candle_seconds else 1
        self.total_ticks = survey.selected * per_row
        self._quotes_only = not survey.kinds & {Candle, TradeRow}

    @property
    def product(self) -> Product:
        return spot_product(self.product_id, self._survey.finest)

    @property
    def history(self) -> list[Candle]:
        """Up to 500 candles before the selection, oldest first."""
        return [candle for _, candle in self._survey.history]

    def past(self) -> Iterator[Tick]:
        """The ticks of `history`."""
        for index, candle in self._survey.history:
            yield from ticks_of(candle, self.product_id, self._seconds, _trade_id(index))

    def __iter__(self) -> Iterator[Tick]:
        latest: datetime | None = None
        last: Decimal | None = None
        for index, _, row in self._survey.rows():
            if self._survey.start is not None and row.start < self._survey.start:
                continue
            for tick in self._ticks(index, row, last):
                if latest is not None and tick.at <= latest:
                    tick = tick._replace(at=latest + INSTANT)
                latest, last = tick.at, tick.price
                yield tick

    @property
    def _seconds(self) -> int:
        return self.candle_seconds or DEFAULT_SECONDS

    def _ticks(self, index: int, row: Row, last: Decimal | None) -> Iterator[Tick]:
        match row:
            case Candle():
                yield from ticks_of(row, self.product_id, self._seconds, _trade_id(index))
            case TradeRow():
                side = row.side or (Side.SELL if last is None or row.price >= last else Side.BUY)
                trade_id = row.trade_id if row.trade_id is not None else _trade_id(index)
                yield Tick(row.start, self.product_id, trade_id, row.price, row.size, side)
            case QuoteRow():
                quote = Quote(min(row.bid, row.ask), max(row.bid, row.ask))
                yield self._quote(row.start, index, 0, quote, row.bid_size, row.ask_size)
            case QuoteBar():
                yield from self._quote_bar(index, row)

    def _quote_bar(self, index: int, bar: QuoteBar) -> Iterator[Tick]:
        length = timedelta(seconds=self._seconds)
        rising = sum(bar.close) >= sum(bar.open)
        turns = (bar.low, bar.high) if rising else (bar.high, bar.low)
        times = (bar.start, bar.start + length / 4, bar.start + length / 2, bar.start + length - LAST_MOMENT)
        for place, (at, quote) in enumerate(zip(times, (bar.open, *turns, bar.close), strict=True)):
            yield self._quote(at, index, place, quote, bar.bid_size, bar.ask_size)

    def _quote(
        self, at: datetime, index: int, place: int, quote: Quote, bid_size: Decimal | None, ask_size: Decimal | None
    ) -> Tick:
        """A quote as a tick at its middle. Where a file holds nothing but quotes, each also trades the smallest size:
        consumers build their candles from trades."""
        middle = floor_to((quote.bid + quote.ask) / 2, self.product.price_increment) or quote.ask
        size = UNIT if self._quotes_only else Decimal(0)
        trade_id = _trade_id(index) + place
        return Tick(at, self.product_id, trade_id, middle, size, Side.BUY, quote.bid, quote.ask, bid_size, ask_size)


def _trade_id(index: int) -> int:
    """Trade ids rise with the place in the file, whatever is selected of it."""
    return index * TICKS_PER_BAR + 1


def _step(row: Row) -> Decimal:
    """The finest decimal place of a row's closing price, for products whose increments nobody told us."""
    match row:
        case Candle():
            price = row.close
        case TradeRow():
            price = row.price
        case QuoteRow():
            price = row.bid
        case QuoteBar():
            price = row.close.bid
    exponent = price.normalize().as_tuple().exponent
    return Decimal(1).scaleb(min(exponent, 0)) if isinstance(exponent, int) else Decimal(1)
