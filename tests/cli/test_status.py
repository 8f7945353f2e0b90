"""What `perps-bot status` shows of the services' own words."""

from __future__ import annotations

import io
from datetime import timedelta

import msgspec
import pytest
from rich.console import Console

from cli.operator import age
from cli.status import Status, read_status, show
from libs.common import messages as m
from libs.common.bus import Entry
from tests.cli.builders import START, OperatorBus, figures, heartbeat, mark

NOW = START + timedelta(minutes=1)


def trading(state: m.Trading) -> Entry:
    stored = m.TradingState(id="t", state=state, reason="drill", who="ann", since=START)
    return Entry(msgspec.json.encode(stored), 3)


def table(found: Status) -> str:
    console = Console(file=io.StringIO(), width=160)
    show(found, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def bus() -> OperatorBus:
    bus = OperatorBus()
    bus.trading = trading(m.Trading.REDUCING)
    bus.values = [
        heartbeat("marketdata", NOW - timedelta(seconds=1)),
        heartbeat("strategy", NOW - timedelta(seconds=1), "BTC-USD warming up 3/13"),
        heartbeat("risk", NOW - timedelta(seconds=9)),
        mark(NOW - timedelta(seconds=2)),
        figures({"USD": "949.4", "BTC": "0.5"}),
    ]
    return bus


async def test_a_service_is_up_as_long_as_it_tells_of_itself(bus: OperatorBus) -> None:
    lines = {line.service: line for line in (await read_status(bus, NOW)).services}
    assert list(lines) == ["marketdata", "strategy", "risk", "execution", "exporter"]
    assert (lines["marketdata"].up, lines["marketdata"].ready, lines["marketdata"].restarts) == (True, True, 2)
    assert (lines["strategy"].up, lines["strategy"].ready) == (True, False)
    assert lines["strategy"].reason == "BTC-USD warming up 3/13"
    assert (lines["risk"].up, lines["risk"].reason) == (False, "silent for 9.0 s")
    assert (lines["exporter"].up, lines["exporter"].reason) == (False, "has not said anything")


async def test_ages_are_counted_from_now_and_what_never_was_has_none(bus: OperatorBus) -> None:
    found = await read_status(bus, NOW)
    assert found.services[0].last_input_seconds == 1.0
    assert found.services[0].last_venue_seconds is None
    assert [(price.product, price.last_mark_seconds) for price in found.marks] == [("BTC-USD", 2.0)]


async def test_the_table_names_states_reasons_and_money(bus: OperatorBus) -> None:
    text = table(await read_status(bus, NOW))
    assert "no: BTC-USD warming up 3/13" in text
    assert "no: silent for 9.0 s" in text
    assert "trading is reducing since 2025-10-01 00:00:00Z (drill, ann)" in text
    assert "equity 999.40, holding 0.5 BTC-USD; daily loss 0.60 of 500.00" in text
    assert "BTC-USD: 100, last mark 2.0 s ago" in text


async def test_a_lost_trading_state_shows_as_halted_and_unknown_money_as_a_dash() -> None:
    text = table(await read_status(OperatorBus(), NOW))
    assert "trading is halted" in text
    assert "equity -, holding nothing; daily loss - of -" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (-1, "0.0 s"), (0.26, "0.3 s"), (119, "119.0 s"), (180, "3 min"), (7200, "2 h"), (200000, "2 d")],
)
def test_ages_are_short(seconds: float | None, text: str) -> None:
    assert age(seconds) == text
