"""Attempts, clocks, tokens and rates of the signed requests, over real sockets."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import jwt
import pytest
from aiohttp import web

from libs.common.clock import SystemClock
from libs.common.errors import OutcomeUnknown, Rejected, Retryable
from services.execution.rest import ATTEMPTS
from tests.execution.fake_venue import (
    CREATED,
    KEY,
    ORDER,
    Handler,
    answering,
    client,
    hangs,
    place,
    resets,
    venue_that,
)
from tests.ports import free_port

CANCELLED = answering({"results": [{"order_id": "v1", "success": True}]})
UNAUTHORIZED = answering("Unauthorized\n", 401)
FAILURES = {
    "timeout": hangs,
    "reset": resets,
    "503 HTML": answering("<html>", 503),
    "429": answering({"errors": []}, 429, x_ratelimit_reset="0"),
}


class ShiftedClock(SystemClock):
    """Our clock, wrong by so much."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.wrong = timedelta(seconds=seconds)

    def wall(self) -> datetime:
        return super().wall() + self.wrong


class VenueClock:
    """Answers GET /time by a clock that is right, as often as it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.ahead = timedelta(0)
        self.answers = True

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if not self.answers:
            return await hangs(request)
        millis = int((SystemClock().wall() + self.ahead).timestamp() * 1000)
        return web.json_response({"iso": "x", "epochSeconds": "1", "epochMillis": str(millis)})


def claims(request: web.Request) -> dict[str, int]:
    token = request.headers["Authorization"].removeprefix("Bearer ")
    told: dict[str, int] = jwt.decode(
        token, KEY.public_key(), ["ES256"], options={"verify_exp": False, "verify_nbf": False}
    )
    return told


def strict(clock: VenueClock, answer: Handler) -> Handler:
    """A venue that checks a token's times by its own clock."""

    async def check(request: web.Request) -> web.StreamResponse:
        now = (SystemClock().wall() + clock.ahead).timestamp()
        told = claims(request)
        return await (answer if told["nbf"] <= now < told["exp"] else UNAUTHORIZED)(request)

    return check


# -- attempts


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
async def test_a_read_and_a_cancel_are_tried_again_until_the_venue_answers(failure: Handler) -> None:
    async with venue_that(failure, failure, CANCELLED) as (venue, script):
        assert await venue.cancel(["v1"]) == {}
    assert len(script.requests) == 3
    async with venue_that(failure, answering({"order": {}}), timeout_seconds=0.7) as (venue, script):
        with pytest.raises(OutcomeUnknown, match="unreadable answer"):
            await venue.order("v1")
    assert len(script.requests) == 2


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
async def test_attempts_are_bounded_and_the_last_one_s_error_is_told(failure: Handler) -> None:
    async with venue_that(failure) as (venue, script):
        with pytest.raises((OutcomeUnknown, Retryable)):
            await venue.cancel(["v1"])
    assert len(script.requests) == ATTEMPTS
    assert venue.answers["repeated"] == ATTEMPTS - 1


async def test_a_venue_that_cannot_be_reached_is_tried_as_often() -> None:
    venue = client(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Retryable):
        await venue.cancel(["v1"])
    await venue.close()
    assert venue.answers["not_sent"] == ATTEMPTS


async def test_each_attempt_has_a_token_of_its_own_which_no_log_shows(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with venue_that(answering("", 500), CANCELLED) as (venue, script):
        await venue.cancel(["v1"])
    tokens = {request.headers["Authorization"].removeprefix("Bearer ") for request in script.requests}
    assert len(tokens) == 2
    assert not any(token[:40] in caplog.text for token in tokens)


# -- 401


async def test_a_401_is_tried_once_more_with_a_fresh_token_also_for_an_order() -> None:
    told: list[datetime] = []
    async with venue_that(UNAUTHORIZED, answering(CREATED)) as (venue, script):
        assert await venue.place(ORDER, told.append) == "v1"
    assert len({request.headers["Authorization"] for request in script.requests}) == 2
    assert script.bodies[0] == script.bodies[1]
    assert told[0] < told[1]


async def test_a_second_401_is_final() -> None:
    async with venue_that(UNAUTHORIZED) as (venue, script):
        with pytest.raises(Rejected, match="HTTP_401"):
            await place(venue)
        assert len(script.requests) == 2
        with pytest.raises(Rejected, match="HTTP_401"):
            await venue.order("v1")
    assert len(script.requests) == 4


# -- the clock


@pytest.mark.parametrize("wrong", [-3600, -2, 0, 2, 3600])
async def test_tokens_are_signed_in_the_venue_s_time_and_their_death_is_told_in_ours(wrong: float) -> None:
    time, clock, told = VenueClock(), ShiftedClock(wrong), list[datetime]()
    async with venue_that(strict(time, answering(CREATED)), time=time, clock=clock) as (venue, script):
        assert await venue.place(ORDER, told.append) == "v1"
        offset = venue.clock_offset_seconds
    assert len(script.requests) == 1
    assert offset is not None
    assert -wrong - 0.2 < offset <= -wrong  # never ahead of the venue, or it would refuse the token as too early
    assert claims(script.requests[0])["exp"] - claims(script.requests[0])["nbf"] == 60
    assert 59 < (told[0] - clock.wall()).total_seconds() <= 60


async def test_the_clock_is_measured_once_for_many_requests_and_again_after_a_401() -> None:
    time = VenueClock()
    async with venue_that(strict(time, answering(CREATED)), time=time) as (venue, script):
        for _ in range(3):
            await place(venue)
        assert (time.asked, len(script.requests)) == (3, 3)
        time.ahead = timedelta(seconds=-3600)  # the venue's clock steps back: our token is from the future
        assert await place(venue) == "v1"
    assert (time.asked, len(script.requests)) == (6, 5)


async def test_a_venue_that_does_not_tell_its_time_holds_nothing_up_and_keeps_the_last_offset() -> None:
    time, clock = VenueClock(), ShiftedClock(3600)
    async with venue_that(strict(time, answering(CREATED)), time=time, clock=clock) as (venue, script):
        assert await place(venue) == "v1"
        time.answers = False
        script.answers = [UNAUTHORIZED, *script.answers]
        assert await place(venue) == "v1"
        assert venue.clock_offset_seconds == pytest.approx(-3600, abs=0.2)
        assert venue.answers["no_time"] == 1


async def test_a_venue_that_never_told_its_time_is_asked_with_our_own_and_not_each_time_anew() -> None:
    time = VenueClock()
    time.answers = False
    async with venue_that(strict(time, answering(CREATED)), time=time, timeout_seconds=9) as (venue, _):
        began = SystemClock().monotonic()
        assert [await place(venue), await place(venue)] == ["v1", "v1"]
        assert SystemClock().monotonic() - began < 3
        assert venue.clock_offset_seconds is None
    assert time.asked == 1


# -- rates


async def test_a_request_waits_for_the_budget_before_its_token_is_made() -> None:
    told: list[datetime] = []
    used_up = answering({"results": []}, x_ratelimit_limit="30", x_ratelimit_remaining="0")
    async with venue_that(used_up, answering(CREATED), timeout_seconds=2) as (venue, _):
        await venue.cancel(["v1"])
        began = SystemClock().wall()
        assert await venue.place(ORDER, told.append) == "v1"
    assert (told[0] - began).total_seconds() > 60.2  # its life of 60 s began after the wait


async def test_a_request_that_would_wait_too_long_is_certainly_not_sent() -> None:
    refused = answering({"errors": []}, 429, x_ratelimit_reset="30")
    async with venue_that(refused, answering(CREATED), timeout_seconds=0.7) as (venue, script):
        with pytest.raises(Retryable, match="429"):
            await place(venue)
        with pytest.raises(Retryable, match="rate limit is used up"):
            await venue.order("v1")
        assert len(script.requests) == 1
        assert await place(venue) == "v1"  # only reads wait for as long as the venue says


@pytest.mark.parametrize("name", ["x_ratelimit_reset", "Retry_After"])
async def test_a_read_waits_as_long_as_a_429_says_also_as_a_time_of_day_and_a_cancel_does_not(name: str) -> None:
    moment = "1" if name == "Retry_After" else str(SystemClock().wall().timestamp() + 0.8)
    async with venue_that(answering({"errors": []}, 429, **{name: moment}), CANCELLED, timeout_seconds=3) as (venue, _):
        clock = SystemClock()
        began = clock.monotonic()
        assert await venue.cancel(["v1"]) == {}
        assert clock.monotonic() - began < 0.5
        with pytest.raises(OutcomeUnknown):
            await venue.order("v1")
        assert 0.6 < clock.monotonic() - began < 2


async def test_a_venue_without_limits_has_no_budget() -> None:
    used_up = answering(CREATED, x_ratelimit_limit="30", x_ratelimit_remaining="0")
    async with venue_that(used_up, requests_per_second=None) as (venue, _):
        clock = SystemClock()
        began = clock.monotonic()
        for _request in range(5):
            await place(venue)
        assert clock.monotonic() - began < 0.5  # a budget would have waited a quarter of a second for each
