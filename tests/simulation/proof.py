"""`python -m tests.simulation.proof [NAMES...] [--jobs N]`: every planted bug breaks a rule that it should, within its
seeds, and the same worlds hold without it.

Names are those of the catalogue, or a part of one. Ends with 0 where all are caught, else with 1 and one line.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sim.world.checks import RULES
from sim.world.search import live, quiet
from tests.simulation.bugs import BUGS
from tests.simulation.planting import Bug, planted

WIDTH = 100  # of the table where there is no terminal


class Catch(Struct, frozen=True):
    """What came of a bug: the seed that broke and how (empty: none did), and how that seed ends without the bug."""

    name: str
    seed: int
    broken: str
    control: str
    seconds: float

    @property
    def fault(self) -> str:
        """Why this proves nothing; empty where it proves that the checks work."""
        bug = BUGS[self.name]
        if not self.broken:
            return f"not caught within {bug.within} seeds"
        if rule_of(self.broken) not in bug.rules:
            return f"caught by the wrong rule at seed {self.seed}: {self.broken}"
        return f"seed {self.seed} breaks without it, too: {self.control}" if self.control else ""


def rule_of(broken: str) -> int | str:
    """The number of the rule that an outcome names, or its name."""
    named = broken.partition(":")[0]
    numbered = (number for number, words in RULES.items() if named == f"rule {number}, {words}")
    return next(numbered, named)


def broken_by(bug: Bug, seed: int) -> str:
    with planted(*bug.scene, *bug.patches):
        return live(seed, bug.faults).broken


def broken_without(bug: Bug, seed: int) -> str:
    with planted(*bug.scene):
        return live(seed, bug.faults).broken


def caught(name: str) -> Catch:
    """Seed after seed up to the first that breaks."""
    bug, began = BUGS[name], time.monotonic()
    found = ((seed, broken) for seed in range(bug.within) if (broken := broken_by(bug, seed)))
    seed, broken = next(found, (bug.within, ""))
    control = broken_without(bug, seed) if broken else ""
    return Catch(name, seed, broken, control, time.monotonic() - began)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.proof", description=__doc__)
    parser.add_argument("names", nargs="*", help="of planted bugs, or parts of names; all without any")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, by default one a processor")
    chosen = parser.parse_args(arguments)
    names = [name for name in BUGS if not chosen.names or any(part in name for part in chosen.names)]
    if not names or chosen.jobs < 1:
        print("no planted bug has such a name" if not names else "--jobs must be at least 1", file=sys.stderr)
        return 2
    catches = {catch.name: catch for catch in _watched(_all(names, chosen.jobs), len(names))}
    console = Console()
    Console(width=None if console.is_terminal else WIDTH).print(_table([catches[name] for name in names]))
    if moved := [f"{name} {catches[name].seed}" for name in names if catches[name].seed != BUGS[name].first]:
        print(f"the first seed has moved of: {', '.join(moved)}", file=sys.stderr)
    failed = [f"{name}: {catches[name].fault}" for name in names if catches[name].fault]
    if failed:
        print(f"{len(failed)} of {len(names)} planted bugs prove nothing; the first is {failed[0]}", file=sys.stderr)
    return 1 if failed else 0


def _all(names: Sequence[str], jobs: int) -> Iterator[Catch]:
    with ProcessPoolExecutor(jobs, initializer=quiet) as pool:
        try:
            for done in as_completed([pool.submit(caught, name) for name in names]):
                yield done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _watched(catches: Iterator[Catch], total: int) -> Iterator[Catch]:
    """A bar on a terminal, a line for each bug elsewhere, on stderr."""
    console = Console(stderr=True)
    columns = (BarColumn(24), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("planted bugs", total=total)
        for number, catch in enumerate(catches, 1):
            bar.update(task, advance=1, description=catch.name)
            if not console.is_terminal:
                print(f"{number}/{total} {catch.name}: {catch.fault or 'caught'}", file=sys.stderr, flush=True)
            yield catch


def _table(catches: Sequence[Catch]) -> Table:
    table = Table("planted bug", "caught by", "at seed", "of", "seconds")
    for catch in catches:
        bug = BUGS[catch.name]
        by = "[red]not as it should be" if catch.fault else catch.broken.partition(":")[0].partition(",")[0]
        table.add_row(catch.name, by, str(catch.seed), str(bug.within), f"{catch.seconds:.1f}")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
