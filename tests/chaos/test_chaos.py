"""A minute of chaos on real processes; the long run is `make chaos`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.chaos.campaign import campaign, running
from tests.chaos.faults import DECK, Means, bouts, venue
from tests.chaos.report import as_json
from tests.cli.commands import short_folder

MINUTES = 0.9
SEED = 4
PATIENCE_SECONDS = 45.0  # of a test on a machine that does other things as well; `make chaos` has the limit


def test_a_seed_deals_the_same_faults_again_and_every_one_of_the_deck() -> None:
    def dealt(seed: int) -> list[object]:
        found: list[object] = []
        for bout in bouts(seed):
            found += bout
            if len(found) >= len(DECK):
                return found[: len(DECK)]
        raise AssertionError

    assert dealt(SEED) == dealt(SEED)
    assert dealt(SEED) != dealt(SEED + 1)
    names = [repr((card.means, card.targets, card.switches)) for card in DECK]
    assert sorted(names) == sorted(repr((f.means, f.targets, f.switches)) for f in dealt(SEED))  # type: ignore[attr-defined]


@pytest.mark.integration
@pytest.mark.timeout(300)
async def test_a_minute_of_faults_doubles_no_order_loses_no_fill_and_is_recovered_from() -> None:
    with short_folder() as folder:
        result = await campaign(folder, MINUTES, SEED, lambda seconds, chaos: None)
    print(as_json(result))
    assert result.broken == []
    assert result.count is not None
    assert (result.count.doubles, result.count.losses) == ((), ())
    assert result.count.fills >= 5, "no load"
    assert len(result.survived) >= 6
    assert len({one.means for one in result.survived}) >= len(Means) - 3
    assert max(one.recovered for one in result.survived) < PATIENCE_SECONDS, result.survived


@pytest.mark.integration
@pytest.mark.timeout(300)
async def test_execution_that_takes_silence_for_a_no_is_found_out() -> None:
    """So the test above can fail."""
    lost_answers = replace(venue(accept_then_drop=3, user_drop=99), seconds=6.0)
    with short_folder() as folder:
        careless = {"PERPS_PYTHON": str(python_with_a_careless_execution(folder))}
        async with running(folder, 1, SEED, careless) as chaos:
            await chaos.strike((lost_answers,))
            await chaos.quieten()
            count, broken = await chaos.balance()
    assert any("REJECTED by our books and at the venue" in line for line in count.losses), broken
    assert any("was lost" in line for line in count.losses), broken
    assert set(count.troubles) < set(broken), "the audit of a replay has nothing to say"


def python_with_a_careless_execution(folder: Path) -> Path:
    """A Python that runs another execution than ours, and everything else as it is."""
    path = folder / "python"
    careless = f'shift 2; exec "{sys.executable}" -m tests.chaos.careless_execution "$@"'
    path.write_text(f'#!/bin/sh\nif [ "$2" = services.execution ]; then {careless}; fi\nexec "{sys.executable}" "$@"\n')
    path.chmod(0o755)
    return path
