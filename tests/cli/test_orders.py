"""Looking at orders, and previews that reduce only."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace
from rich.console import Console

from cli.account import list_fills, snapshot
from cli.errors import Refused, VenueSilent, as_stop
from cli.orders import list_orders, show_order
from cli.output import draw, jsonable
from cli.preview import Holding, bots_holding, preview_order
from libs.common import messages as m
from libs.common.errors import BadConfig, BusDown, Conflict, OutcomeUnknown, PerpsError, Rejected, Retryable
from services.execution.inputs import AccountParts, VenueOrder
from tests.cli.builders import event, figures
from tests.cli.fakes import OURS, MemoryVenue, venue_fill, venue_order

SELL = m.OrderRequest(request_id="", product_id="BTC-USD", side=m.Side.SELL, quantity=Decimal("0.01"), reduce_only=True)


async def no_bus(client_order_id: str) -> None:
    return None


async def ledger(client_order_id: str) -> list[m.Message]:
    return [replace(event("s1", m.OrderStatus.UNKNOWN), client_order_id=OURS)] if client_order_id == OURS else []


async def not_told(product_id: str) -> None:
    return None


@pytest.mark.parametrize("order_id", ["v1", OURS])
async def test_an_order_is_shown_by_either_id_with_fills_that_are_added_up_exactly(order_id: str) -> None:
    venue = MemoryVenue(venue_order("v0", "theirs"), venue_order(word="FILLED"))
    venue.fills_of["v1"] = [
        venue_fill("f1", "100.01", "0.10000001", "0.1234567890123456"),
        venue_fill("f2", "100.03", "0.3", "0.0000000000000001"),
    ]
    shown, silence = await show_order(venue, no_bus, order_id)
    shown = jsonable(shown)
    assert (shown["order"]["ours"], shown["order"]["status_word"], shown["steps"], silence) == (
        True,
        "FILLED",
        None,
        "",
    )
    assert (shown["filled_qty"], shown["filled_value"]) == ("0.40000001", "40.0100010001")
    assert (shown["fees"], shown["average_price"][:12]) == ("0.1234567890123457", "100.02499999")
    assert len(shown["fills"]) == 2
    venue.fills_of["v1"].append(replace(venue_fill("f3", "3", "0.333333333333", "0"), value=Decimal(1)))
    assert jsonable((await show_order(venue, no_bus, order_id))[0])["filled_value"] == "41.0100010001"


async def test_an_order_that_the_venue_does_not_tell_of_is_shown_from_the_ledger_and_says_so() -> None:
    shown, silence = await show_order(MemoryVenue(), ledger, OURS)
    assert (shown["order"], silence) == (None, "")
    assert [step["status"] for step in shown["steps"]] == [m.OrderStatus.UNKNOWN]
    venue = MemoryVenue(venue_order())
    venue.silent["orders"] = [OutcomeUnknown("503 from the venue")]
    shown, silence = await show_order(venue, ledger, OURS)
    assert (shown["order"], silence) == (None, "503 from the venue")


async def test_an_order_that_nobody_has_is_refused_and_an_unasked_venue_is_no_answer() -> None:
    with pytest.raises(Refused, match="no bus to ask"):
        await show_order(MemoryVenue(), no_bus, "v1")
    with pytest.raises(Refused, match="nor does the ledger"):
        await show_order(MemoryVenue(), ledger, "v1")
    venue = MemoryVenue()
    venue.silent["order"] = [OutcomeUnknown("503")]
    with pytest.raises(OutcomeUnknown, match="503"):
        await show_order(venue, ledger, "v1")
    with pytest.raises(BadConfig, match="is not an order id"):
        await show_order(venue, ledger, "perps.*")


async def test_a_list_marks_ours_stops_at_its_limit_and_says_that_there_is_more() -> None:
    venue = MemoryVenue(venue_order(), venue_order("v2", "theirs"), venue_order("v3", word="FILLED"))
    found = await list_orders(venue, "", False, None, 2)
    assert ([row["ours"] for row in found["orders"]], found["more"]) == ([True, False], True)
    found = await list_orders(venue, "", True, None, 1)
    assert ([row["venue_order_id"] for row in found["orders"]], found["more"]) == (["v1", "v2"], False)
    venue.fills_of["v1"] = [venue_fill("f1", "100", "1E-8", "0")]
    assert (await list_fills(venue, "v1", "", None, 10))["fills"][0]["size"] == "0.00000001"


@pytest.mark.parametrize(
    ("held", "increment", "previewed"),
    [("0.5", None, "0.01"), ("0.0075", None, "0.0075"), ("0.0075", "0.001", "0.007"), ("0.5", "0.004", "0.008")],
)
async def test_reduce_only_sells_no_more_than_the_bot_holds(held: str, increment: str | None, previewed: str) -> None:
    async def bot(product_id: str) -> Holding:
        return Holding(Decimal(held), "bot", Decimal(increment) if increment else None)

    venue = MemoryVenue()
    shown = jsonable((await preview_order(venue, bot, SELL))[0])
    assert shown["reduce_only"] == {
        "requested_quantity": "0.01",
        "held_quantity": held,
        "previewed_quantity": previewed,
        "source": "bot",
    }
    assert [order.quantity for order in venue.previewed] == [Decimal(previewed)]


async def test_without_the_bus_the_venues_available_balance_is_what_is_held() -> None:
    venue = MemoryVenue()
    venue.parts = AccountParts(balances={"BTC": m.Balance(available=Decimal("0.004"), hold=Decimal(1))})
    shown, _ = await preview_order(venue, not_told, SELL)
    assert (shown["reduce_only"]["source"], shown["reduce_only"]["previewed_quantity"]) == ("venue", Decimal("0.004"))


async def test_nothing_held_a_buy_and_an_unknown_balance_are_not_previewed() -> None:
    venue = MemoryVenue()
    with pytest.raises(Refused, match="nothing_to_reduce: 0 held, says the venue"):
        await preview_order(venue, not_told, SELL)
    with pytest.raises(Refused, match="nothing_to_reduce: spot has no short"):
        await preview_order(venue, not_told, replace(SELL, side=m.Side.BUY))
    venue.parts = AccountParts(unavailable={"balances": "503 from the venue"})
    with pytest.raises(OutcomeUnknown, match="503"):
        await preview_order(venue, not_told, SELL)
    assert venue.previewed == []


def test_the_bots_position_counts_while_risk_tells_it() -> None:
    now = datetime.now(UTC)
    fresh = replace(figures({"BTC": "0.5"}), sent_at=now)
    assert bots_holding([fresh], [], "BTC-USD") == Holding(Decimal("0.5"), "bot")
    assert bots_holding([fresh], [], "ETH-USD") == Holding(Decimal(0), "bot")
    assert bots_holding([replace(fresh, sent_at=now - timedelta(minutes=1))], [], "BTC-USD") is None
    assert bots_holding([], [], "BTC-USD") is None


async def test_a_part_of_the_account_that_is_missing_is_null_and_no_part_at_all_is_no_answer() -> None:
    venue = MemoryVenue()
    venue.parts = AccountParts(balances={}, unavailable={"fee_tier": "503 from the venue"})
    shown, unavailable = await snapshot(venue)
    assert (shown["fee_tier"], shown["balances"]) == (None, {})
    assert shown["unavailable"] == unavailable == {"fee_tier": "503 from the venue"}
    venue.parts = AccountParts(unavailable={"balances": "HTTP_401: no", "limits": "503 from the venue"})
    with pytest.raises(OutcomeUnknown, match="503"):
        await snapshot(venue)
    venue.parts = AccountParts(unavailable={"balances": "HTTP_401: no"})
    with pytest.raises(Rejected, match="HTTP_401"):
        await snapshot(venue)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Rejected("HTTP_403", "Missing\nscopes"), 7),
        (Retryable("429"), 8),
        (OutcomeUnknown("503"), 8),
        (VenueSilent("503"), 8),
        (BusDown("gone"), 5),
        (Conflict("lost"), 1),
    ],
)
def test_every_error_of_ours_ends_a_command_with_one_line_and_its_own_code(error: PerpsError, code: int) -> None:
    stop = as_stop(error)
    assert (stop.exit_code, "\n" in str(stop)) == (code, False)


def test_a_venue_order_reads_in_plain_figures() -> None:
    shown = jsonable(replace(venue_order(), quantity=Decimal("1E-8"), created_at=datetime(2026, 1, 1, tzinfo=UTC)))
    assert (shown["quantity"], shown["created_at"]) == ("0.00000001", "2026-01-01T00:00:00Z")
    assert set(shown) == set(VenueOrder.__struct_fields__)


async def test_a_terminal_shows_figures_and_below_them_a_table_without_empty_columns() -> None:
    console = Console(file=io.StringIO(), width=180, markup=False)
    draw(jsonable({**(await list_orders(MemoryVenue(venue_order()), "", False, None, 9)), "note": "[odd]"}), console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert all(word in text for word in ("more", "no", "[odd]", "venue order id", OURS, "OPEN", "yes"))
    assert "reject reason" not in text
