"""Counting what the ledger tells: verdicts, orders, fills. Each counts once however often it is delivered."""

from __future__ import annotations

from decimal import Decimal

from libs.common import messages as m
from services.exporter.state import LAST_FILLS, Kept, Order, sent


def on_verdict(kept: Kept, verdict: m.Verdict) -> None:
    if kept.verdicts_known.first_time(verdict.signal_id):
        kept.verdicts[verdict.reason] = kept.verdicts.get(verdict.reason, 0) + 1


def on_order(kept: Kept, event: m.OrderEvent) -> None:
    if event.client_order_id in kept.finished_known.ids:
        return
    order = kept.open.get(event.client_order_id) or _new(event)
    if event.revision <= order.revision:
        return
    if event.status is not order.status:
        order.since = sent(event)
    order.revision, order.status, order.filled_qty = event.revision, event.status, event.filled_qty
    if event.status is m.OrderStatus.SUBMITTING and not order.submitted:
        order.submitted = True
        kept.submitted += 1
    if event.status in m.TERMINAL:
        _finish(kept, order)
    else:
        kept.open[order.client_order_id] = order


def on_fill(kept: Kept, fill: m.Fill) -> None:
    if not kept.fills_known.first_time(fill.id):
        return
    kept.fills[fill.side] = kept.fills.get(fill.side, 0) + 1
    kept.fill_notional[fill.side] = kept.fill_notional.get(fill.side, Decimal(0)) + fill.price * fill.size
    kept.last_fills = [*kept.last_fills, fill][-LAST_FILLS:]


def _new(event: m.OrderEvent) -> Order:
    return Order(
        client_order_id=event.client_order_id,
        signal_id=event.signal_id,
        product_id=event.product_id,
        side=event.order.side,
        order_type=event.order.order_type,
        quantity=event.order.quantity,
        limit_price=event.order.limit_price,
        status=event.status,
        since=sent(event),
    )


def _finish(kept: Kept, order: Order) -> None:
    """An order that traded succeeded, whatever ended it; one that was sent and did not trade failed."""
    kept.open.pop(order.client_order_id, None)
    kept.finished_known.first_time(order.client_order_id)
    kept.finished[order.status] = kept.finished.get(order.status, 0) + 1
    if order.filled_qty > 0:
        kept.successful += order.submitted
    else:
        kept.failed += order.submitted
