"""The checks of the simulation can fail: a sample of the planted bugs, each with the seed that catches it first."""

from __future__ import annotations

import pytest

from sim.world.checks import RULES
from tests.simulation.bugs import BUGS
from tests.simulation.planting import planted
from tests.simulation.proof import broken_by, main, rule_of

SAMPLE = (
    "old decision written again",
    "handled before it is durable",
    "drift not shown",
    "halt announced before stored",
    "marks confirmed by a timer",
    "sale not clamped",
    "daily loss without fees",
    "unknown opening counts as nothing",
    "steps counted anew after a restart",
    "reservations forgotten at restart",
)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_planted_bug_breaks_the_rule_that_it_should(name: str) -> None:
    bug = BUGS[name]
    assert rule_of(broken_by(bug, bug.first)) in bug.rules


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_can_be_planted_and_leaves_nothing_behind(name: str) -> None:
    bug = BUGS[name]
    patches = (*bug.scene, *bug.patches)
    before = [patch.current for patch in patches]
    with planted(*patches):
        assert all(patch.current is patch.faulty for patch in patches)
        assert not any(patch.faulty is original for patch, original in zip(patches, before, strict=True))
    assert [patch.current for patch in patches] == before


def test_every_rule_has_a_bug_that_breaks_it() -> None:
    assert {rule for bug in BUGS.values() for rule in bug.rules} >= RULES.keys()
    assert {rule for name in SAMPLE for rule in BUGS[name].rules} >= RULES.keys()


def test_every_bug_says_what_is_wrong_and_is_caught_within_its_seeds() -> None:
    for bug in BUGS.values():
        assert bug.wrong.endswith(".")
        assert 0 <= bug.first < bug.within


def test_a_name_that_no_bug_has_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no such bug"]) == 2
    assert capsys.readouterr().err == "no planted bug has such a name\n"
