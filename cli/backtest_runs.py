"""Runs of `perps-bot backtest`, one or a sweep: progress on stderr, the result on stdout, the files where told."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from cli import backtest_report as report
from cli.errors import BY_EXIT_STATUS
from cli.live import say
from cli.output import Json
from libs.common.errors import Stop
from sim.backtest import sweep
from sim.backtest.figures import figures_of
from sim.backtest.page import currency_of, page, sweep_page
from sim.backtest.result import Result
from sim.backtest.sweep import Order, Outcome, Run

TENTHS = 10


def run_single(order: Order, folder: Path, as_json: bool) -> None:
    with Bar(1) as bar:
        result = sweep.run(order, {}, lambda part: bar.tell(part, "of the ticks"))
    figures = figures_of(result)
    found = report.document(result, figures)
    speed = result.events / max(result.seconds, 0.001)
    say(f"{result.events:,} events in {result.seconds:.1f} s, {speed:,.0f} a second")
    _write(folder, page(result, figures), report.with_points(found, result), result)
    if as_json:
        print(report.as_text(found), end="", flush=True)
    else:
        report.show(result, figures, Console())


def run_sweep(
    order: Order, axes: dict[str, tuple[str, ...]], rank: str, workers: int, folder: Path, as_json: bool
) -> None:
    """A combination that fails is named. Raises Stop where every one of them does."""
    began = time.monotonic()
    combinations = sweep.grid(axes)
    runs, best = _run_all(order, combinations, rank, min(workers, len(combinations)))
    for run in runs:
        if run.error:
            say(f"failed: {', '.join(f'{name} = {value}' for name, value in run.parameters.items())}: {run.error}")
    if best is None or best.figures is None:
        kind = BY_EXIT_STATUS.get(runs[0].exit_code, Stop)
        raise kind(f"none of {len(runs)} combinations could be run, the first one: {runs[0].error}")
    say(f"{len(runs)} runs in {time.monotonic() - began:.1f} s")
    result, figures = msgspec.msgpack.decode(best.result, type=Result), best.figures
    runs, found = sweep.ranked(runs, rank), report.document(result, figures)
    full = report.sweep_document(runs, rank, report.with_points(found, result))
    _write(folder, sweep_page(result, figures, runs, axes, rank), full, result)
    if as_json:
        print(report.as_text(report.sweep_document(runs, rank, found)), end="", flush=True)
    else:
        console = Console()
        report.show_sweep(runs, rank, currency_of(result), console)
        report.show(result, figures, console)


def _run_all(
    order: Order, combinations: Sequence[dict[str, str]], rank: str, workers: int
) -> tuple[list[Run], Outcome | None]:
    """In the order of the grid, and the best: of all the others the result is dropped at once."""
    jobs = [partial(sweep.run, order, parameters) for parameters in combinations]
    ended: dict[int, Run] = {}
    parts = [0.0] * len(jobs)
    best: tuple[tuple[int, float, int], Outcome] | None = None
    with Bar(len(jobs)) as bar:

        def tell(number: int, part: float) -> None:
            parts[number] = part
            bar.tell(sum(parts), f"{len(ended)} of {len(jobs)} runs done")

        for number, outcome in sweep.run_all(jobs, workers, tell):
            ended[number] = Run(
                parameters=combinations[number],
                figures=outcome.figures,
                error=outcome.error,
                exit_code=outcome.exit_code,
            )
            place = (*sweep.place(outcome.figures, rank), number)
            if outcome.figures is not None and (best is None or place < best[0]):
                best = place, outcome
            tell(number, 1.0)
    return [ended[number] for number in range(len(jobs))], best[1] if best else None


def _write(folder: Path, html: str, found: Json, result: Result) -> None:
    texts = {
        "report.html": html,
        "result.json": report.as_text(found),
        "trades.csv": report.trades_csv(result.trips),
        "fills.csv": report.fills_csv(result.fills),
    }
    report.write(folder, texts)
    say(f"{', '.join(texts)} are in {folder}")


class Bar:
    """On a terminal a bar with the time to go, elsewhere a line every tenth. `total` is in runs."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._tenths = 0
        console = Console(stderr=True)
        columns = (BarColumn(24), TaskProgressColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = self._bar.add_task("reading the data", total=total) if self._bar else None

    def __enter__(self) -> Bar:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def tell(self, done: float, line: str) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, description=line)
        elif (tenths := int(done * TENTHS / self._total)) > self._tenths:
            self._tenths = tenths
            say(f"{tenths * 100 // TENTHS:3d} % {line}")
