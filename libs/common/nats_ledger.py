"""The ledger on NATS: read in one sequence without a hole, written by compare-and-set."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from libs.common import messages as m
from libs.common.bus import Delivery
from libs.common.errors import BusDown, Conflict, Stop
from libs.common.subjects import Kept, decode, subject_of

if TYPE_CHECKING:
    from libs.common.nats_bus import NatsBus

log = logging.getLogger(__name__)
PAGE = 256  # messages of one direct get
WRONG_SEQUENCE = (10071, 10164)  # the server's words for a lost compare-and-set


class Raw(NamedTuple):
    """A stored message before it is read."""

    sequence: int
    subject: str
    data: bytes


class NatsLedger:
    """See `libs.common.bus.Ledger`.

    The durable consumer brings what is new; the sequence must go on without a hole, and a hole (two processes on one
    consumer, a lost pull request, a consumer ahead of the snapshot) is filled by reading the stream directly.
    """

    def __init__(self, bus: NatsBus, position: int) -> None:
        self.position = position
        self._bus = bus
        self._sequences: OrderedDict[str, int] = OrderedDict()  # last sequence per subject, of the recent ones
        self._subscription: JetStreamContext.PullSubscription | None = None
        self._applied = position  # the latest that was acknowledged as handled
        self._handed_out: deque[tuple[int, str, bool]] = deque()  # sequence, subject, whether it could be read
        self._held: list[Msg] = []
        self._moving = asyncio.Lock()  # read and catch_up may run at once; the position moves under this lock

    async def catch_up(self) -> list[Delivery]:
        async with self._moving:
            while page := await self._bus.direct_page(self.position):
                if deliveries := self._hand_out(page):
                    return deliveries
            return []

    async def read(self) -> list[Delivery]:
        msg = await self._next()
        if msg is None:
            return await self.catch_up()
        sequence = msg.metadata.sequence.stream
        self._held.append(msg)
        async with self._moving:
            if sequence == self.position + 1:
                return self._hand_out([Raw(sequence, msg.subject, msg.data)])
        if sequence <= self._applied:
            await self.acknowledge(self._applied)
        return await self.catch_up()

    async def acknowledge(self, sequence: int) -> None:
        self._settle(sequence)
        done = [msg for msg in self._held if msg.metadata.sequence.stream <= sequence]
        self._held = [msg for msg in self._held if msg.metadata.sequence.stream > sequence]
        for msg in done:
            try:
                await msg.ack()
            except nats.errors.Error:
                return  # the server will deliver it again, and the sequence tells that it is known

    async def append(self, message: m.Message, over: str = "") -> int:
        subject = subject_of(message)
        expected = await self._expected(over or subject)
        body = msgspec.json.encode(msgspec.structs.replace(message, sent_at=self._bus.clock.wall()))
        headers = {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        if over:
            headers["Nats-Expected-Last-Subject-Sequence-Subject"] = over
        while True:
            try:
                sequence = int((await self._bus.js.publish(subject, body, headers=headers)).seq)
                break
            except nats.js.errors.APIError as error:
                if error.err_code not in WRONG_SEQUENCE:
                    raise BusDown(f"the ledger refuses {subject}: {error}") from None
                stored = await self._stored(subject, body)
                if stored is None:
                    self._bus.stats.conflicts += 1
                    raise Conflict(f"{over or subject} moved on from {expected}") from None
                sequence = stored
                break
            except nats.errors.MaxPayloadError as error:
                raise Stop(f"{subject} takes no message of {len(body)} bytes: {error}") from None
            except (TimeoutError, nats.errors.Error) as error:
                log.warning("appending %s again: %r", subject, error, extra={"event": "bus.retry"})
                await asyncio.sleep(0.1)
        self._remember(subject, sequence)
        return sequence

    async def _stored(self, subject: str, body: bytes) -> int | None:
        """The sequence of our own write if it is the last on its subject: an earlier try got through after all. Told by
        its bytes, which hold the moment of sending: another process may give another event the same id."""
        last = await self._bus.last_on(subject)
        return int(last.headers["Nats-Sequence"]) if last is not None and last.data == body else None

    async def _expected(self, subject: str) -> int:
        if subject not in self._sequences:
            last = await self._bus.last_on(subject)
            sequence = int(last.headers["Nats-Sequence"]) if last else 0
            if sequence > self._applied:
                raise Conflict(f"{subject} is at {sequence}, handled is {self._applied}")
            self._sequences[subject] = sequence
        return self._sequences[subject]

    def _remember(self, subject: str, sequence: int) -> None:
        wildcard = ".".join(subject.split(".")[:2]) + ".>"
        for key in (subject, wildcard):
            self._sequences[key] = max(sequence, self._sequences.get(key, 0))
            self._sequences.move_to_end(key)
        while len(self._sequences) > 10_000:
            self._sequences.popitem(last=False)

    def _hand_out(self, page: list[Raw]) -> list[Delivery]:
        """Move on. What cannot be read is counted and skipped: it approves nothing, and what it hides (a fill) shows as
        a difference between the books and the account."""
        found = []
        for raw in page:
            self.position = raw.sequence
            try:
                found.append(Delivery(raw.sequence, raw.subject, decode(raw.subject, raw.data)))
                self._handed_out.append((raw.sequence, raw.subject, True))
            except msgspec.DecodeError as error:
                self._bus.undecodable(raw.subject, error)
                self._handed_out.append((raw.sequence, raw.subject, False))
        self._settle(self._applied)
        return found

    def _settle(self, sequence: int) -> None:
        """Up to here, and over the unreadable that follows, a write of ours rests on what has been handled."""
        while self._handed_out and (self._handed_out[0][0] <= sequence or not self._handed_out[0][2]):
            self._applied, subject, _ = self._handed_out.popleft()
            self._remember(subject, self._applied)

    async def _next(self) -> Msg | None:
        try:
            if self._subscription is None:
                self._subscription = await self._bus.js.pull_subscribe_bind(self._bus.identity, str(Kept.LEDGER))
            return (await self._subscription.fetch(1, timeout=1))[0]
        except (TimeoutError, nats.errors.Error):
            return None
