"""The backtest: the four cores that decide, the matching core, recorded ticks. No bus, no sockets, no event loop.

Everything that one tick causes is done before the next one comes, as a replay through the real processes does it
(`cli.feeder`), and in the order in which it happens there: messages are handled one hop after the other, so that a
mark reaches risk before the signal that a candle of the same moment makes of it; what a core makes durable, the core
itself learns at once, and everybody else one hop later. Each core's market time is the latest that a message told
it. The exporter is left out: it publishes nothing, and nobody trades by what it shows.

Time that is not the market's does not exist here. What the real services do by wall time is left out, because in a
replay, whose market time stands still between two ticks, it decides nothing: ticks of the shells, heartbeats of the
feed, repetitions, later readings of the account (it is read after the end of every order) and of the product rules,
later comparisons with the venue (nobody else trades there), the user channel (every order here is immediate, and is
asked about as soon as it is taken). A question that would wait for wall time is put again after the next tick.

Two things differ from a replay through the processes. That stamps what it hears by the number of the frame, up to a
microsecond later than the tick. And side by side on a busy machine, the signal may overtake that mark on the way to
risk: a check is then made with the mid of the tick before.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from libs.common import messages as m
from libs.common.settings import Settings
from libs.common.subjects import BY_TYPE, Kept
from services.execution import inputs as i
from services.execution.config import ExecutionConfig
from services.execution.core import ExecutionCore
from services.marketdata import facts as f
from services.marketdata.config import Config
from services.marketdata.core import MarketDataCore
from services.risk.config import RiskConfig
from services.risk.core import RiskCore
from services.risk.trading import GuardOutcome
from services.strategy.app import make_core
from services.strategy.config import StrategyConfig
from sim.backtest.books import Books
from sim.backtest.market import Market, open_market
from sim.backtest.result import Result
from sim.backtest.settings import prepared, venue_settings
from sim.backtest.venue import BacktestVenue
from sim.ticks import Tick

INSTALLATION = "backtest"
LEDGER = frozenset(kind for kind, route in BY_TYPE.items() if route.kept is Kept.LEDGER)
PROGRESS_TICKS = 500
# Of the trading state's bucket: its own first entry is 1, the installation is 2, and every later entry takes the next.
FIRST_REVISION, INSTALLED_REVISION = 1, 2


def run(
    settings: Settings,
    files: Sequence[Path],
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    granularity: str = "",
    strategy: str = "",
    parameters: Mapping[str, str] | None = None,
    installation: str = INSTALLATION,
    progress: Callable[[int, int], None] = lambda done, total: None,
    ledger: Callable[[m.Message], None] = lambda message: None,
) -> Result:
    """One run over start <= time < end of each file, one product a file.

    `settings` may be those of a profile that trades real money: nothing leaves this process. Candles are as long as
    the recording's bars unless `granularity` says otherwise; `strategy` and `parameters` replace what the profile says
    (see `sim.backtest.settings`). Ids of signals and orders follow from `installation`. `progress` is told ticks done
    and in all, now and then and at the end, `ledger` every message of the ledger as it is written. Equal arguments give
    an equal Result but for its `seconds`.

    Raises BadData for a file, BadConfig for everything else that is given.
    """
    given = parameters or {}
    market = open_market(files, start, end)
    settings = prepared(settings, market, granularity, strategy, given)
    began = time.perf_counter()
    system = System(settings, market, installation, ledger)
    last = system.run(market, progress)
    system.books.close(last.at)
    return _result(settings, given, market, system, last, time.perf_counter() - began)


def _result(
    settings: Settings, given: Mapping[str, str], market: Market, system: System, last: Tick, seconds: float
) -> Result:
    books = system.books
    return Result(
        profile=settings.profile,
        strategy=settings.section("strategy", StrategyConfig).name,
        parameters=dict(given),
        products=settings.market.products,
        granularity=settings.market.granularity,
        start=market.first_at,
        end=last.at,
        opening_equity=system.cash,
        events=system.ticks,
        seconds=seconds,
        bars=books.bars,
        points=books.points,
        signals=list(books.signals.values()),
        denials=dict(sorted(books.denials.items())),
        orders=books.orders,
        fills=books.fills,
        trips=books.trips,
        states=books.states,
    )


class Core(Protocol):
    def on_message(self, message: m.Message, now: datetime) -> list[m.Message]: ...


class Seat:
    """A core with its market time and, as its shell would count it, the ledger sequence up to which it knows all."""

    __slots__ = ("core", "now", "sequence")

    def __init__(self, core: Core) -> None:
        self.core = core
        self.now = m.EPOCH
        self.sequence = 0

    def take(self, message: m.Message) -> list[m.Message]:
        if message.at > self.now:
            self.now = message.at
        return self.core.on_message(message, self.now)


class System:
    """All cores around one queue. `books` reads along."""

    def __init__(
        self, settings: Settings, market: Market, installation: str, ledger: Callable[[m.Message], None]
    ) -> None:
        traded, sim = settings.market, venue_settings(settings)
        seconds = traded.candle_seconds
        self.cash = sim.cash
        self.ticks = 0
        self.books = Books(sim.cash, seconds, market.first_at)
        self.venue = BacktestVenue(market, sim, traded.quote_currency, seconds)
        risk = settings.section("risk", RiskConfig).for_replay(seconds)
        config = settings.section("marketdata", Config)
        self._execution_core = ExecutionCore(settings.section("execution", ExecutionConfig))
        self._risk_core = RiskCore(risk, traded.products, traded.quote_currency)
        self._marketdata = Seat(MarketDataCore(traded.products, traded.granularity, seconds, config, replay=True))
        self._strategy = Seat(make_core(settings))
        self._risk, self._execution = Seat(self._risk_core), Seat(self._execution_core)
        self._venue = Seat(self.venue)
        self._queue: deque[tuple[Seat, m.Message, int]] = deque()
        self._later: list[i.Query] = []
        self._ledger, self._sequence = ledger, 0
        self._revision = INSTALLED_REVISION
        self._readers = self._table()
        self._begin(installation)

    def _table(self) -> dict[type[m.Message], tuple[Seat, ...]]:
        """Who hears what: of the bus, as each service's `Inputs` name it, and what stays between a service and its
        surroundings."""
        strategy, risk, execution, marketdata = self._strategy, self._risk, self._execution, self._marketdata
        venue, books = self._venue, Seat(self.books)
        heard: dict[type[m.Message], tuple[Seat, ...]] = {
            m.Mark: (strategy, risk, books),
            m.Candle: (strategy, books),
            m.FeedState: (risk,),
            m.Product: (risk, execution),
            m.Signal: (risk, books),
            m.Account: (risk,),
            **{
                kind: (strategy, risk, execution, books) for kind, route in BY_TYPE.items() if route.kept is Kept.LEDGER
            },
            **dict.fromkeys((m.Decision, m.RiskFigures, GuardOutcome), ()),  # for the exporter and the log
            **dict.fromkeys((i.Placed, i.PlaceRefused, i.OrderSeen, i.Reconciled), (execution,)),
            **dict.fromkeys((f.Connected, f.FrameReceived, f.Pulse, f.Fetched), (marketdata,)),
            **dict.fromkeys((i.Place, i.Reconcile), (venue,)),
            **dict.fromkeys((f.Reconnect, f.FetchCandles, f.FetchTrades, f.FetchProduct), (venue,)),
        }
        return heard

    # -- life

    def _begin(self, installation: str) -> None:
        """The very first start: marketdata tells what it has, and the others take that up as last values."""
        made = m.Installation(id=installation)
        self.venue.trading = m.TradingState(
            id="trading-first",
            state=m.Trading.ACTIVE,
            reason="installation",
            who="provisioner",
            since=m.EPOCH,
            revision=FIRST_REVISION,
        )
        seats = (self._marketdata, self._strategy, self._risk, self._execution)
        for seat in seats:
            seat.take(made)
            seat.take(self.venue.trading)
        for seat in seats:
            self._do(seat, seat.take(m.Recovered(id="recovered")))
            self._settle()

    def run(self, market: Market, progress: Callable[[int, int], None]) -> Tick:
        """Feed every tick; gives the last."""
        total, last, queue, marketdata = market.total_ticks, None, self._queue, self._marketdata
        for last in market.ticks():
            queue.append((marketdata, self.venue.step(last), 0))
            self._settle()
            if self._later:
                self._ask_again()
            self.ticks += 1
            if self.ticks % PROGRESS_TICKS == 0:
                progress(self.ticks, total)
        assert last is not None, "a recording without a tick is refused when it is opened"
        progress(self.ticks, total)
        return last

    def _settle(self) -> None:
        queue = self._queue
        while queue:
            seat, message, sequence = queue.popleft()
            if sequence:
                self._reach(seat, sequence)
            if outputs := seat.take(message):
                self._do(seat, outputs)

    def _ask_again(self) -> None:
        self._queue.extend((self._venue, query, 0) for query in self._later)
        self._later.clear()
        self._settle()

    # -- what a core says

    def _do(self, seat: Seat, outputs: list[m.Message]) -> None:
        """What the shells do, in order."""
        for output in outputs:
            kind = type(output)
            if kind in LEDGER:
                self._append(seat, output)
            elif kind in self._readers:
                for reader in self._readers[kind]:
                    self._queue.append((reader, output, 0))
            else:
                self._perform(seat, output)

    def _append(self, seat: Seat, fact: m.Message) -> None:
        """Into the ledger; whoever wrote it acts on it at once."""
        self._sequence += 1
        self._ledger(fact)
        for reader in self._readers[type(fact)]:
            if reader is not seat:
                self._queue.append((reader, fact, self._sequence))
        self._reach(seat, self._sequence)
        self._do(seat, seat.take(fact))

    def _reach(self, seat: Seat, sequence: int) -> None:
        seat.sequence = sequence
        if seat is self._risk:
            self._risk_core.reached(sequence)

    def _perform(self, seat: Seat, output: m.Message) -> None:
        match output:
            case m.TradingState():
                self._store(output)
            case i.Query(delay_seconds=0):
                self._queue.append((self._venue, output, 0))
            case i.Query():
                self._later.append(output)
            case i.FetchAccount():
                self._read_account()
            case i.StoreOpening():
                self._revision += 1
                self._do(seat, seat.take(m.Installation(id=output.id, opening=output.opening)))
            case _:
                raise AssertionError(f"a backtest does not perform {type(output).__name__}")

    def _store(self, state: m.TradingState) -> None:
        """Risk's alone to change; everybody else hears of it."""
        self._revision += 1
        stored = self.venue.trading = replace(state, revision=self._revision)
        self.books.on_message(stored, stored.at)
        self._do(self._risk, self._risk.take(stored))
        for seat in (self._strategy, self._execution):
            self._queue.append((seat, stored, 0))

    def _read_account(self) -> None:
        seen = i.AccountSeen(
            id="account",
            epoch=self._execution_core.epoch,
            ledger_sequence=self._execution.sequence,
            parts=self.venue.account(),
        )
        self._queue.append((self._execution, seen, 0))
