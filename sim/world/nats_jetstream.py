"""What `nats.js` does for a client of `sim.world.nats_client`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import PubAck

from sim.world.nats_subscriptions import Holding
from sim.world.streams import Headers

if TYPE_CHECKING:
    from sim.world.nats_client import Client


class JetStream(JetStreamContext):
    """nats-py's own, but for what is asked often and what would read the real time."""

    def __init__(self, client: Client, timeout: float) -> None:
        super().__init__(cast(Any, client), timeout=timeout)
        self._client = client
        self._seconds = timeout

    async def publish(  # type: ignore[override]
        self, subject: str, payload: bytes = b"", *, headers: Headers = None
    ) -> PubAck:
        try:
            msg = await self._client.request(subject, payload, self._seconds, headers=headers)
        except nats.errors.NoRespondersError:
            raise nats.js.errors.NoStreamResponseError from None
        answer = msgspec.json.decode(msg.data)
        if "error" in answer:
            raise nats.js.errors.APIError.from_error(answer["error"])
        return PubAck(answer["stream"], answer["seq"], duplicate=answer.get("duplicate"))

    async def pull_subscribe_bind(  # type: ignore[override]
        self, consumer: str, stream: str
    ) -> Fetching:
        inbox = cast(Holding, await self._client.subscribe(self._client.new_inbox()))
        return Fetching(self._client, f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", inbox)


class Fetching:
    """See `nats.js.JetStreamContext.PullSubscription`."""

    def __init__(self, client: Client, subject: str, inbox: Holding) -> None:
        self._client = client
        self._subject = subject
        self._inbox = inbox

    async def fetch(self, batch: int, timeout: float) -> list[Msg]:
        """One message. What came for an earlier request that was given up is taken first, but for its end."""
        held = self._inbox.held
        while held:
            msg = held.popleft()
            if not _status(msg):
                return [msg]
        expires = int(timeout * 1e9) - 100_000
        await self._client.publish(self._subject, b'{"batch":1,"expires":%d}' % expires, self._inbox.subject)
        msg = await self._inbox.next_msg(timeout)
        if status := _status(msg):
            if status in ("404", "408", "409"):
                raise nats.errors.TimeoutError
            nats.js.errors.APIError.from_msg(msg)
        return [msg]


def _status(msg: Msg) -> str | None:
    return msg.headers.get("Status") if msg.headers else None
