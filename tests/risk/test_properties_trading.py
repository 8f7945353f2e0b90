"""The switch under any interleaving: what may be approved in which state, how a state ends, how a closing ends."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import example, given
from hypothesis import strategies as st

from libs.common import messages as m
from libs.common.messages import OrderStatus, Side, Trading
from services.risk import trading as t
from services.risk.config import (
    HaltPositions,
    MarkStaleness,
    OrderErrors,
    PositionDrift,
    RiskConfig,
    Steps,
    Volatility,
)
from tests.risk.builders import BTC, PRODUCTS, SECOND, D, Desk, command, config, guarded, mark, product, tick
from tests.risk.counterparty import ZERO, Sent
from tests.risk.play import ANYTHING, OPERATED, Play, Step, played, steps
from tests.risk.test_properties import LIMITS

FEW = {"USD": D(1000), "BTC": D(5), "ETH": D(0)}
STRICTNESS = (Trading.ACTIVE, Trading.REDUCING, Trading.HALTED)


def watched(halt_positions: HaltPositions = HaltPositions.KEEP) -> RiskConfig:
    """Every guard has steps that a play reaches."""
    guards = guarded(
        drawdown=Steps(reduce=D("0.02"), halt=D("0.04")),
        volatility=Volatility(sample_seconds=10, window=10, reduce=D(400), halt=D(900)),
        mark_staleness=MarkStaleness(warn=D(8), reduce=D(12), halt=D(36), recover_seconds=10),
        concentration=Steps(warn=D("0.2"), reduce=D("0.3"), halt=D("0.45")),
        order_errors=OrderErrors(window_seconds=300, reduce=D(2), halt=D(4)),
        rejections=Steps(reduce=D(2), halt=D(3)),
        position_drift=PositionDrift(halt=D(60)),
    ).guards
    return config(
        order_notional_max=D(300),
        position_notional_max=D(500),
        exposure_max=D(800),
        daily_loss_limit=D(50),
        guards=guards,
        halt_positions=halt_positions,
    )


SWITCHED = ANYTHING + OPERATED * 3 + ("silence", "elsewhere")
profiles = st.sampled_from([watched(), watched(HaltPositions.FLATTEN), LIMITS])


# -- what may be approved


@played()
@given(steps(*SWITCHED), profiles, st.booleans())
def test_only_sales_are_approved_while_reducing_and_only_closings_while_halted(
    taken: list[Step], limits: RiskConfig, lazy: bool
) -> None:
    """Under the stricter of what is stored and what waits to be; and every approval names the stored revision."""

    def judge(verdict: m.Verdict) -> None:
        order = verdict.order
        assert order is not None
        assert verdict.trading_revision == play.stored.revision
        strictest = max(states(play), key=STRICTNESS.index)
        assert order.side is Side.SELL or strictest is Trading.ACTIVE
        assert verdict.flatten or strictest is not Trading.HALTED
        assert order.flatten == bool(verdict.flatten)
        if verdict.flatten:
            assert verdict.flatten == play.stored.flatten

    play = Play(Desk(limits).open(opening=FEW), moving=True, lazy=lazy, judge=judge).begin()
    for step in taken:
        play.step(step)


def states(play: Play) -> list[Trading]:
    return [play.stored.state, *(state.state for state in play.desk.storing)]


# -- how a state ends


@played()
@given(steps(*SWITCHED), profiles, st.booleans())
def test_a_halt_ends_by_an_accepted_resume_and_by_nothing_else(
    taken: list[Step], limits: RiskConfig, lazy: bool
) -> None:
    play = Play(Desk(limits).open(opening=FEW), moving=True, lazy=lazy).begin()
    for step in taken:
        before, found = play.stored, play.step(step)
        assert play.desk.trading() is max(states(play), key=STRICTNESS.index)
        if before.state is Trading.HALTED and play.stored.state is not Trading.HALTED:
            assert resumed(found)


@played()
@given(steps(*SWITCHED), profiles, st.booleans())
def test_a_reduction_ends_by_a_resume_or_where_a_drift_made_it_with_the_drift(
    taken: list[Step], limits: RiskConfig, lazy: bool
) -> None:
    play = Play(Desk(limits).open(opening=FEW), moving=True, lazy=lazy).begin()
    for step in taken:
        before, found = play.stored, play.step(step)
        if before.state is Trading.REDUCING and play.stored.state is Trading.ACTIVE and not resumed(found):
            passed = [before, *(s for s in found if isinstance(s, m.TradingState) and s.state is Trading.REDUCING)]
            assert passed[-1].reason == t.DRIFT_REASON
            assert play.desk.figures.drift == {}


def resumed(found: list[m.Message]) -> bool:
    """A guard may have stepped in right after it."""
    audits = [audit for audit in found if isinstance(audit, m.Audit)]
    return ("resume", True) in [(audit.command, audit.ok) for audit in audits]


# -- how a closing ends

ATTEMPTS = st.lists(st.sampled_from(["all", "half", "nothing", "denied", "rejected", "unknown"]), max_size=12)
ROUNDS_MAX = 40  # a dozen outcomes, three orders to a position that one cannot sell, a few resting ones before


@played()
@given(steps(*ANYTHING, most=25), ATTEMPTS, st.integers(0, 30), st.booleans(), st.booleans())
@example([("buy", 0, 1)] * 8 + [("adjust", 0, 37), ("mark", 0, 1)], [], 0, False, False)
def test_a_closing_ends_flat_or_as_dust(
    taken: list[Step], outcomes: list[str], crash: int, halted: bool, silent: bool
) -> None:
    """With a venue that fills something now and then, and time passing; with marks or without; over a crash."""
    play = Play(Desk(LIMITS).open(opening=FEW), moving=True).begin("2.5")
    for step in taken:
        play.step(step)
    play.tell(*(product(p, base_max_size=D("1.2")) for p in PRODUCTS))
    for action in ([t.Action.HALT] if halted else []) + [t.Action.FLATTEN]:
        play.tell(command(action, name=f"last-{action}", at=play.desk.now))
        play.settle()
    closing, left = play.stored.flatten, list(outcomes)
    assert closing
    for number in range(ROUNDS_MAX):
        if number == crash:
            play.step(("restart", crash, 1))
        for sent in play.open():
            attempt(play, sent, left)
            assert all(ZERO <= play.selling(p) <= play.held[p] for p in PRODUCTS)
        if not play.orders and all(gone(play, p) for p in PRODUCTS):
            break
        play.pass_time(61, silent=silent)
        play.settle()
    assert all(gone(play, p) for p in PRODUCTS), play.desk.figures.closing
    tries = [v for v in play.desk.ledger if isinstance(v, m.Verdict) and v.flatten]
    assert len({v.signal_id for v in tries}) == len(tries)
    told = play.desk.figures.closing
    assert told is not None
    orders = {v.order.client_order_id for v in tries if v.order and v.flatten == closing}
    for product_id, figure in told.items():
        fills = [f for f in play.desk.ledger if isinstance(f, m.Fill) and f.product_id == product_id]
        sold = sum((f.size for f in fills if f.client_order_id in orders), ZERO)
        assert figure.outcome in ("flat", "dust")
        assert (figure.sold, figure.held) == (sold, play.held[product_id])


def gone(play: Play, product_id: str) -> bool:
    """Nothing is left that the venue would take: whole increments are sold, and they have a least value."""
    saleable = play.held[product_id] // D("0.001") * D("0.001")
    return saleable < D("0.01") or saleable * play.prices[product_id] < 1


@played()
@given(
    st.decimals("0.0001", "2", places=4),
    st.decimals("1", "2000", places=2),
    st.decimals("0", "0.5", places=2),
)
@example(D("0.0105"), D(100), D("0.02"))
def test_a_closing_of_any_holding_ends_at_any_spread(held: Decimal, price: Decimal, spread: Decimal) -> None:
    """What is left is called dust; nobody waits for it."""
    desk = Desk().open()
    desk.feed(*(product(p, base_min_size=D("0.001")) for p in PRODUCTS))
    desk.feed(mark(BTC, str(price), desk.now, str(price * spread)))
    desk.bought(str(held), str(price))
    desk.tell(t.Action.FLATTEN)
    for number in range(4):
        for verdict in [v for v in desk.ledger if isinstance(v, m.Verdict) and v.order]:
            if verdict.order and verdict.order.client_order_id in desk.core.state.orders:
                quantity = str(verdict.order.quantity)
                desk.fill(verdict, f"f{number}", quantity, str(price))
                desk.end(verdict, OrderStatus.FILLED, 1, quantity)
        desk.feed(tick(), at=desk.now + 61 * SECOND)
    closing = desk.figures.closing
    assert closing is not None
    assert closing[BTC].outcome in ("flat", "dust")


def attempt(play: Play, sent: Sent, left: list[str]) -> None:
    """Execution cancels what rests, and the venue does what it likes with the rest."""
    if sent.late:
        play.book(sent, sent.late)
        return
    if not sent.order.flatten:
        play.end(sent, OrderStatus.CANCELED)
        return
    outcome = left.pop() if left else "all"
    if outcome == "unknown":
        play.event(sent, OrderStatus.UNKNOWN)
        return
    part: Decimal = {"all": sent.base, "half": sent.base / 2 // D("0.001") * D("0.001")}.get(outcome, ZERO)
    if part:
        play.book(sent, part)
    ends = {"denied": OrderStatus.DENIED, "rejected": OrderStatus.REJECTED}
    play.end(sent, ends.get(outcome, OrderStatus.CANCELED))
