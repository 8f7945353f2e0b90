"""The correctness matrix as a test; `make matrix` prints the same table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.lab import Kind
from tests.integration.matrix import SETTINGS, as_text, run
from tests.integration.rows import ROWS
from tests.integration.stack import running_system

PARTS = 2  # each on a system of its own, side by side
pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.mark.parametrize("part", range(PARTS))
async def test_no_fault_doubles_an_order_loses_a_fill_or_leaves_the_books_unlike_the_venues(
    tmp_path: Path, part: int
) -> None:
    rows = ROWS[part::PARTS]
    async with running_system(tmp_path, SETTINGS) as system:
        lines = await run(system, rows, lambda line: None)
    print(as_text(lines))
    assert [f"{line.fault}, {line.order}: {line.trouble}" for line in lines if line.trouble] == []
    assert len(lines) == len(rows) * len(Kind)
    assert {(line.doubled, line.lost, line.position) for line in lines} == {(0, 0, True)}
