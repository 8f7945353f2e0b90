"""What a run of chaos has to say: a table for people, JSON for programs, one line when something is broken."""

from __future__ import annotations

import sys
from itertools import groupby
from statistics import median
from types import TracebackType
from typing import Any

import msgspec
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.chaos.campaign import LIMIT_SECONDS, Chaos, Result, Survived

WIDTH = 160  # for a place that is no terminal
TENTHS = 10


def slow(result: Result) -> list[Survived]:
    return [one for one in result.survived if one.recovered > LIMIT_SECONDS]


def verdict(result: Result) -> str:
    """The one line of a run that is not as it has to be; empty where it is."""
    troubles = list(result.broken)
    if late := slow(result):
        worst = max(late, key=lambda one: one.recovered)
        troubles.append(
            f"{len(late)} recoveries took longer than {LIMIT_SECONDS:.0f} s, the slowest {worst.recovered} s"
        )
    if not result.survived:
        troubles.append("no fault has struck")
    more = f" (and {len(troubles) - 1} more)" if len(troubles) > 1 else ""
    return troubles[0] + more if troubles else ""


def as_json(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(result)
    kinds = {row[0]: dict(zip(("faults", "median", "slowest"), row[1:], strict=True)) for row in _rows(result)}
    return {
        **found,
        "survived": len(result.survived),
        "recovery_seconds": kinds,
        "slow": msgspec.to_builtins(slow(result)),
    }


def show(result: Result) -> None:
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    faults = Table(box=SIMPLE, header_style="bold")
    faults.add_column("fault", overflow="fold")
    for name in ("survived", "recovery s: median", "slowest"):
        faults.add_column(name, justify="right")
    for kind, times, middle, slowest in _rows(result):
        faults.add_row(kind, str(times), f"{middle:.2f}", f"{slowest:.2f}")
    console.print(faults)
    figures = Table(show_header=False, box=None)
    for name, value in _figures(result):
        figures.add_row(name, value)
    console.print(figures)


def _rows(result: Result) -> list[tuple[str, int, float, float]]:
    ordered = sorted(result.survived, key=lambda one: (one.means, one.kind))
    found = []
    for kind, group in groupby(ordered, key=lambda one: one.kind):
        seconds = [one.recovered for one in group]
        found.append((kind, len(seconds), median(seconds), max(seconds)))
    return found


def _figures(result: Result) -> list[tuple[str, str]]:
    found = {
        "market": result.market,
        "seed": str(result.seed),
        "seconds": f"{result.seconds:.0f}",
        "faults survived": str(len(result.survived)),
        "faults that met nobody": str(result.idle),
        "slowest recovery": f"{max((one.recovered for one in result.survived), default=0):.2f} s",
        "operator": ", ".join(f"{name} {times}" for name, times in sorted(result.asked.items())),
        "stopped by guards": ", ".join(f"{what} ({times})" for what, times in result.interventions.items()) or "never",
    }
    if result.count is not None:
        found |= {
            "orders": str(result.count.orders),
            "fills": str(result.count.fills),
            "doubles": str(len(result.count.doubles)),
            "losses": str(len(result.count.losses)),
            "UNKNOWN orders": str(result.count.unknown),
            "slowest settlement": f"{result.count.slowest_unknown:.1f} s",
        }
    rows = list(found.items())
    for one in slow(result):
        also = f", with {' and '.join(one.beside)}" if one.beside else ""
        rows.append((f"slow: {one.kind}", f"{one.recovered} s{also}; after {LIMIT_SECONDS:.0f} s: {one.late}"))
    return rows + [("broken", line) for line in result.broken]


class Bar:
    """Progress on stderr: a bar on a terminal, a line every tenth elsewhere."""

    def __init__(self, minutes: float) -> None:
        console = Console(stderr=True)
        columns = (BarColumn(24), TextColumn("{task.description}"), TimeRemainingColumn())
        self._total = minutes * 60
        self._bar = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = self._bar.add_task("the stack starts", total=self._total) if self._bar else None
        self._tenths = -1

    def __enter__(self) -> Bar:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def tell(self, seconds: float, chaos: Chaos) -> None:
        slowest = max((one.recovered for one in chaos.survived), default=0)
        line = f"{len(chaos.survived)} faults, {len(chaos.journal.fills)} fills, slowest recovery {slowest:.1f} s"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=seconds, description=line)
        elif (tenths := int(seconds * TENTHS / self._total)) > self._tenths:
            self._tenths = tenths
            print(f"{seconds:6.0f} s  {line}", file=sys.stderr, flush=True)
