"""The arguments of the operator's tools: `orders`, `fills`, `account`, `positions`. What they do is in `cli.tools`."""

from __future__ import annotations

import shlex
import sys
import uuid
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from cli import tools
from cli.loop import EPILOG, Json, Profile, run_loop
from cli.order_flags import OrderFlags, with_order_flags
from cli.tooling import Tool, run_tool
from libs.common import settings as settings_module
from libs.common.errors import BadConfig


def _group(what: str) -> typer.Typer:
    return typer.Typer(rich_markup_mode=None, help=what, epilog=EPILOG)


orders = _group("Preview, place, edit, cancel and look at orders.")
fills = _group("Look at fills.")
account = _group("Look at the account, and say what its changes were.")

OrderId = Annotated[str, typer.Argument(metavar="ORDER", help="The venue's id of an order, or its client order id.")]
OrderIds = Annotated[list[str], typer.Argument(metavar="ORDER...", help="The venue's ids, or client order ids.")]
Product = Annotated[str, typer.Option("--product", help="Only of this product.")]
Since = Annotated[str, typer.Option("--since", help="Only from this time on, like 2026-11-22T12:00:00Z.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many, the newest.")]
Wait = Annotated[int, typer.Option("--wait-seconds", min=1, max=3600, help="How long to wait for the outcome.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the order.")]
RequestId = Annotated[
    str | None, typer.Option("--request-id", help="The same id counts once, however often it is asked for.")
]


def run_command(command: str, context: typer.Context, profile: str, work: Callable[[Tool], Awaitable[None]]) -> None:
    """Run a tool with the settings of the profile that was named."""
    run_loop(run_tool(command, settings_module.load(profile or context.obj), work))


def misused(context: typer.Context, line: str) -> None:
    """Flags of a tool that do not belong together: refused like one that is unknown, and counted like one."""

    async def work(tool: Tool) -> None:
        raise BadConfig(line)

    run_command("perps-bot", context, "", work)


def preview_order(context: typer.Context, profile: str, order: OrderFlags, as_json: bool) -> None:
    """`orders preview`, and `--preview-order` of the playbook."""
    run_command("orders preview", context, profile, lambda tool: tools.preview(tool, order, as_json))


def account_snapshot(context: typer.Context, profile: str, as_json: bool) -> None:
    """`account snapshot`, and `--account-snapshot` of the playbook."""
    run_command("account snapshot", context, profile, lambda tool: tools.snapshot(tool, as_json))


def repeatable(request_id: str | None) -> tuple[str, str]:
    """The request id, and the command line that asks for the same again: an id of our own goes into it."""
    given = uuid.uuid4().hex if request_id is None else request_id
    words = sys.argv[1:] if request_id is not None else [*sys.argv[1:], "--request-id", given]
    return given, shlex.join(["perps-bot", *words])


@orders.command(epilog=EPILOG)
@with_order_flags("--")
def preview(context: typer.Context, order: OrderFlags, profile: Profile = "", as_json: Json = False) -> None:
    """Ask the venue what an order would do; nothing is placed."""
    preview_order(context, profile, order, as_json)


@orders.command(epilog=EPILOG)
@with_order_flags("--")
def place(
    context: typer.Context,
    order: OrderFlags,
    request_id: RequestId = None,
    reason: Reason = "",
    wait_seconds: Wait = 15,
    profile: Profile = "",
    as_json: Json = False,
) -> None:
    """Place an order through risk, and wait for what becomes of it."""
    sending = tools.Sending(*repeatable(request_id), reason, wait_seconds)
    run_command("orders place", context, profile, lambda tool: tools.place(tool, order, sending, as_json))


@orders.command(epilog=EPILOG)
def edit(
    context: typer.Context,
    order: OrderId,
    qty: Annotated[str, typer.Option("--qty", help="The new total quantity; what is filled counts.")] = "",
    price: Annotated[str, typer.Option("--price", help="The new limit price.")] = "",
    preview: Annotated[bool, typer.Option("--preview", help="Only ask the venue what it would do.")] = False,
    request_id: RequestId = None,
    reason: Reason = "",
    wait_seconds: Wait = 15,
    profile: Profile = "",
    as_json: Json = False,
) -> None:
    """Give an open order of ours another quantity or price, through risk."""
    sending = tools.Sending(*repeatable(request_id), reason, wait_seconds)
    run_command(
        "orders edit", context, profile, lambda tool: tools.edit(tool, order, qty, price, preview, sending, as_json)
    )


@orders.command(epilog=EPILOG)
def cancel(
    context: typer.Context, order: OrderIds, wait_seconds: Wait = 15, profile: Profile = "", as_json: Json = False
) -> None:
    """Cancel orders at the venue, and wait until they have ended."""
    run_command("orders cancel", context, profile, lambda tool: tools.cancel(tool, order, wait_seconds, as_json))


@orders.command("cancel-all", epilog=EPILOG)
def cancel_all(
    context: typer.Context,
    product: Product = "",
    foreign: Annotated[bool, typer.Option("--foreign", help="Also orders that are not ours.")] = False,
    wait_seconds: Wait = 60,
    profile: Profile = "",
    as_json: Json = False,
) -> None:
    """Cancel every open order of ours at the venue itself, until it knows none; bus and services may be down.

    `perps-bot cancel-all` is the one that goes over the bus, through execution.
    """
    run_command(
        "orders cancel-all",
        context,
        profile,
        lambda tool: tools.cancel_all(tool, product, foreign, wait_seconds, as_json),
    )


@orders.command("list", epilog=EPILOG)
def list_orders(
    context: typer.Context,
    product: Product = "",
    open_only: Annotated[bool, typer.Option("--open", help="Only what has not ended, all of it.")] = False,
    since: Since = "",
    limit: Limit = 100,
    profile: Profile = "",
    as_json: Json = False,
) -> None:
    """List the account's orders, those that are not ours too."""
    run_command(
        "orders list",
        context,
        profile,
        lambda tool: tools.list_orders(tool, product, open_only, since, limit, as_json),
    )


@orders.command("show", epilog=EPILOG)
def show_order(context: typer.Context, order: OrderId, profile: Profile = "", as_json: Json = False) -> None:
    """Show one order with its fills and, while the bus is up, its steps."""
    run_command("orders show", context, profile, lambda tool: tools.show_order(tool, order, as_json))


@fills.command("list", epilog=EPILOG)
def list_fills(
    context: typer.Context,
    order: Annotated[str, typer.Option("--order", help="Only of this order, by either of its ids.")] = "",
    product: Product = "",
    since: Since = "",
    limit: Limit = 100,
    profile: Profile = "",
    as_json: Json = False,
) -> None:
    """List the account's fills, the newest first."""
    run_command(
        "fills list", context, profile, lambda tool: tools.list_fills(tool, order, product, since, limit, as_json)
    )


@fills.callback()
def _fills() -> None:
    """Keeps `fills list` two words: Typer would make one of a group with one command."""


@account.command("snapshot", epilog=EPILOG)
def snapshot(context: typer.Context, profile: Profile = "", as_json: Json = False) -> None:
    """Balances, fees, limits, what the key may do; a part that cannot be read is named."""
    account_snapshot(context, profile, as_json)


def positions(context: typer.Context, profile: Profile = "", as_json: Json = False) -> None:
    """What the bot holds and has earned, by risk's last figures."""
    run_command("positions", context, profile, lambda tool: tools.positions(tool, as_json))
