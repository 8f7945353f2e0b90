"""The supervisord of one stack: started as our child, told what to do through its socket in the data directory."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from xmlrpc.client import Error, Fault, ServerProxy

from msgspec import Struct
from supervisor.xmlrpc import SupervisorTransport

from libs.common.errors import BadConfig, StackFailed

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "supervisord.conf"
GROUP = "perps-bot"
SOCKET_BYTES = 107 if sys.platform == "linux" else 103  # what the kernel takes as the path of a unix socket
SPARE_BYTES = len(".4194304")  # supervisord binds to a name with its process id first
START_SECONDS = 10.0
STOP_SECONDS = 40.0  # longer than three stopwaitsecs in supervisord.conf
HUNG_SECONDS = 3.0  # for a supervisord that does not take the order
CLEAN_UP_SECONDS = 10.0
CALL_SECONDS = 5.0
PR_SET_PDEATHSIG = 1


class Process(Struct, frozen=True):
    """What supervisord knows of one program; `pid` is 0 while it does not run."""

    name: str
    group: str
    statename: str
    pid: int

    @property
    def running(self) -> bool:
        return self.statename in ("STARTING", "RUNNING")


def full_name(name: str) -> str:
    """As supervisord calls it: the services live in a group."""
    return name if name in ("nats", "venue") else f"{GROUP}:{name}"


class _Connection(HTTPConnection):
    """To a unix socket, with an end to its patience: a supervisord that hangs must not hang us."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CALL_SECONDS)
        self.sock.connect(self._path)


class Supervisor:
    """`start` what may be started, `shutdown` what was; the other methods work on a running one, ours or not."""

    def __init__(self, data_dir: Path) -> None:
        self.socket = data_dir / "supervisor.sock"
        self.logs = data_dir / "logs"
        self._child: subprocess.Popen[bytes] | None = None
        self._running: dict[str, Process] = {}

    def check_socket(self) -> None:
        """Raises BadConfig where the data directory's path is too long for a unix socket."""
        longest = SOCKET_BYTES - SPARE_BYTES - len("/supervisor.sock")
        if (length := len(os.fsencode(self.socket.parent))) > longest:
            raise BadConfig(
                f"the path of the data directory has {length} bytes, a unix socket in it allows {longest}: "
                f"set PERPS_DATA_DIR to a shorter one than {self.socket.parent}"
            )

    def running_pid(self) -> int | None:
        """Process id of the supervisord that answers on the socket."""
        try:
            return int(self._call("getPID"))
        except (OSError, Error):
            return None

    # -- life

    async def start(self, environment: Mapping[str, str]) -> None:
        """Start supervisord and wait until it answers. Raises StackFailed with its own last words."""
        child = self._child = self._spawn(environment)
        deadline = time.monotonic() + START_SECONDS
        while self.running_pid() != child.pid:
            if child.poll() is not None or time.monotonic() > deadline:
                words = last_line(self.logs / "supervisord.out")
                raise StackFailed(f"supervisord does not come up: {words or 'it says nothing'}")
            await asyncio.sleep(0.02)

    def _spawn(self, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / "supervisord.out").open("wb") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "-c", str(CONFIG)],
                env=dict(environment),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # the terminal's Ctrl-C is for us alone, we stop the rest in order
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    @property
    def died(self) -> bool:
        return self._child is not None and self._child.poll() is not None

    async def shutdown(self) -> None:
        """Stop everything in order: the services, the venue, NATS, supervisord. Nothing is left when this returns."""
        if self._child is None:
            return
        with contextlib.suppress(Error, StackFailed):
            await self.processes()
        child, patience = self._child, STOP_SECONDS
        try:
            await self.call("shutdown")
        except (StackFailed, Error):
            child.terminate()
            patience = HUNG_SECONDS
        deadline = time.monotonic() + patience
        while child.poll() is None and time.monotonic() < deadline:
            # supervisord looks for what has ended once a second, or whenever it is spoken to.
            with contextlib.suppress(StackFailed, Error):
                await self.call("getState")
            await asyncio.sleep(0.05)
        if self._child.returncode != 0:
            await self._clean_up()
        self._child = None

    async def _clean_up(self) -> None:
        """supervisord itself was killed or hangs: end its programs, each the leader of a process group."""
        assert self._child is not None
        services = [process.pid for process in self._running.values() if process.group == GROUP]
        others = [process.pid for process in self._running.values() if process.group != GROUP]
        for pids in (services, others):  # the services still have something to tell the bus
            for number in (signal.SIGTERM, signal.SIGKILL):
                await _end(pids, number)
        self._child.kill()
        self._child.wait()
        self.socket.unlink(missing_ok=True)

    # -- programs

    async def processes(self) -> dict[str, Process]:
        """Every program by its name. Raises StackFailed when supervisord is gone."""
        if self.died:
            raise StackFailed(f"supervisord is gone, see {self.logs / 'supervisord.log'}")
        found = [Process(**{name: info[name] for name in Process.__struct_fields__}) for info in await self._infos()]
        if self._child is not None:
            self._running = {process.name: process for process in found if process.pid}
        return {process.name: process for process in found}

    async def _infos(self) -> list[dict[str, Any]]:
        return list(await self.call("getAllProcessInfo"))

    async def begin(self, *names: str) -> None:
        """Start programs without waiting for them."""
        for name in names:
            with contextlib.suppress(Fault):  # started already
                await self.call("startProcess", full_name(name), False)

    async def restart(self, *names: str) -> None:
        """Stop programs, all at once, and start them again."""
        for name in names:
            with contextlib.suppress(Fault):  # stopped already
                await self.call("stopProcess", full_name(name), False)
        while True:
            found = await self.processes()
            if not any(found[name].pid for name in names):
                break
            await asyncio.sleep(0.05)
        await self.begin(*names)

    async def call(self, method: str, *arguments: object) -> Any:
        """One call of the XML-RPC interface. Raises xmlrpc.client.Error for a no, StackFailed without an answer."""
        try:
            return await asyncio.to_thread(self._call, method, *arguments)
        except OSError as error:
            raise StackFailed(f"supervisord is gone, see {self.logs / 'supervisord.log'} ({error})") from None

    def _call(self, method: str, *arguments: object) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        transport._get_connection = lambda: _Connection(str(self.socket))
        with ServerProxy("http://127.0.0.1", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for something that sends no event, up to a limit."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110 - processes send us no event
        await asyncio.sleep(0.02)


def _die_with_parent() -> None:
    """Runs in the child: SIGTERM, the ordered stop, when the command line is killed. Linux only."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


async def _end(pids: list[int], number: signal.Signals) -> None:
    """Signal those that still live, and wait for them."""
    for pid in filter(_alive, pids):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)
    await _until(lambda: not any(map(_alive, pids)), CLEAN_UP_SECONDS)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    try:  # a zombie whose new parent does not reap (a bare container) is dead all the same
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


def last_line(path: Path) -> str:
    """The last line that says something; empty where there is none."""
    try:
        lines = path.read_bytes()[-20_000:].decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
