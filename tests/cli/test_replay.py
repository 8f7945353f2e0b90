"""A recorded market through the real system: the same trades every time, and the venue's books to the last decimal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import environment, perps_bot, running, short_folder
from tests.recorded import recorded

pytestmark = pytest.mark.integration
START = datetime(2025, 10, 1, tzinfo=UTC)


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


def waves(path: Path, candles: int) -> Path:
    """Minute candles of a market that goes up and down often enough to be traded."""
    lines = ["time,open,high,low,close,volume"]
    price = 60_000.0
    for number in range(candles):
        following = 60_000 + 900 * math.sin(number / 6) + 150 * math.sin(number / 2.3)
        high, low = max(price, following) + 12.5, min(price, following) - 11.25
        start = int((START + timedelta(minutes=number)).timestamp())
        lines.append(f"{start},{price:.2f},{high:.2f},{low:.2f},{following:.2f},{3 + number % 5}.125")
        price = round(following, 2)
    path.write_text("\n".join(lines) + "\n")
    return path


def replayed(folder: Path, name: str, *arguments: str) -> dict[str, Any]:
    env = environment(folder / "var")
    answer = perps_bot("run", "--replay", *arguments, "--data-dir", str(folder / name), "--json", env=env, seconds=150)
    assert answer.returncode == 0, answer.stderr
    assert str(folder / name) in answer.stderr
    assert (folder / name / "nats").is_dir()
    assert not (folder / "var").exists()
    found = json.loads(answer.stdout)
    assert isinstance(found, dict)
    return found


def test_two_replays_of_the_same_file_make_the_same_trades_and_the_venues_books(folder: Path) -> None:
    file = str(waves(folder / "BTC-USD_waves.csv", 160))
    with ThreadPoolExecutor() as side_by_side:
        first, second = side_by_side.map(lambda name: replayed(folder, name, file), ("one", "two"))
    assert first["fills"] >= 6
    assert first["orders"] == {"FILLED": first["approvals"]}
    assert (first["books_equal"], first["differences"]) == (True, [])
    assert (first["ticks"], first["candles"], first["product"]) == (640, 160, "BTC-USD")
    # Heartbeats of the wall clock confirm marks: how often nothing was decided is no part of the result.
    ignored = {"duration_seconds", "speed", "holds"}
    assert {k: v for k, v in first.items() if k not in ignored} == {k: v for k, v in second.items() if k not in ignored}


def test_recorded_days_are_traded_and_the_books_equal_the_venues(folder: Path) -> None:
    file = recorded("candles/BTC-USD_5m_2025-07-01_2026-01-08.csv.gz")
    found = replayed(folder, "days", str(file), "--from", "2025-10-10", "--to", "2025-10-10T08:00:00Z")
    assert found["books_equal"]
    assert found["fills"] > 0
    assert found["ticks"] == 8 * 12 * 4


def test_an_interrupted_replay_stops_in_order_and_says_so_by_its_code(folder: Path) -> None:
    file = str(waves(folder / "BTC-USD_waves.csv", 400))
    env = environment(folder / "var")
    with running("run", "--replay", file, "--speed", "60", env=env, words=folder / "words") as command:
        command.wait_for("ticks to go")
        assert command.interrupt() == 130
        assert command.said.splitlines()[-1] == "stopping in order"
