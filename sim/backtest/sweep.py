"""Many runs at once, each in a process of its own.

A process per run instead of a pool: one that dies, or is killed for its memory, takes nothing but its own run with it,
and all of them can be ended at any moment.
"""

from __future__ import annotations

import itertools
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeAlias

import msgspec
from msgspec import Struct

from libs.common.errors import PerpsError, Stop
from libs.common.settings import Settings
from sim.backtest import engine
from sim.backtest.figures import Figures, figures_of, rank_value
from sim.backtest.result import Result

Tell: TypeAlias = Callable[[float], None]  # the part of a run that is done, 0 to 1
Job: TypeAlias = Callable[[Tell], Result]  # crosses to another process: a function of a module, or a partial of one
Share: TypeAlias = Callable[[int, float], None]  # which job, and the part of it that is done

GRAIN = 0.01  # a run tells no smaller steps


class Order(Struct, frozen=True, kw_only=True):
    """What is to be run, in the words of `engine.run`; `parameters` are those of every combination."""

    settings: Settings
    files: tuple[Path, ...]
    start: datetime | None = None
    end: datetime | None = None
    granularity: str = ""
    strategy: str = ""
    parameters: dict[str, str] = {}


class Run(Struct, frozen=True, kw_only=True):
    """One combination and what came of it: `figures`, or `error` (one line) with its exit code."""

    parameters: dict[str, str]
    figures: Figures | None = None
    error: str = ""
    exit_code: int = 0


class Outcome(Struct, frozen=True, kw_only=True):
    """`result` is a Result in msgpack: of hundreds only the best is ever unpacked."""

    figures: Figures | None = None
    result: bytes = b""
    error: str = ""
    exit_code: int = 0


def run(order: Order, parameters: Mapping[str, str], tell: Tell) -> Result:
    """One combination. Raises BadData and BadConfig."""
    return engine.run(
        order.settings,
        order.files,
        start=order.start,
        end=order.end,
        granularity=order.granularity,
        strategy=order.strategy,
        parameters={**order.parameters, **parameters},
        progress=lambda done, total: tell(done / total),
    )


def grid(axes: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """All combinations, the last parameter turning fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def place(figures: Figures | None, rank: str) -> tuple[int, float]:
    """Less is better: then come those without that figure, then those that failed."""
    if figures is None:
        return 2, 0.0
    value = rank_value(figures, rank)
    return (1, 0.0) if value is None else (0, -value)


def ranked(runs: Sequence[Run], rank: str) -> list[Run]:
    """The best first. Equals stay in the order of the grid."""
    return sorted(runs, key=lambda run: place(run.figures, rank))


def run_all(jobs: Sequence[Job], workers: int, share: Share) -> Iterator[tuple[int, Outcome]]:
    """Each job's number and outcome, as they end; `workers` at a time. Leaving the loop ends what still runs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    waiting = list(enumerate(jobs))[::-1]
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                number, job = waiting.pop()
                ours, theirs = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(target=_work, args=(theirs, job), daemon=True)
                process.start()
                theirs.close()
                running[ours] = number, process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                number, process = running[ready]
                told = _told(ready, process)
                if isinstance(told, Outcome):
                    del running[ready]
                    yield number, told
                else:
                    share(number, told)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def _told(pipe: Connection, process: BaseProcess) -> float | Outcome:
    """What the process says next; of one that ended without a word, that it did."""
    try:
        told: float | Outcome = pipe.recv()
    except EOFError:
        process.join()
        told = Outcome(error=f"its process ended with code {process.exitcode}", exit_code=Stop.exit_code)
    if isinstance(told, Outcome):
        pipe.close()
        process.join()
    return told


def _work(pipe: Connection, job: Job) -> None:
    """In the process of its own. A defect ends it with its traceback; the parent sees the pipe close."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, and the parent ends them
    told = 0.0

    def tell(part: float) -> None:
        nonlocal told
        if part - told >= GRAIN:
            told = part
            pipe.send(part)

    try:
        result = job(tell)
        outcome = Outcome(figures=figures_of(result), result=msgspec.msgpack.encode(result))
    except PerpsError as error:
        code = error.exit_code if isinstance(error, Stop) else Stop.exit_code
        outcome = Outcome(error=" ".join(str(error).split()), exit_code=code)
    pipe.send(outcome)
