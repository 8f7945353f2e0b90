"""`perps-bot run` over real processes: it gets ready, trades, restarts in parts, stops whole, and goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

from cli.supervise import Process, Supervisor
from tests.cli.commands import RESTLESS, ROOT, alive, environment, perps_bot, running, short_folder, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


def processes(folder: Path) -> dict[str, Process]:
    return asyncio.run(Supervisor(folder / "var").processes())


def pids(folder: Path) -> set[int]:
    """Everything that belongs to the stack, supervisord included."""
    own = Supervisor(folder / "var").running_pid()
    assert own is not None
    return {own} | {process.pid for process in processes(folder).values() if process.pid}


def status(env: Mapping[str, str]) -> dict[str, object]:
    answer = perps_bot("status", "--json", env=env)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert isinstance(found, dict)
    return found


def ready_within(seconds: float, env: Mapping[str, str]) -> None:
    """A service tells its status once a second: the last one may be from before it was ready."""
    deadline = time.monotonic() + seconds
    while not all(line["ready"] for line in status(env)["services"]):  # type: ignore[attr-defined]
        assert time.monotonic() < deadline, "not every service says that it is ready"


def supervisorctl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As the playbook has it, from the root of the repository; -s names a stack elsewhere than in ./var."""
    command = [sys.executable, "-m", "supervisor.supervisorctl", "-s", f"unix://{folder}/var/supervisor.sock"]
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_it_gets_ready_trades_restarts_in_parts_stops_whole_and_goes_on(folder: Path) -> None:
    env = environment(folder / "var", RESTLESS)
    with running("run", "--profile", "dev", env=env, words=folder / "words") as first:
        first.wait_for("all services ready in")
        first.wait_for("first fill")
        ready_within(10, env)

        before = processes(folder)
        assert perps_bot("restart", "risk", env=env).returncode == 0
        after = processes(folder)
        assert {name for name in before if before[name].pid != after[name].pid} == {"risk"}
        assert supervisorctl(folder, "restart", "strategy").returncode == 0
        assert processes(folder)["strategy"].pid != after["strategy"].pid

        before = processes(folder)
        group = supervisorctl(folder, "restart", "perps-bot")
        assert group.returncode == 0, group.stdout + group.stderr
        after = processes(folder)
        changed = {name for name in before if before[name].pid != after[name].pid}
        assert changed == {"marketdata", "strategy", "risk", "execution", "exporter"}
        assert all(after[name].running for name in after)

        assert perps_bot("halt", "--reason", "drill", env=env).returncode == 0
        refused = perps_bot("reduce-only", "--reason", "drill", env=env)
        assert (refused.returncode, refused.stderr.count("\n")) == (7, 1)

        second = perps_bot("run", "--profile", "dev", env=env)
        assert second.returncode == 3
        assert "a stack runs already on" in second.stderr

        all_of_it = pids(folder)
        assert first.interrupt(times=2) == 0
        assert "Traceback" not in first.said
    assert not [pid for pid in all_of_it if alive(pid)]
    assert not (folder / "var" / "supervisor.sock").exists()

    with running("run", "--profile", "dev", env=env, words=folder / "words") as again:
        again.wait_for("trading is halted; equity")
        assert "first fill" not in again.said
        told = status(env)
        assert (told["trading"], told["trading_reason"]) == ("halted", "drill")
        assert again.interrupt() == 0


def test_a_killed_or_hanging_part_ends_the_run_and_leaves_nothing_behind() -> None:
    """Side by side: most of it is waiting for something that does not answer."""
    ends = [a_killed_supervisord_ends_the_run, a_supervisord_that_hangs_cannot_keep_the_run_from_ending]
    if sys.platform == "linux":  # which alone tells a process that its parent has died
        ends.append(a_killed_command_line_takes_everything_with_it)
    with ThreadPoolExecutor() as side_by_side:
        for ended in [side_by_side.submit(end) for end in ends]:
            ended.result()


def a_killed_command_line_takes_everything_with_it() -> None:
    with short_folder() as folder, running("run", env=environment(folder / "var"), words=folder / "words") as command:
        command.wait_for("all services ready in")
        all_of_it = pids(folder)
        command.process.kill()
        wait_until(lambda: not any(alive(pid) for pid in all_of_it), 30, lambda: "everything to end")


def a_killed_supervisord_ends_the_run() -> None:
    with short_folder() as folder, running("run", env=environment(folder / "var"), words=folder / "words") as command:
        command.wait_for("all services ready in")
        all_of_it = pids(folder)
        supervisord = Supervisor(folder / "var").running_pid()
        assert supervisord is not None
        os.kill(supervisord, signal.SIGKILL)
        assert command.process.wait(60) == 6
        assert command.said.splitlines()[-1].startswith("perps-bot: supervisord is gone")
        assert not [pid for pid in all_of_it if alive(pid)]


def a_supervisord_that_hangs_cannot_keep_the_run_from_ending() -> None:
    with short_folder() as folder, running("run", env=environment(folder / "var"), words=folder / "words") as command:
        command.wait_for("all services ready in")
        all_of_it = pids(folder)
        supervisord = Supervisor(folder / "var").running_pid()
        assert supervisord is not None
        os.kill(supervisord, signal.SIGSTOP)
        assert command.process.wait(120) == 6
        assert not [pid for pid in all_of_it if alive(pid)]


def test_an_interrupt_while_it_starts_leaves_nothing_behind(folder: Path) -> None:
    with running("run", env=environment(folder / "var"), words=folder / "words") as command:
        command.wait_for("status page")
        wait_until(lambda: Supervisor(folder / "var").running_pid() is not None, 20)
        all_of_it = pids(folder)
        assert command.interrupt() == 0
        assert "Traceback" not in command.said
    assert not [pid for pid in all_of_it if alive(pid)]


def stand_in(folder: Path, module: str, does: str) -> str:
    """A Python that is the real one for every module but one."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\nif [ "$2" = "{module}" ]; then {does}; fi\nexec "{sys.executable}" "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_service_that_keeps_dying_ends_the_start_with_its_last_words(folder: Path) -> None:
    python = stand_in(folder, "services.risk", "echo 'no more memory' >&2; exit 9")
    answer = perps_bot("run", env=environment(folder / "var", {"PERPS_PYTHON": python}))
    assert answer.returncode == 6
    assert answer.stderr.splitlines()[-1] == "perps-bot: risk stops again and again: no more memory"


def test_a_service_that_stops_for_good_ends_the_start_at_once_with_its_code(folder: Path) -> None:
    python = stand_in(folder, "services.risk", "echo 'risk: bad limits' >&2; exit 2")
    answer = perps_bot("--dev-fast", env=environment(folder / "var", {"PERPS_PYTHON": python}))
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == "perps-bot: risk: bad limits\n"


def test_dev_fast_decides_once_on_every_product_in_under_ten_seconds_and_leaves_nothing(folder: Path) -> None:
    answer = perps_bot("--profile", "dev", "--dev-fast", env=environment(folder / "var"))
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert set(told["decisions"]) == {"BTC-USD", "ETH-USD"}
    assert all(decision["action"] and decision["reason"] for decision in told["decisions"].values())
    assert all(count > 0 for count in told["marks"].values())
    assert 99_000 < Decimal(told["equity"]) < 101_000  # the one cycle may have traded
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # other work on the machine is none of ours
    assert told["seconds"]["total"] < 10 * busy
    assert answer.stderr == ""
    assert not (folder / "var").exists()
