from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.sim.serving import Client, replay_settings, serving


@pytest.fixture
async def venue(tmp_path: Path) -> AsyncIterator[Client]:
    """A replay of 25 minutes of BTC-USD, whose market stands still until it is stepped."""
    start = datetime(2025, 1, 1, 0, 5, tzinfo=UTC)
    async with serving(replay_settings(tmp_path, start=start)) as client:
        yield client
