"""What a strategy plug-in is, a class that turns closed candles into intents, and how it is found by its name.

Register it under the entry point group `perps_bot.strategies`, or name it in the profile as `module:Class`. One
instance is made per product, from the class's own `Parameters`: a frozen msgspec struct with
`forbid_unknown_fields=True` that refuses nonsense in `__post_init__` with a ValueError of one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from importlib import import_module
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

import msgspec
from msgspec import Struct

from libs.common.errors import BadConfig
from libs.common.messages import Candle

GROUP = "perps_bot.strategies"


class Action(StrEnum):
    HOLD = "hold"
    ENTER = "enter"
    EXIT = "exit"


class Why(StrEnum):
    """The closed list of reasons. The same word stands in the intent, the signal, the decision and the metric label."""

    # of plug-ins, with HOLD
    WARMING_UP = "warming_up"  # not enough closed candles yet
    NO_SIGNAL = "no_signal"  # nothing happened
    HOLDING = "holding"  # a position, and no reason to leave it
    INDICATOR_DATA_UNAVAILABLE = "indicator_data_unavailable"  # a filter has no figure, as volume over no volume
    TREND_FILTER_BLOCKED = "trend_filter_blocked"
    RSI_FILTER_BLOCKED = "rsi_filter_blocked"
    VOLATILITY_FILTER_BLOCKED = "volatility_filter_blocked"
    VOLUME_FILTER_BLOCKED = "volume_filter_blocked"
    # of plug-ins, with ENTER
    CROSSED_UP = "crossed_up"
    BELOW_BAND = "below_band"
    # of plug-ins, with EXIT
    CROSSED_DOWN = "crossed_down"
    MEAN_REACHED = "mean_reached"
    HELD_TOO_LONG = "held_too_long"
    # of the core
    TRAILING_STOP = "trailing_stop"
    MARK_UNUSABLE = "mark_unusable"  # a mark that is not a price, or comes from the future
    MARK_STALE = "mark_stale"  # the newest mark is too old to act on
    CANDLE_TOO_OLD = "candle_too_old"  # an entry whose candle closed too long ago
    SIGNAL_PENDING = "signal_pending"  # an earlier signal has not come to its end
    DUST = "dust"  # what is left cannot be sold
    CLOSING = "closing"  # an operator's flatten is in force: the position is risk's to sell


class Intent(Struct, frozen=True):
    action: Action
    reason: Why


@runtime_checkable
class Strategy(Protocol):
    """One product's strategy. Decisions should follow from the last `warmup_candles` candles alone: after a restart
    these are fed again, and the same candles must give the same intents."""

    warmup_candles: int  # closed candles needed before the first real intent, sized from the rules

    def on_candle(self, candle: Candle, held: bool) -> Intent:
        """Take the next closed candle, later than all before it (candles may be missing). `held`: a position was
        held, or an entry under way, before this candle closed. ENTER while held and EXIT while flat have no effect."""
        ...


def load(name: str, table: Mapping[str, object]) -> Strategy:
    """An instance of the strategy of that name. Raises BadConfig with one line where there is none, and
    msgspec.ValidationError for a table of parameters that it refuses."""
    kind = _find(name)
    parameters = getattr(kind, "Parameters", None)
    if not isinstance(kind, type) or not isinstance(parameters, type) or not issubclass(parameters, Struct):
        raise BadConfig(f"strategy {name!r} is not a class with a struct Parameters")
    made = kind(msgspec.convert(dict(table), parameters, strict=False))
    if not isinstance(made, Strategy):
        raise BadConfig(f"strategy {name!r} has no warmup_candles or no on_candle")
    return made


def _find(name: str) -> object:
    """The class behind an entry point, or behind `module:Class`."""
    known = {point.name: point for point in entry_points(group=GROUP)}
    if name in known:
        return known[name].load()
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise BadConfig(f"unknown strategy {name!r}: there are {', '.join(sorted(known))}, or name one as module:Class")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise BadConfig(f"strategy {name!r} cannot be loaded: {error}") from None
