"""What a backtest comes to in figures. Pure; a figure that cannot be computed is None, never 0.

Every figure is defined once, in `DEFINITIONS`, which the page and the terminal show beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from statistics import fmean, stdev

from msgspec import Struct

from sim.backtest.result import Bar, Point, Result, Trip

ZERO = Decimal(0)
DAY = timedelta(days=1)
WHOLE_DAY = DAY * 0.99  # the last tick of a recording comes a moment before midnight
DAYS_PER_YEAR = 365  # there is no day on which the market is closed
STEADY = 1e-12  # a deviation below it is rounding: such returns do not vary


class Unit(StrEnum):
    PERCENT = "percent"  # held as a fraction
    MONEY = "money"  # quote currency
    RATIO = "ratio"
    COUNT = "count"
    TIME = "time"


class Definition(Struct, frozen=True):
    """How a figure is called, what it means, and which way it is better (None: it is no measure of success)."""

    label: str
    unit: Unit
    meaning: str
    higher_is_better: bool | None = None


class DailyPnl(Struct, frozen=True):
    """How much the equity changed on one UTC day, in quote currency; the first and the last may be parts of one."""

    day: date
    pnl: Decimal


class Figures(Struct, frozen=True, kw_only=True):
    """Fractions where a percentage is meant, quote currency where money is. What each means: `DEFINITIONS`.

    Formulas: annualised return is the compound annual growth rate. Sharpe: W. F. Sharpe, "The Sharpe Ratio", Journal of
    Portfolio Management 21 (1994), ex post, risk-free rate 0, times sqrt(365) as that paper annualises independent
    returns. Sortino: F. Sortino and L. Price, "Performance Measurement in a Downside Risk Framework", Journal of
    Investing 3 (1994), target 0. Drawdown: M. Magdon-Ismail and A. Atiya, "Maximum Drawdown", Risk 17 (2004).
    """

    total_return: float | None
    annualised_return: float | None
    buy_and_hold: float | None
    sharpe: float | None
    sortino: float | None
    max_drawdown: float | None
    max_drawdown_value: Decimal | None
    max_drawdown_from: datetime | None
    max_drawdown_to: datetime | None
    trades: int
    open_trades: int
    win_rate: float | None
    profit_factor: float | None
    average_win: Decimal | None
    average_loss: Decimal | None
    fees: Decimal
    turnover: Decimal
    turnover_ratio: float | None
    time_in_market: float | None
    average_exposure: float | None
    daily_pnl: list[DailyPnl]


_P, _M, _R, _C, _T = Unit.PERCENT, Unit.MONEY, Unit.RATIO, Unit.COUNT, Unit.TIME
DEFINITIONS = {
    "total_return": Definition("Total return", _P, "Equity at the end / opening equity - 1, after fees.", True),
    "annualised_return": Definition(
        "Annualised return",
        _P,
        "(1 + total return) ^ (365 days / length of the run) - 1. Of a run shorter than a year it is an extrapolation; "
        "of one shorter than a day there is none.",
        True,
    ),
    "buy_and_hold": Definition(
        "Buy and hold",
        _P,
        "For comparison: the same amount of each product bought at the open of its first candle and valued at the "
        "close of its last one, without fees.",
    ),
    "sharpe": Definition(
        "Sharpe ratio",
        _R,
        "Mean / sample standard deviation of the daily returns x sqrt(365), risk-free rate 0. A daily return is the "
        "change of equity from one 00:00 UTC to the next; days of which less than 99 % was run are left out.",
        True,
    ),
    "sortino": Definition(
        "Sortino ratio",
        _R,
        "Mean of the daily returns (as for Sharpe) / root of the mean of their squared losses, gains counting as 0, "
        "x sqrt(365); target 0.",
        True,
    ),
    "max_drawdown": Definition(
        "Maximum drawdown", _P, "Largest fall of equity (at candle closes) below the highest before it.", False
    ),
    "max_drawdown_value": Definition("Maximum drawdown, value", _M, "The same fall in quote currency."),
    "max_drawdown_from": Definition("Maximum drawdown, from", _T, "When equity was highest before that fall (UTC)."),
    "max_drawdown_to": Definition("Maximum drawdown, to", _T, "When it was lowest in it (UTC)."),
    "trades": Definition("Trades", _C, "Positions that were opened and closed again, from flat to flat."),
    "open_trades": Definition(
        "Open at the end", _C, "Positions still held; valued at the last price in equity, in none of the trade figures."
    ),
    "win_rate": Definition("Win rate", _P, "Trades that earned more than their fees / trades.", True),
    "profit_factor": Definition(
        "Profit factor", _R, "Sum of the gains / sum of the losses of trades, after fees. None without a loss.", True
    ),
    "average_win": Definition("Average win", _M, "Mean gain of the trades that gained, after fees.", True),
    "average_loss": Definition("Average loss", _M, "Mean result of the trades that lost, after fees.", True),
    "fees": Definition("Fees", _M, "Of all fills.", False),
    "turnover": Definition("Turnover", _M, "Price x size of all fills, buys and sells."),
    "turnover_ratio": Definition("Turnover / equity", _R, "Turnover / mean equity over the run.", False),
    "time_in_market": Definition("Time in market", _P, "Part of the run in which any position was held."),
    "average_exposure": Definition(
        "Average exposure",
        _P,
        "Mean of value of positions / equity at the closes of candles, each counted for the time since the one before.",
    ),
}
RANKS = tuple(name for name, known in DEFINITIONS.items() if known.higher_is_better is not None)


def figures_of(result: Result) -> Figures:
    points, trips = result.points, result.trips
    pnls = [trip.pnl for trip in trips if trip.closed_at is not None]
    wins, losses = [pnl for pnl in pnls if pnl > 0], [pnl for pnl in pnls if pnl < 0]
    marks = _day_marks(result)
    returns = _whole_day_returns(marks)
    fall = max_drawdown(result)
    turnover = sum((fill.quote_value for fill in result.fills), ZERO)
    total = _ratio(points[-1].equity - result.opening_equity, result.opening_equity) if points else None
    return Figures(
        total_return=total,
        annualised_return=_annualised(total, result.end - result.start),
        buy_and_hold=_buy_and_hold([bar for bar in result.bars if bar.start >= result.start]),
        sharpe=_sharpe(returns),
        sortino=_sortino(returns),
        max_drawdown=fall.share if fall else None,
        max_drawdown_value=fall.value if fall else None,
        max_drawdown_from=fall.peak_at if fall else None,
        max_drawdown_to=fall.trough_at if fall else None,
        trades=len(pnls),
        open_trades=len(trips) - len(pnls),
        win_rate=len(wins) / len(pnls) if pnls else None,
        profit_factor=_ratio(sum(wins, ZERO), -sum(losses, ZERO)),
        average_win=sum(wins, ZERO) / len(wins) if wins else None,
        average_loss=sum(losses, ZERO) / len(losses) if losses else None,
        fees=sum((fill.fee for fill in result.fills), ZERO),
        turnover=turnover,
        turnover_ratio=_turnover_ratio(turnover, result),
        time_in_market=_time_in_market(trips, result.start, result.end),
        average_exposure=_mean_over_time(result, lambda point: _ratio(point.exposure, point.equity)),
        daily_pnl=[DailyPnl(at.date(), after - before) for (at, before), (_, after) in pairwise(marks)],
    )


def rank_value(figures: Figures, name: str) -> float | None:
    """A figure of `RANKS` such that more of it is better."""
    value = getattr(figures, name)
    if value is None:
        return None
    return float(value) if DEFINITIONS[name].higher_is_better else -float(value)


class Fall(Struct, frozen=True):
    """From the highest equity to the lowest after it. Without any fall both values are 0 and there are no times."""

    share: float
    value: Decimal
    peak_at: datetime | None
    trough_at: datetime | None


def max_drawdown(result: Result) -> Fall | None:
    """None without a point, or where equity was never above 0."""
    peak, peak_at = result.opening_equity, result.start
    if not result.points or peak <= 0:
        return None
    worst = Fall(0.0, ZERO, None, None)
    for point in result.points:
        if point.equity >= peak:
            peak, peak_at = point.equity, point.at
        elif (share := float((peak - point.equity) / peak)) > worst.share:
            worst = Fall(share, peak - point.equity, peak_at, point.at)
    return worst


def drawdowns(result: Result) -> list[float]:
    """At each point the fall below the highest equity so far, as a fraction <= 0."""
    peak, found = result.opening_equity, []
    for point in result.points:
        peak = max(peak, point.equity)
        found.append(float((point.equity - peak) / peak) if peak > 0 else 0.0)
    return found


def _ratio(part: Decimal, whole: Decimal) -> float | None:
    return float(part / whole) if whole > 0 else None


def _annualised(total: float | None, length: timedelta) -> float | None:
    if total is None or total < -1 or length < DAY:
        return None
    try:
        return float((1 + total) ** (DAYS_PER_YEAR * DAY / length)) - 1
    except OverflowError:
        return None


def _day_marks(result: Result) -> list[tuple[datetime, Decimal]]:
    """Equity at the start, at each 00:00 UTC in between, and at the end: the last that was known by then."""
    if not result.points:
        return []
    start = result.start.astimezone(UTC)
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0) + DAY
    marks, equity = [(start, result.opening_equity)], result.opening_equity
    for point in result.points:
        while midnight < min(point.at, result.end):
            marks.append((midnight, equity))
            midnight += DAY
        equity = point.equity
    while midnight < result.end:
        marks.append((midnight, equity))
        midnight += DAY
    return [*marks, (result.end.astimezone(UTC), equity)]


def _whole_day_returns(marks: Sequence[tuple[datetime, Decimal]]) -> list[float]:
    """Empty where equity was used up: nothing is a return on nothing."""
    pairs = [(before, after) for (at, before), (end, after) in pairwise(marks) if end - at >= WHOLE_DAY]
    if any(before <= 0 for before, _ in pairs):
        return []
    return [float((after - before) / before) for before, after in pairs]


def _sharpe(returns: list[float]) -> float | None:
    if len(returns) < 2:
        return None
    deviation = stdev(returns)
    return fmean(returns) / deviation * math.sqrt(DAYS_PER_YEAR) if deviation > STEADY else None


def _sortino(returns: list[float]) -> float | None:
    if len(returns) < 2:
        return None
    downside = math.sqrt(fmean([min(value, 0.0) ** 2 for value in returns]))
    return fmean(returns) / downside * math.sqrt(DAYS_PER_YEAR) if downside > STEADY else None


def _buy_and_hold(bars: Sequence[Bar]) -> float | None:
    first: dict[str, Decimal] = {}
    last: dict[str, Decimal] = {}
    for bar in bars:
        first.setdefault(bar.product_id, bar.open)
        last[bar.product_id] = bar.close
    changes = [change for name, price in first.items() if (change := _ratio(last[name] - price, price)) is not None]
    return fmean(changes) if changes else None


def _time_in_market(trips: Sequence[Trip], start: datetime, end: datetime) -> float | None:
    """Positions of several products at once count once."""
    if end <= start:
        return None
    held, until = timedelta(), start
    for trip in sorted(trips, key=lambda known: known.opened_at):
        closed = min(trip.closed_at or end, end)
        held += max(closed - max(trip.opened_at, until), timedelta())
        until = max(until, closed)
    return held / (end - start)


def _turnover_ratio(turnover: Decimal, result: Result) -> float | None:
    equity = _mean_over_time(result, lambda point: float(point.equity))
    return float(turnover) / equity if equity is not None and equity > 0 else None


def _mean_over_time(result: Result, value: Callable[[Point], float | None]) -> float | None:
    """Each point counts for the time since the one before it: what was bought at a candle's close is seen at the next
    one's, and was held in between."""
    weighed, seconds, before = 0.0, 0.0, result.start
    for point in result.points:
        known, length = value(point), (point.at - before).total_seconds()
        if known is None:
            return None
        weighed += known * length
        seconds += length
        before = point.at
    return weighed / seconds if seconds > 0 else None
