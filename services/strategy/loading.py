"""From the name of a strategy to its instances."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points

import msgspec
from msgspec import Struct

from libs.common.errors import BadConfig
from services.strategy.plugin import Strategy

GROUP = "perps_bot.strategies"
Make = Callable[[Mapping[str, object]], Strategy]


def load(name: str) -> Make:
    """A maker of instances from tables of parameters. Raises BadConfig with one line; the maker raises
    msgspec.ValidationError for parameters that the strategy refuses."""
    kind = _find(name)
    parameters = getattr(kind, "Parameters", None)
    if not isinstance(kind, type) or not isinstance(parameters, type) or not issubclass(parameters, Struct):
        raise BadConfig(f"strategy {name!r} is not a class with a struct Parameters")

    def make(table: Mapping[str, object]) -> Strategy:
        made = kind(msgspec.convert(dict(table), parameters, strict=False))
        if not isinstance(made, Strategy):
            raise BadConfig(f"strategy {name!r} has no warmup_candles or no on_candle")
        return made

    return make


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
    except (ImportError, AttributeError) as error:
        raise BadConfig(f"strategy {name!r} cannot be loaded: {error}") from None
