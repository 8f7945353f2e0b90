"""The venue's switches: how it misbehaves, or behaves differently where sources disagree. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

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
    error_instead_of_ack: int = 0  # answer a subscribe with an error and nothing else
    zero_leaves_on_cancel: bool = False
    # REST
    unauthorized: int = 0  # 401 on private paths
    too_many_requests: int = 0  # 429
    html_5xx: Literal["", "reads", "orders", "all"] = ""
    accept_then_drop: int = 0  # take the order, hang up without an answer
    reject_before: int = 0  # hang up on a new order before looking at it
    answer_delay_seconds: float = 0  # every REST answer, after its effect
    # both
    extra_fields: bool = False  # fields and message types that no client knows
    # the exchange
    duplicates: DuplicateMode = "returns_existing"
    stop_limit_allowed: bool = True
    pending_delay_seconds: float = 0  # market time that an order stays PENDING
    cancel_queued: bool = False  # report CANCEL_QUEUED before CANCELLED
    product_flags: dict[str, Flags] = {}


class FaultBox:
    """The switches in force."""

    def __init__(self) -> None:
        self.faults = Faults()

    def change(self, body: bytes) -> Faults:
        """Merge the fields of a JSON object; those that are absent stay. Raises msgspec.MsgspecError."""
        changes = msgspec.json.decode(body, type=dict[str, object])
        self.faults = msgspec.convert({**msgspec.to_builtins(self.faults), **changes}, Faults)
        return self.faults

    def strikes(self, name: str) -> bool:
        """Whether a counting switch is on; uses it up by one."""
        left: int = getattr(self.faults, name)
        if left > 0:
            self.faults = replace(self.faults, **{name: left - 1})
        return left > 0


def flagged(product: Product, flags: Flags | None) -> Product:
    """A product with some flags overridden."""
    if flags is None:
        return product
    changes = {name: value for name, value in msgspec.structs.asdict(flags).items() if value is not None}
    return replace(product, **changes)
