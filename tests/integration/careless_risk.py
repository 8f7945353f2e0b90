"""`python -m tests.integration.careless_risk`: risk without the compare-and-set, to show what that is for. A verdict is
written whatever others have written since it was decided."""

from __future__ import annotations

from libs.common.nats_ledger import NatsLedger
from libs.common.process import main
from services.risk.__main__ import PORT, build, check


async def whatever_is_there(self: NatsLedger, subject: str) -> int:
    """In place of the sequence up to which we know the subject."""
    last = await self._bus.last_on(subject)
    return int(last.headers["Nats-Sequence"]) if last else 0


if __name__ == "__main__":
    NatsLedger._expected = whatever_is_there  # type: ignore[method-assign]
    main("risk", check, build, PORT)
