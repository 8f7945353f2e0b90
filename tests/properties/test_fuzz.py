"""Recorded payloads, damaged in every way that we could think of: a decoder reads them or refuses them with a reason.

PERPS_FUZZ_EXAMPLES sets the number of examples of each kind; without it the run is bounded to seconds.
"""

from __future__ import annotations

import contextlib
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.errors import PerpsError
from services.execution.parse import parse_user_frame
from services.marketdata.wire import parse_frame
from tests.properties.damage import damaged, holed, oddities
from tests.properties.payloads import ANSWERS, FRAMES, Decoder, Payload, payloads, refusal
from tests.recorded import DATA

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="no recorded data beside the repository")
EXAMPLES = int(os.environ.get("PERPS_FUZZ_EXAMPLES", "1000"))
SHARE = 1 if "PERPS_FUZZ_EXAMPLES" in os.environ else 4  # one odd value in so many is tried at each place
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
SEED_BYTES_MAX = 6_000


def seeds() -> list[Payload]:
    """One of each recorded shape: of thousands of alike lines and products the first few."""
    taken: dict[str, int] = {}
    found = []
    for payload in payloads():
        kind = f"{payload.file} {payload.data[:24]!r}" if payload.is_frame else payload.file
        taken[kind] = taken.get(kind, 0) + 1
        if taken[kind] <= 2 and len(payload.data) <= SEED_BYTES_MAX:
            found.append(payload)
    return found


SEEDS = seeds()
PARSED = [json.loads(payload.data) for payload in SEEDS if payload.data[:1] in b"{["]


def survives(data: bytes, decoders: dict[str, Decoder] = FRAMES | ANSWERS) -> None:
    """Every decoder reads it or refuses it: `refusal` lets whatever else happens through."""
    for decoder in decoders.values():
        refusal(decoder, data)


def survives_as_text(data: bytes) -> None:
    """A frame may come as text, and text may hold what no UTF-8 can."""
    text = data.decode("utf-8", "surrogateescape")
    for decoder in (parse_frame, parse_user_frame):
        with contextlib.suppress(PerpsError):
            decoder(text)


@st.composite
def damaged_values(draw: st.DrawFn) -> bytes:
    return holed(draw(st.sampled_from(PARSED)), draw)


@st.composite
def damaged_bytes(draw: st.DrawFn) -> bytes:
    return damaged(draw(st.sampled_from(SEEDS)).data, draw)


@fuzz
@given(damaged_values())
def test_a_payload_with_damaged_values_is_read_or_refused(data: bytes) -> None:
    survives(data)
    survives_as_text(data)


@fuzz
@given(damaged_bytes())
def test_a_payload_with_damaged_bytes_is_read_or_refused(data: bytes) -> None:
    survives(data)
    survives_as_text(data)


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed.file}:{seed.name.partition('#')[2]}")
def test_every_odd_value_in_every_first_place_is_read_or_refused(seed: Payload) -> None:
    """Without chance: the first place of each name, and the odd values in turn."""
    decoders = FRAMES if seed.is_frame else ANSWERS
    for raw in oddities(seed.data, SHARE):
        survives(raw, decoders)
