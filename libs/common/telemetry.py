"""Logs on stderr, and `/metrics`, `/healthz`, `/readyz` per service, served by the service's own event loop:
a loop that hangs does not answer."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from libs.common.errors import PortInUse

VERSION = "0.1.0"
PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
SECRET_WORDS = ("key", "secret", "token", "seed", "password", "jwt", "authorization")
# 100 us to 10 s: a bus hop, a venue answer, a hang.
LATENCY = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
M = TypeVar("M", bound=MetricWrapperBase)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, Z), level, service, event, message, and the ids passed as `extra`."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")[:-6] + "Z",
            "level": record.levelname,
            "service": self._service,
            "event": getattr(record, "event", record.name),
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in PLAIN and name != "event":
                line[name] = "***" if any(word in name.lower() for word in SECRET_WORDS) else str(value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def start_logging(service: str, form: str, level: str) -> None:
    """Everything to stderr; stdout belongs to results."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter(f"%(asctime)s %(levelname)-8s {service} %(message)s")
    handler.setFormatter(text if form == "text" else JsonFormatter(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "websockets", "aiohttp.access", "nats"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class ServiceMetrics:
    """What every service counts; each service adds its own in `metrics.py`."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.prefix = f"perps_{service}"
        Info(f"{self.prefix}_build", "Version of the running code.", registry=self.registry).info({"version": VERSION})
        self.messages_in = ByType(self.counter("messages_in", "Messages handled, by type.", "type"))
        self.messages_out = ByType(self.counter("messages_out", "Messages published, by type.", "type"))
        self.errors = self.counter("errors", "Errors, by kind.", "kind")
        handling = self.histogram("handling_seconds", "Time from taking a message to its last effect.", "type")
        self.handling = ByType(handling)
        self.ready = self.gauge("ready", "1 when the service is able to do its work.")
        self.restarts = self.gauge("restarts", "Starts of this service since installation, less one.")
        self.ledger_sequence = self.gauge("ledger_sequence", "Last ledger sequence handled.")
        self.inbox_depth = self.gauge("inbox_depth", "Messages waiting to be handled.")
        self.bus_connected = self.gauge("bus_connected", "1 while the bus connection is up.")
        self.last_input = self.gauge("last_input_timestamp_seconds", "Wall time of the last message taken.")

    def count_bus(self, stats: object) -> None:
        """Export the bus's own plain counters with this service's metrics."""
        self.registry.register(_BusCollector(f"{self.prefix}_bus_events", stats))

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{self.prefix}_{name}", text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{self.prefix}_{name}", text, labels, registry=self.registry)

    def histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"{self.prefix}_{name}", text, labels, registry=self.registry, buckets=LATENCY)


class ByType(dict[type, M]):
    """The children of a metric whose one label is the name of a type. The client library's own way to a child costs
    more than counting with it."""

    def __init__(self, metric: M) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, kind: type) -> M:
        child = self[kind] = self._metric.labels(kind.__name__)
        return child


class _BusCollector:
    def __init__(self, name: str, stats: object) -> None:
        self._name = name
        self._stats = stats

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, "Events of the bus connection, by kind.", labels=["kind"])
        for kind, value in vars(self._stats).items():
            family.add_metric([kind], value)
        yield family


class HealthServer:
    """`/metrics` (text or OpenMetrics, as asked), `/healthz` (alive), `/readyz` (503 with the reason until able)."""

    def __init__(
        self,
        registry: CollectorRegistry,
        not_ready: Callable[[], str],
        extra: dict[str, Handler] | None = None,
    ) -> None:
        self._registry = registry
        self._not_ready = not_ready
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        for path, handler in (extra or {}).items():
            app.router.add_get(path, handler)
        self._runner = web.AppRunner(app, access_log=None)

    async def open(self, host: str, port: int, override: str) -> None:
        """Listen. Raises PortInUse naming the `override` variable."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise PortInUse(f"port {port} on {host} cannot be had ({error.strerror}): set {override}") from None

    async def close(self) -> None:
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _readyz(self, request: web.Request) -> web.Response:
        reason = self._not_ready()
        return web.json_response({"ready": not reason, "reason": reason}, status=503 if reason else 200)
