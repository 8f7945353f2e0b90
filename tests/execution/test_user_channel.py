"""The user channel over real sockets, and the numbering of its frames."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import WSMsgType, web

from libs.common.errors import OutcomeUnknown, Rejected
from services.execution.inputs import VenueOrder
from services.execution.user_channel import FAILOVER_AFTER, Feed, UserChannel
from tests.execution.fake_venue import listening
from tests.ports import free_port

ORDER = {"order_id": "v1", "client_order_id": "c1", "product_id": "BTC-USD", "order_side": "BUY", "status": "OPEN"}


def user(number: int, *ids: str, kind: str = "update") -> str:
    orders = [{**ORDER, "client_order_id": key} for key in ids]
    return json.dumps({"channel": "user", "sequence_num": number, "events": [{"type": kind, "orders": orders}]})


def heartbeat(number: int) -> str:
    return json.dumps({"channel": "heartbeats", "sequence_num": number, "events": [{"heartbeat_counter": 1}]})


def shown(updates: list[VenueOrder | None]) -> list[str | None]:
    return [None if update is None else update.client_order_id for update in updates]


# -- the frames of one connection


class Frames:
    def __init__(self) -> None:
        self.counted: list[str] = []
        self.feed = Feed(100.0, 5.0, self.counted.append)

    def take(self, *frames: str, now: float = 100.0) -> list[str | None]:
        return shown([update for frame in frames for update in self.feed.take(frame, now)])


def test_a_subscription_is_told_once_and_then_each_order() -> None:
    frames = Frames()
    assert frames.take(heartbeat(0), user(1, "a", kind="snapshot"), user(2), user(3, "b", "c")) == [None, "a", "b", "c"]
    assert frames.counted == []


@pytest.mark.parametrize(
    ("numbers", "gaps"),
    [([0, 1, 2], 0), ([0, 2, 3], 1), ([0, 1, 1, 2], 1), ([0, 2, 1, 3], 2), ([0, 5, 6, 9], 2)],
    ids=["in order", "lost", "repeated", "swapped", "lost twice"],
)
def test_a_number_out_of_turn_says_that_something_may_have_been_missed(numbers: list[int], gaps: int) -> None:
    frames = Frames()
    taken = frames.take(*(user(number, "a") for number in numbers))
    assert taken.count("a") == len(numbers)
    assert taken.count(None) == 1 + gaps
    assert frames.counted == ["user_channel_gap"] * gaps


def test_a_gap_between_heartbeats_counts_too_since_all_channels_share_the_numbers() -> None:
    frames = Frames()
    assert frames.take(user(0, "a"), heartbeat(1), heartbeat(3)) == [None, "a", None]


def test_frames_without_a_number_are_no_gap() -> None:
    frames = Frames()
    assert frames.take(user(0), '{"type":"news"}', user(1, "a")) == [None, "a"]


def test_heartbeats_alone_are_no_subscription() -> None:
    frames = Frames()
    assert frames.take(heartbeat(0), heartbeat(1), now=105.0) == []
    with pytest.raises(OutcomeUnknown, match="does not confirm"):
        frames.take(heartbeat(2), now=105.1)
    confirmed = Frames()
    assert confirmed.take(user(0), heartbeat(1), now=999.0) == [None]


def test_an_error_frame_ends_the_connection() -> None:
    with pytest.raises(Rejected, match="authentication failure"):
        Frames().take('{"type":"error","message":"authentication failure"}')


# -- connections

Dialogue = Callable[[web.WebSocketResponse], Awaitable[None]]


class Script:
    """One dialogue per connection, the last one again and again; and the subscriptions that came."""

    def __init__(self, *dialogues: Dialogue) -> None:
        self.dialogues = list(dialogues)
        self.subscribed: list[list[dict[str, str]]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.subscribed.append([json.loads((await socket.receive()).data) for _ in range(2)])
        await (self.dialogues.pop(0) if len(self.dialogues) > 1 else self.dialogues[0])(socket)
        while (await socket.receive()).type is WSMsgType.TEXT:
            pass
        return socket


def says(*frames: str) -> Dialogue:
    async def dialogue(socket: web.WebSocketResponse) -> None:
        for frame in frames:
            await socket.send_str(frame)

    return dialogue


async def hangs_up(socket: web.WebSocketResponse) -> None:
    await socket.close()


class Watch:
    """A channel, its updates so far and what it counted."""

    def __init__(self, *addresses: str) -> None:
        self.counted: list[str] = []
        self.refused = 0
        self.tokens = 0
        self.channel = UserChannel(
            [address.replace("http", "ws") for address in addresses],
            self.token,
            self.on_refused,
            self.counted.append,
            silence_seconds=0.3,
            chance=lambda: 0.0,
        )

    async def token(self) -> str:
        self.tokens += 1
        return f"token {self.tokens}"

    async def on_refused(self) -> None:
        self.refused += 1

    async def until(self, key: str) -> list[str | None]:
        """All updates up to an order's."""
        found: list[VenueOrder | None] = []
        async with asyncio.timeout(20), contextlib.aclosing(self.channel.updates()) as updates:
            async for update in updates:
                found.append(update)
                if update is not None and update.client_order_id == key:
                    break
        return shown(found)


async def test_it_comes_back_after_garbage_an_error_frame_a_closed_socket_and_silence() -> None:
    error = '{"type":"error","message":"authentication failure"}'
    script = Script(
        says(user(0), "garbage"),
        says(error),
        hangs_up,
        says(user(0, "old"), heartbeat(1)),
        says(user(0), user(1, "c1")),
    )
    async with listening(script.handle) as url:
        watch = Watch(url)
        assert await watch.until("c1") == [None, None, "old", None, "c1"]
    assert watch.counted == ["user_channel_lost"] * 4
    assert watch.refused == 1  # the clock may be why the venue does not believe a token


async def test_each_subscription_has_a_message_and_a_token_of_its_own_which_no_log_shows(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    script = Script(hangs_up, says(user(0, "c1")))
    async with listening(script.handle) as url:
        await Watch(url).until("c1")
    assert "token 1" not in caplog.text
    assert script.subscribed == [
        [
            {"type": "subscribe", "channel": "heartbeats", "jwt": f"token {2 * connection + 1}"},
            {"type": "subscribe", "channel": "user", "jwt": f"token {2 * connection + 2}"},
        ]
        for connection in range(2)
    ]


async def test_it_goes_on_at_the_market_endpoint_when_its_own_cannot_be_reached_repeatedly() -> None:
    market = Script(says(user(0, "c1")))
    async with listening(market.handle) as url:
        watch = Watch(f"http://127.0.0.1:{free_port()}", url)
        assert await watch.until("c1") == [None, "c1"]
    assert watch.counted == ["user_channel_lost"] * FAILOVER_AFTER


async def test_it_goes_on_at_the_market_endpoint_when_its_own_tells_heartbeats_and_nothing_else() -> None:
    async def beats(socket: web.WebSocketResponse) -> None:
        with contextlib.suppress(ConnectionError):
            for number in range(9):
                await socket.send_str(heartbeat(number))
                await asyncio.sleep(0.05)

    deaf, market = Script(beats), Script(says(user(0, "c1")))
    async with listening(deaf.handle) as own, listening(market.handle) as other:
        assert await Watch(own, other).until("c1") == [None, "c1"]
    assert len(deaf.subscribed) == FAILOVER_AFTER


async def test_it_returns_to_its_own_endpoint_once_the_other_is_lost_too() -> None:
    async def works_then_ends(socket: web.WebSocketResponse) -> None:
        await socket.send_str(user(0, "other"))
        await socket.close()

    own, market = Script(hangs_up, hangs_up, hangs_up, says(user(0, "own"))), Script(works_then_ends)
    async with listening(own.handle) as address, listening(market.handle) as other:
        assert await Watch(address, other).until("own") == [None, "other", None, "own"]
    assert (len(own.subscribed), len(market.subscribed)) == (4, 1)


async def test_a_half_open_socket_does_not_hold_up_the_next_connection() -> None:
    async def half_open(socket: web.WebSocketResponse) -> None:
        """Says a word, and from then on neither reads nor writes, so that it does not answer a close either."""
        await socket.send_str(user(0))
        await asyncio.Event().wait()

    script = Script(half_open, says(user(0, "c1")))
    async with listening(script.handle) as url:
        watch = Watch(url)
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await watch.until("c1") == [None, None, "c1"]
        assert loop.time() - began < 3
