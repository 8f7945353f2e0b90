"""An order as it is typed: what belongs together, and the one line that names the flag that does not."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from cli.order_flags import HELP, SWITCHES, OrderFlags, request_of
from libs.common.errors import BadConfig
from libs.common.messages import OrderType, Side, StopDirection, TimeInForce

LIMIT = {"symbol": "BTC-USD", "side": "sell", "type": "limit", "qty": "0.01", "price": "50000"}
MARKET = {"symbol": "BTC-USD", "side": "buy", "type": "market", "qty": "0.01"}


def flags(prefix: str = "--", **given: str | bool) -> OrderFlags:
    values = {name: name not in SWITCHES and "" for name in HELP} | given
    return OrderFlags(prefix, *(values[name] for name in HELP))  # type: ignore[arg-type]


def test_a_market_order_needs_symbol_side_type_and_quantity_and_is_immediate_or_cancel() -> None:
    request = request_of(flags(symbol="btc-usd", side="SELL", type="Market", qty="0.010", reduce_only=True), "r1")
    assert (request.product_id, request.side, request.order_type) == ("BTC-USD", Side.SELL, OrderType.MARKET)
    assert (request.time_in_force, request.quantity, request.quote_size) == (TimeInForce.IOC, Decimal("0.010"), None)
    assert (request.reduce_only, request.request_id) == (True, "r1")


def test_a_buy_at_the_market_may_name_what_to_spend_instead() -> None:
    request = request_of(flags(**{**MARKET, "qty": "", "quote_size": "100"}))
    assert (request.quantity, request.quote_size) == (None, Decimal(100))


@pytest.mark.parametrize(
    ("tif", "end_time", "meant"),
    [("", "", "GTC"), ("ioc", "", "IOC"), ("FOK", "", "FOK"), ("", "2026-12-01T12:00:00Z", "GTD")],
)
def test_a_limit_order_rests_until_cancelled_unless_told(tif: str, end_time: str, meant: str) -> None:
    request = request_of(flags(**LIMIT, tif=tif, end_time=end_time))
    assert request.time_in_force == meant
    assert request.end_time == (datetime(2026, 12, 1, 12, tzinfo=UTC) if end_time else None)


@pytest.mark.parametrize(("side", "direction"), [("sell", StopDirection.DOWN), ("buy", StopDirection.UP)])
def test_a_stop_ends_a_loss_unless_its_direction_is_told(side: str, direction: StopDirection) -> None:
    stop = {**LIMIT, "side": side, "type": "stop-limit", "stop_price": "51000"}
    assert request_of(flags(**stop)).stop_direction is direction
    assert request_of(flags(**stop, stop_direction="up")).stop_direction is StopDirection.UP
    assert request_of(flags(**{**stop, "type": "bracket"})).stop_direction is None


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({**LIMIT, "symbol": ""}, "--symbol is missing"),
        ({**LIMIT, "symbol": "BTCUSD"}, "--symbol 'BTCUSD' is not a product like BTC-USD"),
        ({**LIMIT, "symbol": "BTC-USD-X"}, "--symbol"),
        ({**LIMIT, "side": ""}, "--side is missing: one of buy, sell"),
        ({**LIMIT, "side": "short"}, "--side 'short' is none of buy, sell"),
        ({**LIMIT, "type": "stop"}, "--type 'stop' is none of market, limit, stop_limit, bracket"),
        ({**LIMIT, "tif": "day"}, "--tif 'day' is none of ioc, fok, gtc, gtd"),
        ({**MARKET, "tif": "gtc"}, "--tif 'gtc' does not go with a market order: ioc"),
        ({**LIMIT, "qty": ""}, "--qty is missing"),
        ({**LIMIT, "qty": "ten"}, "--qty 'ten' is not a number"),
        ({**LIMIT, "qty": "NaN"}, "--qty 'NaN' is not an amount"),
        ({**LIMIT, "qty": "-1"}, "--qty '-1' is not an amount"),
        ({**LIMIT, "qty": "1e999999"}, "--qty '1e999999' is not an amount"),
        ({**LIMIT, "price": ""}, "--price is missing: a limit order needs it"),
        ({**MARKET, "price": "5"}, "--price does not go with a market order"),
        ({**LIMIT, "stop_price": "5"}, "--stop-price does not go with a limit order"),
        ({**LIMIT, "type": "bracket"}, "--stop-price is missing: a bracket order needs it"),
        ({**LIMIT, "stop_direction": "up"}, "--stop-direction does not go with a limit order"),
        ({**MARKET, "quote_size": "5"}, "--qty and --quote-size exclude each other"),
        ({**MARKET, "side": "sell", "quote_size": "5"}, "--quote-size does not go with a market order, sell"),
        ({**MARKET, "qty": ""}, "--qty is missing, or --quote-size"),
        ({**MARKET, "post_only": True}, "--post-only does not go with a market order"),
        ({**LIMIT, "tif": "ioc", "post_only": True}, "--post-only does not go with a limit order, sell with ioc"),
        ({**LIMIT, "tif": "gtd"}, "--end-time is missing: a gtd order needs it"),
        ({**LIMIT, "tif": "ioc", "end_time": "2026-12-01"}, "--end-time does not go with a limit order"),
        ({**LIMIT, "end_time": "tomorrow"}, "--end-time 'tomorrow' is not a time"),
    ],
)
def test_what_does_not_belong_together_is_refused_by_the_name_of_its_flag(given: dict[str, str], line: str) -> None:
    with pytest.raises(BadConfig, match=line) as refused:
        request_of(flags(**given))
    assert "\n" not in str(refused.value)


def test_the_flat_flags_are_named_as_they_were_typed() -> None:
    with pytest.raises(BadConfig, match="--order-stop-price is missing"):
        request_of(flags("--order-", **{**LIMIT, "type": "stop_limit"}))
    assert flags("--order-", qty="1", reduce_only=True).given == ["--order-qty", "--order-reduce-only"]
