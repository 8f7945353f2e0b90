"""Work that many ask for and one does: one round at a time, and one more for all who asked meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from libs.common.clock import Tasks

RETRY_SECONDS = 1


class Rounds:
    """`work` gives False when the round failed: it is then repeated. At least `gap_seconds` lie between two rounds."""

    def __init__(self, name: str, tasks: Tasks, work: Callable[[], Awaitable[bool]], gap_seconds: float) -> None:
        self._name = name
        self._tasks = tasks
        self._work = work
        self._gap_seconds = gap_seconds
        self._asked = False
        self._running = False

    def ask(self) -> None:
        self._asked = True
        if not self._running:
            self._running = True
            self._tasks.spawn(self._run(), self._name)

    async def _run(self) -> None:
        while self._asked:
            self._asked = False
            done = await self._work()
            self._asked = self._asked or not done
            if pause := max(self._gap_seconds, 0 if done else RETRY_SECONDS):
                await self._tasks.sleep(pause)
        self._running = False
