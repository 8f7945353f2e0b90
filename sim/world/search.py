"""Many worlds over all processors, and the smallest schedule of faults that still breaks one."""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

from sim.world.faults import Fault, schedule
from sim.world.world import FAULTS_FROM, FAULTS_TO, Outcome, run

BATCH = 5  # worlds that a process lives through between two reports
Run = Callable[[int, "tuple[Fault, ...] | None"], Outcome]


def quiet() -> None:
    """A process of worlds: nothing is logged, and what a world leaves behind is collected between two of them."""
    logging.disable(logging.CRITICAL)
    gc.disable()


def _worker() -> None:
    """Ctrl-C ends it at once; the process that waits for it has the word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    quiet()


def live(seed: int, faults: tuple[Fault, ...] | None = None) -> Outcome:
    """One world in this process. What breaks the world itself is told like a broken rule, so that the seed is named."""
    try:
        return run(seed, faults)
    except Exception as error:  # noqa: BLE001 # the seed that does it must be told, whatever it does
        struck = tuple(schedule(seed, FAULTS_FROM, FAULTS_TO)) if faults is None else faults
        return Outcome(seed, struck, f"the world itself: {error!r}", 0.0, 0, 0, 0, 0)
    finally:
        gc.collect()


def search(seeds: Iterable[int], jobs: int) -> Iterator[Outcome]:
    """The outcome of every seed, as they come."""
    if jobs == 1:
        yield from map(live, seeds)
        return
    with ProcessPoolExecutor(jobs, initializer=_worker) as pool:
        try:
            yield from pool.map(live, seeds, chunksize=BATCH)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def minimised(outcome: Outcome, run: Run = live) -> Outcome:
    """The same break of the same seed with as few faults as possible: ever smaller parts are left out as long as the
    same rule still breaks. The result is whole again when no single fault can be left out."""
    best, size = outcome, max(1, len(outcome.faults) // 2)
    while True:
        found = _smaller(best, size, run)
        if found is not None:
            best = found
        elif size == 1:
            return best
        else:
            size //= 2
        size = max(1, min(size, len(best.faults) // 2))
        if not best.faults:
            return best


def _smaller(outcome: Outcome, size: int, run: Run) -> Outcome | None:
    for start in range(0, len(outcome.faults), size):
        found = run(outcome.seed, outcome.faults[:start] + outcome.faults[start + size :])
        if _rule(found) == _rule(outcome):
            return found
    return None


def _rule(outcome: Outcome) -> str:
    return outcome.broken.partition(":")[0]
