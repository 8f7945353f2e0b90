"""`perps-bot simulate` as an operator calls it."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from cli.main import app
from libs.common.errors import BadConfig, StackFailed
from sim.world import search
from sim.world.faults import schedule
from sim.world.world import FAULTS_FROM, FAULTS_TO, Outcome

runner = CliRunner()


@pytest.fixture(autouse=True)
def _loud_again() -> Iterator[None]:
    """The command silences its process, which is ours here."""
    yield
    logging.disable(logging.NOTSET)
    gc.enable()


def test_worlds_are_lived_through_and_their_figures_shown() -> None:
    done = runner.invoke(app, ["simulate", "--seeds", "2", "--first", "4", "--jobs", "1", "--json"])
    told = json.loads(done.stdout)
    assert (told["seeds"], told["broken"], told["breaks"]) == (2, 0, [])
    assert told["orders"] >= 40
    assert done.exit_code == 0


def test_one_world_is_shown_as_lines_with_the_faults_that_were_chosen() -> None:
    first = schedule(3, FAULTS_FROM, FAULTS_TO)[0]
    done = runner.invoke(app, ["simulate", "--seed", "3", "--trace", "--faults", "1"])
    faults = [line for line in done.stdout.splitlines() if " fault " in line]
    assert [str(first).strip() in line for line in faults] == [True]
    assert done.exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--first", "-1"], "must not be negative"),
        (["--trace"], "--trace goes with --seed"),
        (["--faults", "1"], "--faults goes with --trace"),
        (["--seed", "3", "--seeds", "50"], "--seed is one world"),
        (["--seed", "3", "--trace", "--faults", "-1"], "--faults takes numbers from 0 to"),
        (["--seed", "3", "--trace", "--faults", "99"], "--faults takes numbers from 0 to"),
        (["--seed", "3", "--trace", "--faults", "some"], "--faults takes numbers from 0 to"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments: list[str], word: str) -> None:
    done = runner.invoke(app, ["simulate", *arguments])
    assert isinstance(done.exception, BadConfig)
    assert word in str(done.exception)


def test_a_broken_rule_names_seed_rule_and_the_smallest_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a world breaks as soon as the third fault of its schedule strikes."""

    def breaking(seed: int, faults: object = None) -> Outcome:
        whole = schedule(seed, FAULTS_FROM, FAULTS_TO)
        struck = tuple(whole) if faults is None else faults
        assert isinstance(struck, tuple)
        broken = "rule 3, every fill counts once: a fill is gone" if whole[2] in struck else ""
        return Outcome(seed, struck, broken, 42.0, 25, 30, 6, 1000)

    monkeypatch.setattr(search, "live", breaking)
    monkeypatch.setattr(search.minimised, "__defaults__", (breaking,))
    third = str(schedule(8, FAULTS_FROM, FAULTS_TO)[2])
    done = runner.invoke(app, ["simulate", "--seed", "8"])
    assert "seed 8 at 42.00 s: rule 3, every fill counts once: a fill is gone" in done.stdout
    assert "with 1 of its faults:" in done.stdout
    assert third in done.stdout
    assert "perps-bot simulate --seed 8 --trace --faults 3" in done.stdout
    assert isinstance(done.exception, StackFailed)
