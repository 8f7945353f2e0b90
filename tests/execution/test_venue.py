"""The venue client over real sockets: what each kind of answer means for the caller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from urllib.parse import urlsplit

import jwt
import pytest
from aiohttp import WSMsgType, web
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from libs.common.clock import SystemClock
from libs.common.errors import OutcomeUnknown, Rejected, Retryable
from libs.common.messages import ApprovedOrder, OrderType, Side, TimeInForce
from services.execution.auth import Signer
from services.execution.inputs import VenueOrder
from services.execution.venue import BASE, CoinbaseVenue, create_body
from tests.conftest import free_port

KEY = generate_private_key(SECP256R1())
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ORDER = ApprovedOrder(
    client_order_id="c1",
    product_id="BTC-USD",
    side=Side.BUY,
    order_type=OrderType.MARKET,
    time_in_force=TimeInForce.IOC,
    quantity=Decimal("0.00000100"),
    limit_price=None,
    reduce_only=False,
)
CREATED = {"success": True, "success_response": {"order_id": "v1"}}


def client(url: str) -> CoinbaseVenue:
    websocket_url = url.replace("http", "ws") + "/ws"
    return CoinbaseVenue(url, websocket_url, Signer("name", KEY, 60), SystemClock(), timeout_seconds=0.3)


@asynccontextmanager
async def venue_that(handler: Handler) -> AsyncIterator[CoinbaseVenue]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    venue = client(f"http://127.0.0.1:{port}")
    yield venue
    await venue.close()
    await runner.cleanup()


async def place(venue: CoinbaseVenue) -> str:
    return await venue.place(ORDER, lambda expires_at: None)


def answering(body: object, status: int = 200) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        if isinstance(body, str):
            return web.Response(text=body, status=status)
        return web.json_response(body, status=status)

    return answer


async def test_an_accepted_order_gives_the_venues_id_and_tells_when_its_token_dies() -> None:
    told: list[datetime] = []
    async with venue_that(answering(CREATED)) as venue:
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

    async with venue_that(check) as venue:
        assert await venue.find("c1", "BTC-USD", SystemClock().wall()) is None
    assert urlsplit(seen[0]).path == f"{BASE}/orders/historical/batch"
    assert "product_ids=BTC-USD" in seen[0]


async def hangs(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


async def resets(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    "handler",
    [
        hangs,
        resets,
        answering("<html>bad gateway</html>", 502),
        answering("", 500),
        answering("<html>", 200),
        answering({"success": True}, 200),
        answering({"success": False, "error_response": {"error": "DUPLICATE_CLIENT_ORDER_ID"}}),
        answering({"error": "DUPLICATE_CLIENT_ORDER_ID"}, 400),
        answering("", 408),
    ],
    ids=["timeout", "reset", "502 HTML", "500", "200 HTML", "no id", "duplicate id", "duplicate id in a 400", "408"],
)
async def test_an_order_without_a_readable_answer_has_an_unknown_outcome(handler: Handler) -> None:
    async with venue_that(handler) as venue:
        with pytest.raises(OutcomeUnknown):
            await place(venue)


async def test_an_order_that_could_not_even_connect_was_certainly_not_sent() -> None:
    venue = client(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Retryable):
        await place(venue)
    await venue.close()


async def test_too_many_requests_was_certainly_not_done() -> None:
    async with venue_that(answering({"errors": []}, 429)) as venue:
        with pytest.raises(Retryable):
            await place(venue)


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_a_definite_refusal_is_final(status: int) -> None:
    async with venue_that(answering({"error": "INVALID_ARGUMENT"}, status)) as venue:
        with pytest.raises(Rejected, match=f"HTTP_{status}"):
            await place(venue)


async def test_a_401_is_tried_once_more_with_a_fresh_token() -> None:
    tokens: list[str] = []

    async def once(request: web.Request) -> web.Response:
        tokens.append(request.headers["Authorization"])
        return web.Response(text="Unauthorized\n", status=401) if len(tokens) == 1 else web.json_response(CREATED)

    async with venue_that(once) as venue:
        assert await place(venue) == "v1"
    assert len(set(tokens)) == 2

    async with venue_that(answering("Unauthorized\n", 401)) as venue:
        with pytest.raises(Rejected, match="HTTP_401"):
            await place(venue)


async def test_every_page_of_the_listing_is_read_before_an_order_counts_as_missing() -> None:
    def order(number: int) -> dict[str, str]:
        return {
            "order_id": f"v{number}",
            "client_order_id": f"c{number}",
            "product_id": "BTC-USD",
            "side": "BUY",
            "status": "OPEN",
        }

    async def pages(request: web.Request) -> web.Response:
        number = int(request.query.get("cursor", "0"))
        more = number < 3
        return web.json_response({"orders": [order(number)], "has_next": more, "cursor": str(number + 1)})

    async with venue_that(pages) as venue:
        found = await venue.find("c3", "BTC-USD", SystemClock().wall())
        assert found is not None
        assert found.venue_order_id == "v3"
        assert await venue.find("c9", "BTC-USD", SystemClock().wall()) is None


async def test_pages_that_go_round_in_a_circle_are_no_answer() -> None:
    async with venue_that(answering({"orders": [], "has_next": True, "cursor": "1"})) as venue:
        with pytest.raises(OutcomeUnknown, match="came twice"):
            await venue.find("c1", "BTC-USD", SystemClock().wall())


async def test_a_request_is_not_sent_when_the_caller_no_longer_allows_it() -> None:
    calls: list[str] = []

    async def count(request: web.Request) -> web.Response:
        calls.append(request.path)
        return web.json_response(CREATED)

    def stop(expires_at: datetime) -> None:
        raise Retryable("the lease is gone")

    async with venue_that(count) as venue:
        with pytest.raises(Retryable):
            await venue.place(ORDER, stop)
    assert calls == []


async def test_a_page_that_fails_in_the_middle_of_a_listing_is_no_answer() -> None:
    async def half(request: web.Request) -> web.Response:
        if "cursor" in request.query:
            return web.Response(status=503)
        return web.json_response({"orders": [], "has_next": True, "cursor": "1"})

    async with venue_that(half) as venue:
        with pytest.raises(OutcomeUnknown):
            await venue.find("c1", "BTC-USD", SystemClock().wall())


async def test_the_user_channel_comes_back_after_garbage_an_error_frame_and_a_closed_socket() -> None:
    connections = 0

    async def user(request: web.Request) -> web.StreamResponse:
        nonlocal connections
        connections += 1
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        subscribed = json.loads((await socket.receive()).data)
        assert subscribed["channel"] == "heartbeats"
        if connections == 1:
            await socket.send_str("garbage")
        elif connections == 2:
            await socket.send_json({"type": "error", "message": "authentication failure"})
        elif connections == 3:
            await socket.close()
        else:
            update = {
                "order_id": "v1",
                "client_order_id": "c1",
                "product_id": "BTC-USD",
                "order_side": "BUY",
                "status": "FILLED",
                "cumulative_quantity": "1",
            }
            await socket.send_json({"channel": "user", "events": [{"type": "update", "orders": [update]}]})
        while (await socket.receive()).type is WSMsgType.TEXT:
            pass
        return socket

    async with venue_that(user) as venue:
        updates: list[VenueOrder | None] = []
        async with asyncio.timeout(10):
            async for update in venue.user_updates():
                updates.append(update)
                if update is not None:
                    break
    assert connections == 4
    assert [update and update.client_order_id for update in updates] == [None, None, None, None, "c1"]
    assert venue.answers["user_channel_lost"] == 3


def test_the_four_kinds_of_order_have_the_venues_bodies_with_plain_numbers() -> None:
    def configuration(**changes: object) -> object:
        import msgspec

        return create_body(msgspec.structs.replace(ORDER, **changes))["order_configuration"]

    limit = {"order_type": OrderType.LIMIT, "limit_price": Decimal("1E+5")}
    assert configuration() == {"market_market_ioc": {"base_size": "0.00000100"}}
    assert configuration(**limit) == {"sor_limit_ioc": {"base_size": "0.00000100", "limit_price": "100000"}}
    gtc = configuration(**limit, time_in_force=TimeInForce.GTC)
    assert gtc == {"limit_limit_gtc": {"base_size": "0.00000100", "limit_price": "100000"}}
