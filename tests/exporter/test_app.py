"""The file on disk and the pages on the port."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import ClientSession
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text_families

from libs.common.clock import AsyncioTasks
from libs.common.errors import BadConfig
from libs.common.permissions import ACCESS
from libs.common.settings import Settings, load
from libs.common.telemetry import Handler, HealthServer
from services.exporter.__main__ import check
from services.exporter.app import INPUTS, replace
from services.exporter.config import ExporterConfig
from tests.exporter.builders import PLAYBOOK_NAMES, Rig, full_story

WRITES = "perps_exporter_metrics_file_writes_total{outcome=%s}"


async def test_the_files_hold_the_documents(tmp_path: Path) -> None:
    rig = Rig().feed(*full_story()).at(10)
    path = tmp_path / "data" / "perps_bot" / "dev" / "metrics.json"
    await rig.exporter.write(path)
    assert msgspec.json.decode(path.read_bytes()) == rig.document()
    beside = msgspec.json.decode((path.parent / "account.json").read_bytes())
    assert beside == rig.document()["account_snapshot"]
    assert beside["balances"] == {"USD": {"available": 70000, "hold": 0}}
    assert rig.scrape()[WRITES % "ok"] == 1


def test_a_reader_never_sees_a_part_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    documents = [msgspec.json.encode({"filler": letter * 300_000}) for letter in "ab"]
    replace(path, documents[0])
    ended = threading.Event()

    def write() -> None:
        for turn in range(200):
            replace(path, documents[turn % 2])
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not ended.is_set():
        assert path.read_bytes() in documents
        reads += 1
    writer.join()
    assert reads > 10
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.json"]


async def test_before_any_snapshot_the_account_file_says_so(tmp_path: Path) -> None:
    await Rig().exporter.write(tmp_path / "metrics.json")
    told = msgspec.json.decode((tmp_path / "account.json").read_bytes())
    assert (told["balances"], told["unavailable"]["balances"]) == (None, "no account snapshot yet")


async def test_an_account_file_that_cannot_be_written_is_a_failed_write(tmp_path: Path) -> None:
    rig = Rig()
    (tmp_path / "account.json").mkdir()
    await rig.exporter.write(tmp_path / "metrics.json")
    samples = rig.scrape()
    assert (samples[WRITES % "failed"], WRITES % "ok" in samples) == (1, False)
    assert (tmp_path / "metrics.json").is_file()


async def test_a_failed_write_is_counted_and_told_once_and_does_not_end_the_service(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig()
    path = tmp_path / "gone" / "metrics.json"
    path.parent.touch()  # a file where the folder should be
    with caplog.at_level(logging.INFO):
        await rig.exporter.write(path)
        await rig.exporter.write(path)
    assert rig.scrape()[WRITES % "failed"] == 2
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    path.parent.unlink()
    with caplog.at_level(logging.INFO):
        await rig.exporter.write(path)
    assert rig.scrape()[WRITES % "ok"] == 1
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


async def test_the_file_is_written_again_although_nothing_happens(tmp_path: Path) -> None:
    """Ages grow by themselves: a dead bot must not leave a file that looks young."""
    rig = Rig().feed(*full_story())
    path = tmp_path / "metrics.json"
    failures: list[BaseException] = []
    tasks = AsyncioTasks(failures.append)
    tasks.spawn(rig.exporter.keep_files(path, tasks, 0.005), "files")
    async with asyncio.timeout(5):
        await staleness_reaches(rig, path, 10)
        await staleness_reaches(rig, path, 500)
    await tasks.close()
    assert failures == []


async def staleness_reaches(rig: Rig, path: Path, wall: float) -> None:
    rig.at(wall)
    while True:
        if written_staleness(path) == wall - 5:
            return
        await asyncio.sleep(0.005)


def written_staleness(path: Path) -> float | None:
    if not path.exists():
        return None
    staleness: float | None = msgspec.json.decode(path.read_bytes())["metrics"][
        "perps_bot_market_data_staleness_seconds"
    ]
    return staleness


@pytest.fixture
async def served() -> AsyncIterator[tuple[Rig, str]]:
    rig = Rig()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    pages: dict[str, Handler] = {"/": rig.exporter.page, "/metrics.json": rig.exporter.metrics_json}
    server = HealthServer(rig.metrics.registry, lambda: rig.reason, extra=pages)
    await server.open("127.0.0.1", port, "PERPS_EXPORTER_PORT")
    yield rig, f"http://127.0.0.1:{port}"
    await server.close()


async def get(url: str, accept: str = "*/*") -> tuple[int, str, str]:
    async with ClientSession() as session, session.get(url, headers={"Accept": accept}) as answer:
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_metrics_come_as_text_by_default_and_as_openmetrics_when_asked(served: tuple[Rig, str]) -> None:
    rig, url = served
    rig.feed(*full_story()).at(10)
    status, kind, text = await get(f"{url}/metrics")
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    plain = {sample.name for family in text_families(text) for sample in family.samples}
    assert set(PLAYBOOK_NAMES) <= plain
    status, kind, text = await get(f"{url}/metrics", "application/openmetrics-text; version=1.0.0")
    assert (status, kind.split(";")[0]) == (200, "application/openmetrics-text")
    families: list[Metric] = list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
    assert set(PLAYBOOK_NAMES) <= {sample.name for family in families for sample in family.samples}


@pytest.mark.parametrize("path", ["/", "/metrics", "/metrics.json", "/healthz", "/readyz"])
async def test_every_path_answers_before_anything_is_known(served: tuple[Rig, str], path: str) -> None:
    _, url = served
    assert (await get(url + path))[0] == 200


async def test_the_document_is_served_as_of_the_moment_of_asking(served: tuple[Rig, str]) -> None:
    rig, url = served
    rig.feed(*full_story()).at(10)
    status, kind, text = await get(f"{url}/metrics.json")
    assert (status, kind.split(";")[0]) == (200, "application/json")
    assert msgspec.json.decode(text) == rig.document()
    rig.at(11)
    assert msgspec.json.decode((await get(f"{url}/metrics.json"))[2])["timestamp"] == "2025-03-01T12:00:11Z"


async def test_the_page_is_html_that_may_load_nothing_from_elsewhere(served: tuple[Rig, str]) -> None:
    _, url = served
    async with ClientSession() as session, session.get(url) as answer:
        assert answer.content_type == "text/html"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "data-rows" in await answer.text()


def test_the_exporter_reads_all_that_it_may_and_publishes_nothing() -> None:
    access = ACCESS["exporter"]
    assert set(INPUTS.kinds) == set(access.reads)
    assert INPUTS.ledger
    assert access.publishes == ()


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ({"port": 0}, "port"),
        ({"host": ""}, "host"),
        ({"metrics_interval_seconds": 0.2}, "metrics_interval_seconds"),
        ({"metrics_interval_seconds": 61}, "metrics_interval_seconds"),
        ({"prot": 9102}, "prot"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path: Path, table: dict[str, object], word: str) -> None:
    settings = Settings("dev", tmp_path, {"market": {"products": ["BTC-USD"]}, "exporter": dict(table)})
    with pytest.raises(BadConfig, match=word):
        check(settings)


def test_every_profile_is_valid_and_the_port_can_be_moved(tmp_path: Path) -> None:
    for profile in ("dev", "spot", "prod"):
        assert check(load(profile, {})) == ExporterConfig()
    assert check(load("dev", {"PERPS_EXPORTER_PORT": "9202"})).port == 9202
