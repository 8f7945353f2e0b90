"""What a user of the official Python SDK does: run by the SDK's own Python, prints what it was told as one JSON object.

`python conversation.py HOST:PORT KEY_FILE`. The SDK is used as it is: it builds https addresses, which one adapter of
its own session turns into plain http.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal
from typing import Any

from coinbase.rest import RESTClient  # type: ignore[import-not-found]
from coinbase.websocket import (  # type: ignore[import-not-found]
    WebsocketResponse,
    WSClient,
    WSUserClient,
)
from requests.adapters import HTTPAdapter  # type: ignore[import-not-found,import-untyped,unused-ignore]

PRODUCT = "BTC-USD"
MARKET_CHANNELS = ("ticker", "market_trades", "level2", "heartbeats")
SECONDS = 20.0
CENT = Decimal("0.01")

Json = dict[str, Any]


class PlainHttp(HTTPAdapter):  # type: ignore[misc]
    def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
        request.url = request.url.replace("https://", "http://", 1)
        return super().send(request, *arguments, **options)


class Heard:
    """Frames by channel, decoded by the SDK's own types; filled by the SDK's thread."""

    def __init__(self) -> None:
        self.frames: dict[str, list[Json]] = {}
        self.numbers: list[int] = []
        self._lock = threading.Lock()

    def take(self, text: str) -> None:
        frame = WebsocketResponse(json.loads(text))
        with self._lock:
            self.numbers.append(frame.sequence_num)
            self.frames.setdefault(frame.channel, []).append(frame.to_dict())

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise SystemExit(f"not heard within {SECONDS:.0f} s: {what}; heard {sorted(self.frames)}")
            time.sleep(0.05)

    def user_orders(self) -> list[Json]:
        with self._lock:
            frames = list(self.frames.get("user", ()))
        return [order for frame in frames for event in frame["events"] for order in event["orders"] or ()]


def market(client: Any) -> Json:
    """Everything that needs no account."""
    now = int(client.get_unix_time().epoch_seconds)
    return {
        "time": now,
        "products": [product.product_id for product in client.get_products(product_type="SPOT").products],
        "product": client.get_product(PRODUCT).to_dict(),
        "candles": [
            candle.to_dict()
            for candle in client.get_candles(PRODUCT, str(now - 900), str(now), "ONE_MINUTE", limit=10).candles
        ],
        "book": client.get_product_book(PRODUCT, limit=5).pricebook.to_dict(),
        "best": [book.to_dict() for book in client.get_best_bid_ask(product_ids=[PRODUCT]).pricebooks],
        "trades": [trade.to_dict() for trade in client.get_market_trades(PRODUCT, limit=3).trades],
    }


def trade(client: Any, heard: Heard) -> Json:
    """Preview, create, edit and cancel; one order stays open."""
    bid = Decimal(client.get_best_bid_ask(product_ids=[PRODUCT]).pricebooks[0].bids[0].price)
    low, lower = (str((bid * part).quantize(CENT, ROUND_DOWN)) for part in (Decimal("0.9"), Decimal("0.8")))
    said: Json = {"preview": client.preview_market_order_buy(PRODUCT, quote_size="250").to_dict()}
    said["created"] = [
        client.market_order_buy("sdk-buy-quote", PRODUCT, quote_size="250").to_dict(),
        client.market_order_buy("sdk-buy-base", PRODUCT, base_size="0.003").to_dict(),
        client.market_order_sell("sdk-sell", PRODUCT, base_size="0.001").to_dict(),
        client.limit_order_gtc_buy("sdk-open", PRODUCT, base_size="0.002", limit_price=low).to_dict(),
        client.limit_order_gtc_buy("sdk-cancel", PRODUCT, base_size="0.001", limit_price=lower).to_dict(),
    ]
    said["again"] = client.market_order_buy("sdk-buy-base", PRODUCT, base_size="0.003").to_dict()
    said["refused"] = client.market_order_buy("sdk-refused", PRODUCT, quote_size="0.5").to_dict()
    ids = {order["success_response"]["client_order_id"]: order["order_id"] for order in said["created"]}
    said["edit_preview"] = client.preview_edit_order(ids["sdk-open"], size="0.004", price=lower).to_dict()
    said["edited"] = client.edit_order(ids["sdk-open"], size="0.004", price=lower).to_dict()
    said["canceled"] = client.cancel_orders([ids["sdk-cancel"], "no-such-order"]).to_dict()
    said["order"] = client.get_order(ids["sdk-buy-base"]).order.to_dict()
    heard.wait_for(
        lambda: any(
            order["order_id"] == ids["sdk-cancel"] and order["status"] == "CANCELLED" for order in heard.user_orders()
        ),
        "the cancellation on the user channel",
    )
    return {**said, "ids": ids}


def account(client: Any) -> Json:
    """The account as it stands, page by page."""
    portfolios = [portfolio.to_dict() for portfolio in client.get_portfolios().portfolios]
    accounts = paged(lambda cursor: client.get_accounts(limit=1, cursor=cursor), "accounts")
    return {
        "accounts": accounts,
        "account": client.get_account(accounts[0]["uuid"]).account.to_dict(),
        "orders": paged(lambda cursor: client.list_orders(limit=2, cursor=cursor), "orders"),
        "open": [order.to_dict() for order in client.list_orders(order_status=["OPEN"]).orders],
        "fills": paged(lambda cursor: client.get_fills(limit=1, cursor=cursor), "fills"),
        "portfolios": portfolios,
        "breakdown": client.get_portfolio_breakdown(portfolios[0]["uuid"]).breakdown.to_dict(),
        "fees": client.get_transaction_summary().to_dict(),
        "key": client.get_api_key_permissions().to_dict(),
    }


def paged(ask: Callable[[str | None], Any], name: str) -> list[Json]:
    """All pages of a listing; fills have no `has_next`, their end is an empty cursor."""
    found, cursor = [], None
    while True:
        page = ask(cursor)
        found += [item.to_dict() for item in page[name]]
        cursor = page.cursor
        if not cursor:
            return found


def main(address: str, key_file: str) -> Json:
    client = RESTClient(key_file=key_file, base_url=address, timeout=10)
    client.session.mount("https://", PlainHttp())
    heard, told = Heard(), Heard()
    public = WSClient(key_file=key_file, base_url=f"ws://{address}/ws", on_message=heard.take)
    private = WSUserClient(key_file=key_file, base_url=f"ws://{address}/ws/user", on_message=told.take)
    public.open()
    private.open()
    public.subscribe(product_ids=[PRODUCT], channels=list(MARKET_CHANNELS))
    private.heartbeats()
    private.user(product_ids=[PRODUCT])
    told.wait_for(lambda: "user" in told.frames, "the snapshot of the user channel")
    report = {"market": market(client), **trade(client, told), **account(client)}
    received = ("ticker", "market_trades", "l2_data", "heartbeats")
    heard.wait_for(lambda: all(len(heard.frames.get(channel, ())) > 2 for channel in received), "each market channel")
    report["frames"] = {channel: heard.frames[channel][:3] for channel in received}
    report["user"] = told.user_orders()
    report["numbers"] = [heard.numbers, told.numbers]
    public.close()
    private.close()
    return report


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
