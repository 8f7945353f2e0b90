"""`python -m tests.chaos.careless_execution`: execution that takes an answer which never came for a no, to show what
UNKNOWN is for. What the venue did with the order is then on nobody's books."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from libs.common.errors import OutcomeUnknown, Rejected
from libs.common.messages import ApprovedOrder
from libs.common.process import main
from services.execution.__main__ import build, check
from services.execution.venue import CoinbaseVenue

place = CoinbaseVenue.place


async def place_or_not(self: CoinbaseVenue, order: ApprovedOrder, signed: Callable[[datetime], None]) -> str:
    try:
        return await place(self, order, signed)
    except OutcomeUnknown as error:
        raise Rejected("no_answer", str(error)) from None


if __name__ == "__main__":
    CoinbaseVenue.place = place_or_not  # type: ignore[method-assign]
    main("execution", check, build, 9106)
