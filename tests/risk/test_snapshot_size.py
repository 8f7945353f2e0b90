"""A restart reads the snapshot and what came after it: the snapshot must not grow with the history."""

from __future__ import annotations

from datetime import UTC, datetime

from bench.history import FILLS_PER_ORDER, PRODUCT, History
from libs.common.shell import Core
from services.execution.config import ExecutionConfig
from services.execution.core import ExecutionCore
from services.risk.core import RiskCore
from tests.risk.builders import WIDE

BEGAN = datetime(2026, 3, 10, tzinfo=UTC)
DIGITS = 100  # bytes: sums and counts get longer


def test_a_snapshot_is_no_larger_after_twice_as_many_fills() -> None:
    cores: dict[str, Core] = {
        "risk": RiskCore(WIDE, (PRODUCT,), "USD"),
        "execution": ExecutionCore(ExecutionConfig()),
    }
    history, done, sizes = History(WIDE, BEGAN), 0, []
    for fills in (20_000, 40_000):
        orders = fills // FILLS_PER_ORDER
        for left in history.orders(done, orders):
            for message in left:
                for core in cores.values():
                    core.on_message(message, message.at)
        done = orders
        sizes.append({name: len(core.dump()) for name, core in cores.items()})
    grown = {name: sizes[1][name] - sizes[0][name] for name in cores}
    assert all(abs(more) <= DIGITS for more in grown.values()), (sizes, grown)
