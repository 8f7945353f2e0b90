"""Profiles of an operator: copies of the shipped ones, with their word that real money may be traded."""

from __future__ import annotations

from pathlib import Path

from libs.common.settings import PROFILES

NO, YES = "trades_real_money = false", "trades_real_money = true"


def acknowledged(folder: Path, *names: str, without: str = "") -> dict[str, str]:
    """Copies in `folder`, each without the lines that hold `without`; the environment that points there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        text = (PROFILES / f"{name}.toml").read_text("utf-8")
        assert NO in text
        lines = [line for line in text.replace(NO, YES).splitlines() if not (without and without in line)]
        (folder / f"{name}.toml").write_text("\n".join(lines), "utf-8")
    return {"PERPS_PROFILES_DIR": str(folder)}
