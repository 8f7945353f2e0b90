"""A venue on a real socket, and a client of it: REST over httpx, frames over websockets."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import websockets
from msgspec.structs import replace
from websockets.asyncio.client import ClientConnection, connect

from sim.__main__ import build
from sim.clock import SystemClock
from sim.server import KEY_FILE, VenueServer
from sim.settings import Settings
from sim.store import Store
from tests.sim.signing import signed

PREFIX = "/api/v3/brokerage"
CANDLES = "start,open,high,low,close,volume\n" + "".join(
    f"2025-01-01 00:{minute:02}:00,{50000 + minute},{50010 + minute},{49990 + minute},{50005 + minute},4\n"
    for minute in range(30)
)
LIMIT = {"base_size": "0.5", "limit_price": "49990"}

Json = dict[str, Any]


def replay_settings(folder: Path, candles: str = CANDLES, **changes: Any) -> Settings:
    """Half an hour of minutes from 2025-01-01, of which the first five are history."""
    path = folder / "BTC-USD_1m.csv"
    path.write_text(candles)
    base = Settings(port=0, data_dir=folder / "var", replay=path)
    return replace(base, **changes)


class Frames:
    """One WebSocket connection; the numbering of everything that it receives is kept."""

    def __init__(self, socket: ClientConnection, token: str) -> None:
        self.socket = socket
        self.numbers: list[int] = []
        self._token = token

    async def send(self, text: str | bytes) -> None:
        await self.socket.send(text)

    async def subscribe(self, channel: str, *products: str, kind: str = "subscribe", token: str | None = None) -> None:
        message = {"type": kind, "channel": channel, "product_ids": list(products)}
        await self.send(json.dumps({**message, "jwt": self._token if token is None else token}))

    async def next(self, channel: str | None = None) -> Json:
        """The next frame, or the next one of a channel (`error` for errors)."""
        async with asyncio.timeout(10):
            while True:
                frame: Json = json.loads(await self.socket.recv())
                if "sequence_num" in frame:
                    self.numbers.append(frame["sequence_num"])
                if channel in (None, frame.get("channel", frame.get("type"))):
                    return frame

    async def until_acknowledged(self, channel: str) -> list[Json]:
        """All frames up to the acknowledgement that names a channel."""
        found = []
        while True:
            found.append(await self.next())
            if found[-1].get("channel") == "subscriptions" and channel in found[-1]["events"][0]["subscriptions"]:
                return found

    async def closed(self) -> int:
        """Read until the end; the close code."""
        try:
            async with asyncio.timeout(10):
                while True:
                    await self.socket.recv()
        except websockets.ConnectionClosed:
            return self.socket.close_code or 0


class Client:
    """What a user of the venue has: its address and the key file."""

    def __init__(self, server: VenueServer, http: httpx.AsyncClient, key: Json) -> None:
        self.server = server
        self.http = http
        self.key = key
        self.address = f"127.0.0.1:{server.port}"

    def token(self, uri: str | None = None, **claims: Any) -> str:
        now = int(time.time())
        body = {"sub": self.key["name"], "iss": "cdp", "nbf": now, "exp": now + 120}
        named = {"uri": uri} if uri else {}
        headers = {"kid": self.key["name"], "nonce": secrets.token_hex(8)}
        return jwt.encode({**body, **named, **claims}, self.key["privateKey"], "ES256", headers)

    async def call(self, method: str, path: str, body: Any = None, **query: Any) -> httpx.Response:
        """A signed request under /api/v3/brokerage."""
        headers = {"Authorization": signed(self.key, f"{method} {self.address}{PREFIX}{path}")}
        content = json.dumps(body) if body is not None else None
        return await self.http.request(method, PREFIX + path, params=query, content=content, headers=headers)

    async def get(self, path: str, **query: Any) -> Json:
        """The body of a signed GET that must succeed."""
        response = await self.call("GET", path, **query)
        assert response.status_code == 200, response.text
        return response.json()  # type: ignore[no-any-return]

    async def public(self, path: str, **query: Any) -> Json:
        response = await self.http.get(PREFIX + path, params=query)
        assert response.status_code == 200, response.text
        return response.json()  # type: ignore[no-any-return]

    async def order(self, client_order_id: str, side: str = "BUY", key: str = "limit_limit_gtc", **fields: Any) -> Json:
        """The answer to a new order; by default one that rests below the market."""
        body = order_body(client_order_id, side, key, **(fields or LIMIT))
        return (await self.call("POST", "/orders", body)).json()  # type: ignore[no-any-return]

    async def step(self, ticks: int = 1) -> Json:
        response = await self.http.post("/sim/step", json={"ticks": ticks})
        assert response.status_code == 200, response.text
        return response.json()  # type: ignore[no-any-return]

    async def state(self) -> Json:
        return (await self.http.get("/sim/state")).json()  # type: ignore[no-any-return]

    async def faults(self, **switches: Any) -> Json:
        response = await self.http.post("/sim/faults", json=switches)
        assert response.status_code == 200, response.text
        return response.json()  # type: ignore[no-any-return]

    @asynccontextmanager
    async def frames(self, path: str = "/", **options: Any) -> AsyncIterator[Frames]:
        async with connect(f"ws://{self.address}{path}", max_size=None, **options) as socket:
            yield Frames(socket, self.token())


def order_body(client_order_id: str, side: str, key: str, **fields: Any) -> Json:
    return {
        "client_order_id": client_order_id,
        "product_id": "BTC-USD",
        "side": side,
        "order_configuration": {key: fields},
    }


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Client]:
    """A venue by these settings, from its data directory, until the block ends."""
    store = Store(settings.folder)
    try:
        exchange, market, position = build(settings, store)
        async with VenueServer(exchange, store, SystemClock(), settings, market, position) as server:
            key = json.loads((settings.folder / KEY_FILE).read_bytes())
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as http:
                yield Client(server, http, key)
    finally:
        store.close()
