"""One account's money: a total per currency and what open orders hold of it. Neither is ever negative."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from sim.money import ZERO


class Balance(NamedTuple):
    """What may be spent, and what open orders keep back; both in the currency itself."""

    available: Decimal
    hold: Decimal


class Account:
    def __init__(self, totals: Mapping[str, Decimal]) -> None:
        self.totals = dict(totals)
        self._holds = dict.fromkeys(totals, ZERO)

    def available(self, currency: str) -> Decimal:
        return self.totals.get(currency, ZERO) - self._holds.get(currency, ZERO)

    def hold(self, currency: str, change: Decimal) -> None:
        """Keep more (or, negative, less) of a currency from being spent."""
        held = self._holds.get(currency, ZERO) + change
        if held < 0 or held > self.totals.get(currency, ZERO):
            raise AssertionError(f"hold of {held} {currency} against {self.totals.get(currency)}")
        self._holds[currency] = held

    def add(self, currency: str, amount: Decimal) -> None:
        """Book an amount in (or, negative, out)."""
        total = self.totals.get(currency, ZERO) + amount
        if total < 0:
            raise AssertionError(f"total of {total} {currency}")
        self.totals[currency] = total
        self._holds.setdefault(currency, ZERO)

    def balances(self) -> dict[str, Balance]:
        return {
            currency: Balance(total - self._holds[currency], self._holds[currency])
            for currency, total in self.totals.items()
        }
