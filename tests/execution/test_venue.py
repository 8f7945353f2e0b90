"""The venue client over real sockets: what each kind of answer means for the caller."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import urlsplit

import jwt
import pytest
from aiohttp import web
from msgspec.structs import replace

from libs.common.clock import SystemClock
from libs.common.errors import OutcomeUnknown, Rejected, Retryable
from libs.common.messages import Balance, OrderType, TimeInForce
from services.execution.rest import BASE
from tests.execution.fake_venue import CREATED, KEY, ORDER, Handler, answering, client, hangs, place, resets, venue_that
from tests.ports import free_port

SINCE = datetime(2026, 3, 1, 12, tzinfo=UTC)
RESTING = replace(
    ORDER, order_type=OrderType.LIMIT, time_in_force=TimeInForce.GTC, limit_price=Decimal(90), quantity=Decimal(2)
)


def order(number: int, **fields: object) -> dict[str, object]:
    told = {"order_id": f"v{number}", "client_order_id": f"c{number}", "product_id": "BTC-USD", "side": "BUY"}
    return {**told, "status": "OPEN", "filled_size": "0", **fields}


def fill(number: int, order_id: str = "v1") -> dict[str, object]:
    told = {"entry_id": f"e{number}", "trade_id": f"t{number}", "order_id": order_id, "product_id": "BTC-USD"}
    return {**told, "trade_time": "2026-03-01T12:00:00Z", "price": "10", "size": "1", "commission": "0", "side": "BUY"}


async def test_an_accepted_order_gives_the_venues_id_and_tells_when_its_token_dies() -> None:
    told: list[datetime] = []
    async with venue_that(answering(CREATED)) as (venue, _):
        assert await venue.place(ORDER, told.append) == "v1"
    assert 55 < (told[0] - SystemClock().wall()).total_seconds() <= 60


async def test_every_request_is_signed_for_its_own_method_host_and_path_without_the_query() -> None:
    seen: list[str] = []

    async def check(request: web.Request) -> web.Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        claims = jwt.decode(token, KEY.public_key(), ["ES256"])
        assert claims["uri"] == f"{request.method} {request.host}{request.path}"
        seen.append(request.path_qs)
        return web.json_response({"orders": [], "has_next": False, "cursor": ""})

    async with venue_that(check) as (venue, _):
        assert await venue.find("c1", "BTC-USD", SINCE) is None
    assert urlsplit(seen[0]).path == f"{BASE}/orders/historical/batch"
    assert "product_ids=BTC-USD" in seen[0]


UNANSWERED = {
    "timeout": hangs,
    "reset": resets,
    "502 HTML": answering("<html>bad gateway</html>", 502),
    "500": answering("", 500),
    "200 HTML": answering("<html>", 200),
    "408": answering("", 408),
    "redirect": answering("", 302, Location="/"),
}
UNCLEAR = {
    "no id": answering({"success": True}, 200),
    "another order": answering({"success": True, "success_response": {"order_id": "v1", "side": "SELL"}}),
    "duplicate id": answering({"success": False, "error_response": {"error": "DUPLICATE_CLIENT_ORDER_ID"}}),
    "duplicate id in a 400": answering({"error": "DUPLICATE_CLIENT_ORDER_ID"}, 400),
}


@pytest.mark.parametrize("answer", [*UNANSWERED.values(), *UNCLEAR.values()], ids=[*UNANSWERED, *UNCLEAR])
async def test_an_order_without_a_readable_answer_has_an_unknown_outcome_and_is_sent_once(answer: Handler) -> None:
    async with venue_that(answer) as (venue, script):
        with pytest.raises(OutcomeUnknown):
            await place(venue)
    assert len(script.requests) == 1


@pytest.mark.parametrize("answer", UNANSWERED.values(), ids=UNANSWERED.keys())
async def test_an_edit_without_a_readable_answer_has_an_unknown_outcome_and_is_sent_once(answer: Handler) -> None:
    async with venue_that(answer) as (venue, script):
        with pytest.raises(OutcomeUnknown):
            await venue.edit("v1", RESTING, lambda expires_at: None)
    assert script.bodies == [{"order_id": "v1", "price": "90", "size": "2"}]


async def test_an_order_that_could_not_even_connect_was_certainly_not_sent() -> None:
    venue = client(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Retryable):
        await place(venue)
    await venue.close()


async def test_too_many_requests_was_certainly_not_done_and_an_order_is_not_repeated() -> None:
    async with venue_that(answering({"errors": []}, 429)) as (venue, script):
        with pytest.raises(Retryable):
            await place(venue)
    assert len(script.requests) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 422])
async def test_a_definite_refusal_is_final(status: int) -> None:
    async with venue_that(answering({"error": "INVALID_ARGUMENT"}, status)) as (venue, script):
        with pytest.raises(Rejected, match=f"HTTP_{status}"):
            await place(venue)
        with pytest.raises(Rejected, match=f"HTTP_{status}"):
            await venue.order("v1")
    assert len(script.requests) == 2


async def test_every_page_of_the_listing_is_read_before_an_order_counts_as_missing() -> None:
    async def pages(request: web.Request) -> web.Response:
        number = int(request.query.get("cursor", "0"))
        more = number < 3
        return web.json_response({"orders": [order(number)], "has_next": more, "cursor": str(number + 1)})

    async with venue_that(pages) as (venue, _):
        found = await venue.find("c3", "BTC-USD", SINCE)
        assert found is not None
        assert found.venue_order_id == "v3"
        assert await venue.find("c9", "BTC-USD", SINCE) is None


async def test_pages_that_go_round_in_a_circle_are_no_answer() -> None:
    async with venue_that(answering({"orders": [], "has_next": True, "cursor": "1"})) as (venue, _):
        with pytest.raises(OutcomeUnknown, match="came twice"):
            await venue.find("c1", "BTC-USD", SINCE)


async def test_a_request_is_not_sent_when_the_caller_no_longer_allows_it() -> None:
    def stop(expires_at: datetime) -> None:
        raise Retryable("the lease is gone")

    async with venue_that(answering(CREATED)) as (venue, script):
        with pytest.raises(Retryable):
            await venue.place(ORDER, stop)
        with pytest.raises(Retryable):
            await venue.edit("v1", RESTING, stop)
    assert script.requests == []


async def test_a_page_that_fails_in_the_middle_of_a_listing_is_no_answer() -> None:
    async def half(request: web.Request) -> web.Response:
        if "cursor" in request.query:
            return web.Response(status=503)
        return web.json_response({"orders": [], "has_next": True, "cursor": "1"})

    async with venue_that(half) as (venue, _):
        with pytest.raises(OutcomeUnknown):
            await venue.find("c1", "BTC-USD", SINCE)
        with pytest.raises(OutcomeUnknown):
            await venue.listing(SINCE)


def listed(*orders: dict[str, object]) -> Handler:
    return answering({"orders": orders, "has_next": False, "cursor": ""})


async def test_a_listing_is_waiting_and_open_orders_then_all_since_a_time_then_fills_since_then() -> None:
    fills = answering({"fills": [fill(1), fill(2)], "cursor": ""})
    newest = order(2, status="FILLED")
    async with venue_that(listed(order(1)), listed(order(2), order(3)), listed(newest), fills) as (venue, script):
        listing = await venue.listing(SINCE)
    assert [(told.venue_order_id, told.status_word) for told in listing.orders] == [
        ("v1", "OPEN"),
        ("v2", "FILLED"),  # as it was read last
        ("v3", "OPEN"),
    ]
    assert [told.entry_id for told in listing.fills] == ["e1", "e2"]
    asked = [sorted(request.query.items()) for request in script.requests]
    limit, since = ("limit", "250"), "2026-03-01T12:00:00.000000Z"
    assert asked == [
        [limit, ("order_status", "PENDING"), ("order_status", "QUEUED")],
        [limit, ("order_status", "OPEN")],
        [limit, ("start_date", since)],
        [limit, ("start_sequence_timestamp", since)],  # List Fills ignores start_date
    ]


async def test_an_order_and_its_fills_stop_at_what_the_order_says_and_leave_out_those_of_others() -> None:
    first = answering({"fills": [fill(1), fill(9, "v9"), fill(2)], "cursor": "1"})
    told = answering({"order": order(1, filled_size="2", status="FILLED")})
    async with venue_that(told, first) as (venue, script):
        found, fills = await venue.order("v1")
    assert found.filled_qty == 2
    assert [each.entry_id for each in fills] == ["e1", "e2"]
    assert len(script.requests) == 2


def in_quote(number: int, value: str, second: int) -> dict[str, object]:
    time = f"2026-03-01T12:00:{second:02}Z"
    return {**fill(number), "size_in_quote": True, "price": "3", "size": value, "trade_time": time}


async def test_the_newest_fill_told_in_the_quote_currency_takes_what_rounding_has_lost() -> None:
    told = answering({"order": order(1, filled_size="1.6666666666666667", status="FILLED")})
    fills = answering({"fills": [in_quote(1, "1", 1), in_quote(3, "2", 3), in_quote(2, "2", 2)], "cursor": ""})
    async with venue_that(told, fills) as (venue, _):
        found, booked = await venue.order("v1")
    assert sum((each.size for each in booked), Decimal(0)) == found.filled_qty
    third = Decimal("0.333333333333")
    assert [each.size for each in booked] == [third, Decimal("0.6666666666666667"), 2 * third + Decimal("1E-12")]
    assert [each.quote_value for each in booked] == [1, 2, 2]


@pytest.mark.parametrize(("filled", "last"), [("1.2", "0.1"), ("0.9999999", "0.0000001"), ("", "0.1")])
async def test_what_is_more_than_rounding_is_no_fill_s(filled: str, last: str) -> None:
    fills = [{**in_quote(1, "3", 1)}, {**in_quote(2, str(3 * Decimal(last)), 2)}]
    told = answering({"order": order(1, filled_size=filled, status="FILLED")})
    async with venue_that(told, answering({"fills": fills, "cursor": ""})) as (venue, _):
        _, booked = await venue.order("v1")
    assert [each.size for each in booked] == [1, Decimal(last)]


async def test_what_a_listing_leaves_out_is_counted_and_an_order_s_own_fills_leave_out_nothing() -> None:
    reversal = {**fill(2), "trade_type": "REVERSAL"}
    strange = order(2, side="NEITHER", client_order_id="by-hand")
    fills = answering({"fills": [fill(1), reversal], "cursor": ""})
    nothing = listed()
    async with venue_that(nothing, nothing, listed(order(1), strange), fills) as (venue, _):
        listing = await venue.listing(SINCE)
        assert (len(listing.orders), len(listing.fills)) == (1, 1)
        assert (venue.answers["odd_order"], venue.answers["odd_fill"]) == (1, 1)
    told = answering({"order": order(1, filled_size="2", status="FILLED")})
    async with venue_that(told, fills) as (venue, _):
        with pytest.raises(OutcomeUnknown, match="REVERSAL"):
            await venue.order("v1")


async def test_an_open_order_without_fills_is_one_request() -> None:
    async with venue_that(answering({"order": order(1)})) as (venue, script):
        assert (await venue.order("v1"))[1] == []
    assert len(script.requests) == 1


async def test_an_id_from_outside_cannot_name_another_path() -> None:
    async with venue_that(answering("", 404)) as (venue, script):
        with pytest.raises(Rejected, match="HTTP_404"):
            await venue.order("../../accounts?x=1")
    assert script.requests[0].raw_path == f"{BASE}/orders/historical/..%2F..%2Faccounts%3Fx%3D1"


async def test_cancels_go_in_chunks_of_a_hundred_each_id_once_and_an_empty_one_never() -> None:
    async def cancel(request: web.Request) -> web.Response:
        results = [
            {"order_id": key, "success": key != "v150", "failure_reason": "UNKNOWN_CANCEL_FAILURE_REASON"}
            for key in (await request.json())["order_ids"]
            if key != "v160"
        ]
        return web.json_response({"results": results})

    async with venue_that(cancel) as (venue, script):
        refused = await venue.cancel([f"v{number}" for number in range(250)] + ["", "v0"])
        assert refused == {
            "": "NO_ORDER_ID",
            "v150": "UNKNOWN_CANCEL_FAILURE_REASON",
            "v160": "NOT_MENTIONED",
        }
        assert await venue.cancel([""]) == {"": "NO_ORDER_ID"}
        assert await venue.cancel([]) == {}
    sizes = [len(body["order_ids"]) for body in script.bodies if isinstance(body, dict)]
    assert sizes == [100, 100, 50]


def cancelling(refuse: str, status: int = 400) -> Handler:
    """Refuses every request that has this id in it, a whole batch too."""

    async def answer(request: web.Request) -> web.Response:
        keys = (await request.json())["order_ids"]
        if refuse in keys:
            return web.json_response({"error": "INVALID_ARGUMENT"}, status=status)
        return web.json_response({"results": [{"order_id": key, "success": True} for key in keys]})

    return answer


async def test_one_id_that_the_venue_does_not_like_keeps_no_other_order_alive() -> None:
    async with venue_that(cancelling("bad")) as (venue, script):
        assert await venue.cancel(["v1", "bad", "v2"]) == {"bad": "HTTP_400"}
        with pytest.raises(Rejected, match="HTTP_400"):
            await venue.cancel(["bad"])
    asked = [body["order_ids"] for body in script.bodies if isinstance(body, dict)]
    assert asked == [["v1", "bad", "v2"], ["v1"], ["bad"], ["v2"], ["bad"]]


async def test_a_key_that_may_not_cancel_is_not_tried_id_by_id() -> None:
    async with venue_that(cancelling("v1", 403)) as (venue, script):
        with pytest.raises(Rejected, match="HTTP_403"):
            await venue.cancel(["v1", "v2"])
    assert len(script.requests) == 1


async def test_a_preview_is_sent_without_a_client_order_id() -> None:
    preview = {"order_total": "10", "commission_total": "1", "errs": []}
    async with venue_that(answering(preview)) as (venue, script):
        assert (await venue.preview(ORDER)).order_total == 10
        assert (await venue.preview_edit("v1", RESTING)).commission_total == 1
    assert [request.path for request in script.requests] == [f"{BASE}/orders/preview", f"{BASE}/orders/edit_preview"]
    assert "client_order_id" not in str(script.bodies[0])


PARTS = {
    "/accounts": {"accounts": [{"currency": "USD", "available_balance": {"value": "5"}, "hold": {"value": "1"}}]},
    "/transaction_summary": {
        "total_volume": 1.5,
        "total_fees": 0,
        "fee_tier": {"taker_fee_rate": "0.012", "maker_fee_rate": "0.006"},
    },
    "/key_permissions": {"can_view": True, "can_trade": True, "can_transfer": False, "portfolio_uuid": "p"},
    "/portfolios": {"portfolios": [{"uuid": "p", "name": "Default", "type": "DEFAULT"}]},
}
NAMES = {"/accounts": "balances", "/transaction_summary": "fee_tier", "/key_permissions": "permissions"}


def account_without(failed: str, **headers: str) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        path = request.path.removeprefix(BASE)
        if path == failed:
            return web.Response(text="<html>", status=503)
        return web.json_response(PARTS[path], headers=headers)

    return answer


async def tells_time(request: web.Request) -> web.Response:
    millis = int(SystemClock().wall().timestamp() * 1000)
    return web.json_response({"iso": "", "epochSeconds": "", "epochMillis": str(millis)})


async def test_an_account_tells_every_part() -> None:
    headers = {"x-ratelimit-limit": "30", "x-ratelimit-remaining": "27"}
    async with venue_that(account_without("", **headers), time=tells_time) as (venue, _):
        parts = await venue.account()
    assert parts.unavailable == {}
    assert parts.balances is not None
    assert parts.balances == {"USD": Balance(available=Decimal(5), hold=Decimal(1))}
    assert parts.fee_tier is not None
    assert parts.fee_tier.total_volume == Decimal("1.5")
    assert parts.permissions is not None
    assert parts.permissions.can_trade
    assert parts.portfolios is not None
    assert parts.portfolios[0].uuid == "p"
    assert parts.limits is not None
    assert (parts.limits.limit, parts.limits.remaining) == (30, 27)
    assert parts.server_time is not None
    assert abs(parts.server_time - SystemClock().wall()) < timedelta(seconds=5)


@pytest.mark.parametrize("path", PARTS)
async def test_a_part_of_the_account_that_fails_is_named_and_takes_no_other_with_it(path: str) -> None:
    async with venue_that(account_without(path), time=tells_time) as (venue, _):
        parts = await venue.account()
    name = NAMES.get(path, path.strip("/"))
    assert getattr(parts, name) is None
    assert parts.unavailable == {
        name: "503 from the venue",
        "limits": "the venue's answers carry no x-ratelimit headers",
    }


async def test_a_venue_that_does_not_tell_its_time_is_no_part_of_the_account() -> None:
    async with venue_that(account_without("")) as (venue, _):
        parts = await venue.account()
    assert parts.server_time is None
    assert "404" in parts.unavailable["server_time"]
