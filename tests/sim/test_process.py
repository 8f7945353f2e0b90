"""The venue as a process: clean ends, clear refusals, and an account that survives being killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from sim.server import KEY_FILE
from tests.ports import free_port
from tests.sim.serving import CANDLES, PREFIX, order_body
from tests.sim.signing import signed

ROOT = Path(__file__).parents[2]


def environment(folder: Path, port: int, **settings: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PERPS_")}
    return {**own, "PERPS_DATA_DIR": str(folder / "var"), "PERPS_SIM_PORT": str(port), **settings}


class Process:
    """One life of the venue."""

    def __init__(self, folder: Path, port: int, **settings: str) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sim"],
            cwd=ROOT,
            env=environment(folder, port, **settings),
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert json.loads(line)["event"].startswith("listening on "), line

    def call(self, method: str, path: str, body: Any = None) -> Any:
        key = json.loads((self.folder / "var" / "sim" / KEY_FILE).read_bytes())
        headers = {"Authorization": signed(key, f"{method} {self.address}{PREFIX}{path}")}
        response = httpx.request(method, f"http://{self.address}{PREFIX}{path}", json=body, headers=headers)
        assert response.status_code == 200, response.text
        return response.json()

    def state(self) -> Any:
        return httpx.get(f"http://{self.address}/sim/state").json()

    def step(self, ticks: int = 1) -> Any:
        return httpx.post(f"http://{self.address}/sim/step", json={"ticks": ticks}).json()

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(10)


@contextmanager
def running(folder: Path, port: int, **settings: str) -> Iterator[Process]:
    life = Process(folder, port, **settings)
    try:
        life.ready()
        yield life
    finally:
        if life.process.poll() is None:
            life.end(signal.SIGKILL)
        assert life.process.stderr is not None
        life.process.stderr.close()


@pytest.fixture
def replay(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "BTC-USD_1m.csv"
    path.write_text(CANDLES)
    return {"PERPS_SIM_REPLAY": str(path)}


def test_a_killed_replay_comes_back_with_account_orders_fills_and_position(
    tmp_path: Path, replay: dict[str, str]
) -> None:
    port = free_port()
    with running(tmp_path, port, **replay) as life:
        life.call("POST", "/orders", order_body("taken", "BUY", "market_market_ioc", base_size="0.1"))
        life.call(
            "POST", "/orders", order_body("rests", "BUY", "limit_limit_gtc", base_size="1.5", limit_price="49990")
        )
        assert len(life.step(6)["fills"]) == 1
        before = (
            life.state(),
            life.call("GET", "/orders/historical/batch"),
            life.call("GET", "/orders/historical/fills"),
        )
        life.end(signal.SIGKILL)
    with running(tmp_path, port, **replay) as life:
        after = (
            life.state(),
            life.call("GET", "/orders/historical/batch"),
            life.call("GET", "/orders/historical/fills"),
        )
        assert after == before
        assert (after[0]["open_orders"], after[0]["fills"], after[0]["ticks_done"]) == (1, 2, 6)
        again = life.call(
            "POST", "/orders", order_body("rests", "BUY", "limit_limit_gtc", base_size="1.5", limit_price="49990")
        )
        assert again["success_response"]["order_id"] == before[1]["orders"][0]["order_id"]
        assert life.call("POST", "/orders/batch_cancel", {"order_ids": [again["order_id"]]})["results"][0]["success"]
        assert life.state()["balances"]["USD"]["hold"] == "0"
        assert life.step()["ticks_done"] == 7


async def test_whatever_was_answered_before_a_kill_is_there_after_it(tmp_path: Path, replay: dict[str, str]) -> None:
    """Kill the venue in the middle of a stream of orders: none that was acknowledged is missing, none is half there."""
    port = free_port()
    answered: list[str] = []
    with running(tmp_path, port, **replay) as life:
        key = json.loads((tmp_path / "var" / "sim" / KEY_FILE).read_bytes())

        async def trade(http: httpx.AsyncClient, worker: int) -> None:
            for number in range(10_000):
                name = f"{worker}-{number}"
                body = order_body(name, "BUY" if number % 2 == 0 else "SELL", "market_market_ioc", base_size="0.001")
                headers = {"Authorization": signed(key, f"POST {life.address}{PREFIX}/orders")}
                try:
                    answer = await http.post(f"http://{life.address}{PREFIX}/orders", json=body, headers=headers)
                except httpx.TransportError:
                    return
                if answer.json()["success"]:
                    answered.append(name)

        async with httpx.AsyncClient() as http:
            workers = [asyncio.create_task(trade(http, worker)) for worker in range(4)]
            async with asyncio.timeout(20):
                while len(answered) < 60:
                    await asyncio.sleep(0)
            life.end(signal.SIGKILL)
            await asyncio.gather(*workers)
    with running(tmp_path, port, **replay) as life:
        orders = life.call("GET", "/orders/historical/batch")["orders"]
        assert set(answered) <= {order["client_order_id"] for order in orders}
        assert all(order["status"] == "FILLED" for order in orders)
        state = life.state()
        assert state["fills"] == len(orders)
        bought = sum(1 if order["side"] == "BUY" else -1 for order in orders)
        assert float(state["balances"]["BTC"]["available"]) == pytest.approx(bought * 0.001)


def test_a_live_venue_goes_on_from_its_last_price_with_its_own_ids(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, port, PERPS_SIM_PRODUCTS="BTC-USD") as life:
        life.call("POST", "/orders", order_body("mine", "BUY", "market_market_ioc", quote_size="100"))
        bought = life.state()
        assert life.end(signal.SIGTERM) == 0
    with running(tmp_path, port, PERPS_SIM_PRODUCTS="BTC-USD") as life:
        state = life.state()
        assert state["balances"] == bought["balances"]
        drift = float(state["last_prices"]["BTC-USD"]) / float(bought["last_prices"]["BTC-USD"])
        assert drift == pytest.approx(1, abs=0.02)
        assert life.end(signal.SIGINT) == 0


def test_two_installations_with_the_same_seed_do_not_share_ids(tmp_path: Path) -> None:
    portfolios = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with running(tmp_path / name, free_port(), PERPS_SIM_SEED="7", PERPS_SIM_PRODUCTS="BTC-USD") as life:
            portfolios.append(life.call("GET", "/portfolios")["portfolios"][0]["uuid"])
    assert len(set(portfolios)) == 2


def refused(folder: Path, port: int = 0, **settings: str) -> tuple[int, str]:
    """Exit code and the one line that says why."""
    done = subprocess.run(
        [sys.executable, "-m", "sim"],
        cwd=ROOT,
        env=environment(folder, port, **settings),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PERPS_SIM_COLOUR", "red"),
        ("PERPS_SIM_CASH", "-5"),
        ("PERPS_SIM_TAKER_FEE", "1.2"),
        ("PERPS_SIM_PRODUCTS", "BTC-USD,HELLO"),
    ],
)
def test_settings_that_cannot_be_used_end_the_start(tmp_path: Path, name: str, value: str) -> None:
    code, line = refused(tmp_path, 0, **{name: value})
    assert (code, name in line) == (2, True)


def test_a_taken_port_names_the_setting_to_change(tmp_path: Path, replay: dict[str, str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        code, line = refused(tmp_path, other.getsockname()[1], **replay)
    assert code == 3
    assert "PERPS_SIM_PORT" in line


def test_data_that_cannot_be_replayed_ends_the_start(tmp_path: Path) -> None:
    code, line = refused(tmp_path, PERPS_SIM_REPLAY=str(tmp_path / "nowhere.csv"))
    assert (code, line) == (4, f"sim: {tmp_path}/nowhere.csv: no such file\n")


def test_a_data_directory_of_another_market_is_refused(tmp_path: Path, replay: dict[str, str]) -> None:
    with running(tmp_path, free_port(), **replay):
        pass
    code, line = refused(tmp_path)
    assert code == 2
    assert "use a fresh one" in line


def test_an_open_socket_does_not_hold_up_the_end(tmp_path: Path, replay: dict[str, str]) -> None:
    port = free_port()
    with running(tmp_path, port, **replay) as life, socket.create_connection(("127.0.0.1", port)) as idle:
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        started = time.monotonic()
        assert life.end(signal.SIGTERM) == 0
        assert time.monotonic() - started < 5
