"""What the way between the services and the venue does to requests and frames."""

from __future__ import annotations

from random import Random

from msgspec import Struct

from sim.world.loop import Scheduler


class Weather(Struct):
    """Changed while the world runs. Chances from 0 to 1, drawn for each request or frame; seconds at most."""

    # REST requests
    refuse: float = 0.0  # no connection: certainly not sent
    lose_request: float = 0.0  # it never arrives
    lose_answer: float = 0.0  # it acts, and nothing comes back
    late_request: float = 0.0  # it arrives up to `late_seconds` later, whether or not its client still waits
    duplicate_request: float = 0.0  # it arrives twice, the second time up to `late_seconds` later
    error_after: float = 0.0  # 500, after it acted
    html_before: float = 0.0  # 502 or 503 of a CDN, without having acted
    html_after: float = 0.0
    too_many: float = 0.0  # 429, with and without headers
    unauthorized: float = 0.0  # 401
    slow: float = 0.0  # the answer takes up to `slow_seconds`
    garbage: float = 0.0  # an answer that is cut off, or nonsense
    # WebSocket connections, with each frame that the venue sends
    cut: float = 0.0  # reset instead of the frame
    half_open: float = 0.0  # from this frame on nothing arrives any more, in either direction
    refuse_dial: float = 0.0  # of a new connection
    duplicate_frame: float = 0.0
    reorder_frame: float = 0.0  # after the next one
    skip_frame: float = 0.0  # lost, which leaves a gap in the numbers
    slow_frames: float = 0.0  # it, and so all behind it, takes up to `frame_seconds`
    # how far all this goes, in virtual seconds
    latency_seconds: float = 0.02  # one way, always
    late_seconds: float = 8.0
    slow_seconds: float = 3.0
    frame_seconds: float = 2.0


class Air:
    """Draws what happens. All draws come from one sequence, in the order in which things happen."""

    def __init__(self, scheduler: Scheduler, chance: Random) -> None:
        self.scheduler = scheduler
        self.chance = chance
        self.weather = Weather()

    def strikes(self, probability: float) -> bool:
        return probability > 0 and self.chance.random() < probability

    def upto(self, seconds: float) -> float:
        return self.chance.random() * seconds

    def latency(self) -> float:
        """Seconds of one way."""
        return self.chance.random() * self.weather.latency_seconds
