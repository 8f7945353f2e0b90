"""`perps-bot simulate`: worlds from seeds, with every fault that bus, venue and operating system can produce."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cli.live import say
from cli.loop import Json
from libs.common.errors import BadConfig, StackFailed

if TYPE_CHECKING:  # the five services take half a second to load, for which no other command should wait
    from sim.world.world import Outcome

SEEDS = 100
SHOWN = 10  # broken seeds with their schedules; more of them are only counted


def simulate(
    seeds: Annotated[int | None, typer.Option(help="How many worlds; else 100.")] = None,
    first: Annotated[int, typer.Option(help="The first seed.")] = 0,
    jobs: Annotated[int, typer.Option(help="Processes; 0: one per processor.")] = 0,
    seed: Annotated[int | None, typer.Option(help="This one only.")] = None,
    trace: Annotated[bool, typer.Option("--trace", help="With --seed: the life of that world as lines.")] = False,
    faults: Annotated[str, typer.Option(help="With --trace: the numbers of the faults that strike; 0: none.")] = "",
    as_json: Json = False,
) -> None:
    """Live through whole systems, each from a seed, with faults of all kinds; every rule is checked at every step."""
    if trace and seed is None:
        raise BadConfig("--trace goes with --seed")
    if faults and not trace:
        raise BadConfig("--faults goes with --trace")
    if seed is not None and (seeds is not None or first):
        raise BadConfig("--seed is one world: it does not go with --seeds or --first")
    if (seeds is not None and seeds < 1) or min(first, jobs, seed or 0) < 0:
        raise BadConfig("--seeds must be at least 1; --first, --seed and --jobs must not be negative")
    if seed is None:
        run_seeds(seeds or SEEDS, first, jobs or os.cpu_count() or 1, as_json)
    elif trace:
        retrace(seed, faults, as_json)
    else:
        run_seeds(1, seed, 1, as_json)


def run_seeds(seeds: int, first: int, jobs: int, as_json: bool) -> None:
    """Live through `seeds` worlds from `first` on. Raises StackFailed naming the first that broke a rule."""
    from sim.world.search import minimised, quiet, search

    began = time.monotonic()
    quiet()
    outcomes = list(_watched(search(range(first, first + seeds), jobs), seeds))
    broken = [outcome for outcome in outcomes if outcome.broken]
    smallest = [minimised(outcome) for outcome in _watched_faults(broken[:SHOWN])]
    _show(outcomes, smallest, len(broken), time.monotonic() - began, as_json)
    if broken:
        raise StackFailed(f"{len(broken)} of {seeds} seeds broke a rule; look at one: {_again(broken[0])}")


def retrace(seed: int, faults: str, as_json: bool) -> None:
    """One world as readable lines on stdout. `faults`: the numbers of those that strike, all where it is empty."""
    from sim.world.faults import schedule
    from sim.world.search import quiet
    from sim.world.world import FAULTS_FROM, FAULTS_TO, Trace, run

    quiet()
    trace, whole = Trace(), schedule(seed, FAULTS_FROM, FAULTS_TO)
    chosen = None
    if faults:
        try:
            numbers = [int(number) for number in faults.split(",")]
        except ValueError:
            numbers = [-1]
        if not all(0 <= number <= len(whole) for number in numbers):
            raise BadConfig(f"--faults takes numbers from 0 to {len(whole)}, like 1,3; 0 is none")
        chosen = tuple(whole[number - 1] for number in numbers if number)
    outcome = run(seed, chosen, trace)
    if as_json:
        print(json.dumps({"seed": seed, "broken": outcome.broken, "trace": trace.lines}, indent=2))
    else:
        for line in trace.lines:
            print(line)
    if outcome.broken:
        raise StackFailed(f"seed {seed} at {outcome.ended_at:.2f} s: {outcome.broken}")
    say(f"seed {seed}: every rule held, {outcome.orders} orders, {outcome.fills} fills, {outcome.starts} starts")


def _watched(outcomes: Iterator[Outcome], total: int) -> Iterator[Outcome]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("worlds", total=total)
        broken = 0
        for outcome in outcomes:
            broken += bool(outcome.broken)
            progress.update(task, advance=1, description=f"worlds, {broken} broken" if broken else "worlds")
            yield outcome


def _watched_faults(broken: list[Outcome]) -> Iterator[Outcome]:
    """Each is lived through again and again with fewer faults, which takes a while."""
    with Console(stderr=True).status("") as status:
        for number, outcome in enumerate(broken, 1):
            status.update(f"seed {outcome.seed}: looking for the faults that it needs ({number} of {len(broken)})")
            yield outcome


def _again(outcome: Outcome) -> str:
    return f"perps-bot simulate --seed {outcome.seed} --trace"


def _show(outcomes: list[Outcome], smallest: list[Outcome], broken: int, seconds: float, as_json: bool) -> None:
    figures: dict[str, float | int] = {
        "seeds": len(outcomes),
        "broken": broken,
        "orders": sum(outcome.orders for outcome in outcomes),
        "orders_least": min(outcome.orders for outcome in outcomes),
        "fills": sum(outcome.fills for outcome in outcomes),
        "faults": sum(len(outcome.faults) for outcome in outcomes),
        "starts": sum(outcome.starts for outcome in outcomes),
        "market_hours": round(sum(outcome.ended_at for outcome in outcomes) / 3600, 2),
        "seconds": round(seconds, 1),
    }
    if as_json:
        print(json.dumps({**figures, "breaks": [_described(outcome) for outcome in smallest]}, indent=2))
        return
    table = Table(show_header=False, box=None)
    for name, figure in figures.items():
        table.add_row(name.replace("_", " "), f"{figure:,}")
    console = Console(file=sys.stdout, markup=False, highlight=False, soft_wrap=True)
    console.print(table)
    for outcome in smallest:
        console.print(f"\nseed {outcome.seed} at {outcome.ended_at:.2f} s: {outcome.broken}")
        console.print(f"with {len(outcome.faults)} of its faults:")
        for fault in outcome.faults:
            console.print(f"  {fault}")
        console.print(f"  {_again(outcome)} --faults {_numbers(outcome)}")


def _numbers(outcome: Outcome) -> str:
    """Which faults of the seed's own schedule are left, counted from 1."""
    from sim.world.faults import schedule
    from sim.world.world import FAULTS_FROM, FAULTS_TO

    whole = schedule(outcome.seed, FAULTS_FROM, FAULTS_TO)
    return ",".join(str(whole.index(fault) + 1) for fault in outcome.faults) or "0"


def _described(outcome: Outcome) -> dict[str, object]:
    return {
        "seed": outcome.seed,
        "broken": outcome.broken,
        "at": round(outcome.ended_at, 3),
        "faults": [str(fault).strip() for fault in outcome.faults],
        "again": f"{_again(outcome)} --faults {_numbers(outcome)}",
    }
