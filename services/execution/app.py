"""Execution's surroundings: performs the core's questions as tasks and hands the answers back."""

from __future__ import annotations

import logging
from datetime import datetime

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
from services.execution.venue import Venue

log = logging.getLogger(__name__)
ACCOUNT_RETRY_SECONDS = 1
WATCH_SECONDS = 1


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
        self._account_asked = False
        self._account_running = False
        self._unstored: dict[str, str] = {}  # venue ids of orders whose ACCEPTED may not be on the ledger yet

    async def _alone(self) -> None:
        """Only one execution acts: wait for the lease. Orders of the one before us were signed before now."""
        await self._bus.hold_lease("execution")
        self._core.on_message(i.Starting(id="starting", wall=self._clock.wall()), self._clock.market())
        self._tasks.spawn(self._follow_user_channel(), "user channel")
        self._tasks.spawn(self._keep_account(), "account")
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
            case i.FetchAccount():
                self._account_asked = True
                if not self._account_running:
                    self._account_running = True
                    self._tasks.spawn(self._account(), effect.id)
            case i.StoreOpening():
                return [await self._store_opening(effect)]
            case _:
                raise AssertionError(f"no one performs {type(effect).__name__}")
        return []

    # -- placing

    async def _place(self, place: i.Place) -> list[m.Message]:
        """Look at the stored trading state once more, then let go of the order."""
        entry = await self._bus.load(STATE_BUCKET, TRADING_KEY)
        trading = trading_state(entry, self._clock.market())
        reason = self._core.refusal(place, trading, self._clock.market())
        key = place.order.client_order_id
        if reason is not None:
            return [i.PlaceRefused(id=place.id, client_order_id=key, status=OrderStatus.DENIED, reason=str(reason))]
        self._tasks.spawn(self._post(place), place.id)
        return []

    async def _place_later(self, place: i.Place) -> None:
        await self._tasks.sleep(place.delay_seconds)
        for answer in await self._place(place):
            self.shell.post(answer)

    async def _post(self, place: i.Place) -> None:
        key = place.order.client_order_id
        expiry = self._clock.wall()

        def signed(expires_at: datetime) -> None:
            nonlocal expiry
            if not self._bus.holds_lease:
                raise Retryable("the lease may be another process's by now")
            expiry = expires_at

        began = self._clock.monotonic()
        answer: m.Message
        try:
            venue_order_id = await self._venue.place(place.order, signed)
            self._unstored[key] = venue_order_id
            answer = i.Placed(id=place.id, client_order_id=key, venue_order_id=venue_order_id)
        except Retryable as error:
            answer = i.PlaceNotSent(id=place.id, client_order_id=key, why=str(error))
        except Rejected as error:
            answer = i.PlaceRefused(id=place.id, client_order_id=key, status=OrderStatus.REJECTED, reason=error.reason)
        except OutcomeUnknown as error:
            answer = i.PlaceUnknown(id=place.id, client_order_id=key, why=str(error), token_expires_at=expiry)
        self._metrics.submit_seconds.observe(self._clock.monotonic() - began)
        self._answered(answer)

    # -- asking

    async def _find(self, find: i.Find) -> None:
        await self._tasks.sleep(find.delay_seconds)
        asked_at = self._clock.wall()
        key = find.client_order_id
        try:
            order = await self._venue.find(key, find.product_id, find.start)
        except (Retryable, Rejected, OutcomeUnknown) as error:
            self._answered(i.AskFailed(id=find.id, client_order_id=key, why=str(error)))
            return
        if order is None:
            self._answered(i.NotFound(id=find.id, client_order_id=key, asked_at=asked_at))
        else:
            self._answered(i.Found(id=find.id, client_order_id=key, order=order))

    async def _query(self, query: i.Query) -> None:
        await self._tasks.sleep(query.delay_seconds)
        key = query.client_order_id
        try:
            order, fills = await self._venue.order(query.venue_order_id)
        except (Retryable, Rejected, OutcomeUnknown) as error:
            self._answered(i.AskFailed(id=query.id, client_order_id=key, why=str(error)))
            return
        self._answered(i.OrderSeen(id=query.id, client_order_id=key, order=order, fills=tuple(fills)))

    async def _cancel(self, venue_order_ids: list[str]) -> bool:
        """True when the venue took the request. Whether an order is gone, only its own state says."""
        try:
            await self._venue.cancel(venue_order_ids)
            self.shell.last_venue_at = self._clock.wall()
            return True
        except (Retryable, Rejected, OutcomeUnknown) as error:
            log.error("cancel failed: %s", error, extra={"event": "venue.cancel"})
            self.shell.error("cancel")
            return False

    async def _account(self) -> None:
        """One reader at a time; whatever asks meanwhile is served by its next round."""
        while self._account_asked:
            self._account_asked = False
            epoch, sequence = self._core.epoch, self.shell.applied
            try:
                balances, taker, maker = await self._venue.account()
            except (Retryable, Rejected, OutcomeUnknown) as error:
                log.warning("account not read: %s", error, extra={"event": "venue.account"})
                self.shell.error("account")
                self._account_asked = True
                await self._tasks.sleep(ACCOUNT_RETRY_SECONDS)
                continue
            self._answered(
                i.AccountSeen(
                    id="account",
                    epoch=epoch,
                    ledger_sequence=sequence,
                    balances=balances,
                    taker_fee_rate=taker,
                    maker_fee_rate=maker,
                )
            )
        self._account_running = False

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
            return msgspec.json.decode(entry.value, type=m.Installation)

    def _answered(self, answer: m.Message) -> None:
        if isinstance(answer, i.AskFailed | i.PlaceNotSent | i.PlaceUnknown):
            self.shell.error(type(answer).__name__)
            log.warning("%s", answer.why, extra={"event": "venue.no_answer", "client_order_id": answer.client_order_id})
        else:
            self.shell.last_venue_at = self._clock.wall()
        self.shell.post(answer)

    # -- for ever

    async def _follow_user_channel(self) -> None:
        async for order in self._venue.user_updates():
            self.shell.last_venue_at = self._clock.wall()
            if order is None:
                self.shell.post(i.UserReconnected(id="user channel"))
            else:
                self.shell.post(i.UserUpdate(id="user channel", order=order))

    async def _keep_account(self) -> None:
        while True:
            await self._tasks.sleep(self._config.account_seconds)
            self.shell.post(i.AccountDue(id="account"))

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
            wanted = {self._venue_id(order) for order in self._core.live_entries()} - canceled - {""}
            if wanted and await self._cancel(sorted(wanted)):
                canceled |= wanted

    def _stored(self, key: str) -> bool:
        order = self._core.state.orders.get(key)
        return order is None or bool(order.venue_order_id) or order.terminal

    def _venue_id(self, order: Order) -> str:
        return order.venue_order_id or self._unstored.get(order.order.client_order_id, "")
