"""Risk's decisions: answers each signal once, moves the trading state, asks the guards, closes positions.

State changes only when a fact comes back from the ledger or from the store.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import localcontext

import msgspec

from libs.common import messages as m
from services.risk import flatten as f
from services.risk import guards as g
from services.risk import trading as t
from services.risk.adjust import AdjustmentAsked, Refused, adjustment_of
from services.risk.books import EXACT, ZERO
from services.risk.config import HaltPositions, RiskConfig
from services.risk.knowledge import Knowledge
from services.risk.operator import OrderAsked, fault, signal_of
from services.risk.rules import evaluate
from services.risk.sizing import Context
from services.risk.state import State

FIGURES_TICKS = 4
ANSWERED_BEFORE = "answered_before"
# After these the balances may be comparable, or were compared and have moved.
COMPARED = (m.Account, m.Installation, m.Verdict, m.OrderEvent, m.Fill, m.Adjustment)
# After these the figures may have moved, or a change of the trading state may be due.
GUARDED = (*COMPARED, m.Mark, m.FeedState, m.TradingState, m.Tick, m.Recovered)
# After these a new day may be written down, and the next attempt of a closing may be due. Not at the start: what
# another process writes meanwhile would end this one.
ACTED = (m.OrderEvent, m.Fill, m.Mark, m.TradingState, m.Tick)


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
        self._levels: dict[m.Guard, m.GuardLevel] = {}

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
            if self.recovered and isinstance(message, ACTED):
                outputs += self._begin_day() + self._close_positions(now)
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
        self.state = m.read(raw, State)

    def reached(self, sequence: int) -> None:
        """The ledger has been handled up to here; shown with the figures."""
        self.state.ledger_sequence = max(sequence, self.state.ledger_sequence)

    def figures(self, now: datetime) -> m.RiskFigures:
        """Everything that risk knows about money; what needs a mark or the opening balances is None without them."""
        state, known, trading = self.state, self.known, self.switch.effective
        holdings, flatten = sorted(state.books.holdings.items()), self.flatten
        with localcontext(EXACT):
            standing = state.standing(known)
            worth, limit = standing.worth, standing.daily_loss_limit(self.config)
            return m.RiskFigures(
                id=f"risk-{now.isoformat()}",
                at=now,
                daily_loss_limit=self.config.daily_loss_limit if limit is None else limit,
                daily_loss=worth.daily_loss if worth else None,
                equity=standing.equity,
                exposure=worth.exposure if worth else None,
                reserved=state.reserved(),
                realized_pnl=sum((holding.realized for _, holding in holdings), ZERO),
                fees=sum((holding.fees for _, holding in holdings), ZERO),
                unrealized_pnl=worth.unrealized if worth else None,
                positions={p: holding.position(known.marks.get(p), known.rules.get(p)) for p, holding in holdings},
                books=standing.balances,
                drift=state.drift,
                trading=m.Trading.HALTED if trading is None else trading,  # not known acts as halted
                ledger_sequence=state.ledger_sequence,
                equity_day_start=standing.equity_day_start,
                equity_peak=state.watch.peak_equity,
                guards=self.guards(now),
                degraded={product_id: found.reason for product_id, found in sorted(state.watch.degraded.items())},
                closing=f.closing(flatten, state, known) if flatten else None,
            )

    def guards(self, now: datetime) -> dict[m.Guard, m.GuardFigure]:
        """What each guard measures and says."""
        return g.figures(self.config, self.state, self.known, now)

    @property
    def flatten(self) -> str:
        """The closing that is in force; empty without one."""
        return self.switch.current.flatten if self.switch.current else ""

    @property
    def open_orders(self) -> int:
        """Approved, and not known to be at their end."""
        return len(self.state.orders)

    def _act(self, message: m.Message, now: datetime) -> list[m.Message]:
        match message:
            case m.Signal():
                return [*self._signal(message, now)]
            case m.TradingState():
                return self._trading(message, now)
            case t.OperatorCommand():
                return self._command(message, now)
            case OrderAsked():
                return self._order(message, now)
            case AdjustmentAsked():
                return self._adjust(message, now)
            case m.Tick():
                self._ticks += 1
            case m.Recovered():
                self.recovered = True
                self.state.watch.forget_sound()
            case _:
                self._take(message)
        return []

    def _take(self, fact: m.Message) -> None:
        """What has happened."""
        match fact:
            case m.Mark(product_id=product_id):
                mark = self.known.marks[product_id]
                self.state.books.see(product_id, mark.mid, mark.at)
                self.state.watch.on_mark(mark, self.config.guards)
            case m.Verdict():
                self.state.answer(fact)
            case m.OrderEvent() | m.Fill():
                self.state.move(fact)
            case m.Adjustment():
                self.state.adjust(fact, self.known.quote_currency)
            case m.Baseline():
                self.state.start_day(fact)

    def _tells(self, message: m.Message) -> bool:
        """Whether everybody should see the figures now."""
        if isinstance(message, m.Tick):
            return self._ticks % FIGURES_TICKS == 0
        return isinstance(message, m.Fill) or (isinstance(message, m.OrderEvent) and message.status in m.TERMINAL)

    def _signal(self, signal: m.Signal, now: datetime, operator: bool = False, flatten: str = "") -> list[m.Verdict]:
        answers = self.state.answers
        if answers.known(signal.id):
            return []
        # A verdict is never older than its signal: only what is as old as a forgotten verdict can be forgotten.
        if answers.forgotten is not None and signal.at <= answers.forgotten:
            self.known.dropped["Signal"] += 1
            return []
        context = Context(
            now, signal, self.config, self.switch.effective, self.known, self.state, operator, bool(flatten)
        )
        found = evaluate(context)
        reason, detail = found.reason, found.detail
        approved = reason is m.Reason.APPROVED
        revision = self.switch.current.revision if self.switch.current else 0
        expires_at = min(now + timedelta(seconds=self.config.approval_ttl_seconds), signal.expires_at)
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
                reserved=context.reservation if approved else ZERO,
                order=context.order() if approved else None,
                edits=approved and bool(signal.edits),
                operator=operator,
                flatten=flatten,
                checks=found.checks,
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
        before, verdicts = self.state.answers.asked.get(signal.id), self._signal(signal, now, operator=True)
        said, detail, ok = ANSWERED_BEFORE, f"with {before}", before is m.Reason.APPROVED
        for verdict in verdicts:
            said, detail, ok = str(verdict.reason), verdict.detail, verdict.order is not None
        key = request.edits or m.client_order_id(signal.id)
        data = {"signal_id": signal.id, "client_order_id": key, "reason": said}
        return [*verdicts, *self._answer(asked, ok, f"{said}: {detail}", data)]

    def _adjust(self, asked: AdjustmentAsked, now: datetime) -> list[m.Message]:
        """What an operator says of the account, once per request id."""
        request = asked.request
        if request is not None and (before := self.state.adjusted.get(request.request_id)):
            return self._answer(asked, True, "counted before", {"adjustment_id": before})
        try:
            age_max = timedelta(seconds=float(self.config.guards.mark_staleness.reduce))
            made = adjustment_of(asked, self.state, self.known, now, age_max)
        except Refused as refused:
            return self._answer(asked, False, str(refused))
        except ArithmeticError as error:  # figures that no account can have
            return self._answer(asked, False, f"these figures cannot be: {type(error).__name__}")
        flows = {f"flow_{currency}": f"{flow.normalize():f}" for currency, flow in made.flows.items()}
        trade = {"product_id": made.product_id, "size": f"{made.size:f}", "price": f"{made.price:f}"}
        data = {"adjustment_id": made.id, **flows, **(trade if made.size else {})}
        return [made, *self._answer(asked, True, f"{made.kind} counted", data)]

    # -- the trading state

    def _trading(self, state: m.TradingState, now: datetime) -> list[m.Message]:
        waiting = self.switch.take(state)
        resumed = self.switch.current is state and state.resumed_at != self.state.resumed_at
        if resumed and state.resumed_at is not None:
            self.state.resumed_at = state.resumed_at
            self.state.watch.rebase(self.state.equity(self.known), state.resumed_at)
        if waiting is not None and state.cause == waiting.id:
            return self._answer(waiting, True, self._told(state))
        # Somebody else wrote before the one that waits: decide again.
        return [] if waiting is None else self._command(waiting, now)

    def _told(self, state: m.TradingState) -> str:
        since = f"{state.state} since {state.since:%Y-%m-%d %H:%M:%S} UTC, {state.reason} ({state.who})"
        return f"{since}; all positions are being closed" if state.flatten else since

    def _command(self, command: t.OperatorCommand, now: datetime) -> list[m.Message]:
        current = self.switch.current
        figures = self.guards(now)
        refusal = self.switch.refusal(command, figures)
        if refusal or current is None:
            return self._answer(command, False, refusal)
        target, flatten = self._wanted(command, current)
        # What an operator asks for is not ours to end: it takes the place of our own reduce-only.
        if current.state is target and bool(current.flatten) == flatten and not self.switch.by_drift:
            return self._answer(command, True, f"already {self._told(current)}")
        self.switch.waiting = command
        name = m.derive_id("flatten", command.id) if flatten else ""
        resumed, reason, who = command.command is t.Action.RESUME, command.reason, command.who
        if resumed and (guard := t.first(figures, m.GuardLevel.REDUCE, but=g.REBASED)):
            # Out of the halt, and no further than to where the guard keeps it.
            target, reason, who = m.Trading.REDUCING, t.REASONS[guard], t.RISK
        return [self.switch.propose(command.id, target, reason, who, now, flatten=name, resumed=resumed)]

    def _wanted(self, command: t.OperatorCommand, current: m.TradingState) -> tuple[m.Trading, bool]:
        """The state that the command asks for, and whether all positions are closed under it."""
        if command.command is t.Action.FLATTEN:
            # Whoever closes everything wants to stay out: no entries until a resume.
            return max(current.state, m.Trading.REDUCING, key=t.STRICTNESS.index), True
        if command.command is t.Action.HALT:
            return m.Trading.HALTED, self.config.halt_positions is HaltPositions.FLATTEN
        if command.command is t.Action.REDUCE_ONLY:
            return m.Trading.REDUCING, bool(current.flatten)
        return m.Trading.ACTIVE, False

    def _answer(
        self,
        asked: t.OperatorCommand | OrderAsked | AdjustmentAsked,
        ok: bool,
        result: str,
        data: dict[str, str] | None = None,
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
        watch, equity = self.state.watch, self.state.equity(self.known)
        watch.look(self.known, now, self.config.guards)
        if equity is not None:
            watch.on_equity(equity)
        figures = self.guards(now)
        outputs: list[m.Message] = []
        if self.switch.pending is None and (proposed := self._step_in(figures, now)):
            outputs.append(proposed)
        for guard, figure in figures.items():
            if self._levels.get(guard) is not figure.level:
                self._levels[guard] = figure.level
                name = f"{guard}-{figure.level}-{now.isoformat()}"
                outputs.append(t.GuardOutcome(id=name, at=now, guard=guard, level=figure.level, detail=figure.detail))
        return outputs

    def _step_in(self, figures: dict[m.Guard, m.GuardFigure], now: datetime) -> m.TradingState | None:
        """The state that a guard wants, once: one that holds already is left alone. The halt comes first."""
        effective, flatten = self.switch.effective, self.flatten
        halting, reducing = t.first(figures, m.GuardLevel.HALT), t.first(figures, m.GuardLevel.REDUCE)
        if effective in (None, m.Trading.HALTED):
            return None
        if halting:
            if not flatten and self.config.halt_positions is HaltPositions.FLATTEN:
                flatten = m.derive_id("flatten", halting, now)
            reason = t.REASONS[halting]
            return self.switch.propose(m.derive_id(reason, now), m.Trading.HALTED, reason, t.RISK, now, flatten=flatten)
        by_drift_no_more = self.switch.by_drift and reducing is not m.Guard.POSITION_DRIFT
        if reducing and (effective is m.Trading.ACTIVE or by_drift_no_more):
            reason = t.REASONS[reducing]
            return self.switch.propose(
                m.derive_id(reason, now), m.Trading.REDUCING, reason, t.RISK, now, flatten=flatten
            )
        if self.switch.by_drift and figures[m.Guard.POSITION_DRIFT].level is m.GuardLevel.OK:
            return self.switch.propose(t.DRIFT_GONE, m.Trading.ACTIVE, t.DRIFT_GONE, t.RISK, now)
        return None

    # -- what risk does by itself

    def _begin_day(self) -> list[m.Message]:
        """Write down from what the new day is measured, once its prices are known."""
        books = self.state.books
        if books.midnight <= self.state.day_begun or self.state.equity(self.known) is None:
            return []
        prices = {product: holding.day_price for product, holding in books.holdings.items() if holding.day_quantity}
        return [
            m.Baseline(
                id=m.derive_id("baseline", self.known.installation_id, books.midnight),
                at=books.midnight,
                midnight=books.midnight,
                prices=prices,
                peak_equity=self.state.watch.peak_equity,
                resumed_at=self.state.resumed_at,
            )
        ]

    def _close_positions(self, now: datetime) -> list[m.Message]:
        """The attempts of a closing that are due. While the state changes, none: it would be refused as outdated."""
        if not self.flatten or self.switch.pending is not None:
            return []
        ttl = timedelta(seconds=self.config.approval_ttl_seconds)
        signals = f.next_signals(self.flatten, self.state, self.known, now, ttl)
        return [verdict for signal in signals for verdict in self._signal(signal, now, True, self.flatten)]
