"""Recorded payloads, damaged in every way that we could think of: a decoder reads them or refuses them with a reason.

PERPS_FUZZ_EXAMPLES sets the number of examples of each kind; without it the run is bounded to seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.errors import PerpsError
from services.execution.parse import parse_user_frame
from services.marketdata.wire import parse_frame
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
# What JSON, or something that claims to be JSON, can put in the place of a value.
WORDS = rb"""
    null true false [] {} "" [null] [[]] {"":{}} 0 -0 -1 0.1 -0.0 1e5 1e400 -1e400 1e-400 1E+999999999
    1e99999999999999999999 9223372036854775808 18446744073709551616 NaN Infinity -Infinity undefined 'x' 01 +1 .5 1.
    "NaN" "sNaN" "nan123" "Infinity" "-inf" "1e999999" "1e-999999" "1E99999999999999999999" "0" "-0" "-1" "1_000"
    "0x10" "1,5" "\u0661" "1e30" "1e-30" "1e31" "\ud800" "\udc00\ud800" "\u0000" "\x" "unended
    "0001-01-01T00:00:00Z" "1969-12-31T23:59:59Z" "9999-12-31T23:59:59.999999999Z" "9999-12-31T23:59:59-14:00"
    "0001-01-01T00:00:00+14:00" "2026-02-30T00:00:00Z" "2026-08-12T19:27:33" "2026-08-12T24:00:00Z" "2026-08-12"
    "2026-08-12T19:27:60Z" "2026-08-12T19:27:33+99:99" [1,[2,[3,{"a":"b"}]]] {"a":{"b":{"c":1}}}
"""
ODD = (
    *WORDS.split(),
    *(b'" "', b'" 1 "', b'"2026-08-12 19:27:33Z"', b'"\xff\xfe"', b'"\xed\xa0\x80"'),
    *(b"9" * 400, b"9" * 5_000, b"0." + b"1" * 5_000, b'"' + b"9" * 5_000 + b'"', b'"0.' + b"0" * 5_000 + b'1"'),
    *(b'"' + b"x" * 5_000 + b'"', b"[" * 300 + b"]" * 300, b"[" * 20_000, b"[1," * 200),
    *(b'{"a":' * 300 + b"1" + b"}" * 300, b'{"a":' * 20_000),
)
HOLE = re.compile(rb'"@hole(\d+)@"')


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


def places(body: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key or index) of every value in it."""
    for key in body if isinstance(body, dict) else range(len(body)) if isinstance(body, list) else ():
        yield body, key
        yield from places(body[key])


def holed(body: Any, draw: st.DrawFn) -> bytes:
    """The body as JSON, with a few of its values taken out, swapped, doubled or replaced by something odd."""
    body = json.loads(json.dumps(body))
    odd = []
    for number in range(draw(st.integers(1, 3))):
        found = list(places(body))
        if not found:
            break
        container, key = draw(st.sampled_from(found))
        match draw(st.sampled_from(["odd", "odd", "odd", "gone", "swapped", "doubled", "wrapped"])):
            case "odd":
                odd.append(draw(st.sampled_from(ODD)))
                container[key] = f"@hole{len(odd) - 1}@"
            case "gone":
                del container[key]
            case "swapped":
                other, place = draw(st.sampled_from(found))
                container[key], other[place] = json.loads(json.dumps([other[place], container[key]]))
            case "doubled" if isinstance(container, dict):
                odd.append(draw(st.sampled_from(ODD)))
                container[f"{key}@twice{number}@"] = f"@hole{len(odd) - 1}@"
            case _:
                container[key] = [container[key]]
    raw = re.sub(rb"@twice\d@", b"", json.dumps(body).encode())  # the same key a second time
    return HOLE.sub(lambda hole: odd[int(hole[1])], raw)


@st.composite
def damaged_values(draw: st.DrawFn) -> bytes:
    return holed(draw(st.sampled_from(PARSED)), draw)


@st.composite
def damaged_bytes(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)).data)
    for _ in range(draw(st.integers(0, 6))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    start, end = sorted(draw(st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))))
    match draw(st.sampled_from(["whole", "cut", "without", "twice"])):
        case "cut":
            return bytes(data[:end])
        case "without":
            return bytes(data[:start] + data[end:])
        case "twice":
            return bytes(data[:end] + data[start:])
    return bytes(data)


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
    body = json.loads(seed.data) if seed.data[:1] in b"{[" else {}
    firsts: dict[Any, tuple[Any, Any]] = {}
    for container, key in places(body):
        firsts.setdefault(key, (container, key))
    decoders = FRAMES if seed.is_frame else ANSWERS
    for number, (container, key) in enumerate(firsts.values()):
        kept, container[key] = container[key], "@hole0@"
        raw = json.dumps(body).encode()
        for odd in ODD[number % SHARE :: SHARE]:
            survives(raw.replace(b'"@hole0@"', odd), decoders)
        container[key] = kept
