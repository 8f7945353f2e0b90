"""A planted bug: a plausible mistake in our own code, put in place of the real thing for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import NamedTuple

from msgspec import Struct, structs

from sim.world import checks, world
from sim.world.checks import LIVENESS
from sim.world.faults import Fault, Kind
from sim.world.processes import Configs
from sim.world.strikes import Strikes

FIRST_FAULT, LAST_FAULT = 9.0, 88.0  # virtual seconds of a schedule made for one bug
SETTLES = LIVENESS


class Patch(NamedTuple):
    """`owner` (a class or a module) has `name` itself, and not from elsewhere."""

    owner: object
    name: str
    faulty: object

    @property
    def current(self) -> object:
        """As it stands in the owner, not bound to anything. Raises KeyError where it is not there."""
        return vars(self.owner)[self.name]


class Bug(Struct, frozen=True):
    """`wrong` is what a reviewer would say. One of `rules` of the design (by their numbers, or SETTLES) must break
    within the seeds 0 to `within` - 1; `first` is the seed that does it. `faults` replace those of the seed; `scene`
    is where the bug shows early (a smaller limit): the world holds there without the bug."""

    name: str
    wrong: str
    rules: tuple[int | str, ...]
    first: int
    within: int
    patches: tuple[Patch, ...]
    faults: tuple[Fault, ...] | None = None
    scene: tuple[Patch, ...] = ()


@contextmanager
def planted(*patches: Patch) -> Iterator[None]:
    """Afterwards everything is as it was."""
    with ExitStack() as after:
        for patch in patches:
            after.callback(setattr, patch.owner, patch.name, patch.current)
            setattr(patch.owner, patch.name, patch.faulty)
        yield


def replaces(
    owner: object,
    name: str,
    *also: Patch,
    rules: tuple[int | str, ...],
    first: int = 0,
    within: int = 5,
    faults: tuple[Fault, ...] | None = None,
    scene: tuple[Patch, ...] = (),
    wrap: Callable[[Callable[..., object]], object] = lambda faulty: faulty,
) -> Callable[[Callable[..., object]], Bug]:
    """Make a bug of the faulty function: its name is the bug's, its docstring what is wrong. `wrap`: property."""

    def made(faulty: Callable[..., object]) -> Bug:
        patches = (Patch(owner, name, wrap(faulty)), *also)
        wrong = " ".join((faulty.__doc__ or "").split())
        return Bug(faulty.__name__.replace("_", " "), wrong, rules, first, within, patches, faults, scene)

    return made


_configs = world._configs


def _approving(configs: Configs) -> Configs:
    """Approvals outlive many a change of the trading state."""
    risk = structs.replace(configs.risk, approval_ttl_seconds=20)
    return structs.replace(configs, risk=risk, strategy=structs.replace(configs.strategy, signal_ttl_seconds=20))


TIGHT_LIMIT = (
    Patch(world, "_configs", lambda *chosen: _configs(*chosen[:-1], True)),
)  # of the daily loss: fees alone reach it
# With faults of the venue alone, nothing excuses an order that leaves under another trading state.
LONG_APPROVALS = (
    Patch(world, "_configs", lambda *chosen: _approving(_configs(*chosen))),
    Patch(Strikes, "_disturbed", lambda self, seconds: None),
)
SOON_SEEN = (Patch(checks, "DRIFT_GRACE_SECONDS", 30.0),)  # with nothing else wrong: two readings of the account
# Not a midnight of UTC, but one of Tokyo, passes within the life.
TOKYO_MIDNIGHT = (Patch(world, "NOON", datetime(2026, 3, 1, 14, 59, 30, tzinfo=UTC)),)


def again(
    every: float, kind: Kind, target: str = "", *, switch: str = "", seconds: float = 0.0, value: float = 0.0
) -> tuple[Fault, ...]:
    """The same fault, over and over; each ends before the next one begins."""
    assert seconds < every, "the end of a fault would switch off the next one"
    times = range(int((LAST_FAULT - FIRST_FAULT) // every) + 1)
    return tuple(Fault(FIRST_FAULT + every * number, kind, target, switch, seconds, value) for number in times)


def always(kind: Kind, target: str = "", *, switch: str = "", value: float = 0.0) -> tuple[Fault, ...]:
    """One fault that lasts as long as there are faults."""
    return (Fault(FIRST_FAULT, kind, target, switch, LAST_FAULT - FIRST_FAULT, value),)


def together(*schedules: tuple[Fault, ...]) -> tuple[Fault, ...]:
    return tuple(sorted((fault for schedule in schedules for fault in schedule), key=lambda fault: fault.at))
