"""The account over REST: wallets, portfolios, key, fees."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import NoReturn

from sim.account import Balance
from sim.api import Call, page
from sim.errors import not_found, permission_denied
from sim.money import ZERO, average, text
from sim.venue import Venue
from sim.wire import Json, account_json

ACCOUNTS_AT_MOST = 250
DEFAULT_ACCOUNTS = 49
FEE_PERIOD = timedelta(days=30)
CASH = ("USD", "USDC", "USDT")


def accounts(venue: Venue, call: Call) -> Json:
    found = list(venue.exchange.balances().items())
    if call.one("retail_portfolio_id", venue.portfolio_id) != venue.portfolio_id:
        found = []
    keys = [_uuid(venue, currency) for currency, _ in found]
    limit = call.count("limit", DEFAULT_ACCOUNTS, ACCOUNTS_AT_MOST)
    chosen, cursor = page(found, keys, limit, call.one("cursor"))
    return {
        "accounts": [_account(venue, currency, balance) for currency, balance in chosen],
        "has_next": bool(cursor),
        "cursor": cursor,
        "size": len(chosen),
    }


def account(venue: Venue, call: Call) -> Json:
    for currency, balance in venue.exchange.balances().items():
        if _uuid(venue, currency) == call.path["account_id"]:
            return {"account": _account(venue, currency, balance)}
    raise not_found("account not found")


def _account(venue: Venue, currency: str, balance: Balance) -> Json:
    return account_json(currency, balance, _uuid(venue, currency), venue.portfolio_id)


def _uuid(venue: Venue, currency: str) -> str:
    return venue.exchange.identity(f"account {currency}")


def portfolios(venue: Venue, call: Call) -> Json:
    kind = call.one("portfolio_type", "DEFAULT")
    return {"portfolios": [_portfolio(venue)] if kind in ("DEFAULT", "UNDEFINED") else []}


def _portfolio(venue: Venue) -> Json:
    return {"name": "Default", "uuid": venue.portfolio_id, "type": "DEFAULT", "deleted": False}


def portfolio(venue: Venue, call: Call) -> Json:
    """The breakdown of the one portfolio, valued at the last prices."""
    if call.path["portfolio_id"] != venue.portfolio_id:
        raise not_found("portfolio not found")
    worth = _worth(venue)
    total = sum(worth.values(), ZERO)
    cash = sum((value for currency, value in worth.items() if currency in CASH), ZERO)
    positions = []
    for currency, balance in venue.exchange.balances().items():
        owned, price = balance.available + balance.hold, _price(venue, currency)
        positions.append(
            {
                "asset": currency,
                "account_uuid": _uuid(venue, currency),
                "total_balance_fiat": text(worth[currency]),
                "total_balance_crypto": text(owned),
                "available_to_trade_fiat": text(balance.available * price),
                "allocation": text(average(worth[currency], total)),
                "one_day_change": "0",
                "cost_basis": _usd(ZERO),
                "asset_img_url": "",
                "is_cash": currency in CASH,
            }
        )
    balances = {
        "total_balance": _usd(total),
        "total_futures_balance": _usd(ZERO),
        "total_cash_equivalent_balance": _usd(cash),
        "total_crypto_balance": _usd(total - cash),
        "futures_unrealized_pnl": _usd(ZERO),
        "perp_unrealized_pnl": _usd(ZERO),
    }
    breakdown = {
        "portfolio": _portfolio(venue),
        "portfolio_balances": balances,
        "spot_positions": positions,
        "perp_positions": [],
        "futures_positions": [],
    }
    return {"breakdown": breakdown}


def _usd(value: Decimal) -> Json:
    return {"value": text(value), "currency": "USD"}


def _price(venue: Venue, currency: str) -> Decimal:
    """The last price in USD; cash is worth one, an asset without a price nothing."""
    if currency in CASH:
        return Decimal(1)
    return venue.last_prices().get(f"{currency}-USD", ZERO)


def _worth(venue: Venue) -> dict[str, Decimal]:
    return {
        currency: (balance.available + balance.hold) * _price(venue, currency)
        for currency, balance in venue.exchange.balances().items()
    }


def portfolio_change(venue: Venue, call: Call) -> NoReturn:
    """A key is bound to one portfolio and must not make, change or empty others."""
    raise permission_denied()


def key_permissions(venue: Venue, call: Call) -> Json:
    return {
        "can_view": True,
        "can_trade": True,
        "can_transfer": False,
        "portfolio_uuid": venue.portfolio_id,
        "portfolio_type": "DEFAULT",
    }


def transaction_summary(venue: Venue, call: Call) -> Json:
    """Fees and volume of 30 days. Its totals are the venue's only figures written as JSON numbers."""
    since = venue.market_time() - FEE_PERIOD
    recent = [fill for fill in venue.exchange.fills if fill.at >= since]
    volume = sum((fill.price * fill.size for fill in recent), ZERO)
    fees = sum((fill.fee for fill in recent), ZERO)
    rules = venue.exchange.rules
    return {
        "total_volume": volume,
        "total_fees": fees,
        "fee_tier": {
            "pricing_tier": "Intro 1",
            "usd_from": "",
            "usd_to": "",
            "taker_fee_rate": text(rules.taker_fee),
            "maker_fee_rate": text(rules.maker_fee),
            "aop_from": "0",
            "aop_to": "1000000",
            **dict.fromkeys(("perps_vol_from", "perps_vol_to", "futures_vol_from", "futures_vol_to"), ""),
            "volume_types_and_range": [
                {
                    "volume_types": ["VOLUME_TYPE_SPOT", "VOLUME_TYPE_US_DERIVATIVES"],
                    "vol_from": "0",
                    "vol_to": "10000",
                }
            ],
        },
        "margin_rate": None,
        "goods_and_services_tax": None,
        "advanced_trade_only_volume": volume,
        "advanced_trade_only_fees": fees,
        "coinbase_pro_volume": 0,
        "coinbase_pro_fees": 0,
        "total_balance": text(sum(_worth(venue).values(), ZERO)),
        "has_promo_fee": False,
        "volume_breakdown": [
            {"volume_type": "VOLUME_TYPE_SPOT", "volume": volume},
            {"volume_type": "VOLUME_TYPE_US_DERIVATIVES", "volume": 0},
        ],
        "has_cost_plus_commission": False,
    }
