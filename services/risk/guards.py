"""What is asked all the time, order or no order: one table of guards, each with one figure and up to three steps.

The figures rest on facts and marks alone. What outlives a restart is in `Watch`, a part of risk's snapshot.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct, field

from libs.common import messages as m
from libs.common.messages import Guard, GuardFigure, GuardLevel, OrderStatus
from services.risk.books import ZERO, Worth, currencies
from services.risk.config import ERRORS_MAX, Guards, RiskConfig, Steps, Volatility
from services.risk.knowledge import Knowledge

if TYPE_CHECKING:
    from services.risk.state import State

# They count from the operator's last look, so a resume ends them: none of them would fall again by waiting alone.
REBASED = frozenset({Guard.DRAWDOWN, Guard.ORDER_ERRORS, Guard.REJECTIONS})
# Their `reduce` closes the product to entries (`Watch.degraded`) and leaves the others trading.
PER_PRODUCT = frozenset({Guard.MARK_STALENESS})

YEAR_SECONDS = 365 * 86_400
MICROSECOND = timedelta(microseconds=1)
SHARES = Decimal("1E-6")  # what is published of a part; rounded down, so that no step is reached before its time
BEYOND = Decimal(1_000_000)  # a part of nothing: above any step, since the bus carries no infinity
SEVERITY = tuple(GuardLevel)
TAKEN = (OrderStatus.ACCEPTED, OrderStatus.PARTIALLY_FILLED, OrderStatus.FILLED)
# Execution's word: the venue has never seen it. Nobody has rejected it, and as UNKNOWN it is counted already.
NEVER_ARRIVED = "never_arrived"
NO_OPENING = "the opening balances are not known"


class Degraded(Struct):
    """A product that takes no entries: why, and since when nothing has been wrong with it any more."""

    reason: str
    sound_since: datetime | None = None


class Watch(Struct):
    """`errors` are the times of the latest orders without an outcome; `rejections` those of the venue's in a row;
    `samples` (time, mid) per product, the oldest first; `marked` the time of each product's last mark;
    `lived` whose feed has ever been live: only what was there can be lost."""

    peak_equity: Decimal | None = None
    rejections: list[datetime] = field(default_factory=list)
    errors: list[datetime] = field(default_factory=list)
    samples: dict[str, list[tuple[datetime, Decimal]]] = field(default_factory=dict)
    volatility: dict[str, float | None] = field(default_factory=dict)  # of those samples, per year
    degraded: dict[str, Degraded] = field(default_factory=dict)
    marked: dict[str, datetime] = field(default_factory=dict)
    lived: dict[str, bool] = field(default_factory=dict)

    def on_mark(self, mark: m.Mark, config: Guards) -> None:
        """Sample the price. After a gap that nobody has looked into, of a replay or of our own absence, the product is
        degraded like after one that was seen."""
        before = self.marked.get(mark.product_id)
        if before is not None and mark.at <= before:
            return
        self.marked[mark.product_id] = mark.at
        if before is not None and _seconds(mark.at - before) >= config.mark_staleness.reduce:
            self.degraded[mark.product_id] = Degraded(_unmarked(config))
        samples = self.samples.setdefault(mark.product_id, [])
        if not samples or (mark.at - samples[-1][0]).total_seconds() >= config.volatility.sample_seconds:
            samples.append((mark.at, mark.mid))
            del samples[: -config.volatility.window - 1]
            self.volatility[mark.product_id] = realized(samples, config.volatility)

    def on_order(self, event: m.OrderEvent) -> None:
        """A new step of an order; the caller tells each once."""
        unreachable = event.status is OrderStatus.DENIED and event.reason == m.Reason.VENUE_UNREACHABLE
        rejected = event.status is OrderStatus.REJECTED and event.reason != NEVER_ARRIVED
        if unreachable or rejected or event.status is OrderStatus.UNKNOWN:
            self.errors = [*self.errors, event.at][-ERRORS_MAX:]
        if rejected:
            self.rejections = [*self.rejections, event.at][-ERRORS_MAX:]
        elif event.status in TAKEN:
            self.rejections = []

    def on_equity(self, equity: Decimal) -> None:
        """Raise the peak."""
        self.peak_equity = equity if self.peak_equity is None else max(self.peak_equity, equity)

    def rebase(self, peak: Decimal | None, since: datetime | None) -> None:
        """An operator has looked, at `since`: measure from there on."""
        self.peak_equity = peak
        self.errors = [at for at in self.errors if since is not None and at > since]
        self.rejections = [at for at in self.rejections if since is not None and at > since]

    def forget_sound(self) -> None:
        """Nobody has watched meanwhile: the time to recover begins anew."""
        for found in self.degraded.values():
            found.sound_since = None

    def look(self, known: Knowledge, now: datetime, config: Guards) -> None:
        """Whether each product's feed and mark are sound.

        Degraded: the feed was live and is not, or age of the mark >= `reduce`. Sound again: a live feed and a mark of
        an age < `warn` (where none is given, < `reduce`) for `recover_seconds` without a break. What has no mark or no
        feed yet is not degraded by that alone, since nothing was lost and the rules refuse it; it is not sound either.
        """
        steps = config.mark_staleness
        self.degraded = {product: found for product, found in self.degraded.items() if product in known.products}
        for product_id in known.products:
            feed, mark = known.feeds.get(product_id), known.marks.get(product_id)
            age = None if mark is None else _seconds(now - mark.at)
            live = feed is not None and feed.state is m.Feed.LIVE
            if live:
                self.lived[product_id] = True
            if feed is not None and not live and product_id in self.lived:
                self.degraded[product_id] = Degraded(f"feed {feed.state}: {feed.reason}")
            elif age is not None and age >= steps.reduce:
                self.degraded[product_id] = Degraded(_unmarked(config))
            elif found := self.degraded.get(product_id):
                sound = live and age is not None and age < (steps.warn or steps.reduce)
                found.sound_since = (found.sound_since or now) if sound else None
                if found.sound_since and (now - found.sound_since).total_seconds() >= steps.recover_seconds:
                    del self.degraded[product_id]


class Measure(Struct, frozen=True):
    """What one guard measures now; None where it cannot be told. `at_least` holds whatever the steps say."""

    value: Decimal | None
    detail: str = ""
    at_least: GuardLevel = GuardLevel.OK


class Scene(NamedTuple):
    """All that a guard may look at, at market time `now`. Amounts in the quote currency, None where not known."""

    config: RiskConfig
    state: State
    known: Knowledge
    now: datetime
    worth: Worth | None
    equity: Decimal | None
    limit: Decimal | None  # of the daily loss


# -- what each guard measures


def _daily_loss(c: Scene) -> Measure:
    """Part of the limit that is lost since 00:00 UTC."""
    worth, limit = c.worth, c.limit
    if worth is None:
        return _without_marks(c)
    if limit is None:
        return Measure(None, NO_OPENING)
    detail = f"daily_loss={_plain(worth.daily_loss)} limit={_plain(limit)}"
    return Measure(_share(worth.daily_loss, limit), detail)


def _drawdown(c: Scene) -> Measure:
    """Part of the highest equity that is lost."""
    equity, peak = c.equity, c.state.watch.peak_equity
    if c.state.books.unmarked(c.known.prices):
        return _without_marks(c)
    if equity is None:
        return Measure(None, NO_OPENING)
    if peak is None or peak <= 0:
        return Measure(None, "there has been no equity yet")
    return Measure(_share(max(ZERO, peak - equity), peak), f"equity={_plain(equity)} peak={_plain(peak)}")


def _volatility(c: Scene) -> Measure:
    """Realised volatility per year of the product with the highest. A market that has been silent for a window says
    nothing of today: it must not keep all others from trading."""
    watch, config = c.state.watch, c.config.guards.volatility
    silent = timedelta(seconds=config.window * config.sample_seconds)
    heard = [
        product for product in c.known.products if product in watch.marked and c.now - watch.marked[product] < silent
    ]
    figures = {product: figure for product in heard if (figure := watch.volatility.get(product)) is not None}
    if not figures:
        return Measure(None, "not enough samples")
    worst = max(figures, key=figures.__getitem__)
    return Measure(Decimal(f"{figures[worst]:.4f}"), worst)


def _mark_staleness(c: Scene) -> Measure:
    """Seconds since the venue last confirmed a price, of the product where that is longest ago."""
    marks = c.known.marks
    ages = {product: _seconds(c.now - marks[product].at) for product in c.known.products if product in marks}
    missing = ", ".join(product for product in c.known.products if product not in ages)
    without = f"no mark of {missing}" if missing else ""
    if not ages:
        return Measure(None, without)
    oldest = max(ages, key=ages.__getitem__)
    return Measure(max(ZERO, ages[oldest]), f"{oldest}; {without}" if without else oldest)


def _concentration(c: Scene) -> Measure:
    """The largest position as a part of equity; without equity, it is beyond every step."""
    held = {product: abs(holding.quantity) for product, holding in c.state.books.holdings.items() if holding.quantity}
    if not held:
        return Measure(ZERO)
    if held.keys() - c.known.prices.keys():
        return _without_marks(c)
    equity = c.equity
    if equity is None:
        return Measure(None, NO_OPENING)
    values = {product: quantity * c.known.prices[product] for product, quantity in held.items()}
    largest = max(values, key=values.__getitem__)
    detail = f"{largest} value={_plain(values[largest])} equity={_plain(equity)}"
    return Measure(_share(values[largest], equity) if equity > 0 else BEYOND, detail)


def _order_errors(c: Scene) -> Measure:
    """Errors within the window; the one exactly that long ago is not among them."""
    window = timedelta(seconds=c.config.guards.order_errors.window_seconds)
    return Measure(Decimal(sum(c.now - at < window for at in c.state.watch.errors)))


def _rejections(c: Scene) -> Measure:
    """Orders that the venue has rejected in a row."""
    return Measure(Decimal(len(c.state.watch.rejections)))


def _position_drift(c: Scene) -> Measure:
    """What venue and books differ by, in the quote currency: of what has no price the least that it can be, nothing."""
    if c.state.drift is None:
        return Measure(None, "the books were not compared with the venue yet")
    if not c.state.drift:
        return Measure(ZERO)
    prices = {c.known.quote_currency: Decimal(1)}
    for product_id, price in c.known.prices.items():
        base, quote = currencies(product_id)
        if quote == c.known.quote_currency:
            prices[base] = price
    values = [abs(drift) * prices[currency] for currency, drift in c.state.drift.items() if currency in prices]
    parts = [f"drift_{currency}={_plain(drift)}" for currency, drift in c.state.drift.items()]
    parts += [f"no mark of {currency}" for currency in c.state.drift if currency not in prices]
    return Measure(sum(values, ZERO) if values else None, " ".join(parts), GuardLevel.REDUCE)


MEASURES: dict[Guard, Callable[[Scene], Measure]] = {
    Guard.DAILY_LOSS: _daily_loss,
    Guard.DRAWDOWN: _drawdown,
    Guard.VOLATILITY: _volatility,
    Guard.MARK_STALENESS: _mark_staleness,
    Guard.CONCENTRATION: _concentration,
    Guard.ORDER_ERRORS: _order_errors,
    Guard.REJECTIONS: _rejections,
    Guard.POSITION_DRIFT: _position_drift,
}


# -- what follows from it


def measures(config: RiskConfig, state: State, known: Knowledge, now: datetime) -> dict[Guard, Measure]:
    standing = state.standing(known)
    scene = Scene(config, state, known, now, standing.worth, standing.equity, standing.daily_loss_limit(config))
    return {guard: measure(scene) for guard, measure in MEASURES.items()}


def steps_of(config: RiskConfig, guard: Guard) -> Steps:
    steps: Steps = getattr(config.guards, guard.value)
    return steps


def level(measure: Measure, steps: Steps) -> GuardLevel:
    """The worst level whose step is given and reached: value >= step."""
    return max(_reached(measure.value, steps), measure.at_least, key=SEVERITY.index)


def figures(config: RiskConfig, state: State, known: Knowledge, now: datetime) -> dict[Guard, GuardFigure]:
    """Every guard, in the order of the table."""
    found = {}
    for guard, measure in measures(config, state, known, now).items():
        steps = steps_of(config, guard)
        found[guard] = GuardFigure(
            level=level(measure, steps),
            value=measure.value,
            warn=steps.warn,
            reduce=steps.reduce,
            halt=steps.halt,
            detail=measure.detail,
        )
    return found


def _reached(value: Decimal | None, steps: Steps) -> GuardLevel:
    if value is None:
        return GuardLevel.UNKNOWN
    for step, name in (
        (steps.halt, GuardLevel.HALT),
        (steps.reduce, GuardLevel.REDUCE),
        (steps.warn, GuardLevel.WARNING),
    ):
        if step is not None and value >= step:
            return name
    return GuardLevel.OK


def realized(samples: list[tuple[datetime, Decimal]], config: Volatility) -> float | None:
    """Volatility per year, whatever the spacing of the samples: a return over t seconds counts t seconds. None with too
    few returns. A gap longer than the window counts as one window, and only as long as there is too little after it:
    hours at one price must not dilute what has happened since. A float: this figure is no money."""
    need = config.returns_min
    longest = config.window * config.sample_seconds
    spans = [(later[0] - earlier[0]).total_seconds() for earlier, later in pairwise(samples)]
    after_gap = next((place for place in range(len(spans), 0, -1) if spans[place - 1] > longest), 0)
    begin = after_gap if len(spans) - after_gap >= need else 0
    if len(spans) - begin < need:
        return None
    prices = [float(mid) for _, mid in samples[begin:]]
    squares = sum(math.log(later / earlier) ** 2 for earlier, later in pairwise(prices))
    return math.sqrt(squares / sum(min(span, longest) for span in spans[begin:]) * YEAR_SECONDS)


def _without_marks(c: Scene) -> Measure:
    return Measure(None, f"a mark of what is held is missing: {', '.join(c.state.books.unmarked(c.known.prices))}")


def _unmarked(config: Guards) -> str:
    return f"no mark for {_plain(config.mark_staleness.reduce)} seconds"


def _share(part: Decimal, whole: Decimal) -> Decimal:
    return min(part / whole, BEYOND).quantize(SHARES, ROUND_DOWN)


def _seconds(span: timedelta) -> Decimal:
    return Decimal(span // MICROSECOND).scaleb(-6)


def _plain(value: Decimal) -> str:
    return f"{value.normalize():f}"
