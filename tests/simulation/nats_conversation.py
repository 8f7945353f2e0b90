"""What is said to a nats-server, real or modelled, and what is heard: the same lines from both, else the model lies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, timedelta
from typing import Any, Protocol

import nats.errors
from nats.aio.msg import Msg
from nats.js.api import StreamConfig

from libs.common import messages as m
from libs.common.clock import Clock
from libs.common.errors import BusDown, Conflict
from libs.common.nats_bus import NatsBus
from libs.common.permissions import PROVISIONER
from libs.common.provision import provision
from libs.common.subjects import LEASE_BUCKET, STATE_BUCKET, TRADING_KEY
from tests.common.builders import mark

STATE = f"$KV.{STATE_BUCKET}"
LEASE = f"$KV.{LEASE_BUCKET}"
SETTLED_SECONDS = 1.1  # after it all is written that a killed server might lose


class Stage(Protocol):
    """A server that has been provisioned, and the way to it."""

    @property
    def clock(self) -> Clock: ...

    def kill(self) -> None: ...
    def start(self) -> None: ...
    def reset(self, bus: NatsBus) -> None: ...
    async def connect(self, identity: str) -> NatsBus: ...


class Talk:
    """One conversation and its lines."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.lines: list[str] = []

    def say(self, *words: object) -> None:
        self.lines.append(" ".join(str(word) for word in words))

    async def hear(self, about: str, work: Awaitable[Any]) -> None:
        """The outcome, or the kind and the numbers of the error."""
        try:
            self.say(about, "->", await work)
        except (nats.errors.Error, BusDown, Conflict) as error:
            number = getattr(error, "err_code", None) or ""
            self.say(about, "->", type(error).__name__, number, getattr(error, "description", None) or "")

    async def begin(self) -> None:
        self.admin = await self.stage.connect(PROVISIONER)
        self.other = await self.stage.connect(PROVISIONER)

    async def put(self, subject: str, data: bytes = b"", **headers: object) -> str:
        told = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        ack = await self.admin.js.publish(subject, data, headers=told)
        return f"{ack.stream} {ack.seq}{' again' if ack.duplicate else ''}"

    async def get(self, stream: str, **request: object) -> list[str]:
        """All that comes back for a direct get, to its end."""
        inbox = self.admin.nc.new_inbox()
        replies = await self.admin.nc.subscribe(inbox)
        await self.admin.nc.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode(), reply=inbox)
        found: list[str] = []
        while True:
            msg = await replies.next_msg(timeout=2)
            headers = msg.headers or {}
            if "Status" in headers:
                found.append(headers["Status"])
            else:
                found.append(f"{headers['Nats-Sequence']} {headers['Nats-Subject']} {msg.data.decode()[:20]}")
            if "Status" in headers or "batch" not in request:
                await replies.unsubscribe()
                return found

    async def until(self, condition: Callable[[], bool], seconds: float = 15) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.002)


async def provisioning(t: Talk) -> None:
    await provision(t.admin, t.stage.clock, "another")
    entry = await t.admin.load(STATE_BUCKET, TRADING_KEY)
    t.say("trading state", entry and entry.revision)
    await t.hear("no stream", t.admin.js.stream_info("NOTHING"))
    other = StreamConfig(name="LAST", subjects=["else.>"])
    await t.hear("other configuration", t.admin.js.add_stream(other))
    info = await t.admin.js.stream_info("KV_" + STATE_BUCKET)
    t.say("state", info.state.messages, info.state.first_seq, info.state.last_seq, info.state.consumer_count)
    t.say("length of the ledger", await t.admin.last_sequence())


async def core_messages(t: Talk) -> None:
    heard: list[str] = []

    def listen(name: str) -> Callable[[Msg], Awaitable[None]]:
        async def hear(msg: Msg) -> None:
            heard.append(f"{name} {msg.subject} {msg.data.decode()}")

        return hear

    for subject in ("core.a", "core.*", "core.>", "core.*.b", "*.a.>"):
        await t.other.nc.subscribe(subject, cb=listen(subject))
    for _ in range(2):
        await t.other.nc.subscribe("core.a", queue="q", cb=listen("queue"))
    gone = await t.other.nc.subscribe("core.a", cb=listen("gone"))
    await gone.unsubscribe()
    await t.other.nc.flush()
    await t.other.nc.flush()
    for number, subject in enumerate(("core.a", "core.a.b", "core.b", "core", "core.a.b.c", "core.a")):
        await t.admin.nc.publish(subject, str(number).encode())
    await asyncio.sleep(0.2)
    t.say("heard", *sorted(heard))
    t.say("in order", [line for line in heard if line.startswith("core.> ")])


async def conditions(t: Talk) -> None:
    subject, state = "perps.audit.a", f"{STATE}.cas"
    await t.hear("first", t.put(subject, b"1", Nats_Expected_Last_Subject_Sequence=0))
    await t.hear("first again", t.put(subject, b"2", Nats_Expected_Last_Subject_Sequence=0))
    await t.hear("over it", t.put(subject, b"3", Nats_Expected_Last_Subject_Sequence=1))
    await t.hear("from the future", t.put(subject, b"4", Nats_Expected_Last_Subject_Sequence=9))
    await t.hear("elsewhere", t.put("perps.audit.b", b"5", Nats_Expected_Last_Subject_Sequence=0))
    over = {"Nats_Expected_Last_Subject_Sequence_Subject": "perps.audit.>"}
    await t.hear("over all", t.put("perps.audit.c", b"6", Nats_Expected_Last_Subject_Sequence=2, **over))
    await t.hear("over all, right", t.put("perps.audit.c", b"6", Nats_Expected_Last_Subject_Sequence=3, **over))
    await t.hear("key", t.put(state, b"1", Nats_Expected_Last_Subject_Sequence=0))
    await t.hear("key again", t.put(state, b"1", Nats_Expected_Last_Subject_Sequence=0))
    await t.hear("no stream", t.put("nowhere.at.all", b"1"))


async def duplicates(t: Talk) -> None:
    await t.hear("an id", t.put("perps.tooling", b"1", Nats_Msg_Id="x"))
    await t.hear("again", t.put("perps.tooling", b"2", Nats_Msg_Id="x"))
    await t.hear("on another subject", t.put("perps.audit.d", b"3", Nats_Msg_Id="x"))
    await t.hear("condition", t.put("perps.audit.e", b"4", Nats_Msg_Id="y", Nats_Expected_Last_Subject_Sequence=0))
    await t.hear("comes first", t.put("perps.audit.e", b"4", Nats_Msg_Id="y", Nats_Expected_Last_Subject_Sequence=0))
    for _ in range(2):
        await t.admin.publish_kept(m.Tooling(id="kept", command="preview", ok=True))
    t.say("kept", len(await t.admin.since(m.Tooling, None)))


async def direct_gets(t: Talk) -> None:
    start = t.stage.clock.wall()
    for subject, data in (("a.1m", b"1"), ("b.1m", b"2"), ("a.1m", b"3"), ("a.5m", b"4"), ("b.1m", b"5")):
        await t.put(f"perps.candle.{subject}", data)
    for request in (
        {"last_by_subj": "perps.candle.a.1m"},
        {"last_by_subj": "perps.candle.c.1m"},
        {"multi_last": ["perps.candle.*.*"], "batch": 1000},
        {"multi_last": ["perps.candle.a.1m"], "batch": 1000},
        {"multi_last": ["perps.candle.*.*"], "batch": 2},
        {"multi_last": ["perps.candle.c.*"], "batch": 1000},
        {"seq": 1, "batch": 1000},
        {"seq": 2, "batch": 2},
        {"seq": 4},
        {"seq": 6, "batch": 1000},
        {"seq": 1, "next_by_subj": "perps.candle.a.1m", "batch": 1000},
        {"seq": 2, "next_by_subj": "perps.candle.*.1m", "batch": 1000},
        {"seq": 4, "next_by_subj": "perps.candle.a.1m", "batch": 1000},
        {"seq": 1, "next_by_subj": "perps.candle.c.1m", "batch": 1000},
    ):
        t.say(request, await t.get("CANDLES", **request))
    for name, moment in (("before", start - timedelta(hours=1)), ("after", start + timedelta(hours=1))):
        request = {"start_time": moment.astimezone(UTC).isoformat(), "next_by_subj": "perps.candle.>", "batch": 9}
        t.say(name, await t.get("CANDLES", **request))
    t.say("no stream", await t.get("NOTHING", seq=1))


async def keys(t: Talk) -> None:
    bus, key = t.admin, "note"
    first = await bus.store(STATE_BUCKET, key, b"one", 0)
    await t.hear("must not exist", bus.store(STATE_BUCKET, key, b"two", 0))
    t.say("over it", await bus.store(STATE_BUCKET, key, b"two", first) - first)
    t.say("held", [entry.value for entry in await bus.history(STATE_BUCKET, key)])
    await t.put(f"{STATE}.{key}", KV_Operation="DEL")
    t.say("deleted", await bus.load(STATE_BUCKET, key), await t.get("KV_PERPS_STATE", last_by_subj=f"{STATE}.{key}"))
    await t.hear("not as if it had never been", bus.store(STATE_BUCKET, key, b"three", 0))
    await t.put(f"{STATE}.{key}", KV_Operation="PURGE", Nats_Rollup="sub")
    t.say("purged", [entry.value for entry in await bus.history(STATE_BUCKET, key)])
    for number in range(70):
        await bus.store(STATE_BUCKET, key, b"%d" % number, None)
    held = [int(entry.value) for entry in await bus.history(STATE_BUCKET, key)]
    t.say("kept of many", len(held), held[0], held[-1])


async def last_values(t: Talk) -> None:
    for price in ("1", "2", "3"):
        await t.admin.publish(mark(price))
        await t.admin.publish(mark(price, "ETH-USD"))
    await t.put("perps.feed.BTC-USD")
    t.say(await t.get("LAST", multi_last=["perps.mark.*"], batch=9))


async def leases(t: Talk) -> None:
    subject, bus = f"{LEASE}.someone", t.admin
    held = await bus._store(subject, b"a", 0, 2)
    await t.hear("held", bus._store(subject, b"b", 0, 2))
    held = await bus._store(subject, b"a", held, 1)
    await asyncio.sleep(0.7)
    await t.hear("still held", bus._store(subject, b"b", 0, 2))
    await asyncio.sleep(0.5)
    t.say("expired", await bus.load(LEASE_BUCKET, "someone"))
    await t.hear("renewed too late", bus._store(subject, b"a", held, 1))
    await t.hear("taken over", bus._store(subject, b"b", 0, 1))
    holder = await t.stage.connect(PROVISIONER)
    fence = await holder.hold_lease("execution")
    waiting = asyncio.create_task(bus.hold_lease("execution"))
    await asyncio.sleep(0.3)
    t.say("waits", not waiting.done(), holder.holds_lease)
    await holder.close()
    t.say("next", await waiting > fence, bus.holds_lease)


CONVERSATION = (provisioning, core_messages, conditions, duplicates, direct_gets, keys, last_values, leases)
