"""`perps-bot run --replay`: recorded data through the real system, on a data directory of its own."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
from msgspec import Struct
from rich.console import Console

from cli.books import audit, venue_state
from cli.feeder import Feeder
from cli.journal import Journal
from cli.live import READY_SECONDS, say
from cli.operator import connected
from cli.plan import Plan, make_plan
from cli.progress import Progress
from cli.stack import Stack, why_not_ready
from cli.summary import Summary, show, summarise
from libs.common import messages as m
from libs.common import settings as settings_module
from libs.common.errors import BadConfig, BadData, StackFailed
from libs.common.settings import GRANULARITY_SECONDS
from libs.common.subjects import SERVICES
from sim import readers
from sim.columns import read_iso
from sim.replay import open_replay

# What may still be lacking when the first tick is fed: history, and in a file without any older data all prices.
WARMING_UP = {"strategy": "warming up"}
BEFORE_FIRST_TICK = {**WARMING_UP, "marketdata": "feed", "risk": "no mark of"}
SOCKETS = 2  # marketdata's and execution's
DEATH_LOOK_SECONDS = 1.0


class Options(Struct, frozen=True, kw_only=True):
    """What the command line says; empty where it says nothing."""

    file: Path
    start: str = ""
    end: str = ""
    product: str = ""
    granularity: str = ""
    data_dir: str = ""
    speed: float = 0.0


class Recording(Struct, frozen=True):
    """What a file holds, of the chosen period. `candle_seconds` is None for trades and quotes."""

    product_id: str
    candle_seconds: int | None
    total_ticks: int


def read_recording(options: Options) -> Recording:
    """Check the whole selection before anything is started. Raises BadData, or BadConfig for the arguments."""
    start, end = (_moment(name, text) for name, text in (("--from", options.start), ("--to", options.end)))
    if start and end and start >= end:
        raise BadConfig("--from is not before --to")
    try:
        found = open_replay(options.file, options.product or None, start, end)
    except readers.BadData as error:
        raise BadData(str(error)) from None
    return Recording(found.product_id, found.candle_seconds, found.total_ticks)


def _moment(name: str, text: str) -> datetime | None:
    try:
        return read_iso(text) if text else None
    except ValueError:
        raise BadConfig(f"{name} {text!r} is not a time like 2025-10-01 or 2025-10-01T12:00:00Z") from None


def replay_plan(profile: str, options: Options, recording: Recording) -> Plan:
    """A stack over the recording. Raises BadConfig."""
    settings = settings_module.load(profile)
    if not settings.market.simulated:
        raise BadConfig(f"--replay wants a simulated venue, profile {profile} trades real money")
    folder = _fresh_folder(settings.data_dir, options.data_dir, recording.product_id)
    lengths = {seconds: name for name, seconds in GRANULARITY_SECONDS.items()}
    granularity = options.granularity or lengths.get(recording.candle_seconds or 0, settings.market.granularity)
    overrides = {
        "PERPS_DATA_DIR": str(folder),
        "PERPS_MARKET_REPLAY": "true",
        "PERPS_MARKET_PRODUCTS": recording.product_id,
        "PERPS_MARKET_GRANULARITY": granularity,
        "PERPS_SIM_REPLAY": str(options.file.absolute()),
        "PERPS_SIM_FROM": options.start,
        "PERPS_SIM_TO": options.end,
        "PERPS_SIM_PRODUCT": recording.product_id,
        "PERPS_SIM_PRODUCTS": recording.product_id,
    }
    return make_plan(profile, overrides)


def _fresh_folder(data_dir: Path, given: str, product_id: str) -> Path:
    if given:
        folder = Path(given).absolute()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadConfig(f"--data-dir {given} is not empty: a replay wants a fresh one")
        return folder
    stem = f"{product_id}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 100))]
    return next(folder for name in names if not (folder := data_dir / "replays" / name).exists())


async def replay(plan: Plan, options: Options, recording: Recording, as_json: bool) -> int:
    """Feed the recording, compare the books with the venue's account, show the summary.

    Raises StackFailed when they differ.
    """
    say(f"replaying {options.file} on {plan.settings.data_dir}")
    began = time.monotonic()
    async with Stack(plan) as stack, connected(plan.settings) as bus:
        journal = Journal(bus)
        await journal.follow(m.Signal, m.Decision, m.RiskFigures)
        await stack.start_services()
        address = f"http://{plan.settings.sim_url}"
        async with httpx.AsyncClient(base_url=address, timeout=10) as venue:
            await stack.unless_one_dies(_ready_for_ticks(plan, venue))
            if not await journal.until(lambda: journal.first_equity is not None, READY_SECONDS):
                raise StackFailed("risk has told no equity")
            say(f"all services ready in {time.monotonic() - began:.1f} s, {recording.total_ticks} ticks to go")
            feeder = Feeder(journal, bus, venue, options.speed)
            fed = time.monotonic()
            with Progress(recording.total_ticks, journal) as progress:
                await stack.unless_one_dies(feeder.run(progress.step), DEATH_LOOK_SECONDS)
            found = await audit(journal, venue, plan.settings, feeder.last_time)
            summary = summarise(recording.product_id, journal, feeder, found, time.monotonic() - fed)
    _print(summary, as_json)
    say(f"everything that was kept is in {plan.settings.data_dir}")
    if found.differences:
        more = f" (and {len(found.differences) - 1} more)" if len(found.differences) > 1 else ""
        raise StackFailed(f"the books differ from the venue's account: {found.differences[0]}{more}")
    return 0


def _print(summary: Summary, as_json: bool) -> None:
    if as_json:
        print(summary.as_json())
    else:
        show(summary, Console())


async def _ready_for_ticks(plan: Plan, venue: httpx.AsyncClient) -> None:
    """Everything is up and connected; what only the first ticks can bring may be lacking."""
    deadline = time.monotonic() + READY_SECONDS
    while lack := await _lack(plan, venue):
        if time.monotonic() > deadline:
            raise StackFailed(f"not ready after {READY_SECONDS:.0f} s: {lack}")
        await asyncio.sleep(0.1)


async def _lack(plan: Plan, venue: httpx.AsyncClient) -> str:
    state = await venue_state(venue)
    if state.connections < SOCKETS:
        return "marketdata and execution are not connected to the venue"
    allowed = WARMING_UP if state.last_prices else BEFORE_FIRST_TICK
    for service in SERVICES:
        reason = await why_not_ready(venue, plan.service(service).reachable)
        if reason and not (service in allowed and allowed[service] in reason):
            return f"{service}: {reason}"
    return ""
