"""A strategy that leaves the trading to the operator."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from libs.common.messages import Candle
from services.strategy.plugin import Action, Intent, Why


class Parameters(Struct, frozen=True):
    """It has none, and takes those of the profile's own strategy for nothing."""


class Quiet:
    Parameters: TypeAlias = Parameters

    def __init__(self, parameters: Parameters) -> None:
        self.warmup_candles = 1

    def on_candle(self, candle: Candle, held: bool) -> Intent:
        return Intent(Action.HOLD, Why.NO_SIGNAL)
