"""The page stands alone: it loads nothing, tells everything, and is the same for the same result."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from msgspec.structs import replace

from libs.common import messages as m
from sim.backtest.figures import DEFINITIONS, drawdowns, figures_of
from sim.backtest.page import page, sweep_page
from sim.backtest.plots import POINTS_DRAWN, thin
from sim.backtest.result import Result
from sim.backtest.sweep import Run, grid, ranked
from tests.backtest.builders import BTC, DAY, EMPTY, START, bars, daily, lively, point, trip

MEGABYTE = 1_000_000
AXES = {"short": ("3", "5"), "long": ("20", "30")}
LOADING = ("src", "href", "data", "srcset", "poster", "action", "background")


class Reader(HTMLParser):
    """What a browser would load, the ids, the headings, and the text of tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [f"{tag} {name}={value}" for name, value in attrs if name in LOADING]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] not in (["script"], ["style"]):
            self.text += f" {data}"


def rendered(result: Result) -> str:
    return page(result, figures_of(result))


def plots(html: str) -> dict[str, Any]:
    found = re.search(r"<script>const PLOTS = (.*?);\nconst dark", html, re.S)
    assert found, "no plots"
    return {plot["id"]: plot for plot in json.loads(found[1])}


def swept() -> tuple[str, list[Run]]:
    results = [lively(200 + 100 * number) for number in range(4)]
    runs = [Run(parameters=known, figures=figures_of(run)) for known, run in zip(grid(AXES), results, strict=True)]
    runs[2] = replace(runs[2], figures=None, error="short & long <do> not fit", exit_code=2)
    runs = ranked(runs, "sharpe")
    best = replace(lively(), parameters=runs[0].parameters)
    return sweep_page(best, figures_of(best), runs, AXES, "sharpe"), runs


def test_the_page_loads_nothing_and_forbids_itself_to() -> None:
    for html in (rendered(lively()), swept()[0]):
        reader = Reader(html)
        assert reader.loaded == []
        assert not {"link", "iframe", "object", "embed", "img", "base"} & set(reader.tags)
        assert "@import" not in html.partition("</style>")[0]
        assert "url(" not in html.partition("</style>")[0]
        assert "default-src 'none'" in html
        assert html.count("<script>") == html.count("</script>") == 2


def test_no_button_sends_a_plot_away() -> None:
    own = rendered(lively()).rpartition("<script>")[2]
    assert "showSendToCloud: false" in own
    assert 'plotlyServerURL: ""' in own


def test_every_plot_has_a_place_a_title_and_axes_with_units() -> None:
    html = rendered(lively(products=(BTC, "ETH-USD")))
    found = plots(html)
    names = ["plot-equity", "plot-price-BTC-USD", "plot-price-ETH-USD", "plot-exposure", "plot-daily"]
    assert list(found) == names
    reader = Reader(html)
    assert set(names) <= set(reader.ids)
    for plot in found.values():
        axes = [axis for name, axis in plot["layout"].items() if name.startswith(("xaxis", "yaxis"))]
        assert all(axis["title"]["text"] for axis in axes)
        assert "UTC" in plot["layout"]["xaxis"]["title"]["text"]
    assert found["plot-equity"]["layout"]["yaxis"]["title"]["text"] == "equity (USD)"


def test_the_page_tells_every_figure_with_its_definition() -> None:
    text = " ".join(Reader(rendered(lively())).text.split())
    for known in DEFINITIONS.values():
        assert known.label in text
        assert known.meaning in text
    assert "2 spread_too_wide" in text


def test_entries_and_exits_stand_at_their_prices() -> None:
    trips = [trip(5, 0, 1), trip(-5, 2, 3), trip(1, 4, None)]
    html = rendered(replace(daily(1000, 1000, 1000, 1000), bars=bars(96), trips=trips))
    entry, gain, loss = plots(html)["plot-price-BTC-USD"]["traces"][1:]
    assert entry["x"] == ["2025-10-01T00:00:00", "2025-10-03T00:00:00", "2025-10-05T00:00:00"]
    assert (gain["x"], gain["y"]) == (["2025-10-02T00:00:00"], [60100])
    assert (loss["x"], loss["text"]) == (["2025-10-04T00:00:00"], ["PnL -5.00 USD after fees"])


def test_the_same_result_gives_the_same_bytes() -> None:
    assert rendered(lively()) == rendered(replace(lively(), seconds=99.0))
    assert swept()[0] == swept()[0]


@pytest.mark.parametrize(
    "result",
    [EMPTY, replace(EMPTY, points=[point(START + DAY, 1000)]), replace(EMPTY, opening_equity=point(START, 0).equity)],
)
def test_a_run_of_next_to_nothing_has_a_page(result: Result) -> None:
    html = rendered(result)
    assert "plot-equity" in plots(html)
    assert "NaN" not in json.dumps(plots(html))


def test_a_run_that_stopped_trading_says_so_at_the_top() -> None:
    at = START + DAY
    states = [
        m.TradingState(id="2", at=at, state=m.Trading.HALTED, reason="drawdown", who="risk", since=at, revision=2)
    ]
    html = rendered(replace(lively(), states=states))
    assert "halted since 2025-10-02 00:00: drawdown" in html.partition("plot-equity")[0]
    assert 'class="warning"' not in rendered(lively())


def test_what_comes_from_outside_is_text_on_the_page() -> None:
    html = rendered(replace(lively(), strategy="<script>alert(1)</script>", parameters={"a</script>": "<b>"}))
    assert "<script>alert" not in html
    assert html.count("</script>") == 2


def test_a_long_run_of_ten_products_stays_below_six_megabytes() -> None:
    products = tuple(f"C{number}-USD" for number in range(10))
    result = lively(2_000, products)
    result = replace(result, trips=result.trips * 10)
    assert len(rendered(result).encode()) < 6 * MEGABYTE


def test_thinning_keeps_every_extreme_and_both_ends() -> None:
    chance = random.Random(7)
    values = [chance.gauss(0, 1) for _ in range(50_000)]
    kept = thin(values)
    assert len(kept) <= POINTS_DRAWN + 2
    assert (kept[0], kept[-1]) == (0, 49_999)
    assert {min(values), max(values)} <= {values[place] for place in kept}
    assert kept == sorted(set(kept))
    assert thin(values[:100]) == list(range(100))


def test_the_lowest_drawdown_is_drawn() -> None:
    result = lively(9_000)
    drawn = plots(rendered(result))["plot-equity"]["traces"][1]["y"]
    assert min(drawn) == pytest.approx(min(drawdowns(result)))


def test_a_sweep_lists_all_combinations_the_best_first_and_names_what_failed() -> None:
    html, runs = swept()
    rows = re.findall(r"<tr.*?</tr>", html.partition('<table id="sweep">')[2].partition("</table>")[0])
    assert len(rows) == 5
    assert rows[1].startswith("<tr class=best>")
    assert "short &amp; long &lt;do&gt; not fit" in rows[-1]
    assert [run.error for run in runs[:-1]] == [""] * 3


def test_the_heat_map_has_a_hole_where_a_combination_failed() -> None:
    html, runs = swept()
    heat = plots(html)["plot-sweep"]["traces"][0]
    assert (heat["x"], heat["y"]) == (["3", "5"], ["20", "30"])
    assert heat["z"][0][1] is None
    best = runs[0].figures
    assert best is not None
    assert best.sharpe is not None
    assert max(z for row in heat["z"] for z in row if z is not None) == pytest.approx(best.sharpe)
