from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import OutcomeUnknown, PerpsError, Rejected
from libs.common.messages import Balance, OrderStatus, OrderType, TimeInForce, client_order_id
from services.execution import answers, parse, parse_account
from services.execution.bodies import CONFIGURATIONS
from services.execution.inputs import VenueOrder
from tests.execution.fake_venue import ORDER
from tests.recorded import DATA, recorded


def test_a_recorded_filled_market_order_and_its_fill_agree() -> None:
    orders, cursor = parse.parse_orders(recorded("rest/ccxt/list_orders_filled_market_ioc.json").read_bytes())
    fills, _ = parse.parse_fills(recorded("rest/ccxt/list_fills_taker.json").read_bytes())
    assert cursor == "748478308"
    assert orders[0].status is OrderStatus.FILLED
    assert orders[0].filled_qty == fills[0].size == Decimal(10)
    assert (fills[0].price, fills[0].fee, fills[0].liquidity) == (Decimal("0.392"), Decimal("0.03136"), "TAKER")
    assert (orders[0].filled_value, orders[0].fees) == (Decimal("3.92"), fills[0].fee)
    assert (orders[0].order_type, orders[0].time_in_force) == (OrderType.MARKET, TimeInForce.IOC)
    assert (orders[0].quantity, orders[0].limit_price, orders[0].quote_size) == (Decimal(10), None, None)
    assert str(orders[0].created_at) == "2023-11-26 10:19:47.423220+00:00"


def test_a_fill_sized_in_the_quote_currency_is_turned_into_base() -> None:
    page = json.loads(recorded("rest/ccxt/list_fills_taker.json").read_text())
    page["fills"][0] |= {"size_in_quote": True, "size": "3.92"}
    assert parse.parse_fills(json.dumps(page).encode())[0][0].size == Decimal(10)


def test_a_recorded_fill_told_in_the_quote_currency_keeps_its_value_to_the_last_digit() -> None:
    fills, _ = parse.parse_fills(recorded("rest/kmiq/list_fills.json").read_bytes())
    bought = fills[3]
    assert (bought.value, bought.size) == (Decimal("0.9940357852882704"), Decimal("3.898179550150"))
    assert bought.quote_value + bought.fee == Decimal(1)
    assert (fills[0].value, fills[0].quote_value) == (None, Decimal("1.2845"))


def fills_page(**changes: object) -> tuple[bytes, str]:
    """A recorded fill, changed, before the same as it was; and the id of their order."""
    page = json.loads(recorded("rest/ccxt/list_fills_taker.json").read_text())
    [fill] = page["fills"]
    page["fills"] = [{**fill, **changes}, fill]
    return json.dumps(page).encode(), fill["order_id"]


ODD_FILLS: list[dict[str, object]] = [
    {"price": ""},
    {"size": "NaN"},
    {"side": "SIDEWAYS"},
    {"trade_time": "soon"},
    {"trade_type": "REVERSAL"},
    {"trade_type": "CORRECTION"},
    {"trade_type": "SYNTHETIC"},
    {"trade_type": 7},
]


@pytest.mark.parametrize("odd", ODD_FILLS, ids=str)
def test_an_odd_fill_is_left_out_of_a_listing_and_counted_but_not_of_its_own_order_s(odd: dict[str, object]) -> None:
    data, order_id = fills_page(**odd)
    for asked in ("", "another order"):
        counted: list[str] = []
        fills, _ = parse.parse_fills(data, asked, counted.append)
        assert (len(fills), counted) == (1, ["odd_fill"])
    with pytest.raises(OutcomeUnknown):
        parse.parse_fills(data, order_id)


@pytest.mark.parametrize("order_id", ["", None, 7])
def test_a_fill_that_does_not_say_whose_it_is_is_no_answer(order_id: object) -> None:
    with pytest.raises(OutcomeUnknown):
        parse.parse_fills(fills_page(order_id=order_id)[0])


@pytest.mark.parametrize("word", ["FILL", "", None])
def test_an_ordinary_fill_is_called_so_or_nothing(word: str | None) -> None:
    data, order_id = fills_page(trade_type=word)
    assert len(parse.parse_fills(data, order_id)[0]) == 2


def test_recorded_user_frames_give_orders_in_either_spelling() -> None:
    lines = recorded("ws/live_transcribed/user_channel_events_open_cancelled_2026-01-03.jsonl").read_text().splitlines()
    frames = [json.dumps({"channel": "user", "events": [json.loads(line)]}) for line in lines]
    opened, canceled = (parse.parse_user_frame(frame).orders[0] for frame in frames)
    assert (opened.status, canceled.status) == (OrderStatus.ACCEPTED, OrderStatus.CANCELED)
    assert (opened.limit_price, opened.quantity, opened.post_only) == (Decimal("0.00002"), Decimal(1), True)
    assert (opened.order_type, opened.time_in_force) == (OrderType.LIMIT, TimeInForce.GTC)
    assert (opened.stop_price, opened.reject_reason) == (None, "")
    assert canceled.quantity is None  # what is left of an ended order is zeroed by some answers and kept by others


def test_a_recorded_user_session_is_numbered_and_proves_its_subscription() -> None:
    lines = recorded("ws/live_transcribed/fastmm_user_endpoint_2026-09-30.jsonl").read_text().splitlines()
    assert [parse.parse_user_frame(line) for line in lines] == [(0, True, []), (1, True, []), (3, False, [])]


def test_an_acknowledgement_of_other_channels_proves_no_user_subscription() -> None:
    frame = {"channel": "subscriptions", "sequence_num": 0, "events": [{"subscriptions": {"heartbeats": ["h"]}}]}
    assert parse.parse_user_frame(json.dumps(frame)) == (0, False, [])


def test_a_kind_of_frame_that_we_do_not_know_mentions_no_orders() -> None:
    assert parse.parse_user_frame('{"channel":"news","sequence_num":7,"events":{"odd":1},"x":[]}') == (7, False, [])


def test_a_word_that_we_do_not_know_is_no_status() -> None:
    page = json.loads(recorded("rest/ccxt/list_orders_filled_market_ioc.json").read_text())
    page["orders"][0]["status"] = "UNKNOWN_ORDER_STATUS"
    order = parse.parse_orders(json.dumps(page).encode())[0][0]
    assert (order.status, order.status_word) == (None, "UNKNOWN_ORDER_STATUS")


def test_an_order_that_cannot_be_read_does_not_hide_ours_in_the_same_frame() -> None:
    ours = {"order_id": "v", "client_order_id": "c", "product_id": "BTC-USD", "order_side": "BUY", "status": "OPEN"}
    orders = [{**ours, "order_side": "NEITHER"}, {}, {**ours, "order_id": ""}, ours]
    frame = json.dumps({"channel": "user", "events": [{"type": "snapshot", "orders": orders}]})
    assert [order.client_order_id for order in parse.parse_user_frame(frame).orders] == ["c"]


def test_the_venues_error_frame_is_a_refusal() -> None:
    with pytest.raises(Rejected, match="authentication failure"):
        parse.parse_user_frame('{"type":"error","message":"authentication failure"}')


REST_ORDER = {"order_id": "v", "product_id": "BTC-USD", "side": "BUY", "status": "OPEN"}
TERMS = {"base_size": "2", "limit_price": "10", "stop_price": "9", "post_only": True, "new": {"x": 1}}


def rest_order(**fields: object) -> VenueOrder:
    return parse.parse_order(json.dumps({"order": {**REST_ORDER, **fields}}).encode())


@pytest.mark.parametrize(("kind", "key"), CONFIGURATIONS.items())
def test_an_order_is_read_by_its_configuration_with_fields_that_we_do_not_know(
    kind: tuple[OrderType, TimeInForce], key: str
) -> None:
    order = rest_order(order_configuration={key: TERMS}, order_type="UNKNOWN_ORDER_TYPE")
    assert (order.order_type, order.time_in_force) == kind
    assert (order.quantity, order.limit_price, order.stop_price) == (Decimal(2), Decimal(10), Decimal(9))
    assert order.post_only


def test_a_bracket_s_stop_has_another_name() -> None:
    order = rest_order(order_configuration={"trigger_bracket_gtc": {"stop_trigger_price": "8"}})
    assert order.stop_price == Decimal(8)


def test_a_configuration_that_we_do_not_know_still_tells_its_figures_and_the_words_beside_it_their_kind() -> None:
    terms = {"base_size": "2", "quote_size": None, "limit_price": ""}
    order = rest_order(order_configuration={"twap_limit_gtd": terms}, order_type="STOP_LIMIT", time_in_force="X")
    assert (order.order_type, order.time_in_force) == (OrderType.STOP_LIMIT, None)
    assert (order.quantity, order.quote_size, order.limit_price) == (Decimal(2), None, None)


@pytest.mark.parametrize(
    "odd", [None, {}, [], "x", 3, {"limit_limit_gtc": None}, {"a": {}, "b": {}}, {"a": {"base_size": []}}]
)
def test_an_order_of_somebody_else_with_odd_terms_does_not_hide_ours(odd: object) -> None:
    order = rest_order(order_configuration=odd, filled_value="", total_fees=None, created_time="", fee="")
    assert (order.quantity, order.filled_value, order.fees, order.created_at) == (None, None, None, None)


def test_figures_that_are_numbers_instead_of_text_stay_exact() -> None:
    body = b'{"order":{"order_id":"v","product_id":"P","side":"BUY","status":"OPEN",'
    body += b'"order_configuration":{"limit_limit_gtc":{"base_size":0.1,"limit_price":3}}}}'
    order = parse.parse_order(body)
    assert (order.quantity, order.limit_price) == (Decimal("0.1"), Decimal(3))


def test_a_quote_order_tells_what_is_to_be_spent() -> None:
    order = rest_order(order_configuration={"market_market_ioc": {"quote_size": "100"}}, filled_size="")
    assert (order.quote_size, order.quantity, order.filled_qty) == (Decimal(100), None, None)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("PENDING", OrderStatus.ACCEPTED),
        ("QUEUED", OrderStatus.ACCEPTED),
        ("EDIT_QUEUED", OrderStatus.ACCEPTED),
        ("CANCEL_QUEUED", OrderStatus.PENDING_CANCEL),
        ("FAILED", OrderStatus.REJECTED),
        ("EXPIRED", OrderStatus.EXPIRED),
        ("SOMETHING_NEW", None),
    ],
)
def test_the_venues_words_for_the_life_of_an_order(word: str, status: OrderStatus | None) -> None:
    order = rest_order(status=word)
    assert (order.status, order.status_word) == (status, word)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999999", "-1e-999999", "0x1", "one"])
def test_what_is_no_sane_number_is_no_answer(number: str) -> None:
    with pytest.raises(OutcomeUnknown, match="not a number"):
        rest_order(filled_size=number)


def test_a_fill_at_a_price_that_makes_no_base_size_is_no_answer() -> None:
    page = json.loads(recorded("rest/ccxt/list_fills_taker.json").read_text())
    page["fills"][0] |= {"size_in_quote": True, "size": "1e29", "price": "1e-29"}
    with pytest.raises(OutcomeUnknown, match="a fill worth"):
        parse.parse_fills(json.dumps(page).encode(), page["fills"][0]["order_id"])


def test_the_recorded_account_is_read_in_full() -> None:
    balances, cursor = parse_account.parse_accounts(recorded("rest/kmiq/list_accounts.json").read_bytes())
    assert (len(balances), bool(cursor)) == (49, True)
    tier = parse_account.parse_fee_tier(recorded("rest/kmiq/get_transactions_summary.json").read_bytes())
    assert (tier.taker_fee_rate, tier.maker_fee_rate) == (Decimal("0.006"), Decimal("0.004"))
    assert tier.total_volume == Decimal("16.711822509765625")  # a JSON number, not by way of a float
    newest = json.loads(recorded("rest/coinbase_net/GetFeeInfo2.json").read_text())["response"]
    assert parse_account.parse_fee_tier(json.dumps(newest).encode()).pricing_tier == "Intro 1"
    portfolio = parse_account.parse_portfolios(recorded("rest/kmiq/list_portfolios.json").read_bytes())[0]
    assert (portfolio.name, portfolio.type, portfolio.deleted) == ("Default", "DEFAULT", False)
    key = json.loads(recorded("rest/coinbase_net/GetApiKeyInfo.json").read_text())["response"]
    assert parse_account.parse_permissions(json.dumps(key).encode()).can_transfer
    time = parse.parse_time(recorded("rest/fastmm/time_2026-09-30.json").read_bytes())
    assert time.isoformat() == "2026-09-30T02:37:29.298000+00:00"


def test_two_wallets_of_a_currency_are_one_balance_and_a_vault_is_none() -> None:
    def wallet(kind: str) -> dict[str, object]:
        amounts = {"available_balance": {"value": "1"}, "hold": {"value": "0.5"}}
        return {"currency": "BTC", "type": kind, **amounts}

    kinds = ("ACCOUNT_TYPE_CRYPTO", "ACCOUNT_TYPE_CRYPTO", "ACCOUNT_TYPE_VAULT")
    balances, _ = parse_account.parse_accounts(json.dumps({"accounts": [wallet(kind) for kind in kinds]}).encode())
    assert balances == {"BTC": Balance(available=Decimal(2), hold=Decimal(1))}


def test_a_fee_tier_without_rates_is_not_one_of_zero() -> None:
    summary = {"total_volume": 0, "total_fees": 0, "fee_tier": {"taker_fee_rate": "", "maker_fee_rate": "0.1"}}
    with pytest.raises(OutcomeUnknown, match="without rates"):
        parse_account.parse_fee_tier(json.dumps(summary).encode())


PARSERS = (
    lambda data: answers.parse_created(data, ORDER),
    lambda data: answers.parse_edited(data, "v"),
    lambda data: answers.parse_cancelled(data, ["v"]),
    answers.parse_preview,
    parse.parse_order,
    parse.parse_orders,
    parse.parse_fills,
    parse_account.parse_accounts,
    parse_account.parse_fee_tier,
    parse_account.parse_permissions,
    parse_account.parse_portfolios,
    parse.parse_time,
    parse.parse_user_frame,
)


def refused(parser: Callable[[bytes], object], data: bytes) -> str | None:
    """The reason of a refusal, None for a payload that was read; anything else comes through."""
    try:
        parser(data)
    except PerpsError as refusal:
        return str(refusal)
    return None


RECORDED = sorted(DATA.glob("rest/*/*.json")) + sorted(DATA.glob("ws/*/*.json*"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_recorded_payload_is_read_or_refused_with_a_reason(path: Path) -> None:
    for data in (path.read_bytes(), *path.read_bytes().splitlines()[:50]):
        for parser in PARSERS:
            reasons = [refusal for refusal in [refused(parser, data)] if refusal is not None]
            assert all(reasons)


FIELDS = [
    *("success", "success_response", "error_response", "errors", "errs", "results", "order_id", "price", "size"),
    *("orders", "order", "order_configuration", "fills", "accounts", "fee_tier", "portfolios", "epochMillis"),
    *("channel", "sequence_num", "events", "subscriptions"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_make_a_decoder_fail_otherwise_than_by_our_errors(data: bytes) -> None:
    for parser in PARSERS:
        refused(parser, data)


def test_an_order_of_somebody_else_that_cannot_be_read_does_not_hide_the_others_of_its_page() -> None:
    page = json.loads(recorded("rest/ccxt/list_orders_filled_market_ioc.json").read_bytes())
    [good] = page["orders"]
    page["orders"] = [{**good, "side": "SIDEWAYS", "client_order_id": "by-hand"}, good]
    assert len(parse.parse_orders(json.dumps(page).encode())[0]) == 1
    counted: list[str] = []
    parse.parse_orders(json.dumps(page).encode(), counted.append)
    assert counted == ["odd_order"]


@pytest.mark.parametrize("key", [client_order_id("a signal"), "", None])
@pytest.mark.parametrize("odd", [{"side": "SIDEWAYS"}, {"order_id": ""}], ids=str)
def test_an_order_that_cannot_be_read_and_may_be_ours_is_no_listing(odd: dict[str, str], key: str | None) -> None:
    page = json.loads(recorded("rest/ccxt/list_orders_filled_market_ioc.json").read_bytes())
    [good] = page["orders"]
    page["orders"] = [{**good, **odd, "client_order_id": key}, good]
    with pytest.raises(OutcomeUnknown):
        parse.parse_orders(json.dumps(page).encode())


def test_an_order_without_an_id_is_no_answer() -> None:
    with pytest.raises(OutcomeUnknown, match="without an id"):
        rest_order(order_id="")


def test_edits_are_told_in_their_order_and_those_that_cannot_be_read_left_out() -> None:
    stamp = "2026-03-01T12:00:00Z"
    history = [
        {"price": "100", "size": "2", "replace_accept_timestamp": stamp},
        *({"price": "", "size": "1"}, {"price": "9"}, "odd", None),
        {"price": "101", "size": "1.5", "replace_accept_timestamp": stamp},
    ]
    edits = rest_order(edit_history=history).edits
    assert edits == ((Decimal(2), Decimal(100)), (Decimal("1.5"), Decimal(101)))
    odd: tuple[object, ...] = (None, [], "x", {"price": "1"}, 7)
    assert [rest_order(edit_history=history).edits for history in odd] == [()] * len(odd)
