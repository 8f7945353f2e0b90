"""The documents of `metrics.json` and `account.json`: figures for machines, and everything that the status page shows.

The first block keeps the names of the file that the monitoring playbook describes. null means "not known".
Amounts are JSON numbers in the quote currency, quantities in the base currency, times RFC 3339 in UTC.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec
from msgspec import Struct

from libs.common import messages as m
from libs.common.subjects import SERVICES
from services.exporter.figures import ACCOUNT_PARTS, Figures, ago, playbook, since
from services.exporter.state import Order, sent

# The playbook's warning: from there on a price is shown as old.
MARK_OLD_SECONDS = 10.0

Json = dict[str, object]


def report(f: Figures) -> Json:
    kept, risk, trading = f.kept, f.seen.risk, f.seen.trading
    return {
        "timestamp": f.wall,
        "profile": f.scope.profile,
        "equity": f.risk and f.risk.equity,
        "positions": _positions(f.risk) if f.risk else None,
        "decisions": {product_id: _decision(d, f) for product_id, d in sorted(f.seen.decisions.items())},
        # An order that traded succeeded; sent, finished and not traded is failed; the rest is open.
        "order_stats": kept and {"attempted": kept.submitted, "successful": kept.successful, "failed": kept.failed},
        "open_orders": kept and len(kept.open),
        "uptime_seconds": f.uptime,
        "account_snapshot": account_report(f),
        "metrics_up": f.up,
        "metrics": {row.name: row.value for row in playbook(f)},
        "venue": f.scope.venue,
        "replay": f.scope.replay,
        "trading": trading and _of(trading, "state", "reason", "who", "since", "revision", "flatten"),
        "risk": _risk(risk, f) if risk else None,
        "feed": {product_id: _feed(product_id, seconds, f) for product_id, seconds in f.mark_ages.items()},
        "services": [_service(name, f) for name in SERVICES],
        "ages": {
            "last_mark_seconds": f.last_mark_age,
            "last_decision_seconds": f.last_decision_age,
            "last_venue_answer_seconds": f.venue_answer_age,
            "last_reconciliation_seconds": f.reconciliation_age,
        },
        "orders": kept
        and {
            "open": [_order(order) for order in kept.open.values()],
            "unknown": len(f.unknown),
            "oldest_unknown_age_seconds": f.oldest_unknown_age,
            "finished": {status: kept.finished.get(status, 0) for status in sorted(m.TERMINAL)},
        },
        "fills": kept and [_fill(fill) for fill in reversed(kept.last_fills)],
    }


def encode(document: Json) -> bytes:
    """Decimals become JSON numbers digit by digit, without passing through a float."""
    return msgspec.json.Encoder(decimal_format="number").encode(document)


def _of(source: Struct | None, *names: str) -> Json:
    """The fields that the document takes over under their own names; null where the source is not known."""
    return {name: source and getattr(source, name) for name in names}


def _positions(risk: m.RiskFigures) -> list[Json]:
    return [
        {
            "symbol": product_id,
            "quantity": position.quantity,
            "side": "long" if position.quantity > 0 else "short",
            "entry_price": position.avg_price,
            **_of(position, "mark_price", "unrealized_pnl", "realized_pnl", "dust"),
        }
        for product_id, position in risk.positions.items()
        if position.quantity
    ]


def _decision(decision: m.Decision, f: Figures) -> Json:
    signal_id, seconds = decision.signal_id or None, since(sent(decision), f.wall)
    return {**_of(decision, "action", "reason"), "signal_id": signal_id, "age_seconds": seconds}


def account_report(f: Figures) -> Json:
    """The last account snapshot. A part that is null is named in `unavailable` with its reason, never told as zero."""
    account = f.seen.account
    return {
        "timestamp": account and sent(account),
        "age_seconds": f.account_age,
        "stale": account is not None and f.account is None,
        **_of(account, *ACCOUNT_PARTS, "taker_fee_rate", "maker_fee_rate", "settled", "opening"),
        **_of(account, "foreign_fills", "reconciled_at"),
        "unavailable": f.account_unavailable,
    }


def _risk(risk: m.RiskFigures, f: Figures) -> Json:
    """The last known figures, said to be stale where they are: the page shows them greyed, the metrics not at all."""
    return {
        "age_seconds": f.risk_age,
        "stale": f.risk is None,
        **_of(risk, "equity", "exposure", "reserved", "realized_pnl", "unrealized_pnl", "fees"),
        **_of(risk, "daily_loss", "daily_loss_limit", "drift", "equity_day_start", "equity_peak"),
        "guards": risk.guards,
        "degraded": risk.degraded if risk.guards else None,  # a risk of before the guards cannot tell
        "closing": risk.closing or {},  # whether a flatten is in force says the trading state
        "daily_loss_used": _used(risk.daily_loss, risk.daily_loss_limit),
        "positions": _positions(risk),
    }


def _used(loss: Decimal | None, limit: Decimal) -> Decimal | None:
    """Share of the limit that is lost; a limit of zero is used up by any loss, and by none."""
    if loss is None:
        return None
    if limit <= 0:
        return Decimal(int(loss >= limit))
    return max(Decimal(0), loss / limit)


def _feed(product_id: str, seconds: float, f: Figures) -> Json:
    feed, mark = f.feeds.get(product_id), f.seen.marks.get(product_id)
    return {
        **_of(feed, "state", "reason"),
        **_of(mark, "bid", "ask", "mid"),
        "staleness_seconds": seconds if mark else None,
        "stale": mark is not None and seconds > MARK_OLD_SECONDS,
    }


def _service(name: str, f: Figures) -> Json:
    """`ready`, and everything behind it, is null for a service that was never heard of."""
    up, status = name in f.alive, f.seen.services.get(name)
    return {
        "service": name,
        "up": up,
        "ready": status and (up and status.ready),
        "not_ready_reason": (status.not_ready_reason if up else "silent") if status else "",
        **_of(status, "version", "restarts", "errors"),
        "uptime_seconds": since(status.started_at, f.wall) if status and up else None,
        "status_age_seconds": status and since(sent(status), f.wall),
        "last_input_age_seconds": status and ago(status.last_input_at, f.wall),
        "last_decision_age_seconds": status and ago(status.last_decision_at, f.wall),
        "last_venue_answer_age_seconds": status and ago(status.last_venue_at, f.wall),
    }


def _order(order: Order) -> Json:
    return {
        **_of(order.event, "client_order_id", "signal_id", "product_id", "status", "revision", "filled_qty"),
        **_of(order.event.order, "side", "order_type", "quantity", "limit_price"),
        **_of(order, "since", "submitted"),
    }


def _fill(fill: m.Fill) -> Json:
    names = ("product_id", "side", "size", "price", "fee", "liquidity", "client_order_id")
    return {"time": fill.trade_time, **_of(fill, *names)}
