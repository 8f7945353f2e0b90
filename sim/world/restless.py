"""A strategy that is always in motion: in on one candle, out on the next."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from libs.common.messages import Candle
from services.strategy.plugin import Action, Intent, Why


class Parameters(Struct, frozen=True):
    """It has none, and takes those of the profile's own strategy for nothing."""


class Restless:
    """See `services.strategy.plugin.Strategy`."""

    Parameters: TypeAlias = Parameters

    def __init__(self, parameters: Parameters) -> None:
        self.warmup_candles = 1

    def on_candle(self, candle: Candle, held: bool) -> Intent:
        return Intent(Action.EXIT, Why.CROSSED_DOWN) if held else Intent(Action.ENTER, Why.CROSSED_UP)
