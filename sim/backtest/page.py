"""A backtest as one HTML file that needs nothing but itself: Plotly's script is written into it. Pure.

The page forbids itself every connection, and Plotly's button that uploads a plot to its makers is taken out: what an
account earned is nobody else's business. The same result gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from html import escape

from plotly.offline import get_plotlyjs

from libs.common.words import Trading
from sim.backtest.figures import DEFINITIONS, Figures, Unit
from sim.backtest.plots import Plot, plots_of, sweep_plot
from sim.backtest.result import Result, Trip
from sim.backtest.sweep import Run

NONE = "-"
HEADLINE = (
    "total_return",
    "annualised_return",
    "sharpe",
    "max_drawdown",
    "win_rate",
    "profit_factor",
    "trades",
    "fees",
)
SWEEP_COLUMNS = ("total_return", "sharpe", "sortino", "max_drawdown", "win_rate", "profit_factor", "trades", "fees")
TRIPS_LISTED = 500

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d2127; --faint: #5d6570; --line: #d9dde3; --card: #f4f6f8;
  --best: #e3f3ec; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e6e8eb; --faint: #9aa3ad; --line: #333a42;
  --card: #1e2329; --best: #17382c; } }
body { margin: 0 auto; max-width: 1200px; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .2rem; }
p { margin: .2rem 0 .6rem; color: var(--faint); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: .6rem; margin: 1.2rem 0; }
.card { background: var(--card); border-radius: 6px; padding: .6rem .8rem; }
.card span { display: block; color: var(--faint); font-size: .8rem; }
.card b { font-size: 1.15rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; } th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top; }
th { font-weight: 600; } td.number, th.number { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
td.meaning { color: var(--faint); } tr.best td { background: var(--best); font-weight: 600; }
details summary { cursor: pointer; color: var(--faint); margin: 1rem 0; }
.warning { border-left: 4px solid #e08a1e; padding: .4rem .8rem; color: var(--ink); background: var(--card); }
[title] { cursor: help; }
"""

SCRIPT = """
const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = () => {
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = { gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--faint"),
    automargin: true };
  return { ink: colour("--ink"), faint: colour("--faint"), card: colour("--card"), axis };
};
const layoutOf = plot => {
  const { ink, faint, card, axis } = theme();
  const layout = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 12 },
    margin: { l: 78, r: 16, t: 28, b: 48 }, height: plot.height, hovermode: "x unified", showlegend: true,
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: faint, activecolor: ink },
    hoverlabel: { bgcolor: card, bordercolor: ink, font: { color: ink } }, ...plot.layout };
  for (const name of ["xaxis", "yaxis", "yaxis2"])
    if (name !== "yaxis2" || plot.layout.yaxis2) layout[name] = { ...axis, ...(plot.layout[name] || {}) };
  return layout;
};
const draw = () => PLOTS.forEach(plot => Plotly.react(plot.id, plot.traces, layoutOf(plot),
  { responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
    modeBarButtonsToRemove: ["lasso2d", "select2d", "sendChartToCloud"] }));
draw();
dark.addEventListener("change", draw);
"""


def page(result: Result, figures: Figures) -> str:
    """One run."""
    plots = plots_of(result, figures, currency_of(result))
    return _document(result, _run(result, figures, plots), plots)


def sweep_page(
    result: Result, figures: Figures, runs: Sequence[Run], axes: Mapping[str, tuple[str, ...]], rank: str
) -> str:
    """All combinations (`runs`, the best first), then the best of them in full."""
    plots = plots_of(result, figures, currency_of(result))
    overview = [plot for plot in (sweep_plot(runs, dict(axes), rank),) if plot]
    best = ", ".join(f"{name} = {value}" for name, value in result.parameters.items())
    failed = sum(1 for run in runs if run.error)
    told = f"Sorted by {DEFINITIONS[rank].label}; the best is marked and shown in full below."
    told += f" {failed} could not be run." if failed else ""
    body = (
        "".join(_plot(plot) for plot in overview),
        f"<h2>All {len(runs)} combinations</h2><p>{escape(told)}</p>",
        _sweep_table(runs, list(axes), rank, currency_of(result)),
        f"<h2>The best: {escape(best)}</h2>",
        _run(result, figures, plots),
    )
    return _document(result, "".join(body), [*overview, *plots])


def currency_of(result: Result) -> str:
    return result.products[0].rpartition("-")[2]


def value_text(figures: Figures, name: str, currency: str) -> str:
    """A figure for people, with its unit."""
    value, unit = getattr(figures, name), DEFINITIONS[name].unit
    match value:
        case None:
            return NONE
        case datetime():
            return f"{value:%Y-%m-%d %H:%M}"
        case Decimal():
            return f"{value:,.2f} {currency}"
        case float() if unit is Unit.PERCENT:
            return f"{value:,.2%}"
        case float():
            return f"{value:,.2f}"
    return f"{value:,}"


def _run(result: Result, figures: Figures, plots: Sequence[Plot]) -> str:
    currency = currency_of(result)
    cards = "".join(
        f'<div class="card" title="{escape(DEFINITIONS[name].meaning)}"><span>{DEFINITIONS[name].label}</span>'
        f"<b>{value_text(figures, name, currency)}</b></div>"
        for name in HEADLINE
    )
    drawn = "".join(_plot(plot) for plot in plots)
    tables = _states_table(result) + _figures_table(result, figures) + _trades_table(result)
    return f'<div class="cards">{cards}</div>{drawn}{tables}'


def _plot(plot: Plot) -> str:
    place = f'<div id="{plot.id}" style="height:{plot.height}px"></div>'
    return f"<h2>{escape(plot.title)}</h2><p>{escape(plot.note)}</p>{place}"


def rows_of(result: Result, figures: Figures) -> list[tuple[str, str, str]]:
    """Label, value and meaning of every figure, and of what the run was made of."""
    currency = currency_of(result)
    rows = [(known.label, value_text(figures, name, currency), known.meaning) for name, known in DEFINITIONS.items()]
    denied = ", ".join(f"{count} {reason}" for reason, count in sorted(result.denials.items())) or "none"
    closing = result.points[-1].equity if result.points else None
    return [
        *rows,
        ("Opening equity", f"{result.opening_equity:,.2f} {currency}", "At the first moment of the run."),
        ("Closing equity", NONE if closing is None else f"{closing:,.2f} {currency}", "At its last moment."),
        ("Signals", f"{len(result.signals):,}", "What the strategy asked for, repeats left out."),
        ("Denied", denied, "What risk refused of it, by its reason."),
        ("Orders", f"{result.orders:,}", "What went to the matching core."),
        ("Fills", f"{len(result.fills):,}", "Executions there."),
        ("Market events", f"{result.events:,}", "Ticks that were fed."),
        ("Trading", trading_at_end(result) or "active", "The trading state at the end; guards of risk change it."),
    ]


def trading_at_end(result: Result) -> str:
    """Empty if it was active: else the figures are those of a run that stopped trading, and the reader must know."""
    if not result.states or (last := result.states[-1]).state is Trading.ACTIVE:
        return ""
    return f"{last.state} since {last.at:%Y-%m-%d %H:%M}: {last.reason}"


def _figures_table(result: Result, figures: Figures) -> str:
    cells = "".join(
        f'<tr><td>{escape(label)}</td><td class="number">{escape(value)}</td>'
        f'<td class="meaning">{escape(meaning)}</td></tr>'
        for label, value, meaning in rows_of(result, figures)
    )
    head = '<tr><th>figure</th><th class="number">value</th><th>definition</th></tr>'
    return f'<h2>Figures</h2><div class="wide"><table id="figures">{head}{cells}</table></div>'


def _states_table(result: Result) -> str:
    """What guards did: a run that was halted on its third day is no run of a year."""
    if not result.states:
        return ""
    rows = "".join(
        f"<tr><td>{state.at:%Y-%m-%d %H:%M:%S}</td><td>{state.state}</td><td>{escape(state.reason)}</td></tr>"
        for state in result.states
    )
    head = "<tr><th>at (UTC)</th><th>trading</th><th>reason</th></tr>"
    return f'<h2>Trading state</h2><div class="wide"><table id="states">{head}{rows}</table></div>'


def _trades_table(result: Result) -> str:
    if not result.trips:
        return ""
    shown = result.trips[-TRIPS_LISTED:]
    heads = ("product", "opened (UTC)", "closed (UTC)", "size", "entry", "exit", "fees", "PnL")
    head = "".join(f"<th{_number_class(place)}>{name}</th>" for place, name in enumerate(heads))
    rows = "".join(f"<tr>{_trade_cells(trip)}</tr>" for trip in shown)
    which = f"The newest {len(shown)} of {len(result.trips)} trades" if len(shown) < len(result.trips) else "All trades"
    note = f"{which}, prices and amounts in {currency_of(result)}"
    return f'<details><summary>{note}</summary><div class="wide"><table><tr>{head}</tr>{rows}</table></div></details>'


def _trade_cells(trip: Trip) -> str:
    cells = (
        trip.product_id,
        f"{trip.opened_at:%Y-%m-%d %H:%M:%S}",
        f"{trip.closed_at:%Y-%m-%d %H:%M:%S}" if trip.closed_at else "open",
        f"{trip.size.normalize():f}",
        f"{trip.entry_price:,.8g}",
        f"{trip.exit_price:,.8g}",
        f"{trip.fees:,.2f}",
        f"{trip.pnl:+,.2f}",
    )
    return "".join(f"<td{_number_class(place)}>{escape(cell)}</td>" for place, cell in enumerate(cells))


def _number_class(place: int) -> str:
    return ' class="number"' if place > 2 else ""


def _sweep_table(runs: Sequence[Run], names: Sequence[str], rank: str, currency: str) -> str:
    columns = list(dict.fromkeys((rank, *SWEEP_COLUMNS)))
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    head += "".join(
        f'<th class="number" title="{escape(DEFINITIONS[name].meaning)}">{DEFINITIONS[name].label}</th>'
        for name in columns
    )
    rows = []
    for place, run in enumerate(runs):
        cells = "".join(f"<td>{escape(run.parameters[name])}</td>" for name in names)
        if run.figures is None:
            cells += f'<td colspan="{len(columns)}" class="meaning">{escape(run.error)}</td>'
        else:
            known = run.figures
            cells += "".join(f'<td class="number">{value_text(known, name, currency)}</td>' for name in columns)
        rows.append(f"<tr{' class=best' if place == 0 else ''}>{cells}</tr>")
    return f'<div class="wide"><table id="sweep"><tr>{head}</tr>{"".join(rows)}</table></div>'


def _document(result: Result, body: str, plots: Sequence[Plot]) -> str:
    title = f"Backtest of {result.strategy} on {', '.join(result.products)}"
    given = ", ".join(f"{name} = {value}" for name, value in result.parameters.items())
    told = f"{result.start:%Y-%m-%d %H:%M} to {result.end:%Y-%m-%d %H:%M} UTC, candles of {result.granularity}"
    told += f", profile {result.profile}" + (f" with {given}" if given else "")
    drawn = [{"id": p.id, "traces": p.traces, "layout": p.layout, "height": p.height} for p in plots]
    ended = trading_at_end(result)
    warning = f'<p class="warning">Trading was {escape(ended)}</p>' if ended else ""
    # In a script nothing but "</script" and "<!--" could end it early; both begin with this one character.
    data = json.dumps(drawn, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    policy += "form-action 'none'; base-uri 'none'"
    return "\n".join(
        (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head>",
            f"<body><h1>{escape(title)}</h1><p>{escape(told)}</p>{warning}",
            body,
            f"<script>{get_plotlyjs()}</script>",
            f"<script>const PLOTS = {data};{SCRIPT}</script></body></html>",
            "",
        )
    )
