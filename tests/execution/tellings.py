"""What the tests of the execution core tell it, in a word each."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from libs.common import messages as m
from libs.common.messages import OrderStatus as S
from services.execution import inputs as i
from tests.execution.story import NOON, Story, edit, key, placed, seen, verdict

replace = msgspec.structs.replace
AS_IT_WAS = ("1", "100")
SELL = m.Side.SELL


def changed(approval: m.Verdict, **fields: object) -> m.Verdict:
    assert approval.order is not None
    return replace(approval, order=replace(approval.order, **fields))


def later(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def unknown(dies_after_seconds: float = 10) -> i.PlaceUnknown:
    return i.PlaceUnknown(id="u", client_order_id=key(), why="timeout", token_expires_at=later(dies_after_seconds))


def edit_unknown(edit_id: str = "e1") -> i.EditUnknown:
    return i.EditUnknown(id="x", client_order_id=key(), edit_id=edit_id, why="timeout", token_expires_at=later(10))


def edited(edit_id: str = "e1") -> i.Edited:
    return i.Edited(id="x", client_order_id=key(), edit_id=edit_id)


def not_found(asked_after_seconds: float) -> i.NotFound:
    return i.NotFound(id="n", client_order_id=key(), asked_at=later(asked_after_seconds))


def not_sent() -> i.PlaceNotSent:
    return i.PlaceNotSent(id="n", client_order_id=key(), why="no connection")


def refused(status: S = S.REJECTED) -> i.PlaceRefused:
    return i.PlaceRefused(id="r", client_order_id=key(), status=status, reason="no")


def ask_failed() -> i.AskFailed:
    return i.AskFailed(id="a", client_order_id=key(), why="503")


def user(order: i.VenueOrder) -> i.UserUpdate:
    return i.UserUpdate(id="u", order=order)


def listed(*orders: i.VenueOrder, fills: tuple[i.VenueFill, ...] = (), until: datetime = NOON) -> i.Reconciled:
    return i.Reconciled(id="listing", listing=i.Listing(orders=orders, fills=fills), until=until)


def one_fill(entry: str, name: str = "s1") -> i.VenueFill:
    [fill] = seen(name, fills=((entry, "100", "0.5"),)).fills
    return fill


def account(story: Story, epoch: int | None = None, resting: dict[str, Decimal | None] | None = None) -> m.Account:
    parts = i.AccountParts(balances={})
    now = story.core.epoch if epoch is None else epoch
    story.tell(i.AccountSeen(id="a", epoch=now, ledger_sequence=7, parts=parts, resting=resting or {}))
    return story.all(m.Account)[-1]


def resting(quantity: str = "1") -> Story:
    return Story().tell(
        verdict(quantity=quantity, gtc=True), placed(), seen(status=S.ACCEPTED, terms=(quantity, "100"))
    )


def bought(quantity: str = "1") -> Story:
    fill = seen("s0", filled=quantity, fills=(("e-s0", "100", quantity),))
    return Story().tell(verdict("s0", quantity=quantity), placed("s0"), fill)


def sale(name: str, quantity: str, *, gtc: bool = True) -> m.Verdict:
    return verdict(name, SELL, quantity, gtc=gtc, reduce_only=True)


def closing(name: str, quantity: str, revision: int = 2) -> m.Verdict:
    """What risk approves to close a position, under a trading state with `flatten`."""
    approval = verdict(name, SELL, quantity, reduce_only=True, revision=revision)
    return changed(approval, flatten=True)


def adjustment(name: str, size: str = "0", **flows: str) -> m.Adjustment:
    return m.Adjustment(
        id=name,
        at=NOON,
        kind=m.AdjustmentKind.HANDOVER,
        request_id=name,
        who="w",
        reason="r",
        flows={currency: Decimal(amount) for currency, amount in flows.items()},
        product_id="BTC-USD" if Decimal(size) else "",
        size=Decimal(size),
        price=Decimal(100),
    )


def sale_edit(name: str, quantity: str) -> m.Verdict:
    return changed(edit(name, quantity, "100"), side=SELL, reduce_only=True)


def last(story: Story) -> m.OrderEvent:
    return [fact for fact in story.ledger if isinstance(fact, m.OrderEvent)][-1]


def questions(story: Story) -> int:
    return len(story.all(i.Query)) + len(story.all(i.Find))
