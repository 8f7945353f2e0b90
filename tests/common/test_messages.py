from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from libs.common import messages as m
from libs.common.subjects import ROUTES, decode, subject_of, type_of
from tests.common.builders import fill, mark


def test_money_is_a_string_and_time_is_rfc_3339_with_z_on_the_wire() -> None:
    wire = msgspec.json.decode(msgspec.json.encode(mark("100.10")))
    assert wire["last"] == "100.10"
    assert wire["at"] == "2026-03-01T12:00:00.123456Z"


def test_an_unknown_field_is_ignored_and_a_new_one_has_a_default() -> None:
    wire = msgspec.json.decode(msgspec.json.encode(fill("f")))
    wire["invented_later"] = 1
    del wire["cause"]
    assert decode("perps.fill.BTC-USD.o1", msgspec.json.encode(wire)) == fill("f")


def test_every_subject_leads_back_to_its_type() -> None:
    assert subject_of(mark()) == "perps.mark.BTC-USD"
    assert subject_of(fill("f")) == "perps.fill.BTC-USD.o1"
    for route in ROUTES:
        assert type_of(route.wildcard.replace("*", "x")) is route.type
    for foreign in ("perps.nothing.x", "perps", "other.mark.x", "perps.mark", "perps.fill.BTC-USD"):
        assert type_of(foreign) is None


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[]", b"{}", b"\xff\xfe", b'{"id": 1}', b'"x"'])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode("perps.mark.BTC-USD", data)


@pytest.mark.parametrize(
    ("field", "value"), [("bid", "NaN"), ("ask", "Infinity"), ("last", "sNaN"), ("at", "2026-03-01T12:00:00")]
)
def test_a_number_that_is_none_and_a_time_without_a_zone_are_refused(field: str, value: str) -> None:
    wire = {**msgspec.json.decode(msgspec.json.encode(mark())), field: value}
    with pytest.raises(msgspec.DecodeError, match="number that is none"):
        decode("perps.mark.BTC-USD", msgspec.json.encode(wire))


def test_a_message_that_names_another_subject_than_it_came_on_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError, match="it came on"):
        decode("perps.mark.ETH-USD", msgspec.json.encode(mark(product_id="BTC-USD")))


def test_the_same_intent_has_the_same_id_and_another_intent_another() -> None:
    assert m.derive_id("a", 1, Decimal("1.0")) == m.derive_id("a", 1, Decimal("1.0"))
    assert m.derive_id("a", "bc") != m.derive_id("ab", "c")
    assert m.client_order_id("s") == m.client_order_id("s") != m.client_order_id("t")
    assert len(m.client_order_id("s")) == 36
