"""The second half of the conversation: consumers, requests, and what an outage leaves of it all."""

from __future__ import annotations

import asyncio
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from libs.common import messages as m
from libs.common.bus import Ledger
from libs.common.subjects import STATE_BUCKET, TRADING_KEY
from tests.common.builders import fill, mark, verdict
from tests.simulation.nats_conversation import SETTLED_SECONDS, Talk

OVER = "perps.verdict.>"


async def bound(t: Talk, name: str, ack_wait: float, room: int = 1000) -> Any:
    """A new consumer of the audit, with a subscription to it."""
    config = ConsumerConfig(
        durable_name=name,
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ack_wait,
        max_ack_pending=room,
    )
    await t.admin.js.add_consumer("AUDIT", config)
    return await t.admin.js.pull_subscribe_bind(name, "AUDIT")


async def fetched(subscription: Any, seconds: float = 2, ack: bool = True) -> str:
    (msg,) = await subscription.fetch(1, timeout=seconds)
    if ack:
        await msg.ack()
    place = msg.metadata
    return f"{place.sequence.stream} for the {place.num_delivered}. time, number {place.sequence.consumer}"


async def nothing(subscription: Any) -> bool:
    """Nothing comes, and the end of the request, which may come late, is not taken for that of the next one."""
    try:
        await fetched(subscription, 0.2)
    except nats.errors.TimeoutError:
        await asyncio.sleep(0.05)
        return True
    return False


async def drained(subscription: Any) -> int:
    for count in range(1000):
        if await nothing(subscription):
            return count
    raise AssertionError("it never ends")


async def consumers(t: Talk) -> None:
    again = await bound(t, "again", 1)
    t.say("not acknowledged", await fetched(again, ack=False))
    t.say("not acknowledged", await fetched(again, ack=False))
    t.say("acknowledged", await fetched(again))
    await asyncio.sleep(1.2)
    await t.put("perps.audit.new", b"new")
    for _ in range(3):
        t.say("later", await fetched(again))
    t.say("left", await drained(again))
    small = await bound(t, "small", 30, room=2)
    (first,) = await small.fetch(1, timeout=2)
    t.say("room for one more", await fetched(small, ack=False))
    t.say("no room", await nothing(small))
    await first.ack()
    t.say("room again", await fetched(small))
    await t.hear("nobody", fetched(await t.admin.js.pull_subscribe_bind("nobody", "AUDIT")))


async def shared_consumer(t: Talk) -> None:
    one = await bound(t, "both", 30)
    two = await t.other.js.pull_subscribe_bind("both", "AUDIT")
    for subscription in (one, two, two, one):
        t.say("by turns", await fetched(subscription))
    t.say("left", await drained(one) + await drained(two))
    waiting = asyncio.create_task(fetched(one, 5))
    await asyncio.sleep(0.1)
    waiting.cancel()
    await t.put("perps.audit.new", b"for a request that was given up")
    t.say("not for another", await nothing(two))
    t.say("it waits for the asker", await fetched(one))
    third = await t.stage.connect("provisioner")
    waiting = asyncio.create_task(fetched(await third.js.pull_subscribe_bind("both", "AUDIT"), 5))
    await asyncio.sleep(0.1)
    waiting.cancel()
    await third.close()
    await asyncio.sleep(0.1)
    await t.put("perps.audit.new", b"for a request whose asker is gone")
    t.say("goes to another", await fetched(two))


async def requests(t: Talk) -> None:
    risk, operator = await t.stage.connect("risk"), await t.stage.connect("operator")
    running: list[str] = []

    async def halt(command: m.Command) -> m.Reply:
        running.append(f"begin {command.reason}")
        await asyncio.sleep(0.1)
        running.append(f"end {command.reason}")
        return m.Reply(ok=True, detail=command.reason)

    async def silent(msg: Msg) -> None: ...

    await risk.register("risk", "1.2.3")
    await risk.serve("halt", halt)
    both = [operator.request("risk", "halt", m.Command(reason=why), 2) for why in ("one", "two")]
    t.say("answers", [reply.detail for reply in await asyncio.gather(*both)], *running)
    raw = await operator.nc.request("perps.control.risk.halt", b"garbage", timeout=2)
    t.say("garbage", b"not a command" in raw.data)
    t.say("there", b'"name": "risk"' in (await operator.nc.request("$SRV.PING.risk", b"", timeout=2)).data)
    await t.hear("nobody there", operator.request("strategy", "sync", m.Command(), 0.2))
    await t.other.nc.subscribe("silent", cb=silent)
    await t.other.nc.flush()
    await t.other.nc.flush()
    await t.hear("silent", t.admin.nc.request("silent", b"", timeout=0.2))
    await t.hear("nobody", t.admin.nc.request("nobody", b"", timeout=0.2))
    await risk.close()
    await t.hear("gone", operator.request("risk", "halt", m.Command(), 0.2))
    await operator.close()


async def everything(ledger: Ledger) -> list[str]:
    found: list[str] = []
    while page := await ledger.catch_up():
        found += [f"{item.sequence} {item.message.id}" for item in page]
        await ledger.acknowledge(ledger.position)
    return found


async def ledgers(t: Talk) -> None:
    first, second = await t.stage.connect("risk"), await t.stage.connect("risk")
    one, two = first.ledger(0), second.ledger(0)
    t.say("a", await one.append(verdict("a"), OVER))
    await t.hear("b, without having read a", two.append(verdict("b"), OVER))
    t.say("read", await everything(two))
    await t.hear("b", two.append(verdict("b"), OVER))
    await t.hear("c, without having read b", one.append(verdict("c"), OVER))
    execution = await t.stage.connect("execution")
    writer = execution.ledger(0)
    for number in range(10):
        await writer.append(fill(f"f{number}", order=f"o{number % 2}"))
    await execution.js.publish("perps.fill.BTC-USD.o1", b"garbage")
    seen: list[list[int]] = [[], []]

    async def follow(ledger: Ledger, numbers: list[int]) -> None:
        while not numbers or numbers[-1] < 12:
            numbers += [item.sequence for item in await ledger.read()]
            await ledger.acknowledge(ledger.position)

    async with asyncio.timeout(15):
        await asyncio.gather(follow(one, seen[0]), follow(two, seen[1]))
    t.say("read by both", *seen, second.stats.undecodable > 0)
    t.say("steps of an order", len(await execution.order_events("o1")))
    for bus in (first, second, execution):
        await bus.close()


async def resets(t: Talk) -> None:
    seen: list[int] = []
    heard: list[m.Message] = []
    await t.other.watch_trading(lambda entry: seen.append(entry.revision if entry else 0))
    await t.other.subscribe(m.Mark, heard.append)
    before = t.other.stats.reconnects
    t.stage.reset(t.other)
    await t.until(lambda: t.other.stats.reconnects == before + 1)
    await t.until(lambda: len(seen) == 2)
    await t.admin.publish(mark("7"))
    await t.until(lambda: len(heard) == 1)
    await t.admin.store(STATE_BUCKET, TRADING_KEY, b"changed", None)
    await t.until(lambda: len(seen) == 3)
    t.say("heard", [message.id for message in heard], t.other.stats.disconnects - before)


async def outage(t: Talk) -> None:
    heard: list[m.Message] = []
    seen: list[int] = []
    await t.other.subscribe(m.Mark, heard.append)
    await t.other.watch_trading(lambda entry: seen.append(entry.revision if entry else 0))
    consumer = await bound(t, "outage", 1)
    t.say("not acknowledged", await fetched(consumer, ack=False))
    t.say("acknowledged", await fetched(consumer))
    await t.admin.publish(mark("8"))
    await t.put("perps.tooling", b"x", Nats_Msg_Id="before the outage")
    await asyncio.sleep(SETTLED_SECONDS)
    t.stage.kill()
    await t.until(lambda: not t.admin.connected and not t.other.connected)
    dropped = t.admin.stats.dropped
    await t.admin.publish(mark("9"))
    t.say("dropped", t.admin.stats.dropped - dropped)
    await t.hear("request", t.admin.nc.request("nobody", b"", timeout=0.2))
    await t.hear("publish", t.put("perps.audit.a", b"lost"))
    await t.hear("next", fetched(consumer, 0.2))
    writer = t.admin.ledger(0)
    waiting = [
        asyncio.create_task(work)
        for work in (writer.append(fill("in the outage", "o9")), t.admin.load(STATE_BUCKET, TRADING_KEY))
    ]
    late = await t.admin.nc.subscribe("subscribed.in.the.outage")
    t.stage.start()
    t.say("written and read", *await asyncio.gather(*waiting))
    await t.until(lambda: t.admin.connected and t.other.connected and len(seen) == 2)
    await t.other.nc.publish("subscribed.in.the.outage", b"!")
    t.say("heard", (await late.next_msg(timeout=2)).data)
    await t.admin.publish(mark("10"))
    await t.until(lambda: [message.id for message in heard][-1:] == ["mark-10"])
    t.say("marks", [message.id for message in heard])
    t.say("kept", [message.id for message in await t.admin.last(m.Mark)])
    await t.hear("the id is known", t.put("perps.tooling", b"x", Nats_Msg_Id="before the outage"))
    await asyncio.sleep(1.5)  # the server looks for what is overdue after so long at the latest
    for _ in range(2):
        t.say("next", await fetched(consumer))
    await t.hear("condition", writer.append(fill("after the outage", "o9")))
    await t.hear("another's", t.other.ledger(0).append(fill("other", "o9")))


TROUBLE = (consumers, shared_consumer, requests, ledgers, resets, outage)
