"""`perps-bot`: arguments in, exit codes out. What a command does is in the module of its name."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from cli import control
from cli.dev_fast import dev_fast as run_dev_fast
from cli.errors import EXIT_CODES, INTERRUPTED
from cli.live import live, say
from cli.plan import make_plan
from cli.replay import Options, read_recording, replay, replay_plan
from cli.status import status as run_status
from libs.common import settings as settings_module
from libs.common.errors import BadConfig, Stop

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES) + "."

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Trades spot on Coinbase Advanced Trade, with five processes over NATS.",
    epilog=EPILOG,
)
Profile = Annotated[str, typer.Option("--profile", help="Settings; those named before the command if not given.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the trading state.")]


def main() -> None:
    """Entry point. A `Stop` ends with its one line and its code."""
    logging.getLogger().addHandler(logging.NullHandler())  # what the bus client has to say, the commands say better
    try:
        app()
    except Stop as stop:
        say(f"perps-bot: {stop}")
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _run(work: Coroutine[Any, Any, int], interrupted: int = INTERRUPTED) -> None:
    """Do it in an event loop; the first signal cancels it, which stops everything in order, the next ones wait."""
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


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    profile: Annotated[
        str, typer.Option("--profile", envvar="PERPS_PROFILE", help="Settings, config/profiles/<name>.toml.")
    ] = "dev",
    dev_fast: Annotated[
        bool, typer.Option("--dev-fast", help="Run everything for one decision cycle, on free ports; print JSON.")
    ] = False,
) -> None:
    context.obj = profile
    if dev_fast:
        if context.invoked_subcommand is not None:
            raise BadConfig(f"--dev-fast stands alone, without {context.invoked_subcommand}")
        _run(run_dev_fast(profile))
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(epilog=EPILOG)
def run(
    context: typer.Context,
    profile: Profile = "",
    check_config: Annotated[bool, typer.Option("--check-config", help="Check every setting, and leave.")] = False,
    replay_file: Annotated[str, typer.Option("--replay", help="Recorded candles, trades or venue frames.")] = "",
    start: Annotated[str, typer.Option("--from", help="First market time of the replay (UTC).")] = "",
    end: Annotated[str, typer.Option("--to", help="Market time before which the replay ends (UTC).")] = "",
    product: Annotated[str, typer.Option(help="Whose data the file holds, where it does not say.")] = "",
    granularity: Annotated[str, typer.Option(help="Length of the strategy's candles in the replay.")] = "",
    speed: Annotated[float, typer.Option(help="Market seconds per second at most; 0: as fast as it goes.")] = 0.0,
    data_dir: Annotated[str, typer.Option(help="Where everything is kept; for a replay an empty one.")] = "",
    as_json: Json = False,
) -> None:
    """Start NATS, the venue and the five services; Ctrl-C stops them in order. Run again, it goes on where it was."""
    name = profile or context.obj
    options = Options(
        file=Path(replay_file),
        start=start,
        end=end,
        product=product,
        granularity=granularity,
        data_dir=data_dir,
        speed=speed,
    )
    if replay_file:
        _run_replay(name, options, check_config, as_json)
    if only := [flag for flag, value in _replay_flags(options, as_json).items() if value]:
        raise BadConfig(f"{only[0]} goes with --replay")
    plan = make_plan(name, {"PERPS_DATA_DIR": data_dir} if data_dir else {})
    if check_config:
        say(f"profile {name} is valid")
        return
    _run(live(plan), interrupted=0)


def _run_replay(profile: str, options: Options, check_config: bool, as_json: bool) -> None:
    if options.speed < 0:
        raise BadConfig("--speed must not be negative")
    recording = read_recording(options)
    plan = replay_plan(profile, options, recording)
    if check_config:
        say(f"profile {profile} is valid, and so are {recording.total_ticks} ticks of {recording.product_id}")
        raise typer.Exit
    _run(replay(plan, options, recording, as_json))


def _replay_flags(options: Options, as_json: bool) -> dict[str, object]:
    return {
        "--from": options.start,
        "--to": options.end,
        "--product": options.product,
        "--granularity": options.granularity,
        "--speed": options.speed,
        "--json": as_json,
    }


@app.command()
def restart(
    context: typer.Context,
    service: Annotated[str, typer.Argument(help="A service, venue, nats, or all (the five services).")],
    profile: Profile = "",
) -> None:
    """Restart one service, or all of them as one group, and wait until everything is ready again."""
    _run(control.restart(make_plan(profile or context.obj), service))


@app.command()
def status(context: typer.Context, profile: Profile = "", as_json: Json = False) -> None:
    """Show every service and the trading state, as the bus tells them."""
    _run(run_status(settings_module.load(profile or context.obj), as_json))


@app.command()
def halt(context: typer.Context, reason: Reason = "", profile: Profile = "") -> None:
    """Stop all trading; resting entries are canceled. Holds until `resume`."""
    _run(control.switch(settings_module.load(profile or context.obj), "halt", reason))


@app.command("reduce-only")
def reduce_only(context: typer.Context, reason: Reason = "", profile: Profile = "") -> None:
    """Let exits and cancels through, nothing else."""
    _run(control.switch(settings_module.load(profile or context.obj), "reduce-only", reason))


@app.command()
def resume(context: typer.Context, reason: Reason = "", profile: Profile = "") -> None:
    """Let everything through again; refused while the day's loss is at its limit."""
    _run(control.switch(settings_module.load(profile or context.obj), "resume", reason))


if __name__ == "__main__":
    main()
