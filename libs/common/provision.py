"""Creates what the services bind to: streams, consumers, buckets, and, once, the installation.

Runs under an identity of its own at every start; what exists is brought to the present configuration.
"""

from __future__ import annotations

import msgspec
from nats.errors import Error
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    PersistMode,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError

from libs.common.clock import Clock
from libs.common.errors import BusDown, Conflict
from libs.common.messages import Installation, Trading, TradingState
from libs.common.nats_bus import NatsBus
from libs.common.permissions import ACCESS
from libs.common.subjects import (
    INSTALLATION_KEY,
    LEASE_BUCKET,
    ROUTES,
    SNAPSHOT_BUCKET,
    STATE_BUCKET,
    TRADING_KEY,
    Kept,
)

CANDLES_KEPT = 500  # per product and granularity; the venue itself gives at most 350 at once
AUDIT_BYTES = 256 * 1024 * 1024


def streams() -> list[StreamConfig]:
    def kept(where: Kept) -> list[str]:
        return [route.wildcard for route in ROUTES if route.kept is where]

    return [
        # Verdicts, orders and fills: never deleted, synced before acknowledged (the server's default here).
        StreamConfig(
            name=Kept.LEDGER,
            subjects=kept(Kept.LEDGER),
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            allow_direct=True,
            deny_delete=True,
            deny_purge=True,
        ),
        # On disk, though not synced: a stream in memory does not exist any more after a restart of the server.
        StreamConfig(
            name=Kept.LAST,
            subjects=kept(Kept.LAST),
            storage=StorageType.FILE,
            persist_mode=PersistMode.ASYNC,
            max_msgs_per_subject=1,
            allow_direct=True,
        ),
        StreamConfig(
            name=Kept.CANDLES,
            subjects=kept(Kept.CANDLES),
            storage=StorageType.FILE,
            persist_mode=PersistMode.ASYNC,
            max_msgs_per_subject=CANDLES_KEPT,
            allow_direct=True,
        ),
        StreamConfig(
            name=Kept.AUDIT,
            subjects=kept(Kept.AUDIT),
            storage=StorageType.FILE,
            max_bytes=AUDIT_BYTES,
            allow_direct=True,
        ),
        _bucket(STATE_BUCKET, history=64),
        _bucket(SNAPSHOT_BUCKET, persist_mode=PersistMode.ASYNC),
        _bucket(LEASE_BUCKET, allow_msg_ttl=True),
    ]


def _bucket(name: str, history: int = 1, **more: object) -> StreamConfig:
    """A key-value bucket in the form that the NATS CLI knows as one."""
    return StreamConfig(
        name=f"KV_{name}",
        subjects=[f"$KV.{name}.>"],
        storage=StorageType.FILE,
        max_msgs_per_subject=history,
        allow_direct=True,
        allow_rollup_hdrs=True,
        deny_delete=True,
    ).evolve(**more)


async def provision(bus: NatsBus, clock: Clock, installation_id: str) -> None:
    """Bring the bus to the state that the services expect. Raises BusDown with one line when it refuses.

    `installation_id` names a new installation; one that is there keeps its own.
    """
    try:
        for config in streams():
            await _ensure_stream(bus.js, config)
        for identity, access in ACCESS.items():
            if access.ledger:
                await bus.js.add_consumer(
                    Kept.LEDGER,
                    ConsumerConfig(
                        durable_name=identity,
                        deliver_policy=DeliverPolicy.ALL,
                        ack_policy=AckPolicy.EXPLICIT,
                        ack_wait=30,
                        max_ack_pending=1000,
                    ),
                )
    except Error as error:
        raise BusDown(f"the bus cannot be provisioned: {error}") from None
    await _install(bus, clock, installation_id)


async def _ensure_stream(js: JetStreamContext, config: StreamConfig) -> None:
    try:
        await js.add_stream(config)
    except APIError:
        await js.update_stream(config)


async def _install(bus: NatsBus, clock: Clock, installation_id: str) -> None:
    """Make the installation once: first the trading state, then the id. A trading state that is missing later on,
    when the id is there, was lost, and the services treat it as halted."""
    if await bus.load(STATE_BUCKET, INSTALLATION_KEY) is not None:
        return
    now = clock.market()  # in a replay before all of it: a service takes the latest `at` for its time
    first = TradingState(
        id="trading-first", at=now, state=Trading.ACTIVE, reason="installation", who="provisioner", since=now
    )
    made = Installation(id=installation_id, at=now)
    for key, message in ((TRADING_KEY, first), (INSTALLATION_KEY, made)):
        try:
            await bus.store(STATE_BUCKET, key, msgspec.json.encode(message), 0)
        except Conflict:
            continue  # an earlier try got this far
