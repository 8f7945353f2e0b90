"""Who may do what on the bus: one table, from which the server's configuration is made.

Every service has its own nkey and the least it needs: risk alone publishes verdicts and writes the trading state,
execution alone orders and fills, the exporter nothing on the trading path. Nobody but the provisioner creates streams
or consumers (a consumer's deliver subject would be a way round the table).
"""

from __future__ import annotations

from pathlib import Path

import nkeys
from msgspec import Struct

from libs.common.messages import (
    Account,
    Adjustment,
    Audit,
    Baseline,
    Candle,
    Decision,
    FeedState,
    Fill,
    Mark,
    Message,
    OrderEvent,
    Product,
    RiskFigures,
    ServiceStatus,
    Signal,
    Tooling,
    TradingState,
    Verdict,
)
from libs.common.subjects import (
    BY_TYPE,
    LEASE_BUCKET,
    OPENING_KEY,
    ROUTES,
    SNAPSHOT_BUCKET,
    STATE_BUCKET,
    TRADING_KEY,
    Kept,
)

PROVISIONER = "provisioner"
OPERATOR = "operator"


class Access(Struct, frozen=True):
    """What one identity publishes and reads; `ledger` = has a durable consumer on it."""

    publishes: tuple[type[Message], ...]
    reads: tuple[type[Message], ...]
    ledger: bool = False
    keys: tuple[str, ...] = ()  # key-value subjects that it may write


def _key(bucket: str, key: str) -> str:
    return f"$KV.{bucket}.{key}"


ACCESS = {
    "marketdata": Access((Mark, Candle, FeedState, Product), ()),
    "strategy": Access((Signal, Decision), (Mark, Candle), ledger=True),
    "risk": Access(
        (Verdict, Baseline, Adjustment, TradingState, RiskFigures, Audit),
        (Signal, Mark, FeedState, Product, Account),
        ledger=True,
        keys=(_key(STATE_BUCKET, TRADING_KEY),),
    ),
    "execution": Access(
        (OrderEvent, Fill, Account, Audit),
        (Product,),
        ledger=True,
        keys=(_key(STATE_BUCKET, OPENING_KEY), _key(LEASE_BUCKET, "execution")),
    ),
    "exporter": Access(
        (),
        (
            Mark,
            FeedState,
            Decision,
            Signal,
            Account,
            RiskFigures,
            ServiceStatus,
            Tooling,
        ),
        ledger=True,
    ),
    OPERATOR: Access((Tooling,), tuple(route.type for route in ROUTES)),
}


def publish_subjects(identity: str) -> list[str]:
    """Every subject that this identity may publish on."""
    access = ACCESS[identity]
    subjects = [BY_TYPE[kind].wildcard for kind in access.publishes] + list(access.keys)
    subjects += [f"$JS.API.DIRECT.GET.{stream}" for stream in streams_read(access)]
    if identity == OPERATOR:
        return [*subjects, "perps.control.>", "$SRV.>", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.NAMES"]
    subjects += [BY_TYPE[ServiceStatus].subject.format(service=identity)]
    subjects += [_key(SNAPSHOT_BUCKET, identity), _key(SNAPSHOT_BUCKET, f"{identity}-life")]
    if access.ledger:
        subjects += [
            f"$JS.API.CONSUMER.MSG.NEXT.{Kept.LEDGER}.{identity}",
            f"$JS.API.CONSUMER.INFO.{Kept.LEDGER}.{identity}",
            f"$JS.ACK.{Kept.LEDGER}.{identity}.>",
        ]
    return subjects


def subscribe_subjects(identity: str) -> list[str]:
    """Every subject that this identity may subscribe to."""
    access = ACCESS[identity]
    subjects = [f"_INBOX_{identity}.>", *(BY_TYPE[kind].wildcard for kind in access.reads)]
    if identity != OPERATOR:
        subjects += ["$SRV.>", f"perps.control.{identity}.*", _key(STATE_BUCKET, TRADING_KEY)]
    return subjects


def streams_read(access: Access) -> list[str]:
    kept = {str(BY_TYPE[kind].kept) for kind in access.reads} & {str(k) for k in Kept if k is not Kept.NOWHERE}
    return sorted(kept | {str(Kept.LEDGER)} | {f"KV_{bucket}" for bucket in (STATE_BUCKET, SNAPSHOT_BUCKET)})


def make_identities(folder: Path) -> dict[str, str]:
    """Public keys by identity; makes the seeds (0600) that are missing. A seed never leaves its file."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return {name: _public_key(folder / f"{name}.nk") for name in (*ACCESS, PROVISIONER)}


def _public_key(path: Path) -> str:
    if not path.exists():
        import secrets

        path.touch(mode=0o600)
        path.write_bytes(nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER))
    return str(nkeys.from_seed(bytearray(path.read_bytes().strip())).public_key.decode())


def server_config(public_keys: dict[str, str], port: int, monitor_port: int, store: Path) -> str:
    """Configuration of the embedded server. Durable streams are synced before they acknowledge."""
    users = [f"      {{ nkey: {public_keys[PROVISIONER]} }}"]
    for identity in ACCESS:
        publish, subscribe = publish_subjects(identity), subscribe_subjects(identity)
        users.append(
            f"      {{ nkey: {public_keys[identity]}, permissions: {{\n"
            f"          publish: {{ allow: [{_quoted(publish)}] }}\n"
            f"          subscribe: {{ allow: [{_quoted(subscribe)}] }}\n"
            '          allow_responses: { max: 16, expires: "10s" } } }'
        )
    return "\n".join(
        [
            f'listen: "127.0.0.1:{port}"',
            f'http: "127.0.0.1:{monitor_port}"',
            "server_name: perps-bot",
            "max_payload: 8MB",
            'ping_interval: "2s"',
            "ping_max: 3",
            f'jetstream {{ store_dir: "{store}", sync_interval: always, max_mem: 256MB, max_file: 20GB }}',
            "accounts { BOT { jetstream: enabled, users: [",
            ",\n".join(users),
            "] } }",
            "",
        ]
    )


def _quoted(subjects: list[str]) -> str:
    return ", ".join(f'"{subject}"' for subject in subjects)
