"""The arguments of what an operator asks of risk and execution: `halt` to `cancel-all`, `risk`, and of `account` the
commands that change the books. What they do is in `cli.control`, `flatten`, `explain` and `adjust`."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer
from rich.console import Console

from cli import adjust, control, explain
from cli.commands import RequestId, Wait, account, repeatable, run_command
from cli.flatten import flatten as run_flatten
from cli.live import say
from cli.loop import EPILOG, Json, Profile, run_loop
from cli.output import is_for_people, jsonable, show
from cli.progress import Passes
from cli.tooling import Tool
from cli.verdict_page import draw_verdict
from libs.common import settings as settings_module

risk = typer.Typer(rich_markup_mode=None, help="Why risk decided what it decided.", epilog=EPILOG)
Reason = Annotated[str, typer.Option("--reason", help="Why; required, and kept with the trading state or the record.")]
ProductId = Annotated[str, typer.Option("--product", help="Product, like BTC-USD.")]


def halt(context: typer.Context, reason: Reason = "", profile: Profile = "", as_json: Json = False) -> None:
    """Stop all trading until `resume`, over every restart.

    Resting entries are canceled; positions are kept or closed as the profile says. To be out of the market:
    `perps-bot flatten`.
    """
    _switch(context, "halt", reason, profile, as_json)


def reduce_only(context: typer.Context, reason: Reason = "", profile: Profile = "", as_json: Json = False) -> None:
    """Let exits and cancels through, nothing else. Refused while trading is halted: `resume` comes first."""
    _switch(context, "reduce-only", reason, profile, as_json)


def resume(context: typer.Context, reason: Reason = "", profile: Profile = "", as_json: Json = False) -> None:
    """Let everything through again; also ends a `flatten`.

    Refused while a guard would step in again at once; where one allows no entries, a halt becomes reduce-only.
    """
    _switch(context, "resume", reason, profile, as_json)


def _switch(context: typer.Context, command: str, reason: str, profile: str, as_json: bool) -> None:
    run_loop(control.switch(settings_module.load(profile or context.obj), command, reason, as_json))


def flatten(
    context: typer.Context,
    reason: Reason = "",
    wait_seconds: Wait = 60,
    profile: Profile = "",
    as_json: Json = False,
) -> None:
    """Close every position and cancel every order; wait for it.

    At the market, and exits are canceled too. Works while halted, and with strategy and marketdata down. Risk tries on
    by itself, also after the wait and over restarts, until a `resume` or a `halt`. Trading stays reduce-only, or halted
    if it was, until `resume`. The same command again follows the same closing.
    """
    repeat = shlex.join(["perps-bot", *sys.argv[1:]])
    run_loop(run_flatten(settings_module.load(profile or context.obj), reason, wait_seconds, repeat, as_json))


def cancel_all(context: typer.Context, reason: Reason = "", profile: Profile = "", as_json: Json = False) -> None:
    """Have execution cancel every open order of ours, exits too. Needs the bus and execution.

    With the bus or execution down: `perps-bot orders cancel-all`, which asks the venue itself. Neither keeps new
    orders from being placed: `perps-bot halt` does.
    """
    run_loop(control.cancel_all(settings_module.load(profile or context.obj), reason, as_json))


@risk.callback()
def _risk() -> None:
    """Why risk decided what it decided."""


@risk.command("explain", epilog=EPILOG)
def explain_verdict(
    context: typer.Context,
    order: Annotated[
        str, typer.Argument(metavar="ID", help="A signal id, client order id or venue order id, or how one begins.")
    ],
    profile: Profile = "",
    as_json: Json = False,
) -> None:
    """Show why an order was approved or denied: every rule.

    And what became of it. Reads the ledger: the services may be down, the bus must be up. At least 6 characters of the
    id are needed; less than all of it takes longer, since the whole ledger has to be read.
    """

    async def work(tool: Tool) -> None:
        with Passes() as passes:
            found = await explain.explain(tool.need_bus(), order, passes.tell)
        if is_for_people(as_json):
            draw_verdict(jsonable(found), Console(markup=False, highlight=False))
        else:
            show(found, as_json)
        for edit in found.get("edit_signal_ids", []):
            say(f"the order was edited: `perps-bot risk explain {edit}`")

    run_command("risk explain", context, profile, work)


@risk.command("history", epilog=EPILOG)
def show_history(
    context: typer.Context,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=64, help="At most so many, the newest; 64 are kept.")
    ] = 20,
    profile: Profile = "",
    as_json: Json = False,
) -> None:
    """Show who halted or resumed trading, when and why.

    The newest first. Needs the bus alone.
    """

    async def work(tool: Tool) -> None:
        show(await explain.history(tool.need_bus(), limit), as_json)

    run_command("risk history", context, profile, work)


@account.command("classify", epilog=EPILOG)
def classify(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="deposit, withdrawal or manual-trade.")],
    currency: Annotated[str, typer.Option("--currency", help="Of a deposit or withdrawal, like USD.")] = "",
    product: Annotated[str, typer.Option("--product", help="Of a manual trade, like BTC-USD.")] = "",
    quantity: Annotated[str, typer.Option("--quantity", help="Of the currency; all of its drift if not given.")] = "",
    reason: Reason = "",
    request_id: RequestId = None,
    profile: Profile = "",
    as_json: Json = False,
) -> None:
    """Say what a drift was, so that it ends.

    A drift is a difference between the account and the bot's books, and means reduce-only; `perps-bot positions` tells
    it. A deposit or withdrawal is neither gain nor loss. A manual trade is booked like a trade of the bot's own.
    """
    given, repeat = repeatable(request_id)

    async def work(tool: Tool) -> None:
        request = adjust.classification(kind, currency, product, quantity, given)
        await adjust.run_adjustment(tool, request, reason, repeat, as_json)

    run_command("account classify", context, profile, work)


@account.command("handover", epilog=EPILOG)
def handover(
    context: typer.Context,
    product: ProductId = "",
    quantity: Annotated[
        str, typer.Option("--quantity", help="Of the base currency; above 0 it becomes the bot's, below 0 yours.")
    ] = "",
    price: Annotated[str, typer.Option("--price", help="At what price, where there is no mark.")] = "",
    reason: Reason = "",
    request_id: RequestId = None,
    profile: Profile = "",
    as_json: Json = False,
) -> None:
    """Hand coins to the bot, or take them back.

    Coins that the account holds and the bot did not buy become its own, to be sold by it; with a quantity below 0 the
    other way round. Nothing is traded.
    """
    given, repeat = repeatable(request_id)

    async def work(tool: Tool) -> None:
        request = adjust.handover(product, quantity, price, given)
        await adjust.run_adjustment(tool, request, reason, repeat, as_json)

    run_command("account handover", context, profile, work)


def register(app: typer.Typer) -> None:
    """On `perps-bot` itself."""
    app.command(epilog=EPILOG)(halt)
    app.command("reduce-only", epilog=EPILOG)(reduce_only)
    app.command(epilog=EPILOG)(resume)
    app.command(epilog=EPILOG)(flatten)
    app.command("cancel-all", epilog=EPILOG)(cancel_all)
    app.add_typer(risk, name="risk")
