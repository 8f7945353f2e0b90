"""Recorded venue data beside the repository: for tests only, never copied into it."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "shared" / "data"


def recorded(name: str) -> Path:
    """The path of a recorded file or folder; the test is skipped where it is absent."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"recorded data {name} is not beside the repository")
    return path
