"""A scripted venue on a real socket, for the answers that the simulated venue does not give, and a client of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from libs.common.clock import Clock, SystemClock
from libs.common.messages import ApprovedOrder, OrderType, Side, TimeInForce
from services.execution.auth import Signer
from services.execution.budget import REQUESTS_PER_SECOND
from services.execution.rest import BASE
from services.execution.venue import CoinbaseVenue
from tests.ports import free_port

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


class Script:
    """What the venue answers, request by request, the last answer again and again; and what it was asked.

    GET /time is answered by `time`, by default with a 404, and does not count.
    """

    def __init__(self, *answers: Handler, time: Handler | None = None) -> None:
        self.answers = list(answers)
        self.time = time or answering("", 404)
        self.requests: list[web.Request] = []
        self.bodies: list[object] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == f"{BASE}/time":
            return await self.time(request)
        self.requests.append(request)
        text = await request.text()
        self.bodies.append(json.loads(text) if text else None)
        return await (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])(request)


def client(
    url: str,
    clock: Clock | None = None,
    timeout_seconds: float = 0.3,
    requests_per_second: float | None = REQUESTS_PER_SECOND,
) -> CoinbaseVenue:
    """Its pauses between attempts are none."""
    return CoinbaseVenue(
        url,
        url.replace("http", "ws") + "/ws",
        Signer("name", KEY, 60),
        clock or SystemClock(),
        timeout_seconds,
        requests_per_second=requests_per_second,
        chance=lambda: 0.0,
    )


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    """The address of a server that gives every request to the handler."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}"
    await runner.cleanup()


@asynccontextmanager
async def venue_that(
    *answers: Handler,
    time: Handler | None = None,
    clock: Clock | None = None,
    timeout_seconds: float = 0.3,
    requests_per_second: float | None = REQUESTS_PER_SECOND,
) -> AsyncIterator[tuple[CoinbaseVenue, Script]]:
    script = Script(*answers, time=time)
    async with listening(script.handle) as url:
        venue = client(url, clock, timeout_seconds, requests_per_second)
        yield venue, script
        await venue.close()


async def place(venue: CoinbaseVenue) -> str:
    return await venue.place(ORDER, lambda expires_at: None)


def answering(body: object, status: int = 200, **headers: str) -> Handler:
    """Header names with `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(request: web.Request) -> web.Response:
        if isinstance(body, str):
            return web.Response(text=body, status=status, headers=named)
        return web.json_response(body, status=status, headers=named)

    return answer


async def hangs(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


async def resets(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
