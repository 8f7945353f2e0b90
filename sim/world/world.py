"""One world: the five services, the bus, the venue, a market and an operator through a short, eventful life."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from msgspec import Struct

from libs.common import messages as m
from libs.common import settings as settings_module
from libs.common.provision import provision
from libs.common.subjects import SERVICES, decode
from sim.book import Depth
from sim.events import Event
from sim.world.checks import DEFECT, LIVENESS, Broken, Checks, Surroundings, readable
from sim.world.exchange import open_venue
from sim.world.facts import Facts
from sim.world.faults import Fault, schedule
from sim.world.loop import Clock, Loop, Scheduler
from sim.world.market import Market
from sim.world.nats_client import open_bus
from sim.world.nats_server import NatsServer
from sim.world.network import VenueNetwork
from sim.world.operator import Operator
from sim.world.processes import Configs, Life, configs_of
from sim.world.settling import forgotten, unsettled
from sim.world.streams import Stored
from sim.world.strikes import TRADING_SUBJECT, Strikes
from sim.world.told import on_figures, on_mark
from sim.world.waits import Waits

FAULTS_FROM, FAULTS_TO, QUIET_FROM = 8.0, 90.0, 95.0  # virtual seconds
SETTLED_BY = 80.0  # seconds of quiet; a lost request alone needs its token's life, a margin and two listings
NOON, NIGHT = datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 1, 23, 59, 20, tzinfo=UTC)
OPENING = {"USD": Decimal(20_000), "BTC": Decimal("0.05"), "ETH": Decimal(1)}
PRODUCTS = ("BTC-USD", "BTC-USD", "BTC-USD,ETH-USD")
ORDERS_LEAST, LONGEST = 20, 150.0  # a world that has seen fewer orders trades on, to so many virtual seconds
TIGHT_LIMIT = Decimal(40)  # quote currency a day, in some worlds: fees alone reach it
TOUCH = Decimal(250)  # quote currency at the best price: larger orders are filled in parts
RESTART_SECONDS = (0.3, 2.0)  # the supervisor's pause before a start


class Outcome(Struct, frozen=True):
    """What came of a seed. `broken` is empty where every rule held; times in virtual seconds."""

    seed: int
    faults: tuple[Fault, ...]
    broken: str
    ended_at: float
    orders: int
    fills: int
    starts: int
    steps: int


@cache
def _configs(products: str, tight: bool) -> Configs:
    settings = settings_module.load("profile", {"PERPS_MARKET_PRODUCTS": products}, Path(__file__).parent)
    configs = configs_of(settings)
    if not tight:
        return configs
    return msgspec.structs.replace(configs, risk=msgspec.structs.replace(configs.risk, daily_loss_limit=TIGHT_LIMIT))


class Trace:
    """A life as lines. Nothing is formatted where nobody reads it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, now: float, who: str, what: str) -> None:
        self.lines.append(f"{now:9.4f} {who:<14} {what}")


def run(seed: int, faults: Sequence[Fault] | None = None, trace: Trace | None = None) -> Outcome:
    """Live through one world. `faults` replaces the schedule that the seed gives."""
    world = World(seed, schedule(seed, FAULTS_FROM, FAULTS_TO) if faults is None else faults, trace)
    try:
        world.live()
    except Broken as broken:
        return world.outcome(str(broken))
    finally:
        world.bury()
    return world.outcome("")


class World:
    def __init__(self, seed: int, faults: Sequence[Fault], trace: Trace | None) -> None:
        self.seed = seed
        self.faults = tuple(faults)
        self.scheduler = Scheduler()
        self.trace = trace
        self.configs = _configs(self.chance("products").choice(PRODUCTS), self.chance("limit").random() < 0.15)
        self.epoch = NIGHT if self.chance("epoch").random() < 0.2 else NOON
        self.lives: list[Life] = []
        self.starts = 0
        self.quiet = False
        self.by_hand: dict[str, Decimal] = {}
        self.around = Surroundings(wall=self.epoch)
        self.facts = Facts(OPENING)
        self.checks = Checks(self.facts, self.configs.risk, self.around)
        self.products = self.configs.settings.market.products
        self.venue = open_venue(self.scheduler, self.epoch, self.products, OPENING, str(seed))
        self.exchange = self.venue.exchange
        rules = self.exchange.rules
        self.exchange.rules = msgspec.structs.replace(rules, depth=Depth(levels=6, level_value=TOUCH))
        self.server = NatsServer(self.scheduler, self.chance("bus"), self.epoch)
        self.network = VenueNetwork(self.scheduler, self.chance("network"), self.venue)
        self.market = Market(self.scheduler, self.chance("market"), self.epoch, self.products, self._tick)
        self.strikes = Strikes(self)
        self.waits = Waits(self)
        self._told = self.venue.publish
        self._hook()

    def chance(self, purpose: str) -> Random:
        """A sequence of its own for each purpose: leaving out a fault moves nothing else."""
        return Random(f"{self.seed} {purpose}")

    def say(self, who: str, what: str) -> None:
        if self.trace is not None:
            self.trace.add(self.scheduler.now, who, what)

    # -- life

    def live(self) -> None:
        """Raises Broken."""
        self.scheduler.after_step = self._judge
        for product_id in self.products:
            self._prime(product_id)
        provisioner = self._loop("provisioner")
        provisioner.start(self._provision(provisioner))
        self.scheduler.run(0.5)
        self.market.start()
        self._every_second()
        for service in SERVICES:
            self.begin(service)
        operator = self._loop("operator")
        operator.start(self._operate(operator))
        for fault in self.faults:
            self.scheduler.at(fault.at, partial(self.strikes.strike, fault))
        self.scheduler.run(QUIET_FROM)
        self._end_faults()
        while self._orders() < ORDERS_LEAST and self.scheduler.now < LONGEST:
            self.scheduler.run(self.scheduler.now + 1)
        self.quiet = True
        self._settle()

    def _settle(self) -> None:
        deadline = self.scheduler.now + SETTLED_BY
        while why := unsettled(self) or forgotten(self):
            if self.scheduler.now >= deadline:
                rule: int | str = LIVENESS if unsettled(self) else 9
                self.checks.fail(rule, f"after {SETTLED_BY:.0f} s without faults {why}")
                self._judge()
            self.scheduler.run(self.scheduler.now + 1)

    def _end_faults(self) -> None:
        self.say("world", "the faults are over")
        self.strikes.end()

    async def _provision(self, loop: Loop) -> None:
        clock = Clock(loop, self.epoch)
        bus = await open_bus(self.server, loop, "provisioner", clock, self._lost, self.chance("provisioner"))
        await provision(bus, clock, f"installation-{self.seed}")
        await bus.close()

    async def _operate(self, loop: Loop) -> None:
        clock = Clock(loop, self.epoch)
        bus = await open_bus(self.server, loop, "operator", clock, self._lost, self.chance("operator's bus"))
        chance = self.chance("operator")
        self.operator = Operator(bus, self.checks, chance, lambda what: self.say("operator", what))
        await self.operator.trade(lambda: self.quiet)

    def _lost(self, error: BaseException) -> None:
        self.checks.fail(DEFECT, f"the world itself: {error!r}")

    # -- processes

    def begin(self, service: str) -> Life:
        """Start it, now."""
        self.starts += 1
        loop = self._loop(f"{service}-{self.starts}")
        life = Life(self, service, loop, Clock(loop, self.epoch), self.chance(f"{service} {self.starts}"))
        loop.on_death = partial(self._died, life)
        self.lives.append(life)
        self.say(loop.name, "starts")
        life.start()
        return life

    def alive(self, service: str) -> list[Life]:
        return [life for life in self.lives if life.service == service and life.loop.alive]

    def _loop(self, name: str) -> Loop:
        return Loop(self.scheduler, name, self._lost)

    def _died(self, life: Life) -> None:
        """The supervisor starts it again, unless another instance is running."""
        self.say(life.loop.name, f"ended: {life.error}" if life.error else "ended")
        if life.defect:
            self.checks.fail(DEFECT, f"{life.loop.name} by {life.error!r}")
        elif life.error is not None:
            self.waits.ended(life)
        if not self.alive(life.service):
            pause = self.chance(f"pause {self.starts} {life.loop.name}").uniform(*RESTART_SECONDS)
            self.scheduler.later(pause, partial(self._begin_again, life.service))

    def _begin_again(self, service: str) -> None:
        if not self.alive(service):
            self.begin(service)

    def bury(self) -> None:
        for life in self.lives:
            life.loop.bury()

    def move_by_hand(self, currency: str, amount: Decimal) -> None:
        """A deposit, or (negative) a withdrawal."""
        self.by_hand[currency] = self.by_hand.get(currency, Decimal(0)) + amount
        self.exchange._account.add(currency, amount)
        self.operator.unclassified.append(amount)
        since = self.around.by_hand_since or self.scheduler.now
        self.around.by_hand_since = since if sum(self.operator.unclassified) else None

    @property
    def network_calm(self) -> bool:
        """Nothing was wrong with the way to the venue, nor with the venue, for some seconds."""
        return self.scheduler.now > self.around.venue_until

    # -- what the checks are told

    def _hook(self) -> None:
        self.server.on_stored = self._on_stored
        self.server.on_published = self._on_published
        self.network.observe(self._on_sent, self._on_acted)
        self.venue.publish = self._on_venue

    def _now(self) -> Surroundings:
        around = self.around
        around.now = self.scheduler.now
        around.wall = self.epoch + timedelta(seconds=self.scheduler.now)
        for life in self.alive("marketdata"):
            if life.shell is not None and life.shell.last_venue_at is not None:
                heard = (life.shell.last_venue_at - self.epoch).total_seconds() - life.loop.wall_offset
                around.frame_at = max(around.frame_at, min(heard, around.now))
        return around

    def _judge(self) -> None:
        if self.checks.broken is not None:
            raise self.checks.broken

    def _on_stored(self, stored: Stored) -> None:
        self._now()
        if stored.stream == "LEDGER":
            message = decode(stored.subject, stored.data)
            self.say("ledger", f"{stored.sequence} {_shown(message)}")
            self.checks.on_ledger(stored.sequence, message)
        elif stored.subject == TRADING_SUBJECT:
            state = readable(stored.data, stored.sequence)
            self.say("bus", f"trading state {stored.sequence}: {state.state if state else 'lost'}")
            self.checks.on_trading(state)

    def _on_published(self, subject: str, data: bytes, identity: str) -> None:
        self._now()
        if subject.startswith("perps.mark."):
            mark: Any = decode(subject, data)
            self.facts.see(self.scheduler.now, mark)
            on_mark(self.checks, mark, self.epoch)
        elif subject == "perps.account":
            self.facts.account_told = True
        elif subject == "perps.risk":
            figures: Any = decode(subject, data)
            on_figures(self.checks, figures, whole_day=self.around.wall.date() == self.epoch.date())
        elif subject.startswith("perps.signal."):
            signal: Any = decode(subject, data)
            self.checks.on_signal(signal)
        elif subject == "perps.state":
            announced: Any = decode(subject, data)
            self.checks.on_announced(announced)

    def _on_sent(self, name: str, method: str, path: str, body: bytes, expires_at: datetime | None) -> None:
        if (method, path) != ("POST", "/orders"):
            return
        life = next((life for life in self.lives if life.loop.name == name), None)
        around = self._now()
        around.execution_clock = timedelta(seconds=life.loop.wall_offset if life else 0)
        key = msgspec.json.decode(body)["client_order_id"]
        self.say(name, f"sends order {key}")
        self.checks.on_sent(key, expires_at)

    def _on_acted(self, name: str, method: str, path: str, body: bytes, expires_at: datetime | None) -> None:
        if (method, path) == ("POST", "/orders"):
            self._now()
            self.checks.on_acted(msgspec.json.decode(body)["client_order_id"])

    def _on_venue(self, events: Sequence[Event]) -> None:
        self._now()
        for event in events:
            self.checks.on_venue(event)
        totals = self.exchange.ledger.totals
        self.checks.on_balances(totals, self.by_hand)
        self._told(events)

    # -- time

    def _prime(self, product_id: str) -> None:
        tick = self.market.tick(product_id)
        self.facts.trade(self.scheduler.now, product_id, tick.price)
        self.exchange.prime(tick)
        self.venue.remember(tick)

    def _tick(self, tick: Any) -> None:
        self.facts.trade(self.scheduler.now, tick.product_id, tick.price)
        self.venue.deliver(tick)

    def _every_second(self) -> None:
        around = self._now()
        if around.wall.day != (around.wall - timedelta(seconds=1)).day:
            self.facts.begin_day()
        self.waits.every_second()
        self.scheduler.later(1, self._every_second)

    def _orders(self) -> int:
        """That the venue has seen."""
        return sum(len(order.venue) for order in self.facts.orders.values())

    def outcome(self, broken: str) -> Outcome:
        now, steps = self.scheduler.now, self.scheduler.steps
        fills = len(self.facts.fills)
        return Outcome(self.seed, self.faults, broken, now, self._orders(), fills, self.starts, steps)


def _shown(message: m.Message) -> str:
    match message:
        case m.Verdict():
            order = message.order
            told = f" {order.side} {order.quantity} {order.product_id} as {order.client_order_id}" if order else ""
            return f"verdict {message.signal_id[:8]} {message.reason}{told}"
        case m.OrderEvent():
            return f"order {message.client_order_id} {message.status} {message.reason} filled {message.filled_qty}"
        case m.Fill():
            return f"fill {message.client_order_id} {message.side} {message.size} at {message.price}"
    return type(message).__name__
