"""Virtual time, and processes that die between two of their steps."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from sim.world.loop import Clock, Loop, Scheduler

EPOCH = datetime(2026, 3, 1, tzinfo=UTC)


class Rig:
    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.errors: list[BaseException] = []
        self.seen: list[str] = []

    def loop(self, name: str = "process") -> Loop:
        return Loop(self.scheduler, name, self.errors.append)


def test_time_passes_only_from_one_step_to_the_next() -> None:
    rig = Rig()

    async def work() -> None:
        for _ in range(3):
            await asyncio.sleep(10)
            rig.seen.append(f"{asyncio.get_running_loop().time():.0f}")

    rig.loop().start(work())
    rig.scheduler.run(25)
    assert rig.seen == ["10", "20"]
    rig.scheduler.run(100)
    assert rig.seen == ["10", "20", "30"]
    assert rig.scheduler.now == 100


def test_what_is_due_at_one_moment_runs_in_the_order_in_which_it_was_asked_for() -> None:
    rig = Rig()
    for name in "abc":
        rig.scheduler.at(5, lambda name=name: rig.seen.append(name))  # type: ignore[misc]
    rig.scheduler.run(5)
    assert rig.seen == ["a", "b", "c"]


def test_a_killed_process_runs_no_finally_and_nothing_else() -> None:
    rig = Rig()

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            rig.seen.append("finally")

    loop = rig.loop()
    loop.start(work())
    rig.scheduler.run(5)
    loop.die()
    rig.scheduler.run(50)
    assert rig.seen == []
    loop.bury()


def test_a_process_can_be_killed_after_a_number_of_its_steps() -> None:
    rig = Rig()

    async def work() -> None:
        for number in range(10):
            rig.seen.append(str(number))
            await asyncio.sleep(0)

    loop = rig.loop()
    loop.dies_in = 4
    loop.start(work())
    rig.scheduler.run(1)
    assert rig.seen == ["0", "1", "2", "3"]
    assert not loop.alive
    loop.bury()


def test_a_stopped_process_goes_on_where_it_was_and_time_has_passed() -> None:
    rig = Rig()

    async def work() -> None:
        while True:
            await asyncio.sleep(1)
            rig.seen.append(f"{asyncio.get_running_loop().time():.1f}")

    loop = rig.loop()
    loop.start(work())
    rig.scheduler.run(2.5)
    loop.pause()
    rig.scheduler.run(7.5)
    assert rig.seen == ["1.0", "2.0"]
    loop.resume()
    rig.scheduler.run(9)
    assert rig.seen == ["1.0", "2.0", "7.5", "8.5"]
    loop.die()
    loop.bury()


def test_timeouts_locks_and_queues_of_asyncio_work_on_it() -> None:
    rig = Rig()

    async def work() -> None:
        queue: asyncio.Queue[str] = asyncio.Queue()
        lock = asyncio.Lock()
        asyncio.get_running_loop().call_later(3, queue.put_nowait, "late")
        try:
            async with asyncio.timeout(2):
                await queue.get()
        except TimeoutError:
            rig.seen.append(f"gave up at {asyncio.get_running_loop().time():.0f}")
        async with lock:
            found = await asyncio.gather(queue.get(), asyncio.sleep(1, "slept"))
        rig.seen.append(" ".join(found))

    rig.loop().start(work())
    rig.scheduler.run(10)
    assert rig.seen == ["gave up at 2", "late slept"]


def test_an_error_that_nobody_handles_is_told() -> None:
    rig = Rig()

    async def work() -> None:
        raise ValueError("a defect")

    rig.loop().start(work())
    rig.scheduler.run(1)
    assert [str(error) for error in rig.errors] == ["a defect"]


def test_the_wall_clock_of_one_process_may_jump_and_its_monotonic_one_does_not() -> None:
    rig = Rig()
    loop, other = rig.loop(), rig.loop("other")
    clock = Clock(loop, EPOCH)
    rig.scheduler.run(7)
    loop.wall_offset = -3
    assert clock.wall() == EPOCH + timedelta(seconds=4)
    assert clock.monotonic() == 7
    assert Clock(other, EPOCH).wall() == EPOCH + timedelta(seconds=7)
