"""What goes wrong, and when: a deck of every fault, shuffled by a seed and dealt for as long as one likes. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from enum import StrEnum

from msgspec import Struct

from libs.common.subjects import SERVICES
from tests.chaos.network import MARKET, REST, USER, VENUE, bus_wire

PROCESSES = (*SERVICES, "venue", "nats")
ALL_WIRES_TO_NATS = tuple(bus_wire(name) for name in SERVICES)
TOGETHER = {
    frozenset(SERVICES): "all services",
    frozenset(PROCESSES): "everything",
    frozenset(ALL_WIRES_TO_NATS): "all services to nats",
    frozenset(VENUE): "all services to the venue",
}
AT_ONCE = (1, 1, 1, 1, 1, 1, 2, 2, 3)  # faults of a bout
SPREAD_SECONDS = 2.0  # within which the faults of a bout begin
PAUSE_SECONDS = (0.5, 8.0)
DOWN_SECONDS = (0.0, 2.0)
CUT_SECONDS = (1.0, 8.0)
SWITCH_SECONDS = (3.0, 6.0)


class Means(StrEnum):
    KILL = "kill -9"
    STOP = "stop and start"
    PAUSE = "pause"
    CUT = "partition"
    VENUE = "venue"
    FEED = "market feed"


class Fault(Struct, frozen=True):
    """`seconds` after the beginning of its bout it strikes, and lasts so long; `targets` are processes or wires, or the
    names of the switches."""

    means: Means
    targets: tuple[str, ...]
    switches: dict[str, object] = {}
    after: float = 0
    seconds: float = 0

    @property
    def kind(self) -> str:
        return f"{self.means} {self.what}"

    @property
    def what(self) -> str:
        return TOGETHER.get(frozenset(self.targets)) or ", ".join(self.targets)


def venue(**switches: object) -> Fault:
    return Fault(Means.VENUE, tuple(switches), switches)


DECK = (
    *(Fault(Means.KILL, (name,)) for name in PROCESSES),
    *(Fault(Means.KILL, targets) for targets in (SERVICES, PROCESSES, ("risk", "execution"), ("execution", "venue"))),
    *(Fault(Means.STOP, (name,)) for name in PROCESSES),
    Fault(Means.STOP, tuple(SERVICES)),
    *(Fault(Means.PAUSE, (name,)) for name in PROCESSES),
    Fault(Means.PAUSE, tuple(SERVICES)),
    *(Fault(Means.CUT, (wire,)) for wire in (*ALL_WIRES_TO_NATS, REST, MARKET, USER)),
    Fault(Means.CUT, VENUE),
    Fault(Means.CUT, ALL_WIRES_TO_NATS),
    Fault(Means.CUT, (bus_wire("execution"), REST, USER)),
    venue(accept_then_drop=1),
    venue(accept_then_500=1),
    venue(accept_then_hang=1),
    venue(accept_then_drop=2, user_drop=20),  # the user channel does not tell of them either
    venue(accept_then_500=1, orders_lag_seconds=2, user_drop=20),
    venue(hang_requests=2),
    venue(reject_before=1),
    venue(cancel_then_drop=1),
    venue(edit_then_drop=1),
    venue(too_many_requests=8),
    venue(unauthorized=1),
    venue(html_5xx="reads"),
    venue(html_5xx="orders"),
    venue(html_5xx="all"),
    venue(answer_delay_seconds=1),
    venue(answer_delay_seconds=3),
    venue(orders_lag_seconds=3),
    venue(fills_lag_seconds=3),
    venue(clock_skew_seconds=2),
    venue(clock_skew_seconds=-2),
    venue(drop_sockets=1),
    venue(silent_sockets=True),
    venue(half_open_sockets=True),
    venue(skip_sequence=1),
    venue(reorder_sequence=1),
    venue(user_delay_seconds=2),
    venue(user_duplicate=20),
    venue(user_reorder=20),
    venue(user_drop=20),
    venue(take_at_most_fraction="0.4"),
    venue(pending_delay_seconds=1.5),
    Fault(Means.FEED, ("drop_sockets",), {"drop_sockets": 1}),
    Fault(Means.FEED, ("silent_sockets",), {"silent_sockets": True}),
)
LASTS = {
    Means.STOP: DOWN_SECONDS,
    Means.PAUSE: PAUSE_SECONDS,
    Means.CUT: CUT_SECONDS,
    Means.VENUE: SWITCH_SECONDS,
    Means.FEED: SWITCH_SECONDS,
}


def bouts(seed: int, recorded: bool = True) -> Iterator[tuple[Fault, ...]]:
    """Faults that strike together, for ever: every card of the deck once before any comes again. Without a recording
    there is no feed to break."""
    chance = random.Random(seed)
    cards: list[Fault] = []
    while True:
        bout: list[Fault] = []
        for _ in range(chance.choice(AT_ONCE)):
            if not cards:
                cards = [card for card in DECK if recorded or card.means is not Means.FEED]
                chance.shuffle(cards)
            bout.append(_timed(cards.pop(), chance, alone=not bout))
        yield tuple(bout)


def _timed(card: Fault, chance: random.Random, alone: bool) -> Fault:
    low, high = LASTS.get(card.means, (0.0, 0.0))
    after = 0.0 if alone else round(chance.uniform(0, SPREAD_SECONDS), 2)
    seconds = round(chance.uniform(low, high), 2)
    return Fault(card.means, card.targets, card.switches, after, seconds)
