"""The same recording through the real processes and through the backtest: the same signals, verdicts and fills.

A replay through the processes stamps what it hears up to a microsecond late (a frame's number stands in the last three
digits of its time), so times may differ by that much; the venue's own times are equal. And its processes run side by
side: a signal that a candle made, and the mark of the tick that closed the candle, may reach risk in either order, so
the words of a verdict may tell the mid before or after that tick. What risk decided is equal, rule by rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import pytest

from cli.feeder import Feeder
from cli.journal import Journal
from libs.common import messages as m
from libs.common.settings import Settings
from libs.common.subjects import INSTALLATION_KEY, STATE_BUCKET
from sim.backtest.engine import run
from tests.cli.commands import short_folder
from tests.integration.stack import running_system
from tests.recorded import recorded

pytestmark = pytest.mark.integration

BTC = "BTC-USD"
FILE = "candles/BTC-USD_5m_2025-07-01_2026-01-08.csv.gz"
UNEQUAL = ("id", "at", "cause", "expires_at", "sent_at", "producer")
LATE = timedelta(microseconds=1)


class Period(NamedTuple):
    """What is replayed, and what is different from the dev profile."""

    start: datetime
    end: datetime
    overrides: dict[str, str]
    fills: int  # at least


CRASH = Period(datetime(2025, 10, 10, tzinfo=UTC), datetime(2025, 10, 11, tzinfo=UTC), {}, 20)
# A limit that the fees of one trade reach: everything after it is refused.
HALTED = Period(
    datetime(2025, 12, 1, tzinfo=UTC),
    datetime(2025, 12, 1, 12, tzinfo=UTC),
    {"PERPS_RISK_DAILY_LOSS_LIMIT": "5", "PERPS_STRATEGY_ENTRY_NOTIONAL": "250"},
    2,
)


class Told(NamedTuple):
    """What was said, in its order; signals once each."""

    signals: list[m.Signal]
    ledger: list[m.Message]

    def of(self, kind: type[m.Message]) -> list[m.Message]:
        return [message for message in self.ledger if isinstance(message, kind)]


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


async def by_processes(folder: Path, file: Path, period: Period) -> tuple[Told, Settings, str]:
    """With the settings and the installation, from which the ids follow."""
    overrides = {
        "PERPS_MARKET_REPLAY": "true",
        "PERPS_MARKET_PRODUCTS": BTC,
        "PERPS_MARKET_GRANULARITY": "5m",
        "PERPS_SIM_REPLAY": str(file),
        "PERPS_SIM_FROM": period.start.isoformat(),
        "PERPS_SIM_TO": period.end.isoformat(),
        "PERPS_SIM_PRODUCT": BTC,
        "PERPS_SIM_PRODUCTS": BTC,
        **period.overrides,
    }
    signals: dict[str, m.Signal] = {}

    def hear(message: m.Message) -> None:
        assert isinstance(message, m.Signal)
        signals.setdefault(message.id, message)

    async with running_system(folder, overrides) as system:
        journal = Journal(system.bus)
        await journal.follow(m.Signal, m.Decision)
        await system.bus.subscribe(m.Signal, hear)
        entry = await system.bus.load(STATE_BUCKET, INSTALLATION_KEY)
        assert entry is not None
        async with httpx.AsyncClient(base_url=f"http://{system.settings.sim_url}", timeout=10) as venue:
            await Feeder(journal, system.bus, venue, 0).run(lambda step: None)
        ledger = [item.message for item in await system.ledger()]
        made = msgspec.json.decode(entry.value, type=m.Installation)
        return Told(list(signals.values()), ledger), system.settings, made.id


def by_backtest(settings: Settings, file: Path, period: Period, installation: str) -> Told:
    ledger: list[m.Message] = []
    result = run(settings, [file], start=period.start, end=period.end, installation=installation, ledger=ledger.append)
    return Told(result.signals, ledger)


def timeless(message: m.Message) -> dict[str, object]:
    """Without what follows from a microsecond or the order of arrival (times, figures among the words of a verdict, ids
    of marks and verdicts), from which of the venue's two answers to an order came first, and from the bus."""
    left = {name: getattr(message, name) for name in message.__struct_fields__ if name not in UNEQUAL}
    match message:
        case m.Verdict():
            checks = [(check.rule, check.reason, check.outcome) for check in message.checks]
            return left | {"detail": "", "checks": checks}
        case m.OrderEvent(reason="found"):  # told by the user channel before the answer to the request was there
            return left | {"reason": "accepted"}
        case m.Fill():
            return left | {"entry": message.id}
    return left


def assert_same(real: Sequence[m.Message], tested: Sequence[m.Message]) -> None:
    assert len(tested) == len(real)
    for there, here in zip(real, tested, strict=True):
        assert timeless(here) == timeless(there)
        assert abs(there.at - here.at) <= LATE


@pytest.mark.parametrize("period", [CRASH, HALTED], ids=["a day with a crash", "a halt by the daily loss"])
async def test_processes_and_backtest_make_the_same_signals_verdicts_and_fills(folder: Path, period: Period) -> None:
    file = recorded(FILE)
    real, settings, installation = await by_processes(folder, file, period)
    tested = by_backtest(settings, file, period, installation)
    assert [signal.id for signal in tested.signals] == [signal.id for signal in real.signals]
    assert_same(real.signals, tested.signals)
    for kind in (m.Verdict, m.OrderEvent, m.Fill):
        assert_same(real.of(kind), tested.of(kind))
    assert len(real.of(m.Fill)) >= period.fills
