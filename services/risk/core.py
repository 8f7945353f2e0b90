"""Risk's decisions: answers each signal once, moves the trading state, trips the daily-loss guard.

State changes only when a fact comes back from the ledger or from the store.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, localcontext

import msgspec

from libs.common import messages as m
from services.risk import report
from services.risk.books import EXACT, ZERO
from services.risk.config import RiskConfig
from services.risk.knowledge import Knowledge
from services.risk.messages import Answered, GuardOutcome, OperatorCommand, Outcome
from services.risk.rules import evaluate, show
from services.risk.sizing import Context, order_of, reservation
from services.risk.state import State
from services.risk.trading import LOSS_REASON, RISK, Switch, rule_on

FIGURES_TICKS = 4
WARNING_SHARE = Decimal("0.8")
# After these the balances may be comparable, or were compared and have moved.
COMPARED = (m.Account, m.Installation, m.OrderEvent, m.Fill)
# After these the figures may have moved, or a change of the trading state may be due.
GUARDED = (*COMPARED, m.Mark, m.TradingState, m.Tick, m.Recovered)


class RiskCore:
    """See `libs.common.shell.Core`."""

    def __init__(self, config: RiskConfig, products: tuple[str, ...], quote_currency: str) -> None:
        self.config = config
        self.known = Knowledge(products, quote_currency)
        self.switch = Switch()
        self.recovered = False
        self._state = State()
        self._ticks = 0
        self._outcomes: dict[str, Outcome] = {}

    def on_message(self, message: m.Message, now: datetime) -> list[m.Message]:
        with localcontext(EXACT):
            self._state.books.roll(now)
            self.known.learn(message)
            if isinstance(message, m.Mark):
                self._see(message.product_id)
            outputs = self._act(message, now)
            if isinstance(message, COMPARED):
                self._state.compare(self.known)
            if self.recovered and isinstance(message, GUARDED):
                outputs = self._guards(now) + outputs
            if self.recovered and self._tells(message):
                outputs.append(self.figures(now))
            return outputs

    def not_ready(self, now: datetime) -> str:
        if self.switch.current is None:
            return "the trading state is not known"
        if self.known.missing:
            return self.known.missing
        if unmarked := self._state.books.unmarked(self.known.prices):
            return f"no mark of {', '.join(unmarked)}, which is held"
        return ""

    @property
    def busy(self) -> bool:
        return False

    def dump(self) -> bytes:
        return msgspec.json.encode(self._state)

    def restore(self, raw: bytes) -> None:
        self._state = msgspec.json.decode(raw, type=State)

    def reached(self, sequence: int) -> None:
        """The ledger has been handled up to here; shown with the figures."""
        self._state.ledger_sequence = max(sequence, self._state.ledger_sequence)

    def figures(self, now: datetime) -> m.RiskFigures:
        with localcontext(EXACT):
            return report.figures(self._state, self.known, self.config.daily_loss_limit, self.switch.effective, now)

    @property
    def verdicts(self) -> dict[str, int]:
        """Verdicts by reason, since installation."""
        return self._state.answers.counts

    @property
    def open_orders(self) -> int:
        """Approved, and not known to be at their end."""
        return len(self._state.reservations.orders)

    def _see(self, product_id: str) -> None:
        if mark := self.known.marks.get(product_id):
            self._state.books.see(product_id, mark.mid, mark.at)

    def _act(self, message: m.Message, now: datetime) -> list[m.Message]:
        match message:
            case m.Signal():
                return self._signal(message, now)
            case m.Verdict():
                self._state.verdict(message)
            case m.OrderEvent() | m.Fill():
                if not self._state.move(message):
                    self.known.dropped[type(message).__name__] += 1
            case m.TradingState():
                return self._trading(message, now)
            case OperatorCommand():
                return self._command(message, now)
            case m.Tick():
                self._ticks += 1
            case m.Recovered():
                self.recovered = True
        return []

    def _tells(self, message: m.Message) -> bool:
        """Whether everybody should see the figures now."""
        if isinstance(message, m.Tick):
            return self._ticks % FIGURES_TICKS == 0
        return isinstance(message, m.Fill) or (isinstance(message, m.OrderEvent) and message.status in m.TERMINAL)

    # -- signals

    def _signal(self, signal: m.Signal, now: datetime) -> list[m.Message]:
        answers = self._state.answers
        if signal.id in answers.given:
            return []
        if answers.older_than_memory(signal.at):
            self.known.dropped["Signal"] += 1
            return []
        reason, detail, order, reserved = self._decide(signal, now)
        revision = self.switch.current.revision if self.switch.current else 0
        expires_at = min(now + self.config.approval_ttl, signal.expires_at)
        return [
            m.Verdict(
                # Two risk processes may answer one signal: only equal verdicts may have equal ids.
                id=m.derive_id("verdict", signal.id, reason, detail, revision, expires_at, now),
                cause=signal.id,
                at=now,
                product_id=signal.product_id,
                signal_id=signal.id,
                reason=reason,
                detail=detail,
                trading_revision=revision,
                expires_at=expires_at,
                reserved=reserved,
                order=order,
            )
        ]

    def _decide(self, signal: m.Signal, now: datetime) -> tuple[m.Reason, str, m.ApprovedOrder | None, Decimal]:
        context = self._context(signal, now)
        reason, detail = evaluate(context)
        if reason is m.Reason.APPROVED:
            return reason, detail, order_of(context), reservation(context)
        return reason, detail, None, ZERO

    def _context(self, signal: m.Signal, now: datetime) -> Context:
        state, known, product_id, prices = self._state, self.known, signal.product_id, self.known.prices
        held, price = state.books.held(product_id), prices.get(product_id)
        return Context(
            now=now,
            signal=signal,
            config=self.config,
            trading=self.switch.effective,
            product=known.rules_of(product_id),
            mark=known.marks.get(product_id),
            feed=known.feeds.get(product_id),
            account=known.account,
            drift=state.drift,
            held=held,
            selling=state.reservations.selling(product_id),
            buying=state.reservations.buying(product_id),
            reserved=state.reservations.total(),
            position=None if price is None else abs(held) * price,
            exposure=state.books.exposure(prices),
            unmarked=tuple(state.books.unmarked(prices)),
            cash=state.balances(known).get(known.quote_currency),
            equity=state.equity(known),
            daily_loss=state.books.daily_loss(prices),
            approvals=len(state.answers.recent(now)),
        )

    # -- the trading state

    def _trading(self, state: m.TradingState, now: datetime) -> list[m.Message]:
        waiting = self.switch.take(state)
        if waiting is None:
            return []
        if state.cause == waiting.id:
            return self._answer(waiting, True, f"{state.state} since {state.since:%Y-%m-%d %H:%M:%S} UTC")
        return self._command(waiting, now)  # somebody else wrote first: decide again

    def _command(self, command: OperatorCommand, now: datetime) -> list[m.Message]:
        if self.switch.current is None:
            return self._answer(command, False, "the trading state is not known yet")
        if self.switch.pending is not None:
            return self._answer(command, False, "another change is being stored, try again")
        loss = self._state.books.daily_loss(self.known.prices)
        ruling = rule_on(command, self.switch.current.state, loss, self.config.daily_loss_limit)
        if ruling.target is None:
            return self._answer(command, ruling.ok, ruling.detail)
        self.switch.waiting = command
        return [self.switch.propose(command.id, ruling.target, command.reason, command.who, now)]

    def _answer(self, command: OperatorCommand, ok: bool, detail: str) -> list[m.Message]:
        audit = m.Audit(
            id=m.derive_id("audit", command.id),
            cause=command.id,
            at=command.at,
            command=command.command,
            who=command.who,
            reason=command.reason,
            ok=ok,
            result=detail,
        )
        return [audit, Answered(id=m.derive_id("answer", command.id), cause=command.id, ok=ok, detail=detail)]

    # -- guards

    def _guards(self, now: datetime) -> list[m.Message]:
        loss, limit = self._state.books.daily_loss(self.known.prices), self.config.daily_loss_limit
        outputs: list[m.Message] = []
        if loss is None:
            outcome, detail = Outcome.UNKNOWN, "not known: a mark of what is held is missing"
        else:
            outcome, detail = _loss_outcome(loss, limit), show(daily_loss=loss, limit=limit)
        if outcome is Outcome.BREACH:
            outputs += self._halt(now)
        outputs += self._tell("daily_loss", outcome, detail, now)
        drift = self._state.drift
        outcome = Outcome.UNKNOWN if drift is None else Outcome.BREACH if drift else Outcome.OK
        return outputs + self._tell("account_drift", outcome, show(**drift or {}), now)

    def _halt(self, now: datetime) -> list[m.Message]:
        """Once: a state that is halted already, or is just being changed, is left alone."""
        current = self.switch.current
        if current is None or current.state is m.Trading.HALTED or self.switch.pending is not None:
            return []
        cause = m.derive_id(LOSS_REASON, self._state.books.day)
        return [self.switch.propose(cause, m.Trading.HALTED, LOSS_REASON, RISK, now)]

    def _tell(self, guard: str, outcome: Outcome, detail: str, now: datetime) -> list[m.Message]:
        """Only what has changed."""
        if self._outcomes.get(guard) is outcome:
            return []
        self._outcomes[guard] = outcome
        name = f"{guard}-{outcome}-{now.isoformat()}"
        return [GuardOutcome(id=name, at=now, guard=guard, outcome=outcome, detail=detail)]


def _loss_outcome(loss: Decimal, limit: Decimal) -> Outcome:
    """breach: loss >= limit. warning: loss > 80 % of it."""
    if loss >= limit:
        return Outcome.BREACH
    return Outcome.WARNING if loss > limit * WARNING_SHARE else Outcome.OK
