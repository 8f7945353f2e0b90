from __future__ import annotations

import asyncio

from libs.common.clock import AsyncioTasks, SystemClock
from libs.common.messages import EPOCH
from tests.common.builders import NOW


async def test_closing_ends_a_task_that_loses_its_first_cancellation() -> None:
    tasks, ended = AsyncioTasks(lambda error: None), []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()  # as if the first one had got lost
        finally:
            ended.append(True)

    tasks.spawn(stubborn(), "stubborn")
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await tasks.close()
    assert ended == [True]


async def test_a_task_that_fails_is_told() -> None:
    failures: list[BaseException] = []
    tasks = AsyncioTasks(failures.append)

    async def fails() -> None:
        raise ValueError("broken")

    tasks.spawn(fails(), "fails")
    async with asyncio.timeout(5):
        while not failures:
            await asyncio.sleep(0)
    assert str(failures[0]) == "broken"


def test_market_time_of_a_replay_is_what_messages_told_and_never_goes_back() -> None:
    clock = SystemClock(replay=True)
    assert clock.market() == EPOCH
    clock.observe(NOW)
    clock.observe(EPOCH)
    assert clock.market() == NOW
    assert SystemClock().market() > NOW
