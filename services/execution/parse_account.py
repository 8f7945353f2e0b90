"""What the venue tells about the account: balances, fees, the key, portfolios. Pure; see `parse`."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from libs.common.errors import OutcomeUnknown
from libs.common.messages import Balance, FeeTier, Permissions, Portfolio
from services.execution.parse import Paged, decimal, decode, following

VAULTS = ("ACCOUNT_TYPE_VAULT", "VAULT")


class _Amount(Struct):
    value: str


class _Wallet(Struct):
    currency: str
    available_balance: _Amount
    hold: _Amount
    type: str = ""


class _AccountPage(Paged, kw_only=True):
    accounts: list[_Wallet]


class _Tier(Struct):
    taker_fee_rate: str
    maker_fee_rate: str
    pricing_tier: str = ""


class _Summary(Struct):
    fee_tier: _Tier
    total_volume: Decimal  # this one and the next are JSON numbers
    total_fees: Decimal


class _Portfolios(Struct):
    portfolios: list[Portfolio]


def parse_accounts(data: bytes) -> tuple[dict[str, Balance], str]:
    """Balances of one page by currency, vaults left out (nothing in them can be traded), and the next cursor."""
    page: _AccountPage = decode(data, _AccountPage)
    balances: dict[str, Balance] = {}
    for wallet in page.accounts:
        if wallet.type not in VAULTS:
            balance = Balance(available=decimal(wallet.available_balance.value), hold=decimal(wallet.hold.value))
            add_balance(balances, wallet.currency, balance)
    return balances, following(page)


def add_balance(balances: dict[str, Balance], currency: str, more: Balance) -> None:
    """Two wallets of one currency are one balance."""
    had = balances.get(currency, Balance(available=Decimal(0), hold=Decimal(0)))
    balances[currency] = Balance(available=had.available + more.available, hold=had.hold + more.hold)


def parse_fee_tier(data: bytes) -> FeeTier:
    summary: _Summary = decode(data, _Summary)
    tier = summary.fee_tier
    if not tier.taker_fee_rate or not tier.maker_fee_rate:
        raise OutcomeUnknown("a fee tier without rates")  # missing is not zero
    return FeeTier(
        pricing_tier=tier.pricing_tier,
        taker_fee_rate=decimal(tier.taker_fee_rate),
        maker_fee_rate=decimal(tier.maker_fee_rate),
        total_volume=decimal(str(summary.total_volume)),
        total_fees=decimal(str(summary.total_fees)),
    )


def parse_permissions(data: bytes) -> Permissions:
    permissions: Permissions = decode(data, Permissions)
    return permissions


def parse_portfolios(data: bytes) -> tuple[Portfolio, ...]:
    return tuple(decode(data, _Portfolios).portfolios)
