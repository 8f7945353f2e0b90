"""What goes wrong, and when: a schedule drawn from a seed. Faults that were drawn can be left out one by one, and what
remains strikes as before: every other draw of a world comes from a sequence of its own."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from random import Random

from msgspec import Struct

from libs.common.subjects import SERVICES


class Kind(StrEnum):
    KILL = "kill -9"  # of a service, after `value` more of its steps
    KILL_ALL = "kill -9 of everything"
    STOP = "stop"  # SIGTERM, and a start by the supervisor
    PAUSE = "pause"  # SIGSTOP, for `seconds`
    TWIN = "second instance"  # of a service, for `seconds`; then one of the two dies
    CLOCK = "clock jump"  # the wall clock of a service, by `value` seconds, until `seconds` have passed
    BUS_KILL = "bus kill -9"
    BUS_PARTITION = "bus partition"  # between a service and the bus, for `seconds`
    BUS_RESET = "bus reset"
    BUS_SLOW = "bus slow"  # up to `value` seconds per message
    REST = "venue REST"  # `switch` strikes each request with the chance `value`, for `seconds`
    SOCKET = "venue socket"  # `switch` strikes with the chance `value`, for `seconds`
    VENUE = "venue"  # a fault switch of the simulated venue is at `value` for `seconds`
    STATE_LOST = "trading state lost"  # the stored trading state is deleted, or overwritten with nonsense (`value` 1)
    LAST_LOST = "last values lost"  # all of them, with the two services that would know them still
    HAND = "trade by hand"  # money comes in (`value` > 0) or goes out without an order of ours


class Fault(Struct, frozen=True):
    """`at` and `seconds` in virtual seconds; what the other fields mean depends on the kind."""

    at: float
    kind: Kind
    target: str = ""
    switch: str = ""
    seconds: float = 0.0
    value: float = 0.0

    def __str__(self) -> str:
        parts = [f"{self.at:7.2f} s  {self.kind}", self.target, self.switch]
        parts += [f"value {self.value:g}"] if self.value else []
        parts += [f"for {self.seconds:.2f} s"] if self.seconds else []
        return " ".join(part for part in parts if part)


RARE_CHANCE = 0.1
REST_SWITCHES = (
    "refuse",
    "lose_request",
    "lose_answer",
    "late_request",
    "duplicate_request",
    "error_after",
    "html_before",
    "html_after",
    "too_many",
    "unauthorized",
    "slow",
    "garbage",
)
SOCKET_SWITCHES = ("cut", "half_open", "refuse_dial", "duplicate_frame", "reorder_frame", "skip_frame", "slow_frames")
# Fault switches of `sim.faults.Faults`, and a value for each.
VENUE_SWITCHES: tuple[tuple[str, float], ...] = (
    ("orders_lag_seconds", 2.0),
    ("fills_lag_seconds", 2.0),
    ("take_at_most_fraction", 0.5),
    ("pending_delay_seconds", 0.5),
    ("cancel_queued", 1),
    ("user_drop", 5),
    ("user_duplicate", 5),
    ("user_reorder", 5),
    ("skip_sequence", 1),
    ("silent_sockets", 1),
    ("accept_then_drop", 2),
    ("accept_then_500", 2),
    ("cancel_then_drop", 2),
    ("edit_then_drop", 1),
    ("reject_before", 2),
    ("clock_skew_seconds", 2.0),
)


def schedule(seed: int, start: float, end: float) -> list[Fault]:
    """Between 4 and 13 faults of one world, in the order of their times."""
    chance = Random(f"{seed} faults")
    found = [_draw(chance, chance.uniform(start, end)) for _ in range(chance.randint(4, 12))]
    rare = Random(f"{seed} rare faults")
    if rare.random() < RARE_CHANCE:
        found.append(Fault(rare.uniform(start, end), Kind.LAST_LOST))
    return sorted(found, key=lambda fault: fault.at)


def _draw(chance: Random, at: float) -> Fault:
    kind = chance.choices([kind for kind, _, _ in TABLE], [weight for _, weight, _ in TABLE])[0]
    make = next(make for known, _, make in TABLE if known is kind)
    return make(chance, at)


def _kill(chance: Random, at: float) -> Fault:
    return Fault(at, Kind.KILL, chance.choice(SERVICES), value=chance.choice((0, 1, 3, 10, 30, 100, 300)))


def _lasting(kind: Kind, least: float, most: float) -> Callable[[Random, float], Fault]:
    def make(chance: Random, at: float) -> Fault:
        return Fault(at, kind, chance.choice(SERVICES), seconds=chance.uniform(least, most))

    return make


def _clock(chance: Random, at: float) -> Fault:
    jump = chance.choice((-3.0, -1.0, 1.0, 3.0, 20.0))
    return Fault(at, Kind.CLOCK, chance.choice(SERVICES), seconds=chance.uniform(2, 15), value=jump)


def _slow(chance: Random, at: float) -> Fault:
    return Fault(
        at, Kind.BUS_SLOW, chance.choice(SERVICES), seconds=chance.uniform(2, 10), value=chance.uniform(0.02, 1)
    )


def _switched(kind: Kind, switches: tuple[str, ...]) -> Callable[[Random, float], Fault]:
    def make(chance: Random, at: float) -> Fault:
        strength = chance.choice((0.1, 0.3, 0.7, 1.0))
        return Fault(at, kind, switch=chance.choice(switches), seconds=chance.uniform(2, 12), value=strength)

    return make


def _venue(chance: Random, at: float) -> Fault:
    switch, value = chance.choice(VENUE_SWITCHES)
    return Fault(at, Kind.VENUE, switch=switch, seconds=chance.uniform(3, 12), value=value)


TABLE: tuple[tuple[Kind, int, Callable[[Random, float], Fault]], ...] = (
    (Kind.KILL, 10, _kill),
    (Kind.KILL_ALL, 1, lambda chance, at: Fault(at, Kind.KILL_ALL)),
    (Kind.STOP, 2, lambda chance, at: Fault(at, Kind.STOP, chance.choice(SERVICES))),
    (Kind.PAUSE, 4, _lasting(Kind.PAUSE, 0.2, 8)),
    (Kind.TWIN, 2, _lasting(Kind.TWIN, 3, 15)),
    (Kind.CLOCK, 2, _clock),
    (Kind.BUS_KILL, 2, lambda chance, at: Fault(at, Kind.BUS_KILL, seconds=chance.uniform(0.1, 8))),
    (Kind.BUS_PARTITION, 4, _lasting(Kind.BUS_PARTITION, 0.5, 25)),
    (Kind.BUS_RESET, 2, lambda chance, at: Fault(at, Kind.BUS_RESET, chance.choice(SERVICES))),
    (Kind.BUS_SLOW, 2, _slow),
    (Kind.REST, 8, _switched(Kind.REST, REST_SWITCHES)),
    (Kind.SOCKET, 4, _switched(Kind.SOCKET, SOCKET_SWITCHES)),
    (Kind.VENUE, 6, _venue),
    (Kind.STATE_LOST, 1, lambda chance, at: Fault(at, Kind.STATE_LOST, value=chance.choice((0, 1)))),
    (Kind.HAND, 1, lambda chance, at: Fault(at, Kind.HAND, value=chance.choice((-500.0, 500.0)))),
)
