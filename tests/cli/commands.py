"""`perps-bot` as the operator has it: a process of its own, on free ports and a short data directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from cli.plan import own_ports

ROOT = Path(__file__).parents[2]
# Trades on every candle, so that a first fill is a matter of seconds.
RESTLESS = {
    "PERPS_MARKET_GRANULARITY": "1s",
    "PERPS_STRATEGY_NAME": "tests.integration.restless:Restless",
    "PERPS_RISK_ORDERS_PER_MINUTE_MAX": "10000",
    "PERPS_RISK_DAILY_LOSS_LIMIT": "1000000",
}


@contextmanager
def short_folder() -> Iterator[Path]:
    """pytest's own are too long for a unix socket on some systems."""
    with TemporaryDirectory(prefix="perps-") as folder:
        yield Path(folder)


def environment(data_dir: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PERPS_")}
    return {**inherited, "PYTHONPATH": str(ROOT), **own_ports(), "PERPS_DATA_DIR": str(data_dir), **(more or {})}


def perps_bot(*arguments: str, env: Mapping[str, str], seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    command = [sys.executable, "-m", "cli.main", *arguments]
    return subprocess.run(command, env=dict(env), cwd=ROOT, capture_output=True, text=True, timeout=seconds)


class Running:
    """A command that goes on by itself; `said` is what it has written to stderr."""

    def __init__(self, arguments: list[str], env: Mapping[str, str], words: Path) -> None:
        self._words = words
        with words.open("wb") as out:
            command = [sys.executable, "-m", "cli.main", *arguments]
            self.process = subprocess.Popen(command, env=dict(env), cwd=ROOT, stdout=out, stderr=out)

    @property
    def said(self) -> str:
        return self._words.read_text()

    def wait_for(self, text: str, seconds: float = 60) -> None:
        def heard() -> bool:
            assert self.process.poll() is None or text in self.said, self.said
            return text in self.said

        wait_until(heard, seconds, lambda: f"{text!r} was not said:\n{self.said}")

    def interrupt(self, times: int = 1) -> int:
        for _ in range(times):
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@contextmanager
def running(*arguments: str, env: Mapping[str, str], words: Path) -> Iterator[Running]:
    command = Running(list(arguments), env, words)
    try:
        yield command
    finally:
        command.process.terminate()
        command.process.wait(60)


def wait_until(condition: Callable[[], bool], seconds: float, what: Callable[[], str] = lambda: "it") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
