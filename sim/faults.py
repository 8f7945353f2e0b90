"""The venue's switches: how it misbehaves, or behaves differently where sources disagree. Pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sim.money import ONE, ZERO
from sim.products import Flags, Product
from sim.rules import DuplicateMode


class Faults(Struct, frozen=True, forbid_unknown_fields=True):
    """All off by default. Those that count (`int`) say how often more they strike."""

    # WebSocket
    big_level2_snapshot: int = 0  # far-off levels that a level2 snapshot has on each side beside the real ones
    client_id_on_market: bool = False
    skip_sequence: int = 0  # leave out one sequence number
    reorder_sequence: int = 0  # deliver one message after the next one
    silent_sockets: bool = False  # stop sending, keep the sockets open
    drop_sockets: int = 0  # hang up on all sockets, now
    half_open_sockets: bool = False  # neither read nor write sockets, leave new ones unanswered; off: hang up on all
    idle_close_seconds: float = 75  # hang up on a socket that got no frame for so long (the venue: 60 to 90); 0: never
    error_instead_of_ack: int = 0  # answer a subscribe with an error and nothing else
    zero_leaves_on_cancel: bool = False
    # order updates of the user channel; frames are numbered as they really leave, so that these make no gap
    user_delay_seconds: float = 0
    user_duplicate: int = 0  # tell an update twice
    user_reorder: int = 0  # tell an update after the next one
    user_drop: int = 0  # leave an update out
    client_id_on_user: bool = True
    reject_reason_key: Literal["reject_Reason", "reject_reason"] = "reject_Reason"
    # REST
    unauthorized: int = 0  # 401 on private paths
    too_many_requests: int = 0  # 429
    html_5xx: Literal["", "reads", "orders", "all"] = ""
    accept_then_drop: int = 0  # take the order, hang up without an answer
    accept_then_500: int = 0  # take the order, answer 500
    accept_then_hang: int = 0  # take the order, never answer
    cancel_then_drop: int = 0  # cancel, hang up without an answer
    edit_then_drop: int = 0  # edit, hang up without an answer
    hang_requests: int = 0  # read a request, neither act on it nor answer
    reject_before: int = 0  # hang up on a new order before looking at it
    answer_delay_seconds: float = 0  # every REST answer, after its effect
    orders_lag_seconds: float = 0  # a new order is not listed, and 404 by its id, for so long (wall time)
    fills_lag_seconds: float = 0  # a fill is listed so much later than its order shows it (wall time)
    clock_skew_seconds: float = 0  # the venue's clock is ahead, in GET /time and where tokens are checked
    # both
    extra_fields: bool = False  # fields and message types that no client knows
    # the exchange
    duplicates: DuplicateMode = "returns_existing"
    stop_limit_allowed: bool = True
    pending_delay_seconds: float = 0  # market time that an order stays PENDING
    take_at_most_fraction: Decimal = ONE  # of its size, that an order takes from the book as it arrives
    cancel_queued: bool = False  # report CANCEL_QUEUED before CANCELLED
    product_flags: dict[str, Flags] = {}

    def __post_init__(self) -> None:
        fraction = self.take_at_most_fraction
        if not fraction.is_finite() or not ZERO <= fraction <= ONE:
            raise ValueError("take_at_most_fraction has to be from 0 to 1")
        for name in self.__struct_fields__:
            if isinstance(value := getattr(self, name), int | float) and not abs(value) <= AT_MOST:
                raise ValueError(f"{name} has to be at most {AT_MOST}")


AT_MOST = 1_000_000  # times or seconds: more than any test waits, less than what a clock cannot show
Lag = Literal["orders_lag_seconds", "fills_lag_seconds"]


class FaultBox:
    """The switches in force."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._hidden_until: dict[str, float] = {}

    def change(self, body: bytes) -> Faults:
        """Merge the fields of a JSON object; those that are absent stay. Raises msgspec.MsgspecError."""
        try:
            changes = msgspec.json.decode(body, type=dict[str, object])
        except (UnicodeDecodeError, RecursionError) as error:  # msgspec lets these through as they are
            raise msgspec.DecodeError(str(error)) from None
        self.faults = msgspec.convert({**msgspec.to_builtins(self.faults), **changes}, Faults)
        return self.faults

    def strikes(self, name: str) -> bool:
        """Whether a counting switch is on; uses it up by one."""
        left: int = getattr(self.faults, name)
        if left > 0:
            self.faults = replace(self.faults, **{name: left - 1})
        return left > 0

    def hide(self, lag: Lag, name: str, at: float) -> None:
        """Keep a new order or fill from queries while its lag lasts; `at` is now (seconds, monotonic)."""
        if seconds := getattr(self.faults, lag):
            self._hidden_until[name] = at + seconds

    def hides(self, lag: Lag, name: str, at: float) -> bool:
        """Whether queries do not show an order or fill yet; a lag that is switched off ends at once."""
        return bool(getattr(self.faults, lag)) and self._hidden_until.get(name, at) > at


def flagged(product: Product, flags: Flags | None) -> Product:
    """A product with some flags overridden."""
    if flags is None:
        return product
    changes = {name: value for name, value in msgspec.structs.asdict(flags).items() if value is not None}
    return replace(product, **changes)
