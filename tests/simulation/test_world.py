"""Whole worlds: every rule holds, the same seed gives the same life, and a break is made as small as it can be."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sim.world.faults import Fault, Kind, schedule
from sim.world.search import live, minimised, search
from sim.world.world import FAULTS_FROM, FAULTS_TO, NIGHT, Outcome, Trace, World, run

SAMPLE, PARTS = 300, 6  # worlds, and tests that share them
TRACE = "from sim.world.world import Trace, run; t = Trace(); run({seed}, None, t); print('\\n'.join(t.lines))"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_rule_holds_in_a_sample_of_worlds(part: int) -> None:
    outcomes = [live(seed) for seed in range(part, SAMPLE, PARTS)]
    assert [f"seed {outcome.seed}: {outcome.broken}" for outcome in outcomes if outcome.broken] == []
    assert sum(outcome.orders for outcome in outcomes) > 20 * len(outcomes)
    assert sum(len(outcome.faults) for outcome in outcomes) > 6 * len(outcomes)
    assert sum(outcome.starts for outcome in outcomes) > 7 * len(outcomes)


def test_worlds_spread_over_processes_are_the_same_worlds() -> None:
    assert list(search(range(3), 2)) == [live(seed) for seed in range(3)]


@pytest.mark.parametrize("seed", [3, 11])
def test_the_same_seed_gives_the_same_life_byte_for_byte(seed: int) -> None:
    """Also in another process, with other hashes of strings."""
    traces = []
    for hashes in ("1", "2"):
        command = [sys.executable, "-c", TRACE.format(seed=seed)]
        environment = {**os.environ, "PYTHONHASHSEED": hashes}
        done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=120)
        traces.append(done.stdout)
    assert traces[0] == traces[1]
    assert len(traces[0].splitlines()) > 100


def test_a_world_tells_what_happens_in_it() -> None:
    trace = Trace()
    outcome = run(5, None, trace)
    told = "\n".join(trace.lines)
    assert outcome.broken == ""
    for word in ("starts", "verdict", "SUBMITTING", "sends order", "FILLED", "the faults are over", "halt of risk"):
        assert word in told
    for fault in outcome.faults:
        assert str(fault).strip() in told


def test_a_seed_has_faults_of_many_kinds_and_other_seeds_have_others() -> None:
    kinds = {fault.kind for seed in range(200) for fault in schedule(seed, FAULTS_FROM, FAULTS_TO)}
    assert kinds == set(Kind)
    assert schedule(1, FAULTS_FROM, FAULTS_TO) == schedule(1, FAULTS_FROM, FAULTS_TO)
    assert schedule(1, FAULTS_FROM, FAULTS_TO) != schedule(2, FAULTS_FROM, FAULTS_TO)


def test_without_faults_every_process_starts_once() -> None:
    outcome = run(2, ())
    assert (outcome.broken, outcome.starts) == ("", 5)
    assert outcome.orders >= 20


NIGHTS = [seed for seed in range(40) if World(seed, (), None).epoch == NIGHT][:3]


@pytest.mark.parametrize("seed", NIGHTS)
def test_what_happens_around_midnight_breaks_no_rule(seed: int) -> None:
    """Money moved by hand the day before, and a clock that is at midnight too early."""
    by_hand = (Fault(10.0, Kind.HAND, value=-500.0), Fault(15.0, Kind.HAND, value=500.0))
    early = Fault(21.0, Kind.CLOCK, "risk", seconds=15.0, value=20.0)
    assert run(seed, (*by_hand, early)).broken == ""
    assert run(seed, by_hand).broken == ""


# -- making a break smaller

FAULTS = tuple(Fault(float(number), Kind.KILL, "risk") for number in range(9))


def outcome_of(seed: int, faults: tuple[Fault, ...], wanted: set[float], rule: str) -> Outcome:
    broken = f"{rule}: at once" if wanted <= {fault.at for fault in faults} else ""
    return Outcome(seed, faults, broken, 1.0, 1, 1, 1, 1)


@pytest.mark.parametrize("wanted", [set[float](), {4.0}, {0.0, 8.0}, {2.0, 3.0, 7.0}, {fault.at for fault in FAULTS}])
def test_a_broken_seed_is_reduced_to_the_faults_that_it_needs(wanted: set[float]) -> None:
    first = outcome_of(7, FAULTS, wanted, "rule 3, some")
    found = minimised(first, lambda seed, faults: outcome_of(seed, faults or (), wanted, "rule 3, some"))
    assert {fault.at for fault in found.faults} == wanted


def test_another_rule_that_breaks_is_not_the_same_break() -> None:
    first = outcome_of(7, FAULTS, {1.0}, "rule 3, some")
    found = minimised(first, lambda seed, faults: outcome_of(seed, faults or (), {1.0}, "rule 4, other"))
    assert found.faults == FAULTS


def test_what_breaks_a_world_itself_is_told_with_its_seed() -> None:
    strange = (Fault(10.0, Kind.REST, switch="no such switch", seconds=1.0, value=1.0),)
    assert "the world itself" in live(1, strange).broken
