"""The venue's outage of 2025-10-25: 5 h 45 min without a candle. Nothing trades on old data; trading resumes by itself.

Once through real processes, where market time leaps over the gap, and once in a core that is led through it second by
second, as it was live.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from libs.common import messages as m
from services.risk.config import MarkStaleness
from tests.cli.commands import short_folder
from tests.integration.market_replay import BTC, FILE, LAST_MOMENT, Tape, replaying, ticks_of
from tests.recorded import recorded
from tests.risk.builders import QUIET as SILENT
from tests.risk.builders import Desk, config, feed, mark, market

START = datetime(2025, 10, 25, 14, 30, tzinfo=UTC)
GAP_BEGINS = datetime(2025, 10, 25, 15, 15, tzinfo=UTC)
GAP_ENDS = datetime(2025, 10, 25, 21, 0, tzinfo=UTC)
END = datetime(2025, 10, 25, 21, 40, tzinfo=UTC)
RECOVER = timedelta(seconds=500)
PRICE_AGE = 600.0


@pytest.mark.integration
@pytest.mark.timeout(120)
async def test_nothing_is_traded_on_old_data_and_trading_goes_on_without_a_command() -> None:
    file = recorded(FILE)
    trades = {"PERPS_STRATEGY_NAME": "tests.integration.restless:Restless"}
    staleness = f"{{ warn = 10, reduce = 30, recover_seconds = {RECOVER.total_seconds():.0f} }}"
    with short_folder() as folder:
        async with replaying(folder, file, START, END, guards={"mark_staleness": staleness}, overrides=trades) as tape:
            market = [tick.at for tick in tape.market]
            assert not [at for at in market if GAP_BEGINS <= at < GAP_ENDS], "the recording has an outage"
            await tape.until(max(at for at in market if at < GAP_BEGINS))
            assert await entry(tape) == "approved"
            asked = []
            while tape.now < END - LAST_MOMENT:
                asked.append((await tape.step(), await entry(tape)))
            assert asked[0][0] == GAP_ENDS
            assert asked == [(at, "market_degraded" if at < GAP_ENDS + RECOVER else "approved") for at, _ in asked]
            assert await ledger_times(tape, GAP_BEGINS, GAP_ENDS) == []
            await the_strategy_was_stopped_and_went_on(tape)
            assert (await tape.trading()).who == "provisioner", "nobody has touched the trading state"


async def entry(tape: Tape) -> str:
    """Risk's reason for one more entry; the market does not fill it."""
    price = (tape.market_price * Decimal("0.995")).quantize(Decimal("0.01"))
    return (await tape.order(m.Side.BUY, "0.001", price)).data["reason"]


async def ledger_times(tape: Tape, first: datetime, last: datetime) -> list[m.Message]:
    """What the ledger tells of that time; a fill also by the venue's own time."""
    messages = [item.message for item in await tape.system.ledger()]
    times = [(msg, msg.trade_time if isinstance(msg, m.Fill) else msg.at) for msg in messages]
    return [msg for msg, at in times if first <= at < last or first <= msg.at < last]


async def the_strategy_was_stopped_and_went_on(tape: Tape) -> None:
    """Its entries are refused after the gap, then approved and filled; what it holds it may sell at once."""
    verdicts = [item.message for item in await tape.system.ledger() if isinstance(item.message, m.Verdict)]
    own = [verdict for verdict in verdicts if not verdict.operator and verdict.at >= GAP_ENDS]
    refused = [verdict for verdict in own if verdict.reason is m.Reason.MARKET_DEGRADED]
    entered = [verdict for verdict in own if verdict.order and verdict.order.side is m.Side.BUY]
    assert refused, "the strategy wanted to enter right after the gap"
    assert entered, "the strategy goes on by itself"
    assert max(verdict.at for verdict in refused) < GAP_ENDS + RECOVER <= min(verdict.at for verdict in entered)
    fills = await tape.system.fills()
    bought = {fill.client_order_id for fill in fills if fill.side is m.Side.BUY}
    assert all(verdict.order and verdict.order.client_order_id in bought for verdict in entered)


# -- one core, led through it as it was live


@pytest.mark.parametrize("kind", ["lost", "silent"])
def test_without_marks_nothing_opens_nor_closes_a_position_until_the_market_is_back(kind: str) -> None:
    """`lost`: the connection is gone; `silent`: it stands, and confirms nothing."""
    asked = list(outage(kind))
    before, gap, after = parts(asked)
    assert {(found.entry, found.exit) for found in before} == {("approved", "approved")}
    # A mark may be five seconds old: at the very beginning of the gap only the feed tells of it.
    assert gap[0][1:] == ("feed_not_live" if kind == "lost" else "approved", "approved")
    assert {(found.entry, found.exit) for found in gap[1:]} == {("mark_stale", "mark_stale")}
    assert len(gap) == (GAP_ENDS - GAP_BEGINS) / timedelta(minutes=1)
    for found in after:
        degraded = found.at < GAP_ENDS + RECOVER
        assert found[1:] == ("market_degraded" if degraded else "approved", "approved"), found.at


def test_a_price_that_is_confirmed_and_does_not_move_opens_no_position_and_closes_them_all_the_same() -> None:
    for found in outage("frozen"):
        stale = GAP_BEGINS + timedelta(seconds=PRICE_AGE) <= found.at < GAP_ENDS
        assert found[1:] == ("price_stale" if stale else "approved", "approved"), found.at


def parts(asked: list[Asked]) -> tuple[list[Asked], list[Asked], list[Asked]]:
    before = [found for found in asked if found.at < GAP_BEGINS]
    after = [found for found in asked if found.at >= GAP_ENDS]
    return before, asked[len(before) : len(asked) - len(after)], after


class Asked(NamedTuple):
    at: datetime
    entry: str
    exit: str


def outage(kind: str) -> Iterator[Asked]:
    """From moment to moment of that day the market confirms its price, or does not; every minute somebody wants to
    enter and somebody wants to leave."""
    ticks = ticks_of(recorded(FILE), START, END)
    steps = MarkStaleness(warn=Decimal(10), reduce=Decimal(30), recover_seconds=RECOVER.total_seconds())
    limits = config(
        guards=replace(SILENT, mark_staleness=steps), account_age_max_seconds=1e9, price_age_max_seconds=PRICE_AGE
    )
    desk = Desk(limits, START).open(prices={BTC: str(ticks[0].price)}).bought("0.1", str(ticks[0].price))
    for now in moments():
        tick = max((tick for tick in ticks if tick.at <= now), key=lambda tick: tick.at)
        live = not GAP_BEGINS <= now < GAP_ENDS
        if now == GAP_BEGINS and kind == "lost":
            desk.feed(feed(BTC, m.Feed.RECONNECTING), at=now)
        if now == GAP_ENDS and kind == "lost":
            desk.feed(feed(BTC, m.Feed.LIVE), at=now)
        if live or kind == "frozen":
            desk.feed(mark(BTC, str(tick.price), now, price_time=tick.at), at=now)
        desk.feed(m.Tick(id="tick", at=now), at=now)
        if now.second == 0 or GAP_ENDS <= now < GAP_ENDS + 2 * RECOVER:
            yield Asked(now, reason(desk, m.Side.BUY), reason(desk, m.Side.SELL))


def moments() -> Iterator[datetime]:
    """Every five seconds; deep in the gap, where nothing changes, every minute."""
    now, deep = START, timedelta(minutes=20)
    while now < END:
        yield now
        now += timedelta(seconds=60 if GAP_BEGINS + deep <= now < GAP_ENDS - deep else 5)


def reason(desk: Desk, side: m.Side) -> str:
    """Risk's answer to a signal of this moment; what it approves is over at once, and nothing came of it."""
    verdict = desk.ask(market(f"{side} {desk.now}", side, "0.01", at=desk.now))
    if verdict.order:
        desk.end(verdict, m.OrderStatus.CANCELED, 1)
    return verdict.reason
