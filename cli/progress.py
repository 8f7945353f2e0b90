"""Progress on stderr: of a replay, a bar on a terminal and a line every tenth elsewhere; of passes over a list whose
length nobody knows, a moving line, or one line a pass."""

from __future__ import annotations

import time
from datetime import datetime
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from cli.feeder import Step
from cli.journal import Journal, money
from cli.live import say

REFRESH_SECONDS = 0.2
TENTHS = 10


class Progress:
    """Told of every step; draws seldom enough to cost nothing."""

    def __init__(self, total_ticks: int, journal: Journal) -> None:
        self._total = total_ticks
        self._journal = journal
        self._began = time.monotonic()
        self._drawn_at = 0.0
        self._tenths = 0
        self._first: datetime | None = None
        console = Console(stderr=True)
        columns = (BarColumn(24), TaskProgressColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self._bar = Bar(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = self._bar.add_task("", total=total_ticks) if self._bar else None

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, step: Step) -> None:
        self._first = self._first or step.market_time
        now = time.monotonic()
        if self._bar is not None and self._task is not None:
            if now - self._drawn_at >= REFRESH_SECONDS:
                self._drawn_at = now
                self._bar.update(self._task, completed=step.ticks_done, description=self._describe(step, now))
        elif (tenths := step.ticks_done * TENTHS // self._total) > self._tenths:
            self._tenths = tenths
            say(f"{tenths * 100 // TENTHS:3d} % {self._describe(step, now)}")

    def _describe(self, step: Step, now: float) -> str:
        assert self._first is not None
        speed = (step.market_time - self._first).total_seconds() / max(now - self._began, 0.001)
        figures = self._journal.figures
        equity = money(figures.equity if figures else None)
        return f"{step.market_time:%Y-%m-%d %H:%M} x{speed:,.0f} {len(self._journal.fills)} fills, equity {equity}"


class Passes:
    """`tell` it how much of what is known by now is done."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (BarColumn(24), TextColumn("{task.description}"))
        self._bar = Bar(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = self._bar.add_task("", total=None) if self._bar else None
        self._told = (0, 0)

    def __enter__(self) -> Passes:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def tell(self, line: str, done: int, total: int) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=line, completed=done, total=total or None)
        elif (done, total) != self._told:
            self._told = (done, total)
            say(line)
