"""Which path does what, and who may call it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from sim import rest_account as account
from sim import rest_market as market
from sim import rest_orders as orders
from sim.api import Call
from sim.money import exact
from sim.venue import Venue
from sim.wire import Json

PREFIX = "/api/v3/brokerage"
NEW_ORDER, CANCEL, EDIT = "/orders", "/orders/batch_cancel", "/orders/edit"

Handler = Callable[[Venue, Call], Json]


class Route(NamedTuple):
    method: str
    path: str
    handler: Handler
    public: bool = False


ROUTES = (
    Route("GET", "/time", market.time, public=True),
    Route("GET", "/market/products", market.products, public=True),
    Route("GET", "/market/products/{product_id}", market.product, public=True),
    Route("GET", "/market/products/{product_id}/candles", market.candles, public=True),
    Route("GET", "/market/products/{product_id}/ticker", market.trades, public=True),
    Route("GET", "/market/product_book", market.product_book, public=True),
    Route("GET", "/products", market.products),
    Route("GET", "/products/{product_id}", market.product),
    Route("GET", "/products/{product_id}/candles", market.candles),
    Route("GET", "/products/{product_id}/ticker", market.trades),
    Route("GET", "/product_book", market.product_book),
    Route("GET", "/best_bid_ask", market.best_bid_ask),
    Route("GET", "/accounts", account.accounts),
    Route("GET", "/accounts/{account_id}", account.account),
    Route("POST", NEW_ORDER, orders.create),
    Route("POST", "/orders/preview", orders.preview),
    Route("POST", EDIT, orders.edit),
    Route("POST", "/orders/edit_preview", orders.edit_preview),
    Route("POST", CANCEL, orders.batch_cancel),
    Route("GET", "/orders/historical/batch", orders.list_orders),
    Route("GET", "/orders/historical/fills", orders.list_fills),
    Route("GET", "/orders/historical/{order_id}", orders.get_order),
    Route("GET", "/portfolios", account.portfolios),
    Route("POST", "/portfolios", account.portfolio_change),
    Route("POST", "/portfolios/move_funds", account.portfolio_change),
    Route("GET", "/portfolios/{portfolio_id}", account.portfolio),
    Route("PUT", "/portfolios/{portfolio_id}", account.portfolio_change),
    Route("DELETE", "/portfolios/{portfolio_id}", account.portfolio_change),
    Route("GET", "/key_permissions", account.key_permissions),
    Route("GET", "/transaction_summary", account.transaction_summary),
)

# Figures that the venue writes as JSON numbers arrive here as Decimal; all others are strings already.
_encode = msgspec.json.Encoder(decimal_format="number").encode


@exact
def answer(venue: Venue, route: Route, call: Call) -> bytes:
    """The body of a 200. Raises ApiError for every other answer."""
    body = route.handler(venue, call)
    if venue.faults.faults.extra_fields:
        body = {**body, "x_unannounced": {"kind": 1}}
    return _encode(body)
