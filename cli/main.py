"""`perps-bot`: arguments in, exit codes out. What a command does is in the module of its name."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer._click.exceptions import UsageError  # Typer hands out no public name for it

from cli import commands, control, risk_commands
from cli.backtest import backtest
from cli.dev_fast import dev_fast as run_dev_fast
from cli.errors import INTERRUPTED, as_stop
from cli.live import live, say
from cli.loop import EPILOG, Json, Profile, run_loop
from cli.order_flags import OrderFlags, with_order_flags
from cli.plan import make_plan
from cli.replay import Options, read_recording, replay, replay_plan
from cli.simulate import simulate
from cli.status import status as run_status
from cli.tooling import record
from libs.common import settings as settings_module
from libs.common.errors import BadConfig, PerpsError

NO_TOOLS = ("run", "restart", "status", "backtest", "simulate")  # a mistake in their arguments is no tooling error

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Trades spot on Coinbase Advanced Trade, with five processes over NATS.",
    epilog=EPILOG,
)
app.add_typer(commands.orders, name="orders")
app.add_typer(commands.fills, name="fills")
app.add_typer(commands.account, name="account")
app.command(epilog=EPILOG)(commands.positions)
app.command(epilog=EPILOG)(backtest)
app.command(epilog=EPILOG)(simulate)
risk_commands.register(app)


def main() -> None:
    """Entry point. An error of ours ends with its one line and its code."""
    logging.getLogger().addHandler(logging.NullHandler())  # what the bus client has to say, the commands say better
    try:
        sys.exit(app(standalone_mode=False, prog_name="perps-bot"))
    except UsageError as error:
        _misused(error)
        sys.exit(BadConfig.exit_code)
    except PerpsError as error:
        stop = as_stop(error)
        say(f"perps-bot: {stop}")
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _misused(error: UsageError) -> None:
    """One line that names the flag; a tool's mistake counts as its outcome."""
    words = error.ctx.command_path.split()[1:] if error.ctx else []
    line = f"{' '.join(words)}: {' '.join(error.format_message().split())}".removeprefix(": ")
    say(f"perps-bot: {line} (see {' '.join(['perps-bot', *words])} --help)")
    if error.ctx is None or (words and words[0] in NO_TOOLS):
        return
    named = error.ctx.params.get("profile") or error.ctx.find_root().params.get("profile")
    try:
        settings = settings_module.load(named or os.environ.get("PERPS_PROFILE") or "dev")
        asyncio.run(record(" ".join(words) or "perps-bot", settings, line))
    except BadConfig as bad:
        say(f"perps-bot: {bad}")


@app.callback(invoke_without_command=True)
@with_order_flags("--order-")
def root(
    context: typer.Context,
    order: OrderFlags,
    profile: Annotated[
        str, typer.Option("--profile", envvar="PERPS_PROFILE", help="Settings, config/profiles/<name>.toml.")
    ] = "dev",
    dev_fast: Annotated[
        bool, typer.Option("--dev-fast", help="Run everything for one decision cycle, on free ports; print JSON.")
    ] = False,
    preview_order: Annotated[
        bool, typer.Option("--preview-order", help="`orders preview`, with the --order-* flags.")
    ] = False,
    account_snapshot: Annotated[bool, typer.Option("--account-snapshot", help="`account snapshot`.")] = False,
    as_json: Json = False,
) -> None:
    context.obj = profile
    tool = {"--preview-order": preview_order, "--account-snapshot": account_snapshot}
    alone = [flag for flag, given in {"--dev-fast": dev_fast, **tool}.items() if given]
    others = [*alone[1:], *([context.invoked_subcommand] if context.invoked_subcommand else [])]
    if dev_fast and others:
        raise BadConfig(f"--dev-fast stands alone, without {others[0]}")
    if alone and others:
        commands.misused(context, f"{alone[0]} stands alone, without {others[0]}")
    if order.given and not preview_order:
        commands.misused(context, f"{order.given[0]} goes with --preview-order; to place one: perps-bot orders place")
    if as_json and not any(tool.values()):
        raise BadConfig("--json goes with --preview-order or --account-snapshot, or stands behind a command")
    if dev_fast:
        run_loop(run_dev_fast(profile))
    elif preview_order:
        commands.preview_order(context, profile, order, as_json)
    elif account_snapshot:
        commands.account_snapshot(context, profile, as_json)
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
    run_loop(live(plan), interrupted=0)


def _run_replay(profile: str, options: Options, check_config: bool, as_json: bool) -> None:
    if options.speed < 0:
        raise BadConfig("--speed must not be negative")
    recording = read_recording(options)
    plan = replay_plan(profile, options, recording)
    if check_config:
        say(f"profile {profile} is valid, and so are {recording.total_ticks} ticks of {recording.product_id}")
        raise typer.Exit
    run_loop(replay(plan, options, recording, as_json))


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
    run_loop(control.restart(make_plan(profile or context.obj), service))


@app.command()
def status(context: typer.Context, profile: Profile = "", as_json: Json = False) -> None:
    """Show every service and the trading state, as the bus tells them."""
    run_loop(run_status(settings_module.load(profile or context.obj), as_json))


if __name__ == "__main__":
    main()
