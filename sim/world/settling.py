"""Liveness: what is still unsettled after the faults have stopped, and whether all books then tell the same story."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, TypeVar

import msgspec

from libs.common.subjects import SERVICES, decode
from services.execution.core import ExecutionCore
from services.exporter.core import ExporterCore
from services.risk.core import RiskCore
from services.strategy.core import StrategyCore
from sim.world.facts import ZERO, currencies

C = TypeVar("C")
if TYPE_CHECKING:
    from sim.world.world import World


def unsettled(world: World) -> str:
    """Why the world has not come to rest; empty when it has."""
    return _lives(world) or _orders(world) or _venue(world) or _books(world)


def _lives(world: World) -> str:
    for service in SERVICES:
        lives = world.alive(service)
        if len(lives) != 1:
            return f"{len(lives)} instances of {service} run"
        shell = lives[0].shell
        if shell is None or (reason := shell.not_ready()):
            return f"{lives[0].loop.name} is not ready: {reason if shell else 'not connected'}"
    return "" if world.operator.done else "the operator waits for an answer"


def _orders(world: World) -> str:
    for key, order in world.facts.orders.items():
        if order.verdict is not None and not order.terminal:
            return f"order {key} is {order.status}"
        if any(not known.ended for known in order.venue.values()):
            return f"order {key} is open at the venue"
    return ""


def _venue(world: World) -> str:
    """Every fill of the venue is in the ledger, and its account is what the ledger says."""
    facts = world.facts
    if lost := facts.venue_fills.keys() - facts.fills.keys():
        return f"fill {min(lost)[:12]} of the venue is not in the ledger"
    changes = facts.changes(facts.last_sequence)
    for currency, total in world.exchange.ledger.totals.items():
        booked = facts.opening.get(currency, ZERO) + changes.get(currency, ZERO)
        if total != booked:
            return f"the venue has {total} {currency}, by the ledger it is {booked}"
    return ""


def _books(world: World) -> str:
    """The positions of all services are those of the ledger, and nothing is reserved."""
    true = {name: size for name, size in world.facts.position.items() if size}
    for service in ("risk", "strategy", "execution"):
        told = {name: size for name, size in _positions(world.alive(service)[0].core).items() if size}
        if told != true:
            return f"{service} holds {told}, by the ledger it is {true}"
    risk = _core(world, "risk", RiskCore)
    if risk.state.orders:
        return f"risk still has {next(iter(risk.state.orders))} open"
    if risk.state.drift is None or risk.state.drift:
        return f"risk has a drift of {risk.state.drift}"
    kept = _core(world, "exporter", ExporterCore).kept
    if sum(kept.verdicts.values()) != len(world.facts.answered):
        return f"the exporter counts {sum(kept.verdicts.values())} verdicts of {len(world.facts.answered)}"
    if sum(kept.fills.values()) != len(world.facts.fills):
        return f"the exporter counts {sum(kept.fills.values())} fills of {len(world.facts.fills)}"
    return ""


def _positions(core: object) -> dict[str, Decimal]:
    match core:
        case RiskCore():
            return {name: holding.quantity for name, holding in core.state.books.holdings.items()}
        case StrategyCore():
            return {name: desk.book.quantity for name, desk in core.desks.items()}
        case ExecutionCore():
            return dict(core.state.positions)
    return {}


def forgotten(world: World) -> str:
    """Risk as it is now against one that reads the whole ledger without any snapshot."""
    living = _core(world, "risk", RiskCore)
    fresh = RiskCore(world.configs.risk, world.products, world.configs.settings.market.quote_currency)
    for stored in world.server.messages("LEDGER"):
        message = decode(stored.subject, stored.data)
        fresh.reached(stored.sequence)
        fresh.on_message(message, message.at)
    for name in ("orders", "flows", "adjusted"):
        if getattr(living.state, name) != getattr(fresh.state, name):
            return f"risk's {name} are not those of the whole ledger"
    for product_id, holding in fresh.state.books.holdings.items():
        known = living.state.books.holdings.get(product_id)
        told = msgspec.structs.astuple(holding)[:5]
        if known is None or msgspec.structs.astuple(known)[:5] != told:
            return f"risk's books of {product_id} ({currencies(product_id)[0]}) are not those of the whole ledger"
    return ""


def _core(world: World, service: str, kind: type[C]) -> C:
    core = world.alive(service)[0].core
    assert isinstance(core, kind), f"{service} has a core of its own"
    return core
