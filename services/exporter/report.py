"""The document of `metrics.json`: figures for machines, and everything that the status page shows.

The first block keeps the names of the file that the monitoring playbook describes. null means "not known".
Amounts are JSON numbers in the quote currency, quantities in the base currency, times RFC 3339 in UTC.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from libs.common import messages as m
from services.exporter.figures import PLAYBOOK, RISK_STALE_SECONDS, Figures, age, unknown
from services.exporter.state import Kept

# The playbook's warnings: from there on a figure is shown as old.
MARK_OLD_SECONDS = 10.0
ACCOUNT_OLD_SECONDS = 15 * 60.0

Json = dict[str, object]
_encoder = msgspec.json.Encoder(decimal_format="number")


def report(f: Figures) -> Json:
    return {
        "timestamp": f.wall,
        "profile": f.scope.profile,
        "equity": f.risk and f.risk.equity,
        "positions": _positions(f.risk) if f.risk else None,
        "decisions": _decisions(f),
        "order_stats": _order_stats(f.kept) if f.kept else None,
        "open_orders": len(f.kept.open) if f.kept else None,
        "uptime_seconds": f.uptime,
        "account_snapshot": _account(f),
        "metrics_up": f.up,
        "metrics": {row.name: row.get(f) for row in PLAYBOOK},
        "venue": "simulated" if f.scope.simulated else "live",
        "replay": f.scope.replay,
        "trading": _trading(f.seen.trading),
        "risk": _risk(f),
        "feed": _feed(f),
        "services": f.services,
        "ages": {
            "last_mark_seconds": f.last_mark_age,
            "last_decision_seconds": f.last_decision_age,
            "last_venue_answer_seconds": f.last_venue_answer_age,
        },
        "orders": _orders(f.kept, f) if f.kept else None,
        "fills": _fills(f.kept) if f.kept else None,
    }


def encode(document: Json) -> bytes:
    """Decimals become JSON numbers digit by digit, without passing through a float."""
    return _encoder.encode(document)


def _positions(risk: m.RiskFigures) -> list[Json]:
    return [
        {
            "symbol": product_id,
            "quantity": position.quantity,
            "side": "long" if position.quantity > 0 else "short",
            "entry_price": position.avg_price,
            "mark_price": position.mark_price,
            "unrealized_pnl": position.unrealized_pnl,
            "realized_pnl": position.realized_pnl,
            "dust": position.dust,
        }
        for product_id, position in risk.positions.items()
        if position.quantity
    ]


def _decisions(f: Figures) -> Json:
    return {
        product_id: {
            "action": decision.action,
            "reason": decision.reason,
            "signal_id": decision.signal_id or None,
            "age_seconds": age(decision, f.wall),
        }
        for product_id, decision in sorted(f.seen.decisions.items())
    }


def _order_stats(kept: Kept) -> Json:
    """Since installation. An order that traded succeeded; sent, finished and not traded is failed; the rest is open."""
    return {"attempted": kept.submitted, "successful": kept.successful, "failed": kept.failed}


def _account(f: Figures) -> Json | None:
    account, seconds = f.seen.account, f.account_age
    if account is None or seconds is None:
        return None
    return {
        "timestamp": account.sent_at or account.at,
        "age_seconds": seconds,
        "stale": seconds > ACCOUNT_OLD_SECONDS,
        "balances": account.balances,
        "taker_fee_rate": account.taker_fee_rate,
        "maker_fee_rate": account.maker_fee_rate,
        "settled": account.settled,
    }


def _trading(trading: m.TradingState | None) -> Json | None:
    if trading is None:
        return None
    return {
        "state": trading.state,
        "reason": trading.reason,
        "who": trading.who,
        "since": trading.since,
        "revision": trading.revision,
    }


def _risk(f: Figures) -> Json | None:
    """The last known figures, said to be stale where they are: the page shows them greyed, the metrics not at all."""
    risk, seconds = f.seen.risk, f.risk_age
    if risk is None or seconds is None:
        return None
    return {
        "age_seconds": seconds,
        "stale": seconds > RISK_STALE_SECONDS,
        "equity": risk.equity,
        "exposure": risk.exposure,
        "reserved": risk.reserved,
        "realized_pnl": risk.realized_pnl,
        "unrealized_pnl": risk.unrealized_pnl,
        "fees": risk.fees,
        "daily_loss": risk.daily_loss,
        "daily_loss_limit": risk.daily_loss_limit,
        "daily_loss_used": _used(risk.daily_loss, risk.daily_loss_limit),
        "positions": _positions(risk),
        "drift": risk.drift,
    }


def _used(loss: Decimal | None, limit: Decimal) -> Decimal | None:
    """Share of the limit that is lost; a limit of zero is used up by any loss, and by none."""
    if loss is None:
        return None
    if limit <= 0:
        return Decimal(int(loss >= limit))
    return max(Decimal(0), loss / limit)


def _feed(f: Figures) -> Json:
    products: Json = {}
    for product_id, seconds in f.product_staleness.items():
        feed, mark = f.feeds.get(product_id), f.seen.marks.get(product_id)
        products[product_id] = {
            "state": feed and feed.state,
            "reason": feed and feed.reason,
            "bid": mark and mark.bid,
            "ask": mark and mark.ask,
            "mid": mark and mark.mid,
            "staleness_seconds": seconds if mark else None,
            "stale": mark is not None and seconds > MARK_OLD_SECONDS,
        }
    return products


def _orders(kept: Kept, f: Figures) -> Json:
    return {
        "open": list(kept.open.values()),
        "unknown": len(unknown(kept)),
        "oldest_unknown_age_seconds": f.oldest_unknown_age,
        "finished": {status: kept.finished.get(status, 0) for status in sorted(m.TERMINAL)},
    }


def _fills(kept: Kept) -> list[Json]:
    """Newest first."""
    return [
        {
            "time": fill.trade_time,
            "product_id": fill.product_id,
            "side": fill.side,
            "size": fill.size,
            "price": fill.price,
            "fee": fill.fee,
            "liquidity": fill.liquidity,
            "client_order_id": fill.client_order_id,
        }
        for fill in reversed(kept.last_fills)
    ]
