"""What `perps-bot status` shows of the services' own words."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from cli import status as cli_status
from cli.operator import age
from cli.status import Status, read_status, show
from libs.common import messages as m
from libs.common.bus import Entry
from libs.common.settings import Settings
from tests.cli.builders import PRODUCT, START, OperatorBus, figures, heartbeat, mark

NOW = START + timedelta(minutes=1)


CALM = {guard: m.GuardFigure(level=m.GuardLevel.OK, value=Decimal(0), halt=Decimal(1)) for guard in m.Guard}
ODD = {
    m.Guard.DRAWDOWN: m.GuardFigure(
        level=m.GuardLevel.REDUCE,
        value=Decimal("0.120"),
        warn=Decimal("0.05"),
        reduce=Decimal("0.1"),
        detail="[peak 1000]",
    ),
    m.Guard.VOLATILITY: m.GuardFigure(level=m.GuardLevel.UNKNOWN, value=None, halt=Decimal("5E+1")),
}
CLOSING = {PRODUCT: m.Closing(held=Decimal("0.50"), sold=Decimal(0), outcome="waiting", attempts=2, detail="[expired]")}


def trading(state: m.Trading, flatten: str = "", reason: str = "drill") -> Entry:
    stored = m.TradingState(id="t", state=state, reason=reason, who="ann", since=START, flatten=flatten)
    return Entry(msgspec.json.encode(stored), 3)


def told(seconds_ago: float = 1, **changes: object) -> m.RiskFigures:
    """Risk's figures with all guards calm."""
    known = figures({"USD": "949.4", "BTC": "0.5"})
    sent_at = NOW - timedelta(seconds=seconds_ago)
    return msgspec.structs.replace(known, **{"guards": CALM, "sent_at": sent_at, **changes})


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


async def shown(*values: m.Message, state: Entry | None = None) -> str:
    bus = OperatorBus()
    bus.values = list(values)
    bus.trading = state or trading(m.Trading.ACTIVE)
    return table(await read_status(bus, NOW))


async def test_guards_that_are_not_ok_are_named_with_their_figures() -> None:
    text = await shown(told(guards=CALM | ODD))
    assert "guards: 2 of 8 not ok" in text
    rows = [line.split() for line in text.splitlines() if line.strip().startswith(("drawdown", "volatility", "daily"))]
    assert rows == [
        ["drawdown", "reduce", "0.12", "0.05", "0.1", "-", "[peak", "1000]"],
        ["volatility", "unknown", "-", "-", "-", "50"],
    ]


async def test_guards_that_are_all_ok_take_one_line() -> None:
    text = await shown(told())
    assert "guards: all ok\n" in text
    assert "daily_loss" not in text


async def test_guards_that_nobody_tells_of_are_not_called_ok() -> None:
    assert "guards: not known" in await shown()
    assert "guards: not known" in await shown(told(guards={}))
    bus = OperatorBus()
    bus.values = [told(guards={})]
    found = await read_status(bus, NOW)
    assert (found.guards, found.degraded) == (None, None)


@pytest.mark.parametrize(("seconds", "line"), [(5, "guards: all ok"), (6, "(risk's figures are 6.0 s old): all ok")])
async def test_old_figures_of_the_guards_say_so(seconds: float, line: str) -> None:
    assert line in await shown(told(seconds))


async def test_degraded_products_are_named_with_the_reason() -> None:
    assert "BTC-USD takes no entries: the feed was lost [gap]" in await shown(
        told(degraded={PRODUCT: "the feed was lost [gap]"})
    )
    assert "takes no entries" not in await shown(told())


async def test_a_closing_in_force_is_shown_per_position() -> None:
    text = await shown(told(closing=CLOSING), state=trading(m.Trading.REDUCING, "f-1"))
    assert "all positions are being closed\n" in text
    (row,) = (line.split() for line in text.splitlines() if "waiting" in line)
    assert row == ["BTC-USD", "waiting", "0.5", "0", "2", "[expired]"]


async def test_a_closing_of_nothing_and_one_that_risk_has_not_told_of_are_told_apart() -> None:
    state = trading(m.Trading.HALTED, "f-1")
    assert "all positions are being closed: nothing is held" in await shown(told(closing={}), state=state)
    assert "closed: risk has not said how far it is" in await shown(told(closing=None), state=state)
    assert "closed: risk has not said how far it is" in await shown(state=state)


async def test_without_a_flatten_the_figures_of_the_last_one_are_not_shown() -> None:
    assert "closed" not in await shown(told(closing=CLOSING))
    bus = OperatorBus()
    bus.trading, bus.values = trading(m.Trading.ACTIVE), [told(closing=CLOSING)]
    assert (await read_status(bus, NOW)).closing is None


async def test_a_reason_in_brackets_is_shown_as_it_stands() -> None:
    assert "([drill], ann)" in await shown(state=trading(m.Trading.HALTED, reason="[drill]"))


async def test_as_json_it_tells_all_guards_and_why_trading_is_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bus = OperatorBus()
    bus.trading = trading(m.Trading.REDUCING, "f-1")
    bus.values = [told(guards=CALM | ODD, degraded={PRODUCT: "gap"}, closing=CLOSING)]

    @asynccontextmanager
    async def connected(settings: Settings) -> AsyncIterator[OperatorBus]:
        yield bus

    monkeypatch.setattr(cli_status, "connected", connected)
    assert await cli_status.status(Settings("dev", tmp_path, {}), as_json=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert [said[f"trading{part}"] for part in ("", "_reason", "_who")] == ["reducing", "drill", "ann"]
    assert (said["trading_since"], said["flatten"], said["degraded"]) == (
        "2025-10-01T00:00:00Z",
        True,
        {PRODUCT: "gap"},
    )
    assert set(said["guards"]) == set(m.Guard)
    assert said["guards"]["drawdown"] == {
        "level": "reduce",
        "value": "0.12",
        "warn": "0.05",
        "reduce": "0.1",
        "halt": None,
        "detail": "[peak 1000]",
    }
    assert said["closing"][PRODUCT] == {
        "outcome": "waiting",
        "held": "0.5",
        "sold": "0",
        "attempts": 2,
        "detail": "[expired]",
    }


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
