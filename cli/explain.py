"""`perps-bot risk explain` and `risk history`: why risk decided what it decided. Read from the ledger and from the
key-value store, with every service down if need be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import msgspec
from msgspec import Struct

from cli.control import state_row
from cli.errors import Refused
from cli.orders import check_id, step_row
from cli.output import Json
from libs.common import messages as m
from libs.common.bus import Entry
from libs.common.errors import BadConfig
from libs.common.nats_ledger import Raw
from libs.common.shell import trading_state
from libs.common.subjects import STATE_BUCKET, TRADING_KEY, type_of

PREFIX_MIN = 6  # characters
WINDOW = 4096  # ledger entries that are read from their beginning on, before those that lie in front of them
LONG = 3 * WINDOW  # from here on it takes seconds
NAMED_MAX = 5
Watch = Callable[[str, int, int], None]  # a line, how much is done, of how much


class LedgerBus(Protocol):
    """The part of `libs.common.nats_bus.NatsBus` that reads the ledger."""

    async def last_sequence(self) -> int: ...

    async def direct_page(self, position: int) -> list[Raw]: ...

    async def order_events(self, client_order_id: str) -> list[m.Message]: ...


class HistoryBus(Protocol):
    """The part that reads what a key has held."""

    async def history(self, bucket: str, key: str) -> list[Entry]: ...


class _Named(Struct):
    client_order_id: str


class _Verdict(Struct):
    """What names a verdict: far less to read than all of it."""

    signal_id: str
    order: _Named | None = None
    edits: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """An edit goes by the id of its signal alone: the order has a verdict of its own."""
        if self.edits:
            return (self.signal_id,)
        return self.signal_id, self.order.client_order_id if self.order else m.client_order_id(self.signal_id)


class _Step(Struct):
    signal_id: str
    venue_order_id: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.venue_order_id,)


NAMING: dict[type[m.Message] | None, type[_Verdict] | type[_Step]] = {m.Verdict: _Verdict, m.OrderEvent: _Step}


class Search:
    """Walks the ledger backwards, a window at a time: what an operator asks about is nearly always recent, and a full
    id is looked for no further than to where it is found. A prefix is looked for everywhere, since it must be the only
    one."""

    def __init__(self, bus: LedgerBus, text: str, watch: Watch) -> None:
        self._bus = bus
        self._text = text
        self._watch = watch
        self._done = 0  # entries read
        self._told = 0  # twentieths of them
        self._verdicts: dict[str, Raw] = {}  # by signal id, of those that match
        self._matches: dict[str, tuple[str, int]] = {}  # signal id: the name that matched, the place in the ledger

    async def verdict(self) -> m.Verdict:
        """Raises Refused where there is none, BadConfig where there are several."""
        last = await self._bus.last_sequence()
        exact = await self._walk(last)
        if exact is None and len(self._matches) > 1:
            raise BadConfig(f"{self._text} begins {len(self._matches)} ids, type more of it: {self._some_matches()}")
        signal_id = exact or next(iter(self._matches), None)
        if signal_id is None:
            raise Refused(
                f"the ledger has no signal and no order {self._text}, among its {last} entries; "
                "of an order that is not ours, `perps-bot orders show` tells"
            )
        if signal_id not in self._verdicts:  # found by the venue's id: the verdict came before the order's steps
            self._text = signal_id
            await self._walk(self._matches[signal_id][1])
        if signal_id not in self._verdicts:
            raise Refused(f"the ledger has no readable verdict of signal {signal_id}")
        try:
            return m.read(self._verdicts[signal_id].data, m.Verdict)
        except msgspec.DecodeError as error:
            raise Refused(f"the verdict of signal {signal_id} cannot be read: {error}") from None

    async def _walk(self, last: int) -> str | None:
        """The signal id of what has exactly this name, from `last` down; else all of it is in `_matches`."""
        end, self._done, self._told = last, 0, 0
        while end > 0:
            start = max(end - WINDOW, 0)
            if exact := await self._window(start, end):
                return exact
            self._done += end - start
            self._tell(last)
            end = start
        return None

    async def _window(self, start: int, end: int) -> str | None:
        position, exact = start, None
        while position < end and (page := await self._bus.direct_page(position)):
            position = page[-1].sequence
            for raw in page:
                exact = self._take(raw) or exact
        return exact

    def _take(self, raw: Raw) -> str | None:
        kind = NAMING.get(type_of(raw.subject))
        if kind is None:
            return None
        try:
            found = m.read(raw.data, kind)
        except msgspec.DecodeError:
            return None  # the services count it
        name = next((name for name in found.names if name.startswith(self._text)), None)
        if name is None:
            return None
        if isinstance(found, _Verdict):
            self._verdicts[found.signal_id] = raw
        self._matches.setdefault(found.signal_id, (name, raw.sequence))
        return found.signal_id if name == self._text else None

    def _some_matches(self) -> str:
        names = sorted(name for name, _ in self._matches.values())
        return ", ".join(names[:NAMED_MAX]) + (", ..." if len(names) > NAMED_MAX else "")

    def _tell(self, last: int) -> None:
        twentieths = self._done * 20 // last
        if last >= LONG and twentieths > self._told:
            self._told = twentieths
            self._watch(f"{self._done} of {last} ledger entries read", self._done, last)


async def explain(bus: LedgerBus, text: str, watch: Watch) -> Json:
    """The verdict with every rule, and what became of its order. Raises BadConfig, Refused, BusDown."""
    if len(check_id(text)) < PREFIX_MIN:
        raise BadConfig(f"{text!r} is too short: an id, or at least its first {PREFIX_MIN} characters")
    verdict = await Search(bus, text, watch).verdict()
    order_id = verdict.order.client_order_id if verdict.order else m.client_order_id(verdict.signal_id)
    steps = [step for step in await bus.order_events(order_id) if isinstance(step, m.OrderEvent)]
    return {**_judgement(verdict, order_id), **_outcome(steps), "steps": [step_row(step) for step in steps]}


def _judgement(verdict: m.Verdict, order_id: str) -> Json:
    refuses = (m.CheckOutcome.VIOLATED, m.CheckOutcome.UNKNOWN)
    deciding = next((check.rule for check in verdict.checks if check.outcome in refuses), None)
    return {
        "signal_id": verdict.signal_id,
        "client_order_id": order_id,
        "product_id": verdict.product_id,
        "verdict": "approved" if verdict.order else "denied",
        "reason": verdict.reason,
        "detail": verdict.detail,
        "deciding_rule": None if verdict.order else deciding,
        "at": verdict.at,
        "trading_revision": verdict.trading_revision,
        "operator": verdict.operator,
        "edits": verdict.edits,
        "flatten": verdict.flatten,
        "reserved": verdict.reserved,
        "order": verdict.order,
        "checks": verdict.checks,
    }


def _outcome(steps: list[m.OrderEvent]) -> Json:
    """What execution and the venue made of it; null where it never came to that."""
    if not steps:
        return {"status": None, "status_reason": None, "venue_order_id": None, "filled_qty": None, "fees": None}
    last = steps[-1]
    return {
        "status": last.status,
        "status_reason": last.reason,
        "venue_order_id": last.venue_order_id,
        "filled_qty": last.filled_qty,
        "average_price": last.filled_value / last.filled_qty if last.filled_qty else None,
        "fees": last.fees,
        "edit_signal_ids": list(dict.fromkeys(step.edit_id for step in steps if step.edit_id)),
    }


async def history(bus: HistoryBus, limit: int) -> Json:
    """What the trading state was, the newest first. What nobody could read held as halted."""
    rows = []
    for entry in (await bus.history(STATE_BUCKET, TRADING_KEY))[::-1][:limit]:
        state = trading_state(entry if entry.value else None, datetime.now(UTC))
        unread = state.id == "trading-lost"
        rows.append({**state_row(state), "revision": entry.revision, **({"since": None} if unread else {})})
    return {"history": rows}
