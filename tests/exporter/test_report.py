from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from libs.common import messages as m
from services.exporter.app import PAGE
from services.exporter.report import encode
from tests.exporter.builders import (
    BTC,
    ETH,
    PLAYBOOK_NAMES,
    RECOVERED,
    Rig,
    account,
    fill,
    full_story,
    mark,
    order,
    risk,
    status,
    trading,
)


def test_the_document_has_the_keys_of_the_playbook_s_file() -> None:
    document = Rig().feed(*full_story()).at(10).document()
    assert document["timestamp"] == "2025-03-01T12:00:10Z"
    assert document["profile"] == "dev"
    assert document["equity"] == 99874.5
    assert document["open_orders"] == 1
    assert document["uptime_seconds"] == 10
    assert document["order_stats"] == {"attempted": 2, "successful": 1, "failed": 0}
    assert {key: document["decisions"][BTC][key] for key in ("action", "reason")} == {
        "action": "buy",
        "reason": "crossed up",
    }
    position = document["positions"][0]
    assert len(document["positions"]) == 1
    assert {key: position[key] for key in ("symbol", "quantity", "side", "entry_price", "mark_price")} == {
        "symbol": BTC,
        "quantity": 0.5,
        "side": "long",
        "entry_price": 50000,
        "mark_price": 50000,
    }
    assert document["account_snapshot"]["balances"] == {"USD": {"available": 70000, "hold": 0}}


def test_the_document_has_the_playbook_s_figures_under_their_metric_names() -> None:
    rig = Rig().feed(*full_story()).at(10)
    samples = rig.scrape()
    assert rig.document()["metrics"] == {name: samples[name] for name in PLAYBOOK_NAMES}


def test_the_document_knows_nothing_before_anything_was_told() -> None:
    document = Rig().at(3).document()
    unknown = ("equity", "positions", "order_stats", "open_orders", "uptime_seconds")
    assert [document[key] for key in unknown] == [None] * len(unknown)
    assert set(document["metrics"].values()) == {None}
    assert [document[key] for key in ("trading", "risk", "orders", "fills")] == [None] * 4
    assert document["decisions"] == {}
    assert {service["up"] for service in document["services"]} == {False}


def test_no_position_is_a_list_and_not_unknown() -> None:
    assert Rig().feed(risk(1, positions={})).at(2).document()["positions"] == []


def test_old_risk_figures_are_kept_apart_and_marked() -> None:
    document = Rig().feed(risk(1)).at(45).document()
    assert document["equity"] is None
    assert document["positions"] is None
    assert document["metrics"]["perps_bot_risk_daily_loss"] is None
    assert (document["risk"]["stale"], document["risk"]["age_seconds"]) == (True, 44)
    assert document["risk"]["equity"] == 99874.5
    assert document["risk"]["positions"][0]["symbol"] == BTC


def test_an_old_mark_and_an_old_account_are_marked() -> None:
    rig = Rig().feed(mark(1), account(1))
    fresh, late = rig.at(11).document(), rig.at(902).document()
    assert (fresh["feed"][BTC]["stale"], late["feed"][BTC]["stale"]) == (False, True)
    assert (fresh["account_snapshot"]["stale"], late["account_snapshot"]["stale"]) == (False, True)
    assert late["feed"][ETH]["staleness_seconds"] is None


def test_the_account_is_told_in_all_its_parts() -> None:
    told = Rig().feed(account(1)).at(11).document()["account_snapshot"]
    assert (told["timestamp"], told["age_seconds"], told["stale"]) == ("2025-03-01T12:00:01Z", 10, False)
    assert told["fee_tier"]["pricing_tier"] == "Intro 1"
    assert (told["permissions"]["can_trade"], told["permissions"]["can_transfer"]) == (True, False)
    assert [portfolio["name"] for portfolio in told["portfolios"]] == ["Default"]
    assert (told["opening"], told["settled"]) == ({"USD": 100000}, True)
    assert (
        told["foreign_orders"][0] | {"limit_price": 4100.5, "client_order_id": "by hand"} == told["foreign_orders"][0]
    )
    assert (told["foreign_fills"], told["reconciled_at"]) == (2, "2025-03-01T12:00:00Z")
    assert (told["limits"], told["unavailable"]) == (None, {"limits": "HTTP 503"})


def test_before_the_first_snapshot_every_part_of_the_account_is_null_and_says_why() -> None:
    told = Rig().at(3).document()["account_snapshot"]
    parts = ("balances", "fee_tier", "permissions", "portfolios", "limits", "foreign_orders")
    assert told["unavailable"] == dict.fromkeys(parts, "no account snapshot yet")
    others = {name: value for name, value in told.items() if name not in ("unavailable", "stale")}
    assert set(others.values()) == {None}


def test_a_part_that_was_never_read_is_unavailable_although_nothing_failed() -> None:
    rig = Rig().feed(account(1, foreign_orders=None, unavailable={"server_time": "timeout"}))
    assert rig.document()["account_snapshot"]["unavailable"] == {
        "limits": "not read yet",
        "foreign_orders": "not read yet",
        "server_time": "timeout",
    }


@pytest.mark.parametrize(
    ("loss", "limit", "used"),
    [("80", "100", 0.8), ("-5", "100", 0), ("0", "0", 1), ("-1", "0", 0), (None, "100", None)],
)
def test_the_used_share_of_the_daily_loss_limit(loss: str | None, limit: str, used: float | None) -> None:
    figures = risk(1, daily_loss=loss and Decimal(loss), daily_loss_limit=Decimal(limit))
    assert Rig().feed(figures).at(2).document()["risk"]["daily_loss_used"] == used


def test_amounts_leave_digit_by_digit() -> None:
    assert encode({"size": Decimal("0.10000000000000000001")}) == b'{"size":0.10000000000000000001}'


def test_the_bot_has_been_up_since_the_last_of_its_services_started() -> None:
    beats = [status(name, 9) for name in ("marketdata", "strategy", "risk", "execution")]
    rig = Rig().feed(*beats).at(10)
    assert rig.document()["uptime_seconds"] == 10
    rig.feed(status("risk", 9.5, started_at=mark(8).at))
    assert rig.document()["uptime_seconds"] == 2
    assert rig.at(14.2).document()["uptime_seconds"] is None  # three of them have fallen silent


def test_the_last_fills_come_newest_first() -> None:
    rig = Rig().feed(RECOVERED, *(fill(f"f{n}", n, price=str(n + 1)) for n in range(30)))
    assert [entry["price"] for entry in rig.document()["fills"]] == list(range(30, 10, -1))


def test_an_open_order_is_shown_with_its_status() -> None:
    rig = Rig().feed(RECOVERED, order("a", 1, m.OrderStatus.SUBMITTING, 1), order("a", 2, m.OrderStatus.UNKNOWN, 2))
    document = rig.at(5).document()["orders"]
    assert [(entry["status"], entry["quantity"]) for entry in document["open"]] == [("UNKNOWN", 0.5)]
    assert (document["unknown"], document["oldest_unknown_age_seconds"]) == (1, 3)


def test_the_trading_state_says_who_and_why() -> None:
    shown = Rig().feed(trading(1, m.Trading.HALTED, "f-1")).document()["trading"]
    assert shown == {
        "state": "halted",
        "reason": "start",
        "who": "operator",
        "since": "2025-03-01T12:00:01Z",
        "revision": 1,
        "flatten": "f-1",
    }


def test_the_guards_are_told_with_their_values_and_steps() -> None:
    guards = Rig().feed(risk(1)).at(2).document()["risk"]["guards"]
    assert guards["drawdown"] == {
        "level": "reduce",
        "value": 0.12,
        "warn": 0.05,
        "reduce": 0.1,
        "halt": 0.2,
        "detail": "",
    }
    assert (guards["volatility"]["level"], guards["volatility"]["value"]) == ("unknown", None)
    assert guards["volatility"]["detail"] == "too few prices"


def test_degraded_products_and_the_bases_of_the_guards_are_told() -> None:
    told = Rig().feed(risk(1)).at(2).document()["risk"]
    assert told["degraded"] == {ETH: "gap"}
    assert (told["equity_day_start"], told["equity_peak"]) == (100000, 100250.5)


def test_a_closing_is_told_per_position_and_is_empty_without_a_flatten() -> None:
    closing = Rig().feed(risk(1)).at(2).document()["risk"]["closing"]
    assert closing[BTC] == {"held": 0.5, "sold": 0.25, "outcome": "waiting", "attempts": 2, "detail": "expired"}
    assert Rig().feed(risk(1, closing=None)).at(2).document()["risk"]["closing"] == {}


def test_what_a_risk_of_before_the_guards_does_not_tell_is_null_or_empty() -> None:
    bare = risk(1, guards={}, degraded={}, closing=None, equity_day_start=None, equity_peak=None)
    told = Rig().feed(bare).at(2).document()["risk"]
    assert (told["guards"], told["degraded"]) == ({}, None)
    assert (told["equity_day_start"], told["equity_peak"]) == (None, None)


# -- the page reads what the document has


def page() -> str:
    return PAGE.read_text("utf-8")


def resolve(document: Any, path: str) -> None:
    """Raises KeyError where the document has no such key; a null on the way is fine."""
    for name in path.split("."):
        if document is None:
            return
        document = document[name]


def patterns() -> list[tuple[str, str]]:
    """(rows, markup of one row) of every table body."""
    return re.findall(r'data-rows="([^"]+)"[^>]*>(.*?)</tbody>', page(), re.S)


def rows_of(document: Any, path: str) -> list[dict[str, Any]]:
    for name in path.split("."):
        document = document[name]
    return document if isinstance(document, list) else [{**row, "_key": key} for key, row in document.items()]


def test_every_field_of_the_page_is_in_the_document() -> None:
    document = Rig().feed(*full_story()).at(10).document()
    outside = re.sub(r"<tbody.*?</tbody>", "", page(), flags=re.S)
    paths = re.findall(r'data-(?:field|stale)="([^"]+)"', outside) + re.findall(r'at\(doc, "([^"]+)"\)', outside)
    assert len(paths) > 30
    for path in paths:
        resolve(document, path)


def test_every_field_of_the_page_s_tables_is_in_the_document() -> None:
    document = Rig().feed(*full_story()).at(10).document()
    assert len(patterns()) == 9
    for where, markup in patterns():
        rows = rows_of(document, where)
        assert rows, f"the story leaves {where} empty"
        names = re.findall(r'data-(?:field|stale)="([^"]+)"', markup)
        assert names
        assert [name for name in names if name not in rows[0]] == []
    assert re.findall(r'at\(row, "([^"]+)"\)', page()) == ["not_ready_reason"]
    assert "not_ready_reason" in document["services"][0]


def test_every_way_of_writing_a_figure_is_known_to_the_page() -> None:
    known = set(re.findall(r"^  (\w+): (?:value|\(value)", page(), re.M))
    assert set(re.findall(r'data-as="(\w+)"', page())) <= known


def test_the_page_needs_nothing_from_elsewhere() -> None:
    assert re.findall(r"https?://|//cdn|@import|src=", page()) == []
    assert "innerHTML" not in page()


def test_the_document_is_valid_json_for_any_reader() -> None:
    document = Rig().feed(*full_story()).at(10)
    assert isinstance(msgspec.json.decode(document.exporter.document()), dict)
