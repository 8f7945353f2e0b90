"""`perps-bot backtest`: recorded data through the live code in this process, and what came of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from cli.errors import INTERRUPTED
from cli.live import say
from cli.loop import SIGNALS, Json, Profile
from cli.order_flags import moment
from libs.common import settings as settings_module
from libs.common.errors import BadConfig, BadData
from libs.common.settings import Settings
from sim import readers
from sim.backtest.figures import RANKS

RANK = "sharpe"


def backtest(
    context: typer.Context,
    more: Annotated[list[str] | None, typer.Argument(metavar="[FILE]...", help="More of --data.")] = None,
    data: Annotated[list[str] | None, typer.Option("--data", metavar="FILE...", help="Recorded market data.")] = None,
    strategy: Annotated[str, typer.Option("--strategy", help="Instead of the profile's, with its own defaults.")] = "",
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A parameter of the strategy, or a section.key of the profile."
        ),
    ] = None,
    swept: Annotated[
        list[str] | None,
        typer.Option("--sweep", metavar="NAME=V1,V2,...", help="Run every combination of such values."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=0, help="Processes of a sweep; 0: one per processor.")] = 0,
    rank: Annotated[str, typer.Option("--rank", help=f"Figure that sorts a sweep: {', '.join(RANKS)}.")] = "",
    start: Annotated[str, typer.Option("--from", help="First market time (UTC).")] = "",
    end: Annotated[str, typer.Option("--to", help="Market time before which it ends (UTC).")] = "",
    granularity: Annotated[str, typer.Option(help="Length of the strategy's candles; else that of the data's.")] = "",
    out: Annotated[str, typer.Option("--out", help="Folder of the files; else one under the data directory.")] = "",
    profile: Profile = "",
    as_json: Json = False,
) -> None:
    """Run the strategy, risk and execution of a profile over recorded data, in virtual time and without faults.

    Writes report.html, result.json, trades.csv and fills.csv; of a sweep, those of the best combination with all others
    listed. Nothing leaves this process, whatever the profile trades.
    """
    # Engine and plots take a quarter of a second to load, for which no other command should wait.
    from cli.backtest_report import check_folder
    from cli.backtest_runs import run_single, run_sweep
    from sim.backtest.sweep import Order

    settings = settings_module.load(profile or context.obj)
    files = tuple(Path(name) for name in (*(data or []), *(more or [])))
    axes = {name: _values(name, text) for name, text in _pairs("--sweep", swept or []).items()}
    parameters = _pairs("--set", given or [])
    if twice := [name for name in axes if name in parameters]:
        raise BadConfig(f"{twice[0]} is given with --set and with --sweep")
    if only := [flag for flag, value in {"--rank": rank, "--jobs": jobs}.items() if value and not axes]:
        raise BadConfig(f"{only[0]} goes with --sweep")
    if rank and rank not in RANKS:
        raise BadConfig(f"--rank {rank!r} is none of {', '.join(RANKS)}")
    products = _products(files, settings)
    first, last = _period(start, end)
    folder = Path(out).absolute() if out else _fresh_folder(settings.data_dir, products)
    check_folder(folder)
    order = Order(
        settings=settings,
        files=files,
        start=first,
        end=last,
        granularity=granularity,
        strategy=strategy,
        parameters=parameters,
    )
    with _interruptible():
        if axes:
            run_sweep(order, axes, rank or RANK, jobs or os.cpu_count() or 1, folder, as_json)
        else:
            run_single(order, folder, as_json)


def _pairs(flag: str, texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if not name or not value:
            raise BadConfig(f"{flag} {text!r} is not NAME=VALUE")
        if name in found:
            raise BadConfig(f"{flag} names {name} twice")
        found[name] = value
    return found


def _values(name: str, text: str) -> tuple[str, ...]:
    values = tuple(dict.fromkeys(value.strip() for value in text.split(",")))
    if not all(values):
        raise BadConfig(f"--sweep {name}: an empty value in {text!r}")
    return values


def _period(start: str, end: str) -> tuple[datetime | None, datetime | None]:
    first, last = (moment(text, flag) if text else None for flag, text in (("--from", start), ("--to", end)))
    if first and last and first >= last:
        raise BadConfig("--from is not before --to")
    return first, last


def _products(files: Sequence[Path], settings: Settings) -> list[str]:
    """Of the files, without reading them through. Raises BadData, or BadConfig for what the profile does not trade."""
    if not files:
        raise BadConfig("--data is missing: name a file of recorded market data")
    traded = settings.market.products
    found = []
    for file in files:
        try:
            product_id = readers.source_of(file, None).product_id
        except readers.BadData as error:
            raise BadData(str(error)) from None
        if product_id not in traded:
            where = f"profile {settings.profile} trades {', '.join(traded)}"
            raise BadConfig(f"{file} holds {product_id}, {where}: set PERPS_MARKET_PRODUCTS={product_id} to try it")
        found.append(product_id)
    return found


def _fresh_folder(data_dir: Path, products: Sequence[str]) -> Path:
    more = f"-and-{len(products) - 1}-more" if len(products) > 1 else ""
    stem = f"{products[0]}{more}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 100))]
    return next(folder for name in names if not (folder := data_dir / "backtests" / name).exists())


@contextmanager
def _interruptible() -> Iterator[None]:
    """Whatever asks the command to end does so like Ctrl-C: processes of a sweep are ended, and nothing is written."""

    def stop(number: int, frame: FrameType | None) -> None:
        for further in SIGNALS:
            signal.signal(further, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    except KeyboardInterrupt:
        say("interrupted, nothing is written")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
