"""Risk's decisions: answers each signal once, moves the trading state, trips the daily-loss guard.

State changes only when a fact comes back from the ledger or from the store.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal, localcontext

import msgspec

from libs.common import messages as m
from services.risk import trading as t
from services.risk.books import EXACT, ZERO
from services.risk.config import RiskConfig
from services.risk.knowledge import Knowledge
from services.risk.operator import OPERATOR, OrderAsked, fault, signal_of
from services.risk.rules import evaluate
from services.risk.sizing import Context
from services.risk.state import State

FIGURES_TICKS = 4
ANSWERED_BEFORE = "answered_before"
# After these the balances may be comparable, or were compared and have moved.
COMPARED = (m.Account, m.Installation, m.Verdict, m.OrderEvent, m.Fill)
# After these the figures may have moved, or a change of the trading state may be due.
GUARDED = (m.Account, m.Installation, m.OrderEvent, m.Fill, m.Mark, m.TradingState, m.Tick, m.Recovered)


class RiskCore:
    """See `libs.common.shell.Core`."""

    def __init__(self, config: RiskConfig, products: tuple[str, ...], quote_currency: str) -> None:
        self.config = config
        self.known = Knowledge(products, quote_currency)
        self.switch = t.Switch()
        self.state = State()
        self.replies: dict[str, m.Reply] = {}  # what came of a command, by its id, until its shell has given it
        self.recovered = False
        self._ticks = 0
        self._outcomes: dict[str, t.Outcome] = {}

    def on_message(self, message: m.Message, now: datetime) -> list[m.Message]:
        if not self.known.learn(message):
            return []
        with localcontext(EXACT):
            self.state.books.roll(now)
            outputs = self._act(message, now)
            if isinstance(message, COMPARED):
                self.state.compare(self.known)
            if self.recovered and isinstance(message, GUARDED):
                outputs = self._guards(now) + outputs
            if self.recovered and self._tells(message):
                outputs.append(self.figures(now))
            return outputs

    def not_ready(self, now: datetime) -> str:
        known = self.known
        without_rules = ", ".join(p for p in known.products if p not in known.rules)
        without_mark = ", ".join(p for p in known.products if p not in known.marks)
        held_without_mark = ", ".join(self.state.books.unmarked(known.prices))
        reasons = {
            "the trading state is not known": self.switch.current is None,
            "the opening balances are not known": known.opening is None,
            f"no product rules of {without_rules}": without_rules,
            "no account snapshot": known.account is None,
            f"no mark of {without_mark}": without_mark,
            f"no mark of {held_without_mark}, which is held": held_without_mark,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    @property
    def busy(self) -> bool:
        return False

    def dump(self) -> bytes:
        return msgspec.json.encode(self.state)

    def restore(self, raw: bytes) -> None:
        self.state = msgspec.json.decode(raw, type=State)

    def reached(self, sequence: int) -> None:
        """The ledger has been handled up to here; shown with the figures."""
        self.state.ledger_sequence = max(sequence, self.state.ledger_sequence)

    def figures(self, now: datetime) -> m.RiskFigures:
        """Everything that risk knows about money; what needs a mark or the opening balances is None without them."""
        state, known, trading = self.state, self.known, self.switch.effective
        holdings = sorted(state.books.holdings.items())
        with localcontext(EXACT):
            worth = state.books.worth(known.prices)
            return m.RiskFigures(
                id=f"risk-{now.isoformat()}",
                at=now,
                daily_loss_limit=self.config.daily_loss_limit,
                daily_loss=worth.daily_loss if worth else None,
                equity=state.equity(known),
                exposure=worth.exposure if worth else None,
                reserved=state.reserved(),
                realized_pnl=sum((holding.realized for _, holding in holdings), ZERO),
                fees=sum((holding.fees for _, holding in holdings), ZERO),
                unrealized_pnl=worth.unrealized if worth else None,
                positions={p: holding.position(known.marks.get(p), known.rules.get(p)) for p, holding in holdings},
                books=state.balances(known),
                drift=state.drift,
                trading=m.Trading.HALTED if trading is None else trading,  # not known acts as halted
                ledger_sequence=state.ledger_sequence,
            )

    @property
    def open_orders(self) -> int:
        """Approved, and not known to be at their end."""
        return len(self.state.orders)

    def _act(self, message: m.Message, now: datetime) -> list[m.Message]:
        match message:
            case m.Mark(product_id=product_id):
                mark = self.known.marks[product_id]
                self.state.books.see(product_id, mark.mid, mark.at)
            case m.Signal():
                return [*self._signal(message, now)]
            case m.Verdict():
                self.state.answer(message)
            case m.OrderEvent() | m.Fill():
                self.state.move(message)
            case m.TradingState():
                return self._trading(message, now)
            case t.OperatorCommand():
                return self._command(message, now)
            case OrderAsked():
                return self._order(message, now)
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

    def _signal(self, signal: m.Signal, now: datetime) -> list[m.Verdict]:
        answers = self.state.answers
        if answers.known(signal.id):
            return []
        # A verdict is never older than its signal: only what is as old as a forgotten verdict can be forgotten.
        if answers.forgotten is not None and signal.at <= answers.forgotten:
            self.known.dropped["Signal"] += 1
            return []
        context = Context(now, signal, self.config, self.switch.effective, self.known, self.state)
        found = evaluate(context)
        reason, detail = found.reason, found.detail
        approved = reason is m.Reason.APPROVED
        revision = self.switch.current.revision if self.switch.current else 0
        expires_at = min(now + timedelta(seconds=self.config.approval_ttl_seconds), signal.expires_at)
        return [
            m.Verdict(
                checks=found.checks,
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
                reserved=context.reservation if approved else ZERO,
                order=context.order() if approved else None,
                edits=approved and bool(signal.edits),
                operator=signal.strategy == OPERATOR,
            )
        ]

    def _order(self, asked: OrderAsked, now: datetime) -> list[m.Message]:
        """What an operator asks for, decided like any signal."""
        request = asked.request
        why = "the order is missing" if request is None else fault(request)
        if request is None or why:
            reason = m.Reason.ORDER_INVALID
            return self._answer(asked, False, f"{reason}: {why}", {"reason": str(reason)})
        edited = self.state.orders.get(request.edits)
        ttl = timedelta(seconds=self.config.approval_ttl_seconds)
        signal = signal_of(asked, request, self.known.installation_id, ttl, edited.order if edited else None)
        before, verdicts = self.state.answers.asked.get(signal.id), self._signal(signal, now)
        said, detail, ok = ANSWERED_BEFORE, f"with {before}", before is m.Reason.APPROVED
        for verdict in verdicts:
            said, detail, ok = str(verdict.reason), verdict.detail, verdict.order is not None
        key = request.edits or m.client_order_id(signal.id)
        data = {"signal_id": signal.id, "client_order_id": key, "reason": said}
        return [*verdicts, *self._answer(asked, ok, f"{said}: {detail}", data)]

    # -- the trading state

    @property
    def _daily_loss(self) -> Decimal | None:
        worth = self.state.books.worth(self.known.prices)
        return worth.daily_loss if worth else None

    def _trading(self, state: m.TradingState, now: datetime) -> list[m.Message]:
        waiting = self.switch.take(state)
        if waiting is not None and state.cause == waiting.id:
            return self._answer(waiting, True, f"{state.state} since {state.since:%Y-%m-%d %H:%M:%S} UTC")
        # Somebody else wrote before the one that waits: decide again.
        return [] if waiting is None else self._command(waiting, now)

    def _command(self, command: t.OperatorCommand, now: datetime) -> list[m.Message]:
        current, target = self.switch.current, t.TARGETS[command.command]
        limit, drift = self.config.daily_loss_limit, self.state.drift
        if refusal := self.switch.refusal(command, self._daily_loss, limit, drift):
            return self._answer(command, False, refusal)
        # What an operator asks for is not ours to end: it takes the place of our own reduce-only.
        if current is not None and current.state is target and not self.switch.by_drift:
            return self._answer(command, True, f"already {target}")
        self.switch.waiting = command
        if command.command is t.Action.RESUME and drift:
            # Out of the halt, and no further than to where the drift keeps it: its end will lead on to active.
            return [self.switch.propose(command.id, m.Trading.REDUCING, t.DRIFT_REASON, t.RISK, now)]
        return [self.switch.propose(command.id, target, command.reason, command.who, now)]

    def _answer(
        self, asked: t.OperatorCommand | OrderAsked, ok: bool, result: str, data: dict[str, str] | None = None
    ) -> list[m.Message]:
        """For whoever asked, and for the record."""
        self.replies[asked.id] = m.Reply(ok=ok, detail=result, data=data or {})
        return [
            m.Audit(
                id=m.derive_id("audit", asked.id),
                cause=asked.id,
                at=asked.at,
                command=asked.command,
                who=asked.who,
                reason=asked.reason,
                ok=ok,
                result=result,
            )
        ]

    # -- guards

    def _guards(self, now: datetime) -> list[m.Message]:
        """What they say is told when it changes."""
        said = {
            "daily_loss": t.loss_guard(self._daily_loss, self.config.daily_loss_limit),
            "account_drift": t.drift_guard(self.state.drift),
        }
        outputs: list[m.Message] = []
        if self.switch.pending is None and (proposed := self._step_in(said, now)):
            outputs.append(proposed)
        for guard, (outcome, detail) in said.items():
            if self._outcomes.get(guard) is not outcome:
                self._outcomes[guard] = outcome
                name = f"{guard}-{outcome}-{now.isoformat()}"
                outputs.append(t.GuardOutcome(id=name, at=now, guard=guard, outcome=outcome, detail=detail))
        return outputs

    def _step_in(self, said: dict[str, tuple[t.Outcome, str]], now: datetime) -> m.TradingState | None:
        """The state that a guard wants, once: one that holds already is left alone. The halt comes first."""
        effective = self.switch.effective
        loss, drift = said["daily_loss"][0], said["account_drift"][0]
        if loss is t.Outcome.BREACH and effective not in (None, m.Trading.HALTED):
            cause = m.derive_id(t.LOSS_REASON, self.state.books.midnight)
            return self.switch.propose(cause, m.Trading.HALTED, t.LOSS_REASON, t.RISK, now)
        if drift is t.Outcome.BREACH and effective is m.Trading.ACTIVE:
            return self.switch.propose(t.DRIFT_REASON, m.Trading.REDUCING, t.DRIFT_REASON, t.RISK, now)
        if drift is t.Outcome.OK and self.switch.by_drift:
            return self.switch.propose(t.DRIFT_GONE, m.Trading.ACTIVE, t.DRIFT_GONE, t.RISK, now)
        return None
