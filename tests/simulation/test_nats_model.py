"""The model of NATS: it agrees with the real server, its faults are what they say, equal seeds give equal histories."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import nats.errors
import pytest
from nats.aio.msg import Msg

from libs.common import messages as m
from libs.common.errors import BusDown
from libs.common.nats_bus import NatsBus
from libs.common.subjects import STATE_BUCKET, TRADING_KEY
from tests.common.builders import fill, mark
from tests.conftest import NatsServer as RealServer
from tests.simulation.nats_conversation import CONVERSATION, Stage, Talk
from tests.simulation.nats_stages import Process, Real, World, client
from tests.simulation.nats_trouble import TROUBLE


@contextmanager
def world(seed: int = 1) -> Iterator[World]:
    made = World(seed)
    yield made
    made.bury()


async def conversation(stage: Stage) -> list[str]:
    talk = Talk(stage)
    await talk.begin()
    for part in (*CONVERSATION, *TROUBLE):
        talk.say(f"-- {part.__name__}")
        await part(talk)
    await talk.admin.close()
    await talk.other.close()
    return talk.lines


@pytest.mark.integration
def test_the_model_and_the_real_server_give_the_same_answers(nats_server: RealServer) -> None:
    async def real() -> list[str]:
        await nats_server.provision()
        try:
            return await conversation(Real(nats_server))
        finally:
            await nats_server.disconnect()

    with world() as w:
        assert w.first.run(conversation(w.first)) == asyncio.run(real())


# -- determinism


def history(seed: int) -> list[str]:
    lines: list[str] = []
    with world(seed) as w:
        w.server.on_stored = lambda stored: lines.append(f"{w.scheduler.now} {stored}")
        w.server.on_published = lambda subject, data, identity: lines.append(f"{subject} {data!r} {identity}")
        lines += w.first.run(conversation(w.first))
        lines.append(f"{w.scheduler.now} {w.scheduler.steps} {w.chance.random()}")
    return lines


def test_equal_seeds_give_equal_histories() -> None:
    assert history(3) == history(3)
    assert history(3) != history(5)


# -- the network


async def publishing(bus: NatsBus, count: int, pause: float = 0.05) -> None:
    for number in range(count):
        await bus.nc.publish("numbers", str(number).encode())
        await asyncio.sleep(pause)


def listening(process: Process, bus: NatsBus) -> list[int]:
    heard: list[int] = []

    async def hear(msg: Msg) -> None:
        heard.append(int(msg.data))

    process.run(bus.nc.subscribe("numbers", cb=hear))
    return heard


def test_messages_of_a_connection_arrive_in_order_whatever_their_delay() -> None:
    with world() as w:
        other = w.process("other")
        bus = other.bus()
        heard = listening(other, bus)
        client(bus).slow_seconds = 0.5
        client(w.admin).slow_seconds = 0.5
        w.first.run(publishing(w.admin, 100, 0.01))
        w.wait(2)
        assert heard == list(range(100))


def test_a_partition_is_noticed_after_two_to_three_seconds_and_what_was_sent_arrives_after_it() -> None:
    with world() as w:
        other = w.process("other")
        bus = other.bus()
        heard = listening(other, bus)
        client(w.admin).partition()
        w.first.begin(publishing(w.admin, 1))
        w.wait(1.9)
        assert w.admin.connected
        assert not heard
        w.wait(1.2)
        assert not w.admin.connected
        w.first.run(w.admin.publish(mark()))
        assert w.admin.stats.dropped == 1
        client(w.admin).heal()
        w.wait(2)
        assert heard == [0]
        assert w.admin.connected
        assert w.admin.stats.reconnects == 1
        assert not w.server.messages("LAST")


def test_a_short_partition_is_not_noticed_and_loses_nothing() -> None:
    with world() as w:
        other = w.process("other")
        bus = other.bus()
        heard = listening(other, bus)
        w.first.begin(publishing(w.admin, 40))
        w.wait(0.5)
        client(w.admin).partition()
        client(bus).partition()
        w.wait(1)
        client(w.admin).heal()
        client(bus).heal()
        w.wait(3)
        assert heard == list(range(40))
        assert w.admin.stats.disconnects == bus.stats.disconnects == 0


def test_what_is_published_while_the_other_is_disconnected_is_never_heard() -> None:
    with world() as w:
        other = w.process("other")
        bus = other.bus()
        heard = listening(other, bus)
        client(bus).disconnect()
        w.first.begin(publishing(w.admin, 200, 0.001))
        w.wait(1)
        assert 0 < len(heard) < 200
        assert heard == list(range(200 - len(heard), 200))
        assert bus.stats.disconnects == bus.stats.reconnects == 1


def test_a_write_into_a_partition_times_out_and_is_stored_afterwards() -> None:
    with world() as w:
        client(w.admin).partition()
        with pytest.raises(nats.errors.TimeoutError):
            w.first.run(w.admin._store(f"$KV.{STATE_BUCKET}.x", b"late", 0))
        assert w.server.entry(STATE_BUCKET, "x") is None
        client(w.admin).heal()
        w.wait(1)
        entry = w.server.entry(STATE_BUCKET, "x")
        assert entry is not None
        assert entry.value == b"late"


def test_without_a_server_a_process_waits_fifteen_seconds_and_ends_with_one_line() -> None:
    with world() as w:
        w.server.kill()
        other, began = w.process("other"), w.scheduler.now
        with pytest.raises(BusDown, match="no NATS server"):
            other.bus()
        assert 15 <= w.scheduler.now - began < 15.2
        w.server.start()
        assert w.process("third").bus().connected


# -- processes


def test_a_dead_process_hears_nothing_more_and_asks_for_nothing_more() -> None:
    with world() as w:
        dead, alive = w.process("risk"), w.process("risk")
        first, second = dead.bus(), alive.bus()
        heard = listening(dead, first)
        dead.begin(first.ledger(0).read())
        w.wait(0.5)
        dead.loop.die()
        w.wait(0.01)
        w.first.run(publishing(w.admin, 3))
        w.first.run(w.admin.ledger(0).append(fill("f")))
        assert not heard
        (delivery,) = alive.run(second.ledger(0).read(), 0.5)
        assert delivery.sequence == 1


def test_a_stopped_process_stays_connected_for_eight_seconds_and_finds_out_afterwards() -> None:
    for seconds, lost in ((7.5, 0), (10.5, 1)):
        with world() as w:
            other = w.process("other")
            bus = other.bus()
            heard = listening(other, bus)
            other.loop.pause()
            w.first.run(publishing(w.admin, 3))
            w.wait(seconds)
            assert not heard
            other.loop.resume()
            w.wait(1)
            assert heard == [0, 1, 2]
            assert bus.stats.disconnects == lost
            assert bus.connected


def test_what_a_dying_process_had_sent_last_may_arrive_or_not() -> None:
    arrived = []
    for seed in range(30):
        with world(seed) as w:
            dying = w.process("dying")
            bus = dying.bus()
            dying.begin(publishing(bus, 10, 0.0001))
            w.wait(0.0015)
            told: list[int] = []
            w.server.on_published = lambda subject, data, identity, told=told: told.append(int(data))  # type: ignore[misc]
            dying.loop.die()
            w.wait(1)
            arrived.append(len(told))
    assert min(arrived) == 0
    assert len(set(arrived)) > 2


# -- the server's death


def test_a_killed_server_keeps_what_it_acknowledged_and_of_the_rest_keeps_some() -> None:
    stored = []
    for seed in range(30):
        with world(seed) as w:
            numbers = [w.first.begin(w.admin.js.publish(f"perps.fill.BTC-USD.{n}", b"x")) for n in range(20)]
            w.wait(0.008)
            w.server.kill()
            w.wait(0.01)
            acknowledged = [task.result().seq for task in numbers if task.done() and not task.exception()]
            kept = [message.sequence for message in w.server.messages("LEDGER")]
            assert set(acknowledged) <= set(kept)
            assert kept == list(range(1, len(kept) + 1))
            stored.append(len(kept) - len(acknowledged))
    assert min(stored) == 0
    assert max(stored) > 0


def test_a_stream_that_is_not_synced_falls_back_by_a_few_messages() -> None:
    fallen = []
    for seed in range(30):
        with world(seed) as w:
            for number in range(10):
                w.first.run(w.admin.js.publish("perps.mark.BTC-USD", str(number).encode()))
            w.server.kill()
            (last,) = w.server.messages("LAST")
            assert int(last.data) == last.sequence - 1
            fallen.append(10 - last.sequence)
            w.server.start()
            w.wait(1)
            assert w.first.run(w.admin.js.publish("perps.mark.BTC-USD", b"new")).seq == last.sequence + 1
    # A limit of one message: what it had pushed out is there again.
    assert sorted(set(fallen)) == [0, 1, 2, 3, 4, 5]


def test_an_acknowledgement_that_was_not_written_yet_is_forgotten() -> None:
    again = set()
    for seed in range(30):
        with world(seed) as w:
            w.first.run(w.admin.ledger(0).append(fill("f")))
            risk = w.process("risk")
            bus = risk.bus()
            ledger = bus.ledger(0)
            risk.run(ledger.read())
            risk.run(ledger.acknowledge(1))
            w.wait(0.01)
            w.server.kill()
            w.server.start()
            w.wait(1)

            async def next_of(bus: NatsBus = bus) -> int:
                subscription = await bus.js.pull_subscribe_bind("risk", "LEDGER")
                try:
                    return (await subscription.fetch(1, timeout=1))[0].metadata.sequence.stream
                except nats.errors.TimeoutError:
                    return 0

            again.add(risk.run(next_of()))
    assert again == {0, 1}


# -- by the world's hand


def test_a_key_written_or_deleted_by_hand_is_told_and_stored() -> None:
    with world() as w:
        risk = w.process("risk")
        bus = risk.bus()
        seen: list[bytes | None] = []
        risk.run(bus.watch_trading(lambda entry: seen.append(entry.value if entry else None)))
        w.server.put(STATE_BUCKET, TRADING_KEY, b"nonsense")
        w.wait(1)
        w.server.delete(STATE_BUCKET, TRADING_KEY)
        w.wait(1)
        assert seen[1:] == [b"nonsense", None]
        assert w.server.entry(STATE_BUCKET, TRADING_KEY) is None


def test_a_change_can_be_heard_of_before_it_can_be_read() -> None:
    """As at the real server: subscribers are served before the disk."""
    early = 0
    for seed in range(30):
        with world(seed) as w:
            other = w.process("other")
            bus = other.bus()
            read: list[bool] = []

            async def hear(msg: Msg, bus: NatsBus = bus, read: list[bool] = read, other: Process = other) -> None:
                async def look() -> None:
                    read.append(await bus.load(STATE_BUCKET, "x") is not None)

                other.begin(look())

            other.run(bus.nc.subscribe(f"$KV.{STATE_BUCKET}.x", cb=hear))
            w.first.run(w.admin.store(STATE_BUCKET, "x", b"1", None))
            w.wait(1)
            early += read == [False]
    assert 0 < early < 30


def test_a_request_is_answered_by_one_of_two_processes() -> None:
    with world() as w:
        answered: list[int] = []
        for number in (1, 2):
            risk = w.process("risk")
            bus = risk.bus()

            async def halt(command: m.Command, number: int = number) -> m.Reply:
                answered.append(number)
                return m.Reply(ok=True)

            risk.run(bus.register("risk", "1.0.0"))
            risk.run(bus.serve("halt", halt))
        for _ in range(10):
            assert w.first.run(w.admin.request("risk", "halt", m.Command(), 1)).ok
        assert len(answered) == 10
        assert set(answered) == {1, 2}
