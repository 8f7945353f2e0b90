"""A nats-server with JetStream on virtual time, as far as `libs.common.nats_bus`, its ledger and provisioning use one.

Whatever travels does so in order per connection and direction. Everything it does hangs on the scheduler and the chance
that it is given. tests/simulation/test_nats_model.py holds it against the real one.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import msgspec

from libs.common.bus import Entry
from sim.world.loop import Scheduler
from sim.world.nats_wire import Link, Peer, Pipe, Work
from sim.world.streams import MAX_PULLS, Consumer, Headers, Pull, Refused, Stored, Stream, literal, matcher

PING_SECONDS, PINGS_MAX = 2.0, 4  # ours (libs/common/permissions.py): a silent client is given up after 8 to 10 s
START_SECONDS = (0.02, 0.3)
SYNC_SECONDS = (0.0001, 0.002)  # until a message is on disk; subscribers have it before
NO_RESPONDERS: Headers = {"Status": "503"}


class Subscription(NamedTuple):
    link: Link
    sid: int
    queue: str


class Route(NamedTuple):
    """Where messages on one subject go."""

    plain: tuple[Subscription, ...]
    queues: tuple[tuple[Subscription, ...], ...]
    stream: Stream | None


class NatsServer:
    """`epoch` is the wall time at which virtual time begins. It runs from the start."""

    def __init__(self, scheduler: Scheduler, chance: random.Random, epoch: datetime) -> None:
        self.scheduler = scheduler
        self.chance = chance
        self.listening = True
        self.on_stored: Callable[[Stored], None] = lambda stored: None
        self.on_published: Callable[[str, bytes, str], None] = lambda subject, data, identity: None
        self._epoch = epoch
        self._streams: dict[str, Stream] = {}
        self._links: list[Link] = []
        self._inboxes: dict[str, Subscription] = {}
        self._subjects: dict[str, list[Subscription]] = {}
        self._patterns: dict[str, list[Subscription]] = {}
        self._routes: dict[str, Route] = {}
        self._arrived: deque[Callable[[], None]] = deque()  # waits for the disk
        self._synced_at = 0.0
        self._life = 0
        scheduler.later(PING_SECONDS, self._ping)

    # -- faults and checks

    def kill(self) -> None:
        """SIGKILL. What was acknowledged stays, but for a short tail of the streams that are not synced; what had
        arrived may have been stored without a word."""
        self.listening = False
        self._life += 1
        for _ in range(self.chance.randint(0, len(self._arrived)) if self._arrived else 0):
            self._arrived.popleft()()
        self._arrived.clear()
        for link in list(self._links):
            self.close(link)
            link.down.cut(self.chance)
            link.down.send(link.peer.lost, link)
        for stream in self._streams.values():
            if not stream.synced:
                stream.lose_tail(self.scheduler.now)
            for consumer in stream.consumers.values():
                consumer.restart(self.scheduler.now, self.chance)

    def start(self) -> None:
        """Ready after a moment."""
        life = self._life = self._life + 1

        def ready() -> None:
            if life == self._life:
                self.listening = True
                for stream in self._streams.values():
                    for consumer in stream.consumers.values():
                        self._look(consumer, life)

        self.scheduler.later(self.chance.uniform(*START_SECONDS), ready)

    def messages(self, stream: str, subject_filter: str = ">") -> list[Stored]:
        """What a stream holds, oldest first."""
        return list(self._stream(stream).since(1, subject_filter))

    def entry(self, bucket: str, key: str) -> Entry | None:
        found = self._stream(f"KV_{bucket}").last_each(f"$KV.{bucket}.{key}")
        if not found or (found[0].headers or {}).get("KV-Operation"):
            return None
        return Entry(found[0].data, found[0].sequence)

    def put(self, bucket: str, key: str, value: bytes) -> None:
        """By an operator with the NATS CLI: told to subscribers, and stored at once."""
        self._write(f"$KV.{bucket}.{key}", value, None)

    def delete(self, bucket: str, key: str) -> None:
        """As above; what remains is a marker."""
        self._write(f"$KV.{bucket}.{key}", b"", {"KV-Operation": "DEL"})

    def wipe(self, stream: str) -> None:
        """By an operator with the NATS CLI: nothing is left, and nobody is told."""
        self._stream(stream).wipe()

    def _write(self, subject: str, data: bytes, headers: Headers) -> None:
        self.take(None, subject, "", data, headers)
        while self._arrived:
            self._arrived.popleft()()

    def _stream(self, name: str) -> Stream:
        stream = self._streams[name]
        stream.expire(self.scheduler.now)
        return stream

    # -- connections

    def accept(self, peer: Peer, up: Pipe, down: Pipe) -> Link:
        link = Link(peer, up, down)
        self._links.append(link)
        return link

    def close(self, link: Link) -> None:
        if link.open:
            link.open = False
            self._links.remove(link)
            for sid in list(link.subjects):
                self._forget(link, sid)

    def ping(self, link: Link, answer: Work) -> None:
        if link.open:
            link.down.send(answer)

    def subscribe(self, link: Link, sid: int, subject: str, queue: str) -> None:
        if not link.open or sid in link.subjects:
            return
        link.subjects[sid] = subject
        if subject.startswith("_INBOX"):
            self._inboxes[subject] = Subscription(link, sid, queue)
        else:
            held = self._subjects if literal(subject) else self._patterns
            held.setdefault(subject, []).append(Subscription(link, sid, queue))
            self._reroute(subject)

    def unsubscribe(self, link: Link, sid: int) -> None:
        if sid in link.subjects:
            self._forget(link, sid)

    def _forget(self, link: Link, sid: int) -> None:
        subject = link.subjects.pop(sid)
        if subject.startswith("_INBOX"):
            if subject in self._inboxes and self._inboxes[subject].link is link:  # a later connection may listen there
                del self._inboxes[subject]
            return
        held = self._subjects if literal(subject) else self._patterns
        held[subject] = [found for found in held[subject] if found.link is not link or found.sid != sid]
        if not held[subject]:
            del held[subject]
        self._reroute(subject)

    def _reroute(self, pattern: str) -> None:
        if literal(pattern):
            self._routes.pop(pattern, None)
        else:
            self._routes.clear()

    def _ping(self) -> None:
        """What became of a ping is only worked out for those who cannot answer."""
        for link in list(self._links):
            link.missed = link.missed + 1 if link.up.blocked or link.peer.silent else 0
            if link.missed > PINGS_MAX:
                self.close(link)
                link.down.send(link.peer.lost, link)
        self.scheduler.later(PING_SECONDS, self._ping)

    # -- messages

    def take(self, link: Link | None, subject: str, reply: str, data: bytes, headers: Headers) -> None:
        """A message arrives; without a link it comes from nobody."""
        if link is not None and not link.open:
            return
        if subject.startswith("_INBOX"):
            self._answer(subject, data, headers)
            return
        if subject.startswith("$JS."):
            if not self._ask(subject, reply, data) and reply:
                self._answer(reply, b"", NO_RESPONDERS)
            return
        self.on_published(subject, data, link.peer.identity if link else "")
        route = self._routes.get(subject) or self._route(subject)
        for link_, sid, _ in route.plain:
            link_.down.send(link_.peer.message, link_, sid, subject, reply, data, headers)
        for group in route.queues:
            one = group[0] if len(group) == 1 else self.chance.choice(group)
            one.link.down.send(one.link.peer.message, one.link, one.sid, subject, reply, data, headers)
        if route.stream is None:
            if reply and not route.plain and not route.queues:
                self._answer(reply, b"", NO_RESPONDERS)
        elif route.stream.synced:
            self._arrived.append(partial(self._store, route.stream, subject, reply, data, headers))
            self._synced_at = max(self._synced_at, self.scheduler.now) + self.chance.uniform(*SYNC_SECONDS)
            self.scheduler.at(self._synced_at, self._write_next)
        else:
            self._store(route.stream, subject, reply, data, headers)

    def _write_next(self) -> None:
        if self._arrived:  # after a kill there may be fewer than were waited for
            self._arrived.popleft()()

    def _route(self, subject: str) -> Route:
        found = [held for pattern, held in self._patterns.items() if matcher(pattern)(subject)]
        found.append(self._subjects.get(subject, []))
        groups: dict[tuple[int, str], list[Subscription]] = {}
        for number, held in enumerate(found):
            for subscription in held:
                if subscription.queue:
                    groups.setdefault((number, subscription.queue), []).append(subscription)
        plain = tuple(subscription for held in found for subscription in held if not subscription.queue)
        stream = next((stream for stream in self._streams.values() if stream.covers(subject)), None)
        route = self._routes[subject] = Route(plain, tuple(tuple(group) for group in groups.values()), stream)
        return route

    def _listener(self, inbox: str) -> Subscription | None:
        return self._inboxes.get(inbox) or self._inboxes.get(inbox.rpartition(".")[0] + ".*")

    def _answer(self, inbox: str, data: bytes, headers: Headers = None, reply: str = "", subject: str = "") -> None:
        """To whoever listens there. `subject`: of a message of a consumer, which is not its inbox."""
        if (to := self._listener(inbox)) is not None:
            to.link.down.send(to.link.peer.message, to.link, to.sid, subject or inbox, reply, data, headers)

    # -- JetStream

    def _store(self, stream: Stream, subject: str, reply: str, data: bytes, headers: Headers) -> None:
        try:
            stored, duplicate = stream.store(subject, data, headers, self.scheduler.now)
        except Refused as refused:
            answer = json.dumps({"error": refused.words, "stream": stream.name, "seq": 0}).encode()
        else:
            answer = b'{"stream":"%s","seq":%d%s}' % (
                stream.name.encode(),
                stored.sequence,
                b',"duplicate":true' if duplicate else b"",
            )
            if not duplicate:
                self.on_stored(stored)
                for consumer in stream.consumers.values():
                    if consumer.pulls:
                        self._serve(consumer)
        if reply:
            self._answer(reply, answer)

    def _ask(self, subject: str, reply: str, data: bytes) -> bool:
        """A request to JetStream; False where nobody answers it."""
        tokens = subject.split(".")
        if tokens[1] == "ACK":
            self._acknowledge(tokens)
            return True
        kind, rest = ".".join(tokens[2:4]), tokens[4:]
        if kind == "DIRECT.GET":
            return self._get(rest[0], reply, data)
        if kind == "CONSUMER.MSG" and rest[0] == "NEXT":
            return self._pull(rest[1], rest[2], reply, data)
        manage = {
            "STREAM.CREATE": self._create_stream,
            "STREAM.UPDATE": self._update_stream,
            "STREAM.INFO": self._tell_stream,
            "CONSUMER.DURABLE": self._create_consumer,
        }.get(kind)
        if manage is None:
            return False
        try:
            answer = manage(rest[-1], json.loads(data or b"{}"))
        except Refused as refused:
            answer = {"error": refused.words}
        self._answer(reply, json.dumps(answer).encode())
        return True

    def _create_stream(self, name: str, config: dict[str, Any]) -> dict[str, Any]:
        if name not in self._streams:
            self._streams[name] = Stream(config, self.chance)
            self._routes.clear()
        elif self._streams[name].config != config:
            raise Refused(10058, "stream name already in use with a different configuration")
        return self._tell_stream(name, {})

    def _update_stream(self, name: str, config: dict[str, Any]) -> dict[str, Any]:
        self._tell_stream(name, {})
        self._streams[name].configure(config)
        self._routes.clear()
        return self._tell_stream(name, {})

    def _tell_stream(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        if name not in self._streams:
            raise Refused(10059, "stream not found", 404)
        stream = self._stream(name)
        state = {
            "messages": len(stream.messages),
            "bytes": 0,
            "first_seq": min(stream.messages, default=stream.last_sequence + 1),
            "last_seq": stream.last_sequence,
            "consumer_count": len(stream.consumers),
        }
        return {"config": stream.config, "state": state, "created": self._epoch.isoformat()}

    def _create_consumer(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        if request["stream_name"] not in self._streams:
            raise Refused(10059, "stream not found", 404)
        stream = self._streams[request["stream_name"]]
        if name not in stream.consumers:
            stream.consumers[name] = Consumer(stream, request["config"])
        created = self._epoch.isoformat()
        return {"name": name, "stream_name": stream.name, "config": request["config"], "created": created}

    def _get(self, name: str, reply: str, data: bytes) -> bool:
        """A direct get: the messages that are asked for and, of a batch, its end."""
        if name not in self._streams:
            return False
        stream, request = self._stream(name), msgspec.json.decode(data)
        start = request.get("start_time")
        moment = (datetime.fromisoformat(start) - self._epoch).total_seconds() if start else None
        found = stream.wanted(request, moment)
        for stored in found:
            told = {**(stored.headers or {}), "Nats-Sequence": str(stored.sequence), "Nats-Subject": stored.subject}
            self._answer(reply, stored.data, told)
        if not found:
            self._answer(reply, b"", {"Status": "404", "Description": "Message Not Found"})
        elif "batch" in request:
            self._answer(reply, b"", {"Status": "204", "Description": "EOB"})
        return True

    # -- consumers

    def _pull(self, stream: str, name: str, reply: str, data: bytes) -> bool:
        consumer = self._streams[stream].consumers.get(name) if stream in self._streams else None
        if consumer is None:
            return False
        if len(consumer.pulls) >= MAX_PULLS:
            self._answer(reply, b"", {"Status": "409", "Description": "Exceeded MaxWaiting"})
            return True
        pull = Pull(reply, partial(self._listener, reply))
        consumer.pulls.append(pull)
        self._serve(consumer)
        if pull in consumer.pulls:
            self.scheduler.later(msgspec.json.decode(data)["expires"] / 1e9, partial(self._end, consumer, pull))
        return True

    def _end(self, consumer: Consumer, pull: Pull) -> None:
        if any(held is pull for held in consumer.pulls):
            consumer.pulls = deque(held for held in consumer.pulls if held is not pull)
            self._answer(pull.reply, b"", {"Status": "408", "Description": "Request Timeout"})

    def _serve(self, consumer: Consumer) -> None:
        """Hand out what there is to whoever asked first and still listens."""
        now = self.scheduler.now
        while consumer.pulls:
            if not consumer.pulls[0].wanted():
                consumer.pulls.popleft()
                continue
            taken = consumer.take(now)
            if taken is None:
                return
            stored, times, number = taken
            pull = consumer.pulls.popleft()
            place = f"{stored.stream}.{consumer.config['durable_name']}.{times}.{stored.sequence}.{number}.0.0"
            self._answer(pull.reply, stored.data, stored.headers, f"$JS.ACK.{place}", stored.subject)
            self._watch(consumer, now + consumer.ack_wait)

    def _acknowledge(self, tokens: list[str]) -> None:
        stream = self._streams.get(tokens[2])
        consumer = stream.consumers.get(tokens[3]) if stream else None
        if consumer is not None:
            consumer.acknowledge(int(tokens[5]), self.scheduler.now)
            self._serve(consumer)  # it may have waited for room

    def _watch(self, consumer: Consumer, due: float) -> None:
        """See to it that what is not acknowledged in time is handed out again. One timer at a time."""
        if not consumer.watched:
            consumer.watched = True
            self.scheduler.at(due, partial(self._look, consumer, self._life))

    def _look(self, consumer: Consumer, life: int) -> None:
        if life != self._life:
            return
        consumer.watched = False
        due = consumer.overdue(self.scheduler.now)
        if due is not None:
            self._watch(consumer, due)
        self._serve(consumer)
