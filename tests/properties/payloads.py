"""Every recorded payload of the venue, as the bytes that a decoder would be handed, and every decoder that we have."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from libs.common import messages as m
from libs.common.errors import PerpsError, Rejected
from services.execution import answers, parse, parse_account
from services.marketdata import wire
from tests.recorded import DATA

SENT, STAMPED = b" <-", b": "  # in the raw capture: what the client sent, and the end of a line's time stamp
Decoder = Callable[[bytes], object]


class Payload(NamedTuple):
    """`folder` as the venue document names it; `name` is the file and, where it holds several, the number."""

    folder: str
    name: str
    data: bytes

    @property
    def is_frame(self) -> bool:
        return self.folder.startswith("ws/")

    @property
    def file(self) -> str:
        return f"{self.folder.partition('/')[2]}/{self.name.partition('#')[0]}"


class _Exchange(msgspec.Struct):
    """A recorded request and its answer: one collection says `response`, the other `body`."""

    response: msgspec.Raw = msgspec.Raw(b"")
    body: msgspec.Raw = msgspec.Raw(b"")


@cache
def payloads() -> tuple[Payload, ...]:
    """Empty where the recorded data is not beside the repository."""
    return tuple(
        Payload(str(path.parent.relative_to(DATA)), f"{path.name}#{number}", data)
        for path in sorted([*DATA.glob("ws/*/*"), *DATA.glob("rest/*/*")])
        for number, data in enumerate(_parts(path))
    )


def _parts(path: Path) -> Iterator[bytes]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    match path.parent.name, path.suffix:
        case "cryptofeed_legacy", _:
            yield from (line.partition(STAMPED)[2] for line in raw.splitlines() if SENT not in line and STAMPED in line)
        case "coinbase_net", ".txt":
            yield from (part.encode() for part in transcript(raw.decode()))
        case "coinbase_net" | "vcr", _:
            exchange = msgspec.json.decode(raw, type=_Exchange)
            yield from _answer(bytes(exchange.response or exchange.body))
        case _, ".jsonl":
            yield from raw.splitlines()
        case _:
            yield from _answer(raw)


def _answer(raw: bytes) -> Iterator[bytes]:
    """The answer itself (recorded text stands in a JSON string); of a list of products each one too, since we ask for
    them one by one."""
    body = msgspec.json.decode(raw)
    yield body.encode() if isinstance(body, str) else raw
    products = body.get("products", []) if isinstance(body, dict) else body if isinstance(body, list) else []
    yield from map(msgspec.json.encode, products)


def transcript(text: str) -> Iterator[str]:
    """What the venue sent: lines that begin with `<` or `=`, and the lines that go on with them."""
    part: list[str] = []
    for line in [*text.splitlines(), ">"]:
        if line[:1] in "<=>" and line:
            if part:
                yield "\n".join(part)
            part = [] if line[0] == ">" else [line.lstrip("<=0123456789 ")]
        elif part:
            part.append(line)


# -- decoders


def asked_for(data: bytes) -> m.ApprovedOrder:
    """The order that a recorded create answer answers."""
    told: dict[str, Any] = {}
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError, TypeError):
        told = msgspec.json.decode(data)["success_response"]
    told = told if isinstance(told, dict) else {}
    return m.ApprovedOrder(
        client_order_id=told.get("client_order_id", ""),
        product_id=told.get("product_id", ""),
        side=m.Side.SELL if told.get("side") == "SELL" else m.Side.BUY,
        order_type=m.OrderType.MARKET,
        time_in_force=m.TimeInForce.IOC,
        quantity=Decimal(1),
        limit_price=None,
        reduce_only=False,
    )


def decode_edited(data: bytes) -> str:
    answers.parse_edited(data, "11111-00000-000000")
    return "taken"


MARKET_FRAMES: dict[str, Decoder] = {"market frame": wire.parse_frame}
USER_FRAMES: dict[str, Decoder] = {"user frame": parse.parse_user_frame}
MARKET_ANSWERS: dict[str, Decoder] = {
    "candles": wire.parse_candles,
    "trades": wire.parse_trades,
    "product": wire.parse_product,
}
TRADING_ANSWERS: dict[str, Decoder] = {
    "created": lambda data: answers.parse_created(data, asked_for(data)),
    "edited": decode_edited,
    "cancelled": lambda data: answers.parse_cancelled(data, ["0000-00000"]),
    "preview": answers.parse_preview,
    "order": parse.parse_order,
    "orders": parse.parse_orders,
    "fills": parse.parse_fills,
    "accounts": parse_account.parse_accounts,
    "fee tier": parse_account.parse_fee_tier,
    "permissions": parse_account.parse_permissions,
    "portfolios": parse_account.parse_portfolios,
    "time": parse.parse_time,
}
FRAMES = MARKET_FRAMES | USER_FRAMES
ANSWERS = MARKET_ANSWERS | TRADING_ANSWERS


def refusal(decoder: Decoder, data: bytes) -> str | None:
    """The reason in a word or two, None where the decoder reads it. Whatever is no error of ours comes through.

    Raises AssertionError for a refusal without a reason, and for a result with a number that is none or a time without
    a zone: such a thing must not get past a decoder.
    """
    try:
        result = decoder(data)
    except PerpsError as error:
        reason = error.reason if isinstance(error, Rejected) else str(error).partition(":")[0]
    else:
        assert m.sound(result), result
        return None
    assert reason
    return reason
