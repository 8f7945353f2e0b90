"""Execution's surroundings: performs the core's questions as tasks and hands the answers back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

import msgspec

from libs.common import messages as m
from libs.common.bus import Bus
from libs.common.clock import Clock, Tasks
from libs.common.errors import Conflict, OutcomeUnknown, Rejected, Retryable
from libs.common.messages import OrderStatus
from libs.common.shell import Inputs, Shell, trading_state
from libs.common.subjects import OPENING_KEY, STATE_BUCKET, TRADING_KEY
from services.execution import inputs as i
from services.execution.config import ExecutionConfig
from services.execution.core import ExecutionCore
from services.execution.metrics import ExecutionMetrics
from services.execution.orders import Order
from services.execution.permission import live_entries, overtaken, refusal
from services.execution.rounds import Rounds
from services.execution.sweep import Sweep
from services.execution.venue import NO_ANSWER, Venue

log = logging.getLogger(__name__)
WATCH_SECONDS = 1
CANCEL_ALL_SECONDS = 8  # a request over the bus is given up after ten
RECONCILE_GAP_SECONDS = 5  # another bot that trades on the account must not make us list it all the time


class Token:
    """When the token of the request that was sent last dies, by our wall clock."""

    def __init__(self, expires_at: datetime) -> None:
        self.expires_at = expires_at


class ExecutionApp:
    """Bus, clock, venue and task runner are handed in; the simulation brings its own."""

    def __init__(
        self,
        profile: str,
        core: ExecutionCore,
        config: ExecutionConfig,
        *,
        bus: Bus,
        clock: Clock,
        tasks: Tasks,
        venue: Venue,
        metrics: ExecutionMetrics,
    ) -> None:
        self._core = core
        self._config = config
        self._bus = bus
        self._clock = clock
        self._tasks = tasks
        self._venue = venue
        self._metrics = metrics
        inputs = Inputs(kinds=(m.Product,), ledger=True, trading=True)
        self.shell = Shell(
            "execution",
            profile,
            core,
            inputs,
            bus=bus,
            clock=clock,
            tasks=tasks,
            metrics=metrics,
            perform=self._perform,
            before_recovery=self._alone,
        )
        self._account = Rounds("account", tasks, self._read_account, 0)
        self._listing = Rounds("listing", tasks, self._read_listing, RECONCILE_GAP_SECONDS)
        self._reconcile: i.Reconcile | None = None
        self._told_permissions: m.Permissions | None = None
        self._unstored: dict[str, str] = {}  # venue ids of orders whose ACCEPTED may not be on the ledger yet

    async def _alone(self) -> None:
        """Only one execution acts: wait for the lease. Orders of the one before us were signed before now."""
        await self._bus.hold_lease("execution")
        await self._bus.serve("cancel-all", self.cancel_all)  # it needs nothing of what is read from here on
        self._core.on_message(i.Starting(id="starting", wall=self._clock.wall()), self._clock.market())
        self._tasks.spawn(self._follow_user_channel(), "user channel")
        self._tasks.spawn(self._every(self._config.account_seconds, i.AccountDue(id="account")), "account due")
        self._tasks.spawn(self._every(self._config.reconcile_seconds, i.ReconcileDue(id="due")), "reconciliation due")
        self._tasks.spawn(self._watch_bus(), "bus watch")

    async def _perform(self, effect: m.Message) -> list[m.Message]:
        match effect:
            case i.Place():
                if effect.delay_seconds:
                    self._tasks.spawn(self._place_later(effect), effect.id)
                    return []
                return await self._place(effect)
            case i.Find():
                self._tasks.spawn(self._find(effect), effect.id)
            case i.Query():
                self._tasks.spawn(self._query(effect), effect.id)
            case i.Cancel():
                self._tasks.spawn(self._cancel_one(effect), effect.id)
            case i.Edit():
                return await self._edit(effect)
            case i.Reconcile():
                self._reconcile = effect
                self._listing.ask()
            case i.FetchAccount():
                self._account.ask()
            case i.StoreOpening():
                return [await self._store_opening(effect)]
            case _:
                raise AssertionError(f"no one performs {type(effect).__name__}")
        return []

    # -- placing and editing

    async def _refusal(self, request: i.Place | i.Edit) -> str:
        """The trading state as it is stored, looked at once more before anything leaves."""
        entry = await self._bus.load(STATE_BUCKET, TRADING_KEY)
        trading = trading_state(entry, self._clock.market())
        return refusal(request, trading, self._clock.market()) or ""

    async def _place(self, place: i.Place) -> list[m.Message]:
        key = place.order.client_order_id
        if reason := await self._refusal(place):
            return [i.PlaceRefused(id=place.id, client_order_id=key, status=OrderStatus.DENIED, reason=reason)]
        self._tasks.spawn(self._post(place), place.id)
        return []

    async def _place_later(self, place: i.Place) -> None:
        await self._tasks.sleep(place.delay_seconds)
        for answer in await self._place(place):
            self.shell.post(answer)

    async def _post(self, place: i.Place) -> None:
        key, token = place.order.client_order_id, Token(self._clock.wall())
        began = self._clock.monotonic()
        answer: m.Message
        try:
            venue_order_id = await self._venue.place(place.order, self._gate(place, token))
            self._unstored[key] = venue_order_id
            answer = i.Placed(id=place.id, client_order_id=key, venue_order_id=venue_order_id)
        except Retryable as error:
            answer = i.PlaceNotSent(id=place.id, client_order_id=key, why=str(error))
        except Rejected as error:
            answer = i.PlaceRefused(id=place.id, client_order_id=key, status=OrderStatus.REJECTED, reason=error.reason)
        except OutcomeUnknown as error:
            answer = i.PlaceUnknown(id=place.id, client_order_id=key, why=str(error), token_expires_at=token.expires_at)
        self._metrics.submit_seconds.observe(self._clock.monotonic() - began)
        self._answered(answer)

    async def _edit(self, edit: i.Edit) -> list[m.Message]:
        if reason := await self._refusal(edit):
            key = edit.wanted.client_order_id
            return [i.EditRefused(id=edit.id, client_order_id=key, edit_id=edit.edit_id, reason=reason)]
        self._tasks.spawn(self._post_edit(edit), edit.id)
        return []

    async def _post_edit(self, edit: i.Edit) -> None:
        key, token = edit.wanted.client_order_id, Token(self._clock.wall())
        answer: m.Message
        try:
            await self._venue.edit(edit.venue_order_id, edit.wanted, self._gate(edit, token))
            answer = i.Edited(id=edit.id, client_order_id=key, edit_id=edit.edit_id)
        except Retryable:
            reason = m.Reason.VENUE_UNREACHABLE
            answer = i.EditRefused(id=edit.id, client_order_id=key, edit_id=edit.edit_id, reason=reason)
        except Rejected as error:
            answer = i.EditRefused(id=edit.id, client_order_id=key, edit_id=edit.edit_id, reason=error.reason)
        except OutcomeUnknown as error:
            answer = i.EditUnknown(
                id=edit.id,
                client_order_id=key,
                edit_id=edit.edit_id,
                why=str(error),
                token_expires_at=token.expires_at,
            )
        self._answered(answer)

    def _gate(self, request: i.Place | i.Edit, token: Token) -> Callable[[datetime], None]:
        """Asked right before a request leaves, which may be some time after it was allowed."""

        def signed(expires_at: datetime) -> None:
            if not self._bus.holds_lease:
                raise Retryable("the lease may be another process's by now")
            if overtaken(request, self.shell.trading, self._clock.market()):
                raise Retryable("the approval was overtaken while the request waited for its turn")
            token.expires_at = expires_at

        return signed

    # -- asking

    async def _find(self, find: i.Find) -> None:
        await self._tasks.sleep(find.delay_seconds)
        asked_at = self._clock.wall()
        key = find.client_order_id
        try:
            order = await self._venue.find(key, find.product_id, find.start)
        except NO_ANSWER as error:
            self._answered(i.AskFailed(id=find.id, client_order_id=key, why=str(error)))
            return
        if order is None:
            self._answered(i.NotFound(id=find.id, client_order_id=key, asked_at=asked_at))
        else:
            self._answered(i.Found(id=find.id, client_order_id=key, order=order))

    async def _query(self, query: i.Query) -> None:
        await self._tasks.sleep(query.delay_seconds)
        asked_at = self._clock.wall()
        key = query.client_order_id
        try:
            order, fills = await self._venue.order(query.venue_order_id)
        except NO_ANSWER as error:
            self._answered(i.AskFailed(id=query.id, client_order_id=key, why=str(error)))
            return
        seen = i.OrderSeen(id=query.id, client_order_id=key, order=order, fills=tuple(fills), asked_at=asked_at)
        self._answered(seen)

    async def _cancel(self, venue_order_ids: list[str]) -> set[str]:
        """Those that the venue took. Whether an order is gone, only its own state says."""
        try:
            refusals = await self._ask_to_cancel(venue_order_ids)
        except NO_ANSWER as error:
            log.error("cancel failed: %s", error, extra={"event": "venue.cancel"})
            return set()
        for venue_order_id, reason in refusals.items():
            log.warning("%s not canceled: %s", venue_order_id, reason, extra={"event": "venue.cancel"})
        return set(venue_order_ids) - refusals.keys()

    async def _ask_to_cancel(self, venue_order_ids: list[str]) -> dict[str, str]:
        """The venue's refusals. Raises NO_ANSWER."""
        count = self._metrics.cancellations.labels
        try:
            refusals = await self._venue.cancel(venue_order_ids)
        except NO_ANSWER:
            self.shell.error("cancel")
            count("no_answer").inc(len(venue_order_ids))
            raise
        self.shell.last_venue_at = self._clock.wall()
        count("refused").inc(len(refusals))
        count("taken").inc(len(venue_order_ids) - len(refusals))
        return refusals

    async def _read_account(self) -> bool:
        epoch, sequence = self._core.epoch, self.shell.applied
        parts = await self._venue.account()
        self._warn(parts)
        if parts.balances is None:
            return False
        resting = await self._resting()
        seen = i.AccountSeen(id="account", epoch=epoch, ledger_sequence=sequence, parts=parts, resting=resting)
        self._answered(seen)
        return True

    async def _resting(self) -> dict[str, Decimal | None]:
        """What the venue counts as filled of the open orders; nothing where it does not say."""
        if not self._core.rests:
            return {}
        try:
            listing = await self._venue.listing(self._clock.market())
        except NO_ANSWER as error:
            log.warning("open orders not listed: %s", error, extra={"event": "venue.listing"})
            return {}
        return {order.client_order_id: order.filled_qty for order in listing.orders}

    def _warn(self, parts: i.AccountParts) -> None:
        for part, why in parts.unavailable.items():
            log.warning("account: %s not read: %s", part, why, extra={"event": "venue.account"})
            self.shell.error("account")
        key = parts.permissions
        if key is None or key == self._told_permissions:
            return
        self._told_permissions = key
        if not key.can_trade:
            log.critical("the key may not trade", extra={"event": "venue.key"})
        if key.can_transfer:
            log.warning("the key may move money away: use one that may only trade", extra={"event": "venue.key"})

    async def _read_listing(self) -> bool:
        wanted = self._reconcile
        assert wanted is not None, "a round is asked for with what it is to list"
        try:
            listing = await self._venue.listing(wanted.since)
        except NO_ANSWER as error:
            log.warning("orders and fills not listed: %s", error, extra={"event": "venue.listing"})
            self.shell.error("listing")
            return False
        self._answered(i.Reconciled(id=wanted.id, listing=listing, until=wanted.until))
        return True

    async def _cancel_one(self, cancel: i.Cancel) -> None:
        await self._cancel([cancel.venue_order_id])

    async def _store_opening(self, effect: i.StoreOpening) -> m.Message:
        made = m.Installation(id=effect.id, opening=effect.opening)
        try:
            await self._bus.store(STATE_BUCKET, OPENING_KEY, msgspec.json.encode(made), 0)
            return made
        except Conflict:
            entry = await self._bus.load(STATE_BUCKET, OPENING_KEY)
            if entry is None:
                raise
            return m.read(entry.value, m.Installation)

    def _answered(self, answer: m.Message) -> None:
        if isinstance(answer, i.AskFailed | i.PlaceNotSent | i.PlaceUnknown | i.EditUnknown):
            self.shell.error(type(answer).__name__)
            log.warning("%s", answer.why, extra={"event": "venue.no_answer", "client_order_id": answer.client_order_id})
        else:
            self.shell.last_venue_at = self._clock.wall()
        self.shell.post(answer)

    # -- the operator

    async def cancel_all(self, body: m.Command) -> m.Reply:
        """Take every open order of ours off the venue, whatever the trading state is and whoever else is down. Nothing
        is kept from being placed afterwards: that is what a halt is for."""
        if not body.reason.strip():
            reply = m.Reply(ok=False, detail="a reason is required")
        elif not self._bus.holds_lease:
            reply = m.Reply(ok=False, detail="this process does not hold the lease: another execution may be at work")
        else:
            reply = await self._sweep()
        level = logging.WARNING if reply.ok else logging.ERROR
        event = {"event": "execution.cancel_all", "who": body.who, "reason": body.reason}
        log.log(level, "cancel-all: %s", reply.detail, extra=event)
        await self._bus.publish(
            m.Audit(
                id=m.derive_id("audit", "cancel-all", body.who, self._clock.wall()),
                producer="execution",
                at=self._clock.market(),
                command="cancel-all",
                who=body.who,
                reason=body.reason,
                ok=reply.ok,
                result=reply.detail,
            )
        )
        return reply

    async def _sweep(self) -> m.Reply:
        sweep = Sweep(self._venue, self._ask_to_cancel, lambda: self._core.state.orders.values(), self._tasks.sleep)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_ALL_SECONDS):
                await sweep.run()
        self.shell.post(i.ReconcileDue(id="cancel-all"))  # the books learn of it now, not at the next look
        return sweep.reply()

    # -- for ever

    async def _follow_user_channel(self) -> None:
        async for order in self._venue.user_updates():
            self.shell.last_venue_at = self._clock.wall()
            if order is None:
                self.shell.post(i.UserReconnected(id="user channel"))
            else:
                self.shell.post(i.UserUpdate(id="user channel", order=order))

    async def _every(self, seconds: float, message: m.Message) -> None:
        while True:
            await self._tasks.sleep(seconds)
            self.shell.post(message)

    async def _watch_bus(self) -> None:
        """With the bus gone for long nobody can halt us: take resting entries off the venue, until the venue has said
        yes. Gone is also a bus that lives and stores nothing: then the lease runs out."""
        lost_since: float | None = None
        canceled: set[str] = set()
        while True:
            await self._tasks.sleep(WATCH_SECONDS)
            for key in [key for key in self._unstored if self._stored(key)]:
                del self._unstored[key]
            if self._bus.connected and self._bus.holds_lease:
                lost_since, canceled = None, set()
                continue
            lost_since = lost_since or self._clock.monotonic()
            if self._clock.monotonic() - lost_since < self._config.bus_lost_cancel_seconds:
                continue
            wanted = (
                {self._venue_id(order) for order in live_entries(self._core.state.orders.values())} - canceled - {""}
            )
            if wanted:
                canceled |= await self._cancel(sorted(wanted))

    def _stored(self, key: str) -> bool:
        order = self._core.state.orders.get(key)
        return order is None or bool(order.venue_order_id) or order.terminal

    def _venue_id(self, order: Order) -> str:
        return order.venue_order_id or self._unstored.get(order.order.client_order_id, "")
