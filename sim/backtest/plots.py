"""The plots of a backtest's page, as Plotly takes them: traces and layouts, without colours of the page. Pure.

A year of five-minute candles has more points than a screen has columns: what is drawn is thinned so that no extreme is
lost, what is reckoned with never is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from msgspec import Struct

from sim.backtest.figures import DEFINITIONS, Figures, Unit, drawdowns, rank_value
from sim.backtest.result import Bar, Point, Result, Trip
from sim.backtest.sweep import Run

POINTS_DRAWN = 1_500  # of each line, in buckets of which the lowest and the highest are kept
CANDLES_DRAWN = 6_000  # of all products together
TRIPS_DRAWN = 4_000  # of all products together
DIGITS = 9
# Readable on white and on black, and told apart without red and green: entries and exits have shapes as well.
BLUE, ORANGE, GREEN, RED, GREY = "#3d7fd6", "#e08a1e", "#1f9d76", "#d1495b", "#8a8f98"


class Plot(Struct, frozen=True):
    """`height` in pixels."""

    id: str
    title: str
    note: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int


def plots_of(result: Result, figures: Figures, currency: str) -> list[Plot]:
    """Empty plots are left out: a page without a trade has no plot that looks as if something were missing."""
    period = [_time(result.start), _time(result.end)]
    found = [_equity(result, currency), *_prices(result, currency), _exposure(result, currency)]
    if figures.daily_pnl:
        found.append(_daily(figures, currency))
    for plot in found:
        plot.layout.setdefault("xaxis", {}).update(range=period, title={"text": "market time (UTC)"}, type="date")
    return found


def _equity(result: Result, currency: str) -> Plot:
    points, falls = result.points, drawdowns(result)
    up, down = thin([float(point.equity) for point in points]), thin(falls)
    start = [_time(result.start)]
    equity = {
        "name": "equity",
        "x": start + [_time(points[place].at) for place in up],
        "y": [_number(result.opening_equity)] + [_number(points[place].equity) for place in up],
        "line": {"color": BLUE, "width": 1.5},
        "hovertemplate": f"%{{y:,.2f}} {currency}",
    }
    fall = {
        "name": "drawdown",
        "x": [_time(points[place].at) for place in down],
        "y": [_round(falls[place]) for place in down],
        "line": {"color": RED, "width": 1},
        "fill": "tozeroy",
        "yaxis": "y2",
        "hovertemplate": "%{y:.2%}",
    }
    layout = {
        "xaxis": {"anchor": "y2"},
        "yaxis": {"title": {"text": f"equity ({currency})"}, "domain": [0.36, 1], "tickformat": ",.6~g"},
        "yaxis2": {"title": {"text": "drawdown"}, "domain": [0, 0.28], "tickformat": ".3~%", "rangemode": "tozero"},
    }
    note = "Cash and positions at mid prices; below it, how far equity is under its highest so far."
    return Plot("plot-equity", "Equity and drawdown", note, [_line(equity), _line(fall)], layout, 460)


def _prices(result: Result, currency: str) -> list[Plot]:
    return [_price(result, product_id, currency) for product_id in result.products]


def _price(result: Result, product_id: str, currency: str) -> Plot:
    bars = [bar for bar in result.bars if bar.product_id == product_id]
    trips = [trip for trip in result.trips if trip.product_id == product_id]
    shown = trips[-max(TRIPS_DRAWN // len(result.products), 1) :]
    step = math.ceil(len(bars) / min(max(CANDLES_DRAWN // len(result.products), 200), POINTS_DRAWN))
    note = f"Candles of {result.granularity}"
    note += f", {step} drawn as one" if step > 1 else ""
    note += f"; the newest {len(shown)} of {len(trips)} trades are marked." if len(shown) < len(trips) else "."
    closed = [trip for trip in shown if trip.closed_at is not None]
    traces = [
        _candles(bars, step, product_id),
        _marks("entry", [(trip.opened_at, trip.entry_price, _size(trip)) for trip in shown], "triangle-up", BLUE),
        _marks("exit with gain", [_exit(trip, currency) for trip in closed if trip.pnl > 0], "triangle-down", GREEN),
        _marks("exit with loss", [_exit(trip, currency) for trip in closed if trip.pnl <= 0], "triangle-down", ORANGE),
    ]
    axis = {"title": {"text": f"price ({currency})"}, "tickformat": ",.7~g"}
    layout = {"xaxis": {"rangeslider": {"visible": False}}, "yaxis": axis, "hovermode": "closest"}
    return Plot(f"plot-price-{product_id}", f"Price of {product_id}", note, traces, layout, 420)


def _candles(bars: Sequence[Bar], step: int, product_id: str) -> dict[str, Any]:
    groups = [bars[place : place + step] for place in range(0, len(bars), max(step, 1))]
    return {
        "type": "candlestick",
        "name": product_id,
        "x": [_time(group[0].start) for group in groups],
        "open": [_number(group[0].open) for group in groups],
        "high": [_number(max(bar.high for bar in group)) for group in groups],
        "low": [_number(min(bar.low for bar in group)) for group in groups],
        "close": [_number(group[-1].close) for group in groups],
        "increasing": {"line": {"color": GREY, "width": 1}},
        "decreasing": {"line": {"color": GREY, "width": 1}, "fillcolor": GREY},
    }


def _size(trip: Trip) -> str:
    return f"bought {trip.size.normalize():f}"


def _exit(trip: Trip, currency: str) -> tuple[datetime, Decimal, str]:
    assert trip.closed_at is not None
    return trip.closed_at, trip.exit_price, f"PnL {trip.pnl:+,.2f} {currency} after fees"


def _marks(name: str, marks: Sequence[tuple[datetime, Decimal, str]], symbol: str, colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [_time(at) for at, _, _ in marks],
        "y": [_number(price) for _, price, _ in marks],
        "text": [text for _, _, text in marks],
        "marker": {"symbol": symbol, "size": 10, "color": colour, "line": {"width": 1, "color": "#ffffff"}},
        "hovertemplate": f"{name}<br>%{{x|%Y-%m-%d %H:%M:%S}}<br>at %{{y:,}}<br>%{{text}}<extra></extra>",
    }


def _exposure(result: Result, currency: str) -> Plot:
    points = result.points
    kept = thin([float(point.exposure) for point in points])
    times = [_time(points[place].at) for place in kept]
    shares = [_share(points[place]) for place in kept]
    value = {
        "name": "value of positions",
        "x": times,
        "y": [_number(points[place].exposure) for place in kept],
        "line": {"color": BLUE, "width": 1, "shape": "hv"},
        "fill": "tozeroy",
        "customdata": shares,
        "hovertemplate": f"%{{y:,.2f}} {currency} (%{{customdata:.1%}} of equity)",
    }
    layout = {"yaxis": {"title": {"text": f"exposure ({currency})"}, "rangemode": "tozero", "tickformat": ",.6~g"}}
    note = "Value of all positions at mid prices, at the close of each candle."
    return Plot("plot-exposure", "Exposure", note, [_line(value)], layout, 280)


def _share(point: Point) -> float | None:
    return _round(float(point.exposure / point.equity)) if point.equity > 0 else None


def _daily(figures: Figures, currency: str) -> Plot:
    days = figures.daily_pnl
    bars = {
        "type": "bar",
        "name": "daily PnL",
        "x": [f"{day.day.isoformat()}T12:00:00Z" for day in days],
        "y": [_number(day.pnl) for day in days],
        "width": [86_400_000 * 0.9] * len(days),
        "marker": {"color": [GREEN if day.pnl >= 0 else ORANGE for day in days]},
        "hovertemplate": f"%{{x|%Y-%m-%d}}: %{{y:+,.2f}} {currency}<extra></extra>",
    }
    layout = {"yaxis": {"title": {"text": f"PnL ({currency})"}, "tickformat": ",.6~g"}, "showlegend": False}
    note = "Change of equity per UTC day; the first and the last may be parts of a day."
    return Plot("plot-daily", "Daily PnL", note, [bars], layout, 280)


def sweep_plot(runs: Sequence[Run], axes: dict[str, tuple[str, ...]], rank: str) -> Plot | None:
    """One swept parameter as bars, the first two as a heat map; of further ones the best stands for all."""
    names, known = list(axes), DEFINITIONS[rank]
    best: dict[tuple[str, ...], tuple[float, float]] = {}
    for run in runs:
        if run.figures is None or (value := rank_value(run.figures, rank)) is None:
            continue
        place = tuple(run.parameters[name] for name in names[:2])
        best[place] = max(best.get(place, (-math.inf, 0.0)), (value, _round(float(getattr(run.figures, rank)))))
    if not best:
        return None
    form = ".2%" if known.unit is Unit.PERCENT else ",.2f"
    title, xaxis = f"{known.label} over the sweep", {"title": {"text": names[0]}, "type": "category"}
    if len(names) == 1:
        values = [best[(x,)][1] if (x,) in best else None for x in axes[names[0]]]
        bar = {"type": "bar", "x": list(axes[names[0]]), "y": values, "marker": {"color": BLUE}}
        bar |= {"hovertemplate": f"{names[0]} %{{x}}: %{{y:{form}}}<extra></extra>"}
        yaxis: dict[str, Any] = {"title": {"text": known.label}, "tickformat": form}
        return Plot("plot-sweep", title, known.meaning, [bar], {"xaxis": xaxis, "yaxis": yaxis}, 320)
    grid = [[best[(x, y)][1] if (x, y) in best else None for x in axes[names[0]]] for y in axes[names[1]]]
    heat = {
        "type": "heatmap",
        "x": list(axes[names[0]]),
        "y": list(axes[names[1]]),
        "z": grid,
        "colorscale": "Viridis",
        "reversescale": not known.higher_is_better,
        "texttemplate": f"%{{z:{form}}}",
        "colorbar": {"title": {"text": known.label}, "tickformat": form},
        "hovertemplate": f"{names[0]} %{{x}}, {names[1]} %{{y}}: %{{z:{form}}}<extra></extra>",
        "hoverongaps": False,
    }
    yaxis = {"title": {"text": names[1]}, "type": "category"}
    more = f" Best over {', '.join(names[2:])}." if names[2:] else ""
    return Plot("plot-sweep", title, known.meaning + more, [heat], {"xaxis": xaxis, "yaxis": yaxis}, 420)


def thin(values: Sequence[float], drawn: int = POINTS_DRAWN) -> list[int]:
    """Places of the values to draw, rising: all, or the lowest and the highest of each bucket, and both ends."""
    if len(values) <= drawn:
        return list(range(len(values)))
    width = math.ceil(2 * len(values) / drawn)
    kept = {0, len(values) - 1}
    for begin in range(0, len(values), width):
        bucket = range(begin, min(begin + width, len(values)))
        kept |= {min(bucket, key=values.__getitem__), max(bucket, key=values.__getitem__)}
    return sorted(kept)


def _line(trace: dict[str, Any]) -> dict[str, Any]:
    return {"type": "scatter", "mode": "lines", **trace}


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}"


def _number(value: Decimal) -> float:
    return _round(float(value))


def _round(value: float) -> float:
    """To the digits that a plot can show: a page is smaller by half for it."""
    return float(f"{value:.{DIGITS}g}")
