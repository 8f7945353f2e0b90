"""Whether a message can be reckoned with: it may decode and still hold NaN, or a time without a zone."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec
from msgspec import Struct

DIGITS_MAX = 40  # before or behind the point; far beyond any price or size, far within what arithmetic bears


def sound(message: Struct) -> bool:
    """True when every number in it is finite and of a sane size, and every time knows its zone."""
    return all(map(_sound, msgspec.structs.astuple(message)))


def _sound(value: object) -> bool:
    kind = type(value)
    if kind is str or kind is int or value is None:  # most of them, and this runs for every mark
        return True
    if isinstance(value, Decimal):
        return value.is_finite() and (not value or abs(value.adjusted()) <= DIGITS_MAX)
    if isinstance(value, datetime):
        return value.tzinfo is not None
    if isinstance(value, Struct):
        return sound(value)
    if isinstance(value, dict):
        return all(map(_sound, value.values()))
    return True
