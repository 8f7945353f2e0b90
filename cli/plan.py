"""What a stack is made of before anything runs: settings, the environment of its processes, its ports."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from libs.common import settings as settings_module
from libs.common.errors import BadConfig, PortInUse
from libs.common.settings import PRIVATE_KEY, Nats, Secret, Settings, as_text
from libs.common.subjects import SERVICES
from services.execution.__main__ import check as check_execution
from services.exporter.__main__ import check as check_exporter
from services.marketdata.__main__ import check as check_marketdata
from services.risk.__main__ import check as check_risk
from services.strategy.app import make_core as check_strategy
from sim.settings import BadSettings, settings_from

SERVICE_PORTS = {"exporter": 9102, "marketdata": 9103, "strategy": 9104, "risk": 9105, "execution": 9106}
SERVICE_CHECKS = (check_marketdata, check_strategy, check_risk, check_execution, check_exporter)


class Claim(Struct, frozen=True):
    """A port that the stack needs, and the variable that moves it."""

    host: str
    port: int
    variable: str

    @property
    def reachable(self) -> str:
        """Where to ask for what listens here."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host
        return f"http://{host}:{self.port}"


class Plan(Struct, frozen=True):
    """Settings and the environment from which every process of the stack reads the same ones."""

    settings: Settings
    environment: dict[str, str]

    @property
    def own_nats(self) -> bool:
        """False where the settings name a server that somebody else runs."""
        return not self.settings.nats.url

    @property
    def own_venue(self) -> bool:
        return self.settings.market.simulated

    def service(self, name: str) -> Claim:
        table = self.settings.tables.get(name, {})
        port = msgspec.convert(table.get("port", SERVICE_PORTS[name]), int, strict=False)  # as the service reads it
        return Claim(str(table.get("host", "127.0.0.1")), port, f"PERPS_{name.upper()}_PORT")

    @property
    def claims(self) -> list[Claim]:
        found = [self.service(name) for name in SERVICES]
        if self.own_venue:
            found.append(Claim("127.0.0.1", int(self.settings.sim_url.rpartition(":")[2]), "PERPS_SIM_PORT"))
        if self.own_nats:
            nats = self.settings.nats
            found.append(Claim("127.0.0.1", nats.port, "PERPS_NATS_PORT"))
            found.append(Claim("127.0.0.1", nats.monitor_port, "PERPS_NATS_MONITOR_PORT"))
        return found

    def check_ports(self) -> None:
        """Raises PortInUse with one line that names the variable to change."""
        taken: dict[int, str] = {}
        for claim in self.claims:
            if claim.port in taken:
                raise PortInUse(f"port {claim.port} is wanted twice: set {claim.variable} or {taken[claim.port]}")
            taken[claim.port] = claim.variable
        for claim in self.claims:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((claim.host, claim.port))
                except OSError as error:
                    raise PortInUse(
                        f"port {claim.port} cannot be had ({error.strerror}): set {claim.variable} to a free one, "
                        "or stop what holds it"
                    ) from None


def make_plan(profile: str, overrides: Mapping[str, str] | None = None) -> Plan:
    """Read and check every setting of every process, and that they may be started. Raises BadConfig with one line."""
    environment = {**os.environ, **(overrides or {})}
    settings = settings_module.load(profile, environment)
    environment |= {"PERPS_PROFILE": profile, "PERPS_DATA_DIR": str(settings.data_dir)}
    environment["PERPS_PROFILES_DIR"] = str(settings.folder)
    environment |= _venue_environment(settings)
    environment |= {name: Secret(value) for name, value in environment.items() if name == PRIVATE_KEY}
    environment.setdefault("PERPS_PYTHON", sys.executable)
    check(settings, environment)
    plan = Plan(settings, environment)
    for claim in plan.claims:
        if not 0 < claim.port < 65536:
            raise BadConfig(f"{claim.variable}: a port must be between 1 and 65535, not {claim.port}")
    return plan


def check(settings: Settings, environment: Mapping[str, str]) -> None:
    """Read every section, each with the check of the process that it belongs to. Raises BadConfig with one line."""
    _ = settings.market, settings.venue, settings.log
    settings.section("nats", Nats)
    for check_service in SERVICE_CHECKS:
        check_service(settings)
    try:
        settings_from(environment)
    except BadSettings as error:
        raise BadConfig(f"profile {settings.profile}, [sim]: {error}") from None
    settings.check_live()


def _venue_environment(settings: Settings) -> dict[str, str]:
    """The simulated venue reads its environment only: hand it the profile's table, and what is traded."""
    table = {"products": settings.market.products, **settings.tables.get("sim", {})}
    return {f"PERPS_SIM_{name.upper()}": as_text(value) for name, value in table.items()}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def own_ports() -> dict[str, str]:
    """Overrides for a stack beside a live one: free ports, and none of the addresses that the environment may name."""
    names = ["PERPS_NATS_PORT", "PERPS_NATS_MONITOR_PORT", "PERPS_SIM_PORT"]
    names += [f"PERPS_{service.upper()}_PORT" for service in SERVICES]
    addresses = ("NATS_URL", "VENUE_REST_URL", "VENUE_WS_URL", "VENUE_USER_WS_URL")
    keys = ("COINBASE_KEY_FILE", "COINBASE_KEY_NAME", "COINBASE_PRIVATE_KEY")
    overrides = {name: str(port) for name, port in zip(names, free_ports(len(names)), strict=True)}
    return overrides | {f"PERPS_{name}": "" for name in addresses + keys}
