"""What JetStream keeps: streams with their limits and conditions, and durable pull consumers. No network, no timers:
`sim.world.nats_server` says what time it is and carries the answers.
"""

from __future__ import annotations

import heapq
import random
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

WILDCARDS = ("*", ">")
DUPLICATE_SECONDS = 120.0  # the server's default window of Nats-Msg-Id
TAIL, TAIL_SECONDS = 5, 1.0  # what a stream that is not synced loses with its server: so many at most, and no older
SAVE_SECONDS = 0.1  # a consumer's place is written no more often
EXPIRY_SECONDS = 0.1  # at most so much later than its time does a message expire
MAX_PULLS = 512

Headers = dict[str, str] | None


class Stored(NamedTuple):
    """One kept message; `at` in virtual seconds."""

    stream: str
    sequence: int
    subject: str
    data: bytes
    headers: Headers
    at: float


class Refused(Exception):
    """The server's own words for a request that it does not do."""

    def __init__(self, err_code: int, description: str, code: int = 400) -> None:
        super().__init__(description)
        self.words = {"code": code, "err_code": err_code, "description": description}


@lru_cache(maxsize=1000)
def matcher(pattern: str) -> Callable[[str], Any]:
    """Tells whether a subject falls under a pattern with `*` and `>`."""
    parts = [r"[^.]+" if part == "*" else ".+" if part == ">" else re.escape(part) for part in pattern.split(".")]
    return re.compile(r"\.".join(parts)).fullmatch


@lru_cache(maxsize=10_000)
def literal(pattern: str) -> bool:
    return not any(part in WILDCARDS for part in pattern.split("."))


class Stream:
    def __init__(self, config: dict[str, Any], chance: random.Random) -> None:
        self.consumers: dict[str, Consumer] = {}
        self.messages: dict[int, Stored] = {}
        self.last_sequence = 0
        self._chance = chance
        self._by_subject: dict[str, deque[int]] = {}
        self._known: dict[str, list[str]] = {}  # by pattern: the subjects under it that have ever held a message
        self._ids: dict[str, tuple[int, float]] = {}
        self._expiries: list[tuple[float, int]] = []
        self._tail: deque[tuple[int, list[Stored]]] = deque(maxlen=TAIL)  # the latest, and what each pushed out
        self.configure(config)

    def configure(self, config: dict[str, Any]) -> None:
        self.config = config
        self.name: str = config["name"]
        self.patterns = [matcher(subject) for subject in config["subjects"]]
        self.synced = config.get("persist_mode") != "async"
        self._per_subject = max(config.get("max_msgs_per_subject", 0), 0)

    def covers(self, subject: str) -> bool:
        return any(pattern(subject) for pattern in self.patterns)

    # -- writing

    def store(self, subject: str, data: bytes, headers: Headers, now: float) -> tuple[Stored, bool]:
        """Keep one message; gives it and whether it had been kept before. Raises Refused."""
        if self._expiries:
            self.expire(now)
        msg_id = None
        if headers:
            self._check(subject, headers)
            msg_id = headers.get("Nats-Msg-Id")
            if msg_id and (known := self._ids.get(msg_id)) and now - known[1] < DUPLICATE_SECONDS:
                return Stored(self.name, known[0], subject, data, headers, now), True
        self.last_sequence = sequence = self.last_sequence + 1
        stored = self.messages[sequence] = Stored(self.name, sequence, subject, data, headers, now)
        if msg_id:
            self._ids[msg_id] = (sequence, now)
        pushed_out = self._file(stored)
        if headers:
            if headers.get("Nats-Rollup") == "sub":
                pushed_out += self._drop(subject, 1)
            if ttl := headers.get("Nats-TTL"):
                due = now + int(ttl) + EXPIRY_SECONDS * self._chance.random()
                heapq.heappush(self._expiries, (due, sequence))
        if not self.synced:
            self._tail.append((sequence, pushed_out))
        return stored, False

    def _check(self, subject: str, headers: dict[str, str]) -> None:
        """The conditions come before the search for a duplicate."""
        expected = headers.get("Nats-Expected-Last-Subject-Sequence")
        if expected is None:
            return
        last = self.last_of(headers.get("Nats-Expected-Last-Subject-Sequence-Subject", subject))
        if int(expected) != last:
            raise Refused(10071, f"wrong last sequence: {last}")

    def _file(self, stored: Stored) -> list[Stored]:
        """Note it under its subject; gives what the limit pushed out."""
        held = self._by_subject.get(stored.subject)
        if held is None:
            held = self._by_subject[stored.subject] = deque()
            for pattern, subjects in self._known.items():
                if stored.subject not in subjects and matcher(pattern)(stored.subject):
                    subjects.append(stored.subject)
        held.append(stored.sequence)
        return self._drop(stored.subject, self._per_subject) if self._per_subject else []

    def _drop(self, subject: str, keep: int) -> list[Stored]:
        held, dropped = self._by_subject[subject], []
        while len(held) > keep:
            dropped.append(self.messages.pop(held.popleft()))
        return dropped

    def wipe(self) -> None:
        """Everything is gone, and the count goes on."""
        for sequence in list(self.messages):
            self._remove(sequence)

    def _remove(self, sequence: int) -> None:
        stored = self.messages.pop(sequence, None)
        if stored is not None:
            held = self._by_subject[stored.subject]
            held.remove(sequence)
            if not held:
                del self._by_subject[stored.subject]

    def expire(self, now: float) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            self._remove(heapq.heappop(self._expiries)[1])

    def lose_tail(self, now: float) -> None:
        """The server was killed: what had not been written is gone, and what it had pushed out is there again. The
        sequences are given anew."""
        for _ in range(self._chance.randint(0, TAIL) if self._tail else 0):
            if not self._tail or self.messages[self.last_sequence].at < now - TAIL_SECONDS:
                break
            sequence, pushed_out = self._tail.pop()
            self._remove(sequence)
            self.last_sequence = sequence - 1
            for old in reversed(pushed_out):
                self.messages[old.sequence] = old
                self._by_subject.setdefault(old.subject, deque()).appendleft(old.sequence)
        self._tail.clear()

    # -- reading

    def last_of(self, pattern: str) -> int:
        """The latest sequence on a subject or wildcard, 0 where there is none."""
        held = self._by_subject.get(pattern)
        if held:
            return held[-1]
        return max((stored.sequence for stored in self.last_each(pattern)), default=0)

    def last_each(self, pattern: str) -> list[Stored]:
        """The last message on each subject, by sequence."""
        found = (self._by_subject[subject][-1] for subject in self._subjects(pattern))
        return [self.messages[sequence] for sequence in sorted(found)]

    def since(self, sequence: int, pattern: str) -> Iterator[Stored]:
        """From this sequence on, oldest first."""
        sequences: Iterable[int] = range(sequence, self.last_sequence + 1)
        if literal(pattern):
            sequences = [held for held in self._by_subject.get(pattern, ()) if held >= sequence]
        fits = matcher(pattern)
        for number in sequences:
            stored = self.messages.get(number)
            if stored is not None and fits(stored.subject):
                yield stored

    def wanted(self, request: dict[str, Any], moment: float | None) -> list[Stored]:
        """What a direct get asks for; `moment` is its start, where it names one."""
        batch = request.get("batch", 1)
        if subject := request.get("last_by_subj"):
            return self.last_each(subject)
        if subjects := request.get("multi_last"):
            return self.last_each(subjects[0])[:batch]
        first = request.get("seq", 1) if moment is None else self.sequence_at(moment)
        return list(islice(self.since(first, request.get("next_by_subj", ">")), batch))

    def sequence_at(self, moment: float) -> int:
        """Of the first message that was kept at this moment or later."""
        return next((held.sequence for held in self.since(1, ">") if held.at >= moment), self.last_sequence + 1)

    def _subjects(self, pattern: str) -> Iterator[str]:
        if literal(pattern):
            known = [pattern]
        elif pattern in self._known:
            known = self._known[pattern]
        else:
            fits = matcher(pattern)
            known = self._known[pattern] = [subject for subject in self._by_subject if fits(subject)]
        return (subject for subject in known if self._by_subject.get(subject))


class Pull(NamedTuple):
    """A request for the next message. `wanted` tells whether anybody still listens for the answer."""

    reply: str
    wanted: Callable[[], object]


class Handed(NamedTuple):
    """A message that was handed out and has not been acknowledged."""

    at: float
    times: int


class Consumer:
    """A durable pull consumer with explicit acknowledgements, over the whole stream."""

    def __init__(self, stream: Stream, config: dict[str, Any]) -> None:
        self.stream = stream
        self.config = config
        self.ack_wait: float = config["ack_wait"] / 1e9
        self._max_pending: int = config["max_ack_pending"]
        self.pulls: deque[Pull] = deque()
        self.handed: dict[int, Handed] = {}
        self.watched = False  # a timer for what is not acknowledged in time runs
        self._next = 1
        self._count = 0  # of everything handed out, again or not
        self._again: list[int] = []  # a heap of those whose acknowledgement did not come in time
        self._saved: tuple[int, int, dict[int, Handed]] = (1, 0, {})
        self._saved_at = self._changed_at = -SAVE_SECONDS

    def take(self, now: float) -> tuple[Stored, int, int] | None:
        """What is to be handed out next, how often it has been and the number of this handing out. What nobody
        acknowledged comes before what is new."""
        while self._again:
            sequence = heapq.heappop(self._again)
            if sequence in self.handed and sequence in self.stream.messages:
                return self._hand(sequence, self.handed[sequence].times + 1, now)
            self.handed.pop(sequence, None)
        if len(self.handed) >= self._max_pending:
            return None
        while self._next <= self.stream.last_sequence and self._next not in self.stream.messages:
            self._next += 1
        if self._next > self.stream.last_sequence:
            return None
        taken = self._hand(self._next, 1, now)
        self._next += 1
        return taken

    def _hand(self, sequence: int, times: int, now: float) -> tuple[Stored, int, int]:
        self._keep(now)
        self._count += 1
        self.handed[sequence] = Handed(now, times)
        return self.stream.messages[sequence], times, self._count

    def acknowledge(self, sequence: int, now: float) -> None:
        self._keep(now)
        self.handed.pop(sequence, None)

    def overdue(self, now: float) -> float | None:
        """Mark for redelivery what waits too long; gives when to ask again."""
        soonest = None
        for sequence, handed in self.handed.items():
            due = handed.at + self.ack_wait
            if due > now:
                soonest = due if soonest is None else min(soonest, due)
            elif sequence not in self._again:
                heapq.heappush(self._again, sequence)
        return soonest

    def _keep(self, now: float) -> None:
        """Before a change: what the disk holds is the state at one of these moments."""
        if now - self._saved_at >= SAVE_SECONDS:
            self._saved, self._saved_at = (self._next, self._count, dict(self.handed)), now
        self._changed_at = now

    def restart(self, now: float, chance: random.Random) -> None:
        """The server was killed: requests are gone, and perhaps what had not been written yet. What was handed out is
        handed out again when its time has come, or (measured, without a reason that we know) at once."""
        if now - self._changed_at < SAVE_SECONDS and chance.random() < 0.5:
            self._next, self._count, self.handed = self._saved
        self._next = min(self._next, self.stream.last_sequence + 1)
        self.pulls.clear()
        self.watched = False
        self._again = [sequence for sequence in sorted(self.handed) if chance.random() < 0.5]
