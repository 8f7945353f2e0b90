"""A crash, and what the bus tells twice, change nothing that comes later."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from libs.common import messages as m
from libs.common.messages import Guard
from tests.risk.builders import D, Desk
from tests.risk.play import ANYTHING, ASKED, OPERATED, PASSED, TRADED, Play, Step, played, steps
from tests.risk.test_properties import LIMITS, RICH
from tests.risk.test_properties_books import FREE, OPENING, compare
from tests.risk.test_properties_trading import FEW, watched

# What only marks tell, and the ledger holds none: how prices moved, which feed or mark was lost and for how long, the
# highest equity since midnight. The account is not in the ledger either, and is read again.
MARKED = (Guard.VOLATILITY, Guard.DRAWDOWN)
REBASED = (Guard.ORDER_ERRORS, Guard.REJECTIONS)
UNBROKEN = ASKED * 2 + TRADED * 2 + PASSED + OPERATED + ("mark", "elsewhere")
Seen = Callable[[list[m.Message]], list[m.Message]]


def decisions(found: list[m.Message]) -> list[m.Message]:
    return [a for a in found if isinstance(a, m.Verdict | m.TradingState | m.Audit | m.Adjustment | m.Baseline)]


def unmeasured(found: list[m.Message]) -> list[m.Message]:
    """The same, without the highest equity since midnight."""
    plain = [msgspec.structs.replace(a, peak_equity=None) if isinstance(a, m.Baseline) else a for a in found]
    return decisions(plain)


def alike(
    taken: list[Step], plain: Play, other: Play, at: int, crash: Callable[[], object], seen: Seen = decisions
) -> None:
    """The same steps for both, and a crash of the other; every decision is the same."""
    for number, step in enumerate(taken):
        if number == at:
            crash()
        assert seen(plain.step(step)) == seen(other.step(step)), step


@played()
@given(steps(*ANYTHING), st.integers(0, 40), st.integers(0, 9), st.booleans())
def test_a_restart_at_any_point_changes_no_later_decision(taken: list[Step], at: int, again: int, guards: bool) -> None:
    """With its snapshot, and the last facts told again. Only the time until a product has recovered begins anew."""
    limits = watched() if guards else LIMITS
    plain, restarted = (Play(Desk(limits).open(opening=FEW), moving=True).begin() for _ in range(2))

    def crash() -> None:
        plain.tell(m.Recovered(id="recovered", at=plain.desk.now))
        restarted.crash(again)

    alike(taken, plain, restarted, at, crash)
    assert plain.desk.figures == restarted.desk.figures
    assert plain.desk.core.open_orders == restarted.desk.core.open_orders
    assert plain.desk.core.dump() == restarted.desk.core.dump()


@played()
@given(steps(*UNBROKEN), st.integers(0, 40))
def test_a_rebuild_from_the_ledger_changes_no_later_decision(taken: list[Step], at: int) -> None:
    """Where no feed and no mark was lost shortly before, and no guard looks at how the prices moved."""
    plain, rebuilt = (Play(Desk(LIMITS).open(opening=FEW), moving=True).begin() for _ in range(2))

    def crash() -> None:
        for play in (plain, rebuilt):
            for sent in [o for o in play.open() if o.late]:
                play.book(sent, sent.late)
            play.poll(settled=True)
            play.settle()
        rebuilt.restart(None, 0)

    alike(taken, plain, rebuilt, at, crash, unmeasured)
    assert unmarked(plain.desk.figures) == unmarked(rebuilt.desk.figures)
    assert plain.desk.core.open_orders == rebuilt.desk.core.open_orders


def unmarked(figures: m.RiskFigures) -> m.RiskFigures:
    """Without what rests on marks alone, and what counts from a resume: of that see below."""
    guards = {guard: figure for guard, figure in figures.guards.items() if guard not in MARKED + REBASED}
    return msgspec.structs.replace(figures, guards=guards, equity_peak=None)


@played()
@given(steps(*UNBROKEN, "feed", "silence", "night"))
def test_the_ledger_alone_gives_the_same_figures_as_a_life_without_a_restart(taken: list[Step]) -> None:
    """All but what rests on marks between two baselines, and the comparison with an account that is not there yet."""
    play = Play(Desk(LIMITS).open(opening=OPENING), moving=True)
    for step in taken:
        play.step(step)
    before, after = rebuilt(play)
    assert without_account(after) == without_account(before)


def rebuilt(play: Play) -> tuple[m.RiskFigures, m.RiskFigures]:
    """The figures before and after."""
    before, open_orders = play.desk.figures, play.desk.core.open_orders
    play.restart(None, 0)
    play.settle()
    assert play.desk.core.open_orders == open_orders
    return before, play.desk.figures


def without_account(figures: m.RiskFigures) -> m.RiskFigures:
    plain = unmarked(figures)
    guards = {guard: figure for guard, figure in plain.guards.items() if guard is not Guard.POSITION_DRIFT}
    return msgspec.structs.replace(plain, guards=guards, drift=None, degraded={})


@played()
@given(steps(*ANYTHING, "night", "adjust", "trade", "mark", "rebuild"))
@example([("adjust", 0, 16), ("mark", 0, 30), ("night", 0, 40), ("mark", 0, 10), ("rebuild", 0, 1)])
def test_rebuilt_figures_are_those_of_a_computation_by_hand(taken: list[Step]) -> None:
    play = Play(Desk(FREE).open(opening=OPENING, fee="0.006"), moving=True, fee="0.006")
    for step in taken:
        play.step(step)
        compare(play)


@played()
@given(steps(*UNBROKEN, "command", "status", "status"))
@example([("buy", 0, 1), ("status", 0, 1), ("command", 0, 1), ("command", 1, 1), ("status", 1, 1)])
@example([("buy", 0, 1), ("command", 0, 1), ("command", 1, 1), ("end", 2, 1)])
def test_what_was_counted_since_a_resume_outlives_a_rebuild(taken: list[Step]) -> None:
    play = Play(Desk(LIMITS).open(opening=OPENING), moving=True)
    for step in taken:
        play.step(step)
    before, after = rebuilt(play)
    assert {guard: after.guards[guard] for guard in REBASED} == {guard: before.guards[guard] for guard in REBASED}
    [*_, day] = [fact for fact in play.desk.ledger if isinstance(fact, m.Baseline)]
    if day.peak_equity is not None and (play.stored.resumed_at or day.midnight) <= day.midnight:
        assert after.equity_peak is not None
        paid = [f for f in play.desk.ledger if isinstance(f, m.Adjustment) and f.at > day.midnight]
        assert after.equity_peak >= day.peak_equity + sum((f.flows.get("USD", D(0)) for f in paid), D(0))


@played()
@given(steps("buy", "order", "fill", "fill", "end", "pass", "night", "night", "mark", "mark", "restart"))
@example([("order", 0, 1), ("fill", 0, 40), ("night", 0, 17), ("mark", 9, 40), ("mark", 0, 10)])
def test_what_is_told_after_midnight_gives_a_rebuild_the_same_daily_loss(taken: list[Step]) -> None:
    """Of products that were held at midnight: the price of another is not written down."""
    play = Play(Desk(FREE).open(opening=OPENING), moving=True, late=True).begin()
    for step in taken:
        play.step(step)
    before, after = rebuilt(play)
    assert (after.daily_loss, after.equity_day_start) == (before.daily_loss, before.equity_day_start)


@played()
@given(steps(*ANYTHING), st.booleans())
def test_messages_that_come_twice_change_nothing(taken: list[Step], guards: bool) -> None:
    """Each is told again at once, and some later; the state in the end is that of a life in which none was."""
    limits = watched() if guards else LIMITS
    plain, doubled = (Play(Desk(limits).open(opening=RICH), moving=True).begin() for _ in range(2))
    tell_once = doubled.tell_again

    def tell_twice(message: m.Message) -> list[m.Message]:
        found = tell_once(message)
        if not isinstance(message, m.Tick | m.Recovered):
            again = tell_once(message)
            assert [a for a in decisions(again) if not isinstance(a, m.Audit)] == [], message
        return found

    doubled.tell_again = tell_twice  # type: ignore[method-assign]
    for step in taken:
        one, two = decisions(plain.step(step)), decisions(doubled.step(step))
        assert one == two, step
    assert plain.desk.core.dump() == doubled.desk.core.dump()
