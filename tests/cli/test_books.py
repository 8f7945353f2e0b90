"""The comparison at the end of a replay finds a difference of one place, wherever it is."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import msgspec
import pytest

from cli import books
from cli.books import audit
from cli.journal import Journal
from libs.common import messages as m
from libs.common.errors import StackFailed
from libs.common.settings import Settings
from sim.auth import key_at
from tests.cli.builders import PRODUCT, START, OperatorBus, adjustment, figures, fill

BOOKS = {"USD": "949.4", "BTC": "0.5"}


def venue_fill(entry: str = "f1", fee: str = "0.6", size: str = "0.5", side: str = "BUY") -> dict[str, object]:
    return {
        "entry_id": entry,
        "trade_id": "t1",
        "order_id": "v1",
        "trade_time": "2025-10-01T00:00:00Z",
        "trade_type": "FILL",
        "price": "100",
        "size": size,
        "commission": fee,
        "product_id": PRODUCT,
        "sequence_timestamp": "2025-10-01T00:00:00Z",
        "liquidity_indicator": "TAKER",
        "size_in_quote": False,
        "user_id": "u",
        "side": side,
        "retail_portfolio_id": "p",
    }


class Venue:
    def __init__(self) -> None:
        self.balances = {"USD": ("949.4", "0"), "BTC": ("0.3", "0.2")}
        self.total_fees = "0.6"
        self.pages: list[list[dict[str, object]]] = [[venue_fill()]]

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/sim/state":
            return httpx.Response(200, json=self._state())
        assert request.headers["authorization"].startswith("Bearer ")
        number = int(request.url.params.get("cursor", "0"))
        following = str(number + 1) if number + 1 < len(self.pages) else ""
        return httpx.Response(200, json={"fills": self.pages[number], "cursor": following})

    def _state(self) -> dict[str, object]:
        balances = {name: {"available": a, "hold": h} for name, (a, h) in self.balances.items()}
        return {
            "balances": balances,
            "total_fees": self.total_fees,
            "orders": 1,
            "fills": 1,
            "last_prices": {PRODUCT: "100"},
            "candle_seconds": 300,
            "ticks_done": 4,
            "connections": 2,
        }


class Side:
    """Our books and the venue's account, equal at first."""

    def __init__(self, folder: Path) -> None:
        self.venue = Venue()
        self.bus = OperatorBus()
        self.bus.pages.messages = [fill()]
        self.figures = figures(BOOKS, sequence=1)
        key_at(folder / "sim" / "cdp_api_key.json")
        self._settings = Settings("dev", folder, {"market": {"products": [PRODUCT]}})

    async def differences(self) -> list[str]:
        self.bus.pages.position = 0
        journal = Journal(self.bus)
        await journal.follow(m.RiskFigures)
        await journal.read_ledger()
        self.bus.say(figures({"USD": "1000"}, fees="0", equity="1000"))
        self.bus.say(self.figures)
        transport = httpx.MockTransport(self.venue.answer)
        async with httpx.AsyncClient(transport=transport, base_url="http://venue") as client:
            return [str(difference) for difference in (await audit(journal, client, self._settings, START)).differences]


@pytest.fixture
def side(tmp_path: Path) -> Side:
    return Side(tmp_path)


async def test_equal_books_have_no_difference(side: Side) -> None:
    assert await side.differences() == []


async def test_one_satoshi_and_the_sixteenth_place_of_cash_are_differences(side: Side) -> None:
    side.venue.balances["BTC"] = ("0.30000001", "0.2")
    side.venue.balances["USD"] = ("949.4000000000000001", "0")
    found = await side.differences()
    assert found[:2] == [
        "BTC: ours 0.5, the venue's 0.50000001",
        "USD: ours 949.4, the venue's 949.4000000000000001",
    ]
    assert found[2].startswith("PnL: ours -0.6, the venue's -0.5999989")


async def test_a_currency_that_one_side_does_not_know_is_a_difference(side: Side) -> None:
    side.venue.balances["ETH"] = ("1", "0")
    assert await side.differences() == ["ETH: ours 0, the venue's 1"]


async def test_fees_are_compared_in_sum_and_fill_by_fill(side: Side) -> None:
    side.venue.total_fees = "0.61"
    side.venue.pages = [[venue_fill(fee="0.61")]]
    assert await side.differences() == [
        "fees: ours 0.6, the venue's 0.61",
        "fee of fill f1: ours 0.6, the venue's 0.61",
    ]


async def test_a_fill_that_one_side_lacks_is_found_on_any_page(side: Side) -> None:
    side.venue.pages = [[venue_fill("f0")], [venue_fill("f2")]]
    assert await side.differences() == [
        "fill f0: ours absent, the venue's there",
        "fill f2: ours absent, the venue's there",
        "fill f1: ours there, the venue's absent",
    ]


async def test_figures_older_than_the_ledger_or_the_last_tick_are_not_compared(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "FIGURES_SECONDS", 0.01)
    for stale in (figures(BOOKS, sequence=0), msgspec.structs.replace(side.figures, at=START - timedelta(seconds=1))):
        side.figures = stale
        with pytest.raises(StackFailed, match="risk has told no figures up to ledger 1"):
            await side.differences()


async def test_sums_are_not_rounded(side: Side) -> None:
    long = "949.4000000000000000000000000000000000000001"
    side.venue.balances["USD"] = (long, "0")
    assert Decimal(long) != Decimal("949.4")
    assert f"USD: ours 949.4, the venue's {long}" in await side.differences()


# -- what an operator has said of the account

DEPOSIT, HANDOVER, TRADE = m.AdjustmentKind.DEPOSIT, m.AdjustmentKind.HANDOVER, m.AdjustmentKind.MANUAL_TRADE


def position(quantity: str, realized: str = "0") -> dict[str, m.Position]:
    return {
        PRODUCT: m.Position(
            quantity=Decimal(quantity),
            avg_price=Decimal(100),
            realized_pnl=Decimal(realized),
            fees=Decimal("0.6"),
            mark_price=Decimal(100),
            unrealized_pnl=Decimal(0),
        )
    }


async def test_what_was_paid_in_is_no_profit(side: Side) -> None:
    side.bus.pages.messages += [adjustment(DEPOSIT, {"USD": "500"})] * 2
    side.venue.balances["USD"] = ("1449.4", "0")
    side.figures = figures({"USD": "1449.4", "BTC": "0.5"}, sequence=3)
    assert await side.differences() == []


async def test_coins_paid_in_are_neither_profit_nor_ours_to_value(side: Side) -> None:
    side.bus.pages.messages.append(adjustment(DEPOSIT, {"BTC": "2"}))
    side.venue.balances["BTC"] = ("2.5", "0")
    books = figures({"USD": "949.4", "BTC": "2.5"}, sequence=2)
    side.figures = msgspec.structs.replace(books, positions=position("0.5"))
    assert await side.differences() == []


async def test_holdings_handed_over_count_from_the_price_at_which_they_were(side: Side) -> None:
    side.bus.pages.messages.append(adjustment(HANDOVER, {"BTC": "-1", "USD": "100"}, "1", "100"))
    side.venue.balances["BTC"] = ("2.5", "0")
    books = figures({"USD": "949.4", "BTC": "2.5"}, sequence=2)
    side.figures = msgspec.structs.replace(books, positions=position("1.5"))
    assert await side.differences() == []
    side.figures = msgspec.structs.replace(books, positions=position("0.5"))
    assert await side.differences() == ["PnL: ours -0.6, the venue's -100.6"]


def sold_by_hand(side: Side) -> None:
    """0.2 at 100 for a fee of 0.1: coins and cash drift by -0.2 and 19.9, and the books trade along."""
    side.venue.pages.append([venue_fill("hand", "0.1", "0.2", "SELL")])
    side.venue.balances = {"USD": ("969.3", "0"), "BTC": ("0.3", "0")}
    side.venue.total_fees = "0.7"
    books = figures({"USD": "969.3", "BTC": "0.3"}, sequence=len(side.bus.pages.messages))
    side.figures = msgspec.structs.replace(books, positions=position("0.3", "-0.1"), realized_pnl=Decimal("-0.1"))


async def test_a_manual_trade_accounts_for_its_fills_and_their_fees(side: Side) -> None:
    side.bus.pages.messages.append(adjustment(TRADE, {"USD": "0"}, "-0.2", "99.5"))
    sold_by_hand(side)
    assert await side.differences() == []


async def test_what_a_rounded_price_of_a_manual_trade_leaves_over_is_accounted_for(side: Side) -> None:
    side.bus.pages.messages.append(adjustment(TRADE, {"USD": "0.02"}, "-0.2", "99.4"))
    sold_by_hand(side)
    side.figures = msgspec.structs.replace(side.figures, realized_pnl=Decimal("-0.12"))
    assert await side.differences() == []


async def test_fills_by_hand_that_no_manual_trade_accounts_for_are_differences(side: Side) -> None:
    expected = ["fees: ours 0.6, the venue's 0.7", "fill hand: ours absent, the venue's there"]
    sold_by_hand(side)
    assert await side.differences() == expected
    for other in (
        adjustment(TRADE, {"USD": "0"}, "-0.1", "199"),
        adjustment(TRADE, {"USD": "0"}, "-0.2", "99"),
        adjustment(HANDOVER, {"USD": "0"}, "-0.2", "99.5"),
    ):
        side.bus.pages.messages[1:] = [other]
        sold_by_hand(side)
        assert await side.differences() == expected
