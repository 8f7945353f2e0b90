"""Market data over REST: time, products, books, candles, trades."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from sim.api import Call, price_text, product_named
from sim.book import Book, Level
from sim.errors import invalid_argument
from sim.history import GRANULARITIES, unix
from sim.money import ceil_to, floor_to, text
from sim.requests import amount
from sim.venue import Venue
from sim.wire import Json, candle_json, pricebook_json, product_json, rfc3339, spread_json, trade_json

CANDLES_AT_MOST = 350
TRADES_AT_MOST = 1000


def time(venue: Venue, call: Call) -> Json:
    """The venue's wall time: clients correct their own clocks by it before they sign."""
    now = venue.wall()
    return {
        "iso": rfc3339(now.replace(microsecond=0)),
        "epochSeconds": str(unix(now)),
        "epochMillis": str(int(now.timestamp() * 1000)),
    }


def products(venue: Venue, call: Call) -> Json:
    wanted, kind = call.many("product_ids"), call.one("product_type", "SPOT")
    found = [
        _product(venue, product_id)
        for product_id in venue.exchange.products
        if (not wanted or product_id in wanted) and kind in ("SPOT", "UNKNOWN_PRODUCT_TYPE")
    ]
    start = call.whole("offset", 0) or 0
    limit = call.whole("limit", None) or len(found)
    return {"products": found[start : start + limit], "num_products": len(found)}


def product(venue: Venue, call: Call) -> Json:
    return _product(venue, product_named(venue, call.path["product_id"]).product_id)


def _product(venue: Venue, product_id: str) -> Json:
    day = venue.histories[product_id].day()
    return product_json(venue.exchange.products[product_id], price_text(venue, product_id), day)


def best_bid_ask(venue: Venue, call: Call) -> Json:
    wanted = call.many("product_ids") or frozenset(venue.exchange.products)
    books = []
    for product_id in venue.exchange.products:
        if product_id in wanted and (book := venue.exchange.book(product_id)):
            books.append(pricebook_json(product_id, book.bids[:1], book.asks[:1], book.at))
    return {"pricebooks": books}


def product_book(venue: Venue, call: Call) -> Json:
    if not call.one("product_id"):
        raise invalid_argument("product_id is missing")
    product_id = product_named(venue, call.one("product_id")).product_id
    book = venue.exchange.book(product_id) or Book(venue.market_time(), Decimal(0), [], [])
    bids, asks = book.bids, book.asks
    step = amount(call.one("aggregation_price_increment", "0"))
    if step is None or step < 0:
        raise invalid_argument("aggregation_price_increment is invalid")
    if step:
        bids = _merged([Level(floor_to(level.price, step), level.size) for level in bids])
        asks = _merged([Level(ceil_to(level.price, step), level.size) for level in asks])
    limit = call.whole("limit", None) or len(bids) + len(asks)
    return {"pricebook": pricebook_json(product_id, bids[:limit], asks[:limit], book.at), **spread_json(book)}


def _merged(levels: Sequence[Level]) -> list[Level]:
    sizes: dict[Decimal, Decimal] = {}
    for price, size in levels:
        sizes[price] = sizes.get(price, Decimal(0)) + size
    return [Level(price, size) for price, size in sizes.items()]


def candles(venue: Venue, call: Call) -> Json:
    """Newest first. Asking for more than 350 buckets is refused, as the venue does."""
    history = venue.histories[product_named(venue, call.path["product_id"]).product_id]
    seconds = GRANULARITIES.get(call.one("granularity"))
    if seconds is None:
        raise invalid_argument(f"granularity is invalid: {call.one('granularity') or 'UNKNOWN_GRANULARITY'}")
    start, end = call.whole("start", None), call.whole("end", None)
    if start is not None and end is not None:
        if end < start:
            raise invalid_argument("start and end argument is invalid - start is after end")
        if (end - start) // seconds > CANDLES_AT_MOST:
            raise invalid_argument(
                "start and end argument is invalid - number of candles requested should be less than 350"
            )
    limit = call.count("limit", CANDLES_AT_MOST, CANDLES_AT_MOST)
    return {"candles": [candle_json(bar) for bar in history.candles(seconds, start, end, limit)]}


def trades(venue: Venue, call: Call) -> Json:
    product_id = product_named(venue, call.path["product_id"]).product_id
    found = venue.histories[product_id].trades(
        call.count("limit", 100, TRADES_AT_MOST), call.whole("start", None), call.whole("end", None)
    )
    book = venue.exchange.book(product_id)
    return {
        "trades": [{**trade_json(tick), "bid": "", "ask": "", "exchange": "coinbase"} for tick in found],
        "best_bid": text(book.bids[0].price) if book and book.bids else "",
        "best_ask": text(book.asks[0].price) if book and book.asks else "",
    }
