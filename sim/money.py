"""Exact decimals: no amount is rounded on its way through the venue, and all are written as the venue does."""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_CEILING, Context, Decimal, localcontext
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

ZERO = Decimal(0)
ONE = Decimal(1)

# price * size * rate of an allowed order needs about 30 digits; the default of 28 would round the last of them.
EXACT = Context(prec=100)
ROUNDED = Context(prec=28)


def exact(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function under a precision that never rounds a sum or a product of order amounts."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with localcontext(EXACT):
            return function(*args, **kwargs)

    return wrapper


def floor_to(value: Decimal, step: Decimal) -> Decimal:
    """The largest multiple of `step` that is not above `value` (value >= 0)."""
    return value // step * step


def ceil_to(value: Decimal, step: Decimal) -> Decimal:
    """The smallest multiple of `step` that is not below `value`."""
    return (value / step).to_integral_value(rounding=ROUND_CEILING) * step


def is_multiple(value: Decimal, step: Decimal) -> bool:
    """Whether `value` is a whole number of `step`s."""
    return value % step == 0


def text(value: Decimal) -> str:
    """Plain digits without exponent and without trailing zeros, as in recorded answers (`0.1`, `63310`)."""
    digits = format(value, "f")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return "0" if digits in ("-0", "") else digits


def average(value: Decimal, size: Decimal) -> Decimal:
    """value / size to 28 digits, zero for an empty size; the only figure here that may be rounded."""
    return ROUNDED.divide(value, size) if size else ZERO
