"""How a command runs: in an event loop, until it is done or a signal ends it in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Annotated, Any

import typer
import uvloop

from cli.errors import EXIT_CODES, INTERRUPTED
from cli.live import say

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES) + "."

Profile = Annotated[str, typer.Option("--profile", help="Settings; those named before the command if not given.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def run_loop(work: Coroutine[Any, Any, int], interrupted: int = INTERRUPTED) -> None:
    """Do it; the first signal cancels it, which stops everything in order, the next ones wait."""
    raise typer.Exit(uvloop.run(_until_signal(work, interrupted)))


async def _until_signal(work: Coroutine[Any, Any, int], interrupted: int) -> int:
    task = asyncio.ensure_future(work)

    def stop() -> None:
        if not task.cancelling():
            say("stopping in order")
            task.cancel()

    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        return interrupted
