"""The bus against a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from libs.common import messages as m
from libs.common.bus import Delivery, Entry, Ledger
from libs.common.clock import SystemClock
from libs.common.errors import BusDown, Conflict
from libs.common.nats_bus import connect
from libs.common.subjects import STATE_BUCKET, TRADING_KEY
from tests.common.builders import NOW, fill, mark, verdict
from tests.conftest import NatsServer
from tests.ports import free_port

pytestmark = pytest.mark.integration
OVER = "perps.verdict.>"


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def everything(ledger: Ledger) -> list[Delivery]:
    found: list[Delivery] = []
    while page := await ledger.catch_up():
        found += page
        await ledger.acknowledge(ledger.position)
    return found


async def next_page(ledger: Ledger) -> list[Delivery]:
    async with asyncio.timeout(10):
        while not (page := await ledger.read()):
            pass
        await ledger.acknowledge(ledger.position)
        return page


async def test_a_message_reaches_its_subscriber_and_stays_as_the_last_value(provisioned: NatsServer) -> None:
    marketdata, risk = await provisioned.connect("marketdata"), await provisioned.connect("risk")
    received: list[m.Message] = []
    await risk.subscribe(m.Mark, received.append)
    for price in ("100", "101"):
        await marketdata.publish(mark(price))
    await marketdata.publish(mark("50", "ETH-USD"))
    await until(lambda: len(received) == 3)
    assert all(message.sent_at for message in received)
    last = await risk.last(m.Mark)
    assert sorted(message.id for message in last) == ["mark-101", "mark-50"]
    await marketdata.close()
    await risk.close()


async def test_a_subscription_is_in_force_once_it_was_made(provisioned: NatsServer) -> None:
    marketdata, risk = await provisioned.connect("marketdata"), await provisioned.connect("risk")
    received: dict[str, list[m.Message]] = {}
    for message in (mark(str(price)) for price in range(1, 101)):
        received[message.id] = []
        await risk.subscribe(m.Mark, received[message.id].append)
        await marketdata.publish(message)
    await until(lambda: all(key in [message.id for message in heard] for key, heard in received.items()))
    await marketdata.close()
    await risk.close()


async def test_garbage_on_every_subject_is_counted_and_nothing_else_happens(provisioned: NatsServer) -> None:
    marketdata, risk = await provisioned.connect("marketdata"), await provisioned.connect("risk")
    received: list[m.Message] = []
    await risk.subscribe(m.Mark, received.append)
    for data in (b"", b"garbage", b"{}", b"\xff", b'{"id":"\xff"}'):
        await marketdata.nc.publish("perps.mark.BTC-USD", data)
    await marketdata.publish(mark())
    await until(lambda: len(received) == 1)
    assert risk.stats.undecodable == 5
    await marketdata.close()
    await risk.close()


async def test_the_ledger_is_one_sequence_that_every_reader_sees_without_a_hole(provisioned: NatsServer) -> None:
    risk, execution = await provisioned.connect("risk"), await provisioned.connect("execution")
    writer, other = risk.ledger(0), execution.ledger(0)
    assert await writer.append(verdict("a"), OVER) == 1
    assert await other.append(fill("f1")) == 2
    assert await writer.append(verdict("b"), OVER) == 3
    reader = execution.ledger(0)
    assert [item.message.id for item in await everything(reader)] == ["verdict-a", "f1", "verdict-b"]
    await writer.append(verdict("c"), OVER)
    assert [item.message.id for item in await next_page(reader)] == ["verdict-c"]
    assert reader.position == 4
    await risk.close()
    await execution.close()


async def test_garbage_on_the_ledger_is_counted_and_skipped(provisioned: NatsServer) -> None:
    execution = await provisioned.connect("execution")
    writer, reader = execution.ledger(0), execution.ledger(0)
    await writer.append(fill("f1"))
    for _ in range(300):  # more than a page of it
        await execution.js.publish("perps.fill.BTC-USD.o1", b"garbage")
    await everything(writer)
    await writer.append(fill("f2"))
    assert [item.message.id for item in await everything(reader)] == ["f1", "f2"]
    assert reader.position == 302
    assert execution.stats.undecodable == 600
    await execution.close()


async def test_a_verdict_decided_on_an_old_ledger_is_refused_until_its_author_has_read_on(
    provisioned: NatsServer,
) -> None:
    """Two risk processes: the second to write loses, even though fills came in between."""
    first, second = await provisioned.connect("risk"), await provisioned.connect("risk")
    one, two = first.ledger(0), second.ledger(0)
    await one.append(verdict("a"), OVER)
    with pytest.raises(Conflict):
        await two.append(verdict("b"), OVER)
    await everything(two)
    await two.append(verdict("b"), OVER)
    with pytest.raises(Conflict):
        await one.append(verdict("c"), OVER)
    await first.close()
    await second.close()


async def test_two_processes_on_one_consumer_both_see_everything(provisioned: NatsServer) -> None:
    first, second = await provisioned.connect("risk"), await provisioned.connect("risk")
    execution = await provisioned.connect("execution")
    readers, seen = [first.ledger(0), second.ledger(0)], [0, 0]
    writer = execution.ledger(0)

    async def follow(index: int) -> None:
        while seen[index] < 40:
            page = await readers[index].read()
            assert [item.sequence for item in page] == list(range(seen[index] + 1, seen[index] + 1 + len(page)))
            seen[index] += len(page)
            await readers[index].acknowledge(readers[index].position)

    followers = [asyncio.create_task(follow(index)) for index in (0, 1)]
    for number in range(40):
        await writer.append(fill(f"f{number}"))
    async with asyncio.timeout(20):
        await asyncio.gather(*followers)
    for bus in (first, second, execution):
        await bus.close()


async def test_an_order_event_that_somebody_else_wrote_first_is_a_conflict(provisioned: NatsServer) -> None:
    execution = await provisioned.connect("execution")
    one, two = execution.ledger(0), execution.ledger(0)
    await one.append(fill("f1"))
    with pytest.raises(Conflict):
        await two.append(fill("f2"))
    await two.append(fill("f3", order="o2"))  # another order's subject is another matter
    await execution.close()


async def test_a_write_whose_acknowledgement_was_lost_is_settled_by_asking(provisioned: NatsServer) -> None:
    execution = await provisioned.connect("execution")
    ledger, publish, calls = execution.ledger(0), execution.js.publish, []

    async def lossy(subject: str, payload: bytes = b"", **more: object) -> object:
        stored = await publish(subject, payload, **more)  # type: ignore[arg-type]
        calls.append(subject)
        if len(calls) == 1:
            raise TimeoutError
        return stored

    execution.js.publish = lossy  # type: ignore[assignment, method-assign]
    assert await ledger.append(fill("f1")) == 1
    assert len(await everything(execution.ledger(0))) == 1
    await execution.close()


async def test_an_equal_id_of_another_process_is_not_taken_for_our_own_write(provisioned: NatsServer) -> None:
    """A paused execution wakes up and finds its successor's event of the same revision."""
    execution = await provisioned.connect("execution")
    one, two = execution.ledger(0), execution.ledger(0)
    await one.append(fill("f1"))
    with pytest.raises(Conflict):
        await two.append(fill("f1"))
    await execution.close()


async def test_what_was_handed_out_and_not_yet_handled_does_not_count_as_known(provisioned: NatsServer) -> None:
    first, second = await provisioned.connect("risk"), await provisioned.connect("risk")
    one, two = first.ledger(0), second.ledger(0)
    await one.append(verdict("a"), OVER)
    assert len(await two.catch_up()) == 1
    with pytest.raises(Conflict):
        await two.append(verdict("b"), OVER)
    await two.acknowledge(1)
    await two.append(verdict("b"), OVER)
    await first.close()
    await second.close()


async def test_nothing_durable_is_lost_or_doubled_when_the_server_is_killed_under_load(
    provisioned: NatsServer,
) -> None:
    execution, strategy = await provisioned.connect("execution"), await provisioned.connect("strategy")
    writer, reader = execution.ledger(0), strategy.ledger(0)
    read: list[str] = []

    async def follow() -> None:
        while len(read) < 60:
            read.extend(item.message.id for item in await reader.read())
            await reader.acknowledge(reader.position)

    async def write() -> None:
        for number in range(60):
            await writer.append(fill(f"f{number}"))

    tasks = [asyncio.create_task(follow()), asyncio.create_task(write())]
    for count in (10, 30):
        await until(lambda count=count: writer._sequences.get("perps.fill.BTC-USD.o1", 0) >= count)  # type: ignore[misc]
        provisioned.kill()
        provisioned.start()
    async with asyncio.timeout(30):
        await asyncio.gather(*tasks)
    assert read == [f"f{number}" for number in range(60)]
    await execution.close()
    await strategy.close()


async def test_a_key_is_written_only_over_the_revision_that_was_read(provisioned: NatsServer) -> None:
    risk = await provisioned.connect("risk")
    entry = await risk.load(STATE_BUCKET, TRADING_KEY)
    assert entry is not None
    revision = await risk.store(STATE_BUCKET, TRADING_KEY, b"new", entry.revision)
    with pytest.raises(Conflict):
        await risk.store(STATE_BUCKET, TRADING_KEY, b"newer", entry.revision)
    assert await risk.load(STATE_BUCKET, TRADING_KEY) == Entry(b"new", revision)
    assert await risk.load(STATE_BUCKET, "nothing") is None
    await risk.close()


async def test_the_trading_state_is_watched_across_a_server_restart(provisioned: NatsServer) -> None:
    risk, execution = await provisioned.connect("risk"), await provisioned.connect("execution")
    seen: list[bytes] = []
    await execution.watch_trading(lambda entry: seen.append(entry.value if entry else b""))
    revision = (await risk.load(STATE_BUCKET, TRADING_KEY) or Entry(b"", 0)).revision
    revision = await risk.store(STATE_BUCKET, TRADING_KEY, b"halted", revision)
    await until(lambda: seen[-1] == b"halted")
    provisioned.kill()
    provisioned.start()
    await until(lambda: execution.stats.reconnects == 1 and risk.connected)
    await until(lambda: len(seen) >= 3)  # read again by itself: a change during the outage would be seen
    await risk.store(STATE_BUCKET, TRADING_KEY, b"active", revision)
    await until(lambda: seen[-1] == b"active")
    await risk.close()
    await execution.close()


async def test_only_one_process_holds_the_lease_and_the_next_follows(provisioned: NatsServer) -> None:
    first, second = await provisioned.connect("execution"), await provisioned.connect("execution")
    fence = await first.hold_lease("execution")
    waiting = asyncio.create_task(second.hold_lease("execution"))
    await asyncio.wait([waiting], timeout=0.4)
    assert not waiting.done()
    await first.close()
    async with asyncio.timeout(10):
        assert await waiting > fence
    await second.close()


async def test_a_command_is_answered_and_a_malformed_one_refused(provisioned: NatsServer) -> None:
    risk, operator = await provisioned.connect("risk"), await provisioned.connect("operator")
    await risk.register("risk", "1.2.3")

    async def halt(command: m.Command) -> m.Reply:
        return m.Reply(ok=True, detail=command.reason)

    await risk.serve("halt", halt)
    reply = await operator.request("risk", "halt", m.Command(reason="because"), 2)
    assert (reply.ok, reply.detail) == (True, "because")
    raw = await operator.nc.request("perps.control.risk.halt", b"garbage", timeout=2)
    assert not msgspec.json.decode(raw.data, type=m.Reply).ok
    pong = await operator.nc.request("$SRV.PING.risk", b"", timeout=2)
    assert msgspec.json.decode(pong.data)["name"] == "risk"
    with pytest.raises(BusDown, match="strategy does not answer"):
        await operator.request("strategy", "sync", m.Command(), 0.2)
    await risk.close()
    await operator.close()


async def test_no_server_is_one_line(tmp_path: Path, nats_server: NatsServer) -> None:
    seed = nats_server.settings.identities / "risk.nk"
    url = f"nats://127.0.0.1:{free_port()}"
    task = asyncio.create_task(connect([url], "risk", seed, SystemClock(), lambda error: None, 1))
    with pytest.raises(BusDown, match="no NATS server") as caught:
        await task
    assert "\n" not in str(caught.value)


async def test_a_stranger_is_not_let_in(provisioned: NatsServer, tmp_path: Path) -> None:
    import nkeys

    seed = tmp_path / "stranger.nk"
    seed.write_bytes(nkeys.encode_seed(bytes(32), nkeys.PREFIX_BYTE_USER))
    with pytest.raises(BusDown, match="lets risk in"):
        await connect(provisioned.settings.nats.servers, "risk", seed, SystemClock(), lambda error: None, 2)


async def test_candles_are_kept_in_order(provisioned: NatsServer) -> None:
    marketdata, strategy = await provisioned.connect("marketdata"), await provisioned.connect("strategy")
    one = mark().last
    for minute in range(3):
        start = NOW.replace(minute=minute)
        await marketdata.publish(
            m.Candle(
                id=f"c{minute}",
                product_id="BTC-USD",
                granularity="1m",
                start=start,
                open=one,
                high=one,
                low=one,
                close=one,
                volume=one,
            )
        )
    await marketdata.nc.flush()
    async with asyncio.timeout(5):
        while len(await strategy.candles("BTC-USD", "1m")) < 3:
            pass
    assert [candle.id for candle in await strategy.candles("BTC-USD", "1m")] == ["c0", "c1", "c2"]
    assert await strategy.candles("ETH-USD", "1m") == []
    await marketdata.close()
    await strategy.close()


async def test_tool_outcomes_are_kept_and_read_from_a_moment_on(provisioned: NatsServer) -> None:
    operator, exporter = await provisioned.connect("operator"), await provisioned.connect("exporter")
    assert await exporter.since(m.Tooling, None) == []
    clock, moments = SystemClock(), []
    for name in ("a", "b"):
        await operator.publish(m.Tooling(id=name, command="preview", ok=False))
        while name not in [message.id for message in await exporter.since(m.Tooling, None)]:
            await asyncio.sleep(0.01)
        moments.append(clock.wall())
    assert [message.id for message in await exporter.since(m.Tooling, None)] == ["a", "b"]
    assert [message.id for message in await exporter.since(m.Tooling, moments[0])] == ["b"]
    assert await exporter.since(m.Tooling, moments[1]) == []
    await operator.close()
    await exporter.close()


async def test_more_tool_outcomes_than_one_answer_holds_are_all_read(provisioned: NatsServer) -> None:
    operator, exporter = await provisioned.connect("operator"), await provisioned.connect("exporter")
    for number in range(1100):
        await operator.publish(m.Tooling(id=str(number), command="preview", ok=True))
    async with asyncio.timeout(10):
        while len(found := await exporter.since(m.Tooling, None)) < 1100:
            await asyncio.sleep(0.01)
    assert [message.id for message in found] == [str(number) for number in range(1100)]
    await operator.close()
    await exporter.close()


async def test_a_server_that_says_nothing_is_given_up_and_no_socket_is_left_open(nats_server: NatsServer) -> None:
    left: list[bytes] = []

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left.append(await reader.read())  # ends when the other side closes
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        seed, url = nats_server.settings.identities / "risk.nk", f"nats://127.0.0.1:{port}"
        with pytest.raises(BusDown, match="lets risk in: no answer"):
            await connect([url], "risk", seed, SystemClock(), lambda error: None, 0.3)
        async with asyncio.timeout(5):
            while not left:
                await asyncio.sleep(0.01)


async def test_the_operator_is_told_how_long_the_ledger_is_and_nobody_else(provisioned: NatsServer) -> None:
    risk, operator = await provisioned.connect("risk"), await provisioned.connect("operator")
    assert await operator.last_sequence() == 0
    writer = risk.ledger(0)
    for name in ("a", "b"):
        await writer.append(verdict(name), OVER)
    assert await operator.last_sequence() == 2
    assert [raw.sequence for raw in await operator.direct_page(1)] == [2]
    with pytest.raises(BusDown, match="LEDGER does not tell its length"):
        await risk.last_sequence()
    await risk.close()
    await operator.close()


async def test_what_a_key_has_held_is_told_oldest_first_with_its_deletion(provisioned: NatsServer) -> None:
    risk, operator = await provisioned.connect("risk"), await provisioned.connect("operator")
    (first,) = await operator.history(STATE_BUCKET, TRADING_KEY)
    for value in (b"two", b"three"):
        await risk.store(STATE_BUCKET, TRADING_KEY, value, None)
    subject = f"$KV.{STATE_BUCKET}.{TRADING_KEY}"
    await risk.js.publish(subject, headers={"KV-Operation": "DEL"})
    entries = await operator.history(STATE_BUCKET, TRADING_KEY)
    assert [entry.value for entry in entries] == [first.value, b"two", b"three", b""]
    assert [entry.revision for entry in entries] == sorted({entry.revision for entry in entries})
    for number in range(70):
        await risk.store(STATE_BUCKET, TRADING_KEY, str(number).encode(), None)
    kept = [entry.value for entry in await operator.history(STATE_BUCKET, TRADING_KEY)]
    assert kept == [str(number).encode() for number in range(6, 70)]
    assert await operator.history(STATE_BUCKET, "nothing") == []
    await risk.close()
    await operator.close()
