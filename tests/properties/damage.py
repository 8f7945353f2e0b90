"""What may stand in the place of what a decoder expects: odd values, and messages of ours to put them into."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from hypothesis import strategies as st
from msgspec import Raw, Struct

NOON = datetime(2026, 8, 12, 12, tzinfo=UTC)
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
PLAIN = {str: "x", int: 1, float: 1.5, bool: True, Decimal: Decimal("1.5"), datetime: NOON, None: None}


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


def damaged(data: bytes, draw: st.DrawFn) -> bytes:
    """With a few of its bytes changed, cut, taken out or doubled."""
    body = bytearray(data)
    for _ in range(draw(st.integers(0, 6))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    start, end = sorted(draw(st.tuples(st.integers(0, len(body)), st.integers(0, len(body)))))
    match draw(st.sampled_from(["whole", "cut", "without", "twice"])):
        case "cut":
            return bytes(body[:end])
        case "without":
            return bytes(body[:start] + body[end:])
        case "twice":
            return bytes(body[:end] + body[start:])
    return bytes(body)


def oddities(data: bytes, share: int = 1) -> Iterator[bytes]:
    """A JSON object with odd values in the first place of each name, in turn: one in `share` of them at each."""
    body = json.loads(data) if data[:1] in b"{[" else {}
    firsts: dict[Any, tuple[Any, Any]] = {}
    for container, key in places(body):
        firsts.setdefault(key, (container, key))
    for number, (container, key) in enumerate(firsts.values()):
        kept, container[key] = container[key], "@hole0@"
        raw = json.dumps(body).encode()
        yield from (raw.replace(b'"@hole0@"', odd) for odd in ODD[number % share :: share])
        container[key] = kept


def strangers(data: bytes) -> Iterator[bytes]:
    """The odd values alone, and beside what belongs into a JSON object."""
    for odd in ODD:
        yield odd
        yield data[:-1] + b',"of another version":' + odd + b"}"


def example(kind: Any) -> Any:
    """A value of this type in which nothing is left out."""
    parts = typing.get_args(kind)
    match typing.get_origin(kind) or kind:
        case types.UnionType | typing.Union:
            return example(next(part for part in parts if part is not types.NoneType))
        case origin if origin is dict:
            return {example(parts[0]): example(parts[1])}
        case origin if origin in (list, tuple):
            return origin(example(part) for part in parts if part is not Ellipsis)
        case origin if origin is Raw:
            return Raw(b"{}")
        case origin if origin in PLAIN:
            return PLAIN[origin]
        case origin if issubclass(origin, Enum):
            return next(iter(origin))
        case origin if issubclass(origin, Struct):
            hints = typing.get_type_hints(origin)
            return origin(**{name: example(hints[name]) for name in origin.__struct_fields__})
    raise AssertionError(f"no example of {kind}")
