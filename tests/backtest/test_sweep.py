"""A sweep: each run in a process of its own, whatever becomes of the others."""

from __future__ import annotations

import os
from functools import partial

import msgspec
import pytest
from msgspec.structs import replace

from libs.common.errors import BadConfig
from sim.backtest.figures import figures_of
from sim.backtest.result import Result
from sim.backtest.sweep import Job, Outcome, Run, Tell, grid, ranked, run_all
from tests.backtest.builders import daily


def earns(amount: int, tell: Tell) -> Result:
    for step in range(1, 101):
        tell(step / 100)
    return replace(daily(1000 + amount, 1000 + 3 * amount), parameters={"amount": str(amount)})


def refuses(tell: Tell) -> Result:
    raise BadConfig("short and long\ndo not fit")


def dies(tell: Tell) -> Result:
    os._exit(9)


def outcomes(*jobs: Job, workers: int = 2) -> dict[int, Outcome]:
    return dict(run_all(jobs, workers, lambda number, part: None))


def test_every_combination_is_there_once_the_last_parameter_turning_fastest() -> None:
    made = grid({"short": ["3", "5"], "long": ["20", "30"]})
    assert [tuple(known.values()) for known in made] == [("3", "20"), ("3", "30"), ("5", "20"), ("5", "30")]


def test_a_run_in_a_process_of_its_own_is_the_same_run() -> None:
    found = outcomes(*(partial(earns, amount) for amount in (10, 20, 30)))
    for number, amount in enumerate((10, 20, 30)):
        here = earns(amount, lambda part: None)
        assert found[number].figures == figures_of(here)
        assert msgspec.msgpack.decode(found[number].result, type=Result) == here


def test_a_run_that_is_refused_or_dies_leaves_the_others_alone() -> None:
    found = outcomes(refuses, dies, partial(earns, 10), workers=1)
    assert (found[0].error, found[0].exit_code) == ("short and long do not fit", 2)
    assert (found[1].error, found[1].exit_code) == ("its process ended with code 9", 1)
    assert found[2].figures is not None


def test_progress_rises_and_names_its_run() -> None:
    told: list[tuple[int, float]] = []
    for _ in run_all([partial(earns, 1), partial(earns, 2)], 2, lambda number, part: told.append((number, part))):
        pass
    for number in (0, 1):
        parts = [part for whose, part in told if whose == number]
        assert parts == sorted(parts)
        assert parts[-1] > 0.9


@pytest.mark.parametrize("rank", ["sharpe", "max_drawdown", "total_return"])
def test_the_best_comes_first_then_what_has_no_figure_then_what_failed(rank: str) -> None:
    good, bad = (Run(parameters={}, figures=figures_of(daily(*e))) for e in ((1100, 1300), (900, 850)))
    failed = Run(parameters={}, error="no")
    unknown = Run(parameters={}, figures=replace(good.figures, **{rank: None})) if good.figures else failed
    assert ranked([failed, unknown, bad, good], rank) == [good, bad, unknown, failed]
