"""Guards that reduce or halt, and what a resume makes of them."""

from __future__ import annotations

import msgspec
import pytest

from libs.common import messages as m
from libs.common.messages import Reason, Trading
from services.risk.config import RiskConfig, Steps
from services.risk.trading import Action
from tests.risk.builders import (
    NOON,
    SECOND,
    D,
    Desk,
    account,
    guarded,
    mark,
    signal,
    tick,
    trading,
)

SELL = m.Side.SELL
STEPS = guarded(
    rejections=Steps(reduce=D(2), halt=D(4)),
    concentration=Steps(reduce=D("0.3"), halt=D("0.6")),
)
FEW = {"USD": D(1000), "BTC": D(0), "ETH": D(0)}


def poor(price: str = "100", limits: RiskConfig = STEPS) -> Desk:
    """With 1,000 and two bought at 100."""
    desk = Desk(msgspec.structs.replace(limits, daily_loss_limit=D(10_000))).open(opening=FEW)
    desk.bought("2").feed(mark(price=price))
    return desk


def test_a_guard_that_reduces_lets_exits_pass_and_stays_when_its_figure_is_fine_again() -> None:
    desk = poor()
    desk.bought("1", "150").feed(mark(price="150"))  # 450 of 1100
    [state] = desk.storing
    assert (state.state, state.reason, state.who) == (Trading.REDUCING, "concentration", "risk")
    desk.store()
    assert desk.ask(signal("entry", limit_price=D(150))).reason is Reason.TRADING_REDUCING
    desk.approve(signal("exit", SELL, limit_price=D(150)))
    desk.feed(mark(price="50"))
    desk.later(3600)
    assert (desk.storing, desk.trading()) == ([], Trading.REDUCING)
    assert desk.tell(Action.RESUME).ok
    assert desk.trading() is Trading.ACTIVE


def test_a_guard_goes_on_from_reducing_to_the_halt() -> None:
    desk = poor()
    desk.feed(mark(price="300"))  # 600 of 1400
    desk.store()
    desk.feed(mark(price="700"))
    assert [state.state for state in desk.storing] == [Trading.HALTED]


def test_a_resume_is_refused_while_a_guard_would_reduce_again() -> None:
    desk = poor("300")
    desk.store()
    audit = desk.tell(Action.RESUME)
    assert not audit.ok
    assert audit.result.startswith("concentration: ")
    assert desk.trading() is Trading.REDUCING


def test_out_of_a_halt_a_resume_leads_no_further_than_a_guard_that_reduces() -> None:
    desk = poor("300")
    desk.store()
    desk.tell(Action.HALT)
    assert desk.tell(Action.RESUME, "enough", "resume").ok
    current = desk.core.switch.current
    assert current is not None
    assert (current.state, current.reason, current.who) == (Trading.REDUCING, "concentration", "risk")
    assert not desk.tell(Action.RESUME, name="further").ok


def test_a_drawdown_is_measured_anew_after_a_resume() -> None:
    desk = poor("40", guarded(drawdown=Steps(reduce=D("0.1"), halt=D("0.2"))))  # 880 of 1000
    desk.store()
    assert desk.trading() is Trading.REDUCING
    assert desk.tell(Action.RESUME).ok
    assert (desk.trading(), desk.figures.equity_peak) == (Trading.ACTIVE, D(880))
    desk.feed(mark(price="30"), tick())
    assert desk.storing == []
    assert desk.restart().figures.equity_peak == 880


@pytest.mark.parametrize("snapshot", [True, False])
def test_rejections_before_a_resume_count_no_more_also_over_a_restart(snapshot: bool) -> None:
    desk = Desk(STEPS).open()
    for n in range(2):
        desk.end(desk.approve(signal(f"s{n}")), m.OrderStatus.REJECTED, 1)
    assert [state.reason for state in desk.storing] == ["rejections"]
    desk.store()
    assert desk.tell(Action.RESUME).ok
    desk.restart(snapshot=snapshot).feed(account(at=NOON + SECOND))
    assert (desk.storing, desk.trading()) == ([], Trading.ACTIVE)
    desk.end(desk.approve(signal("one more")), m.OrderStatus.REJECTED, 1)
    assert desk.storing == []


def test_an_older_state_that_is_told_late_measures_nothing_anew() -> None:
    desk = Desk(STEPS).open()
    desk.tell(Action.REDUCE_ONLY)
    desk.tell(Action.RESUME, name="resume")
    desk.end(desk.approve(signal("s0")), m.OrderStatus.REJECTED, 1)
    desk.feed(trading(Trading.ACTIVE, 2, resumed_at=NOON - SECOND))
    desk.end(desk.approve(signal("s1")), m.OrderStatus.REJECTED, 1)
    assert [state.reason for state in desk.storing] == ["rejections"]


def test_reducing_by_a_drift_becomes_that_of_another_guard_when_the_drift_is_gone() -> None:
    desk = poor("100")
    desk.feed(account({**FEW, "USD": D(799), "BTC": D(2)}, NOON + SECOND))
    desk.store()
    desk.feed(mark(price="300"))
    desk.feed(account({**FEW, "USD": D(800), "BTC": D(2)}, NOON + 2 * SECOND))
    [state] = desk.storing
    assert (state.state, state.reason) == (Trading.REDUCING, "concentration")
    desk.store()
    desk.feed(mark(price="100"), tick())
    assert (desk.storing, desk.trading()) == ([], Trading.REDUCING)
